// The convolution kernel for sm_90a (kernels.cu tells the whole): what the producer copies and the consumers finish
// (warpgroup_tile.h).
//
// A step takes 64 channels of 16 bits, 32 of TF32. The pixels of a block are one box of the pictures, whose place is
// shifted by the tap; what lies outside of the pictures, or past the last channel, comes as zeros. float32 becomes TF32
// on its way, to nearest, ties to even: so the copy engine does with tensors of that type.
#pragma once

#include "conv_block/cuda/epilogue.h"
#include "conv_block/cuda/warpgroup_tile.h"

namespace inpaint_fast {
namespace cuda {
namespace {

template <int kStep, class BlockTile>
__device__ __forceinline__ void copy_steps(const Place<BlockTile>& place, const Pipeline<BlockTile>& pipeline,
                                           const CUtensorMap& pictures, const CUtensorMap& weights) {
  const ConvolutionArgs& args = place.args;
  const int channels = static_cast<int>(args.input.channels), image = static_cast<int>(place.image0);
  Turn<BlockTile> turn;
  for (int tap_y = place.vertical.first; tap_y <= place.vertical.last; ++tap_y)
    for (int tap_x = place.horizontal.first; tap_x <= place.horizontal.last; ++tap_x) {
      const int y = place.y0 + place.down_taps().at(tap_y), x = place.x0 + place.across_taps().at(tap_x);
      for (int channel = 0; channel < channels; channel += kStep, turn.next()) {
        uint64_t* const full = pipeline.refill(turn.stage, turn.parity);
        device::tma_load_4d(pipeline.rows(turn.stage), pictures, full, channel, x, y, image);
        device::tma_load_3d(pipeline.columns(turn.stage), weights, full, channel, static_cast<int>(place.first_channel),
                            place.weight_tap(tap_y, tap_x));
      }
    }
}

// Compiled for other architectures it is empty and takes one thread, by which has_sm90a() knows it.
template <class Math, class BlockTile>
__global__ void __launch_bounds__(kHasSm90a ? BlockTile::kAllThreads : 1, kHasSm90a ? BlockTile::kBlocks : 1)
    convolution_sm90_kernel(const __grid_constant__ ConvolutionArgs args, const __grid_constant__ CUtensorMap pictures,
                            const __grid_constant__ CUtensorMap weights) {
#ifdef INPAINT_FAST_SM90A
  typedef Element<Math> T;
  constexpr int kStep = device::kAtomRowBytes / sizeof(T);
  const Pipeline<BlockTile> pipeline = Pipeline<BlockTile>::begin();
  const Place<BlockTile> place(args);
  if (threadIdx.x >= BlockTile::kThreads) {
    if (threadIdx.x == BlockTile::kThreads) copy_steps<kStep>(place, pipeline, pictures, weights);
    return;
  }
  float* const sums = reinterpret_cast<float*>(pipeline.stages);
  float* const epilogue = reinterpret_cast<float*>(pipeline.stages + BlockTile::kPipelineBytes);
  fold_epilogue<T, BlockTile>(args.epilogue, place.first_channel, args.output.channels, epilogue);
  WarpgroupSums<Math, BlockTile, true> own;
  own.add(place.taps() * ((static_cast<int>(args.input.channels) + kStep - 1) / kStep), pipeline);
  BlockTile::sync();  // all stages have been read
  own.leave(sums);
  BlockTile::sync();
  finish_block<T, BlockTile>(place, sums, epilogue);
#endif
}

}  // namespace
}  // namespace cuda
}  // namespace inpaint_fast
