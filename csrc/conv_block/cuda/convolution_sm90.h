// The convolution kernel for sm_90a (kernels.cu tells the whole). One thread of a warp of its own, the
// producer, has boxes of pixels and of weights copied to the stages of a pipeline; one or two warpgroups, the
// consumers, multiply them where they lie and finish the block.
//
// A step takes 128 bytes of each row: 64 channels of 16 bits, 32 of TF32. The pixels of a block are one box of the
// pictures, whose place is shifted by the tap; what lies outside of the pictures, or past the last channel, comes as
// zeros. float32 becomes TF32 on its way, to nearest, ties to even: so the copy engine does with tensors of that type.
#pragma once

#include "common/tma.h"
#include "common/warpgroup_mma.h"
#include "conv_block/cuda/epilogue.h"

namespace inpaint_fast {
namespace cuda {
namespace {

// kRows x kColumns sums by kGroups warpgroups with a part of the rows each; kBlocks: of a multiprocessor, as many as
// its shared memory holds, which bounds the registers of a thread.
template <int Rows, int Columns, int Groups, int Stages, int Blocks>
struct WarpgroupTile {
  static constexpr int kRows = Rows, kColumns = Columns, kGroups = Groups, kStages = Stages, kBlocks = Blocks;
  static constexpr int kThreads = 128 * Groups;      // that multiply and finish
  static constexpr int kAllThreads = kThreads + 32;  // and the producer's warp, behind them
  static constexpr int kStageBytes = (Rows + Columns) * device::kAtomRowBytes;
  static constexpr int kSumBytes = Rows * Columns * 4;  // they take the pipeline's place
  static constexpr int kPipelineBytes = kStages * kStageBytes > kSumBytes ? kStages* kStageBytes : kSumBytes;
  static constexpr int kEpilogueBytes = kEpilogueRows * Columns * static_cast<int>(sizeof(float));
  // Stages begin at multiples of 1024, dynamic shared memory at one of 16.
  static constexpr int kSharedBytes = device::kAtomBytes + kPipelineBytes + kEpilogueBytes + 2 * kStages * 8;
  static_assert(Rows % (64 * Groups) == 0 && Rows <= 256, "whole products, and one box of pixels");
  static_assert(Blocks * (kSharedBytes + (1 << 10)) <= 228 << 10, "of which each block takes 1 KB for the system");
  // Of the consumers alone: the producer's warp has gone.
  static __device__ __forceinline__ void sync() { device::barrier_sync(1, kThreads); }
};

// Barriers of each stage: `full` completes when its boxes are there, `empty` when all warps of consumers have read
// them.
template <class BlockTile>
struct Pipeline {
  char* stages;
  uint64_t *full, *empty;

  explicit __device__ __forceinline__ Pipeline(char* stages)
      : stages(stages),
        full(reinterpret_cast<uint64_t*>(stages + BlockTile::kPipelineBytes + BlockTile::kEpilogueBytes)),
        empty(full + BlockTile::kStages) {}

  // By one thread; the others may use them after a __syncthreads().
  __device__ __forceinline__ void init() const {
#pragma unroll
    for (int stage = 0; stage < BlockTile::kStages; ++stage) {
      device::mbarrier_init(full + stage, 1);
      device::mbarrier_init(empty + stage, BlockTile::kThreads / 32);
    }
    device::fence_mbarrier_init();
    device::fence_proxy_async();
  }
  __device__ __forceinline__ char* rows(int stage) const { return stages + stage * BlockTile::kStageBytes; }
  __device__ __forceinline__ char* columns(int stage) const {
    return rows(stage) + BlockTile::kRows * device::kAtomRowBytes;
  }
  static __device__ __forceinline__ void wait(uint64_t* barrier, unsigned parity) {
    while (!device::mbarrier_try_wait(barrier, parity)) {
    }
  }
};

// The stage of a step, and the parity of its round through the stages.
template <class BlockTile>
struct Turn {
  int stage = 0;
  unsigned parity = 0;
  __device__ __forceinline__ void next() {
    if (++stage < BlockTile::kStages) return;
    stage = 0;
    parity ^= 1;
  }
};

// ---- the producer ----

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
        uint64_t* const full = pipeline.full + turn.stage;
        pipeline.wait(pipeline.empty + turn.stage, turn.parity ^ 1);  // true at once in the first round
        device::mbarrier_arrive_expect_tx(full, BlockTile::kStageBytes);
        device::tma_load_4d(pipeline.rows(turn.stage), pictures, full, channel, x, y, image);
        device::tma_load_3d(pipeline.columns(turn.stage), weights, full, channel, static_cast<int>(place.first_channel),
                            place.weight_tap(tap_y, tap_x));
      }
    }
}

// ---- the consumers ----

template <class Math, class BlockTile>
class WarpgroupSums {
  static constexpr int kM = BlockTile::kRows / BlockTile::kGroups / 64;
  static constexpr int kProductRows = 64;
  float sums_[kM][BlockTile::kColumns / 2] = {};

  static __device__ __forceinline__ int first_row() { return threadIdx.x / 128 * (kM * kProductRows); }

  static __device__ __forceinline__ void multiply(float (&sums)[BlockTile::kColumns / 2], uint64_t a, uint64_t b) {
    if constexpr (std::is_same<Math, Tf32>::value)
      device::wgmma_k8_tf32(sums, a, b);
    else
      device::wgmma_k16<Math>(sums, a, b);
  }

 public:
  // The products of one step are under way while the next is waited for: a stage is given back one step later.
  __device__ __forceinline__ void add(int steps, const Pipeline<BlockTile>& pipeline) {
    const uint64_t first_a =
        device::tile_descriptor(pipeline.rows(0) + first_row() / device::kAtomRows * device::kAtomBytes);
    const uint64_t first_b = device::tile_descriptor(pipeline.columns(0));
#pragma unroll
    for (int i = 0; i < kM; ++i) device::keep_in_place(sums_[i]);
    Turn<BlockTile> turn;
    for (int step = 0, before = 0; step < steps; ++step) {
      const uint64_t moved = static_cast<uint64_t>(turn.stage * BlockTile::kStageBytes >> 4);
      pipeline.wait(pipeline.full + turn.stage, turn.parity);
      device::wgmma_fence();
#pragma unroll
      for (int at = 0; at < device::kAtomRowBytes; at += device::kProductBytes)
#pragma unroll
        for (int i = 0; i < kM; ++i)
          multiply(sums_[i], first_a + moved + ((i * kProductRows * device::kAtomRowBytes + at) >> 4),
                   first_b + moved + (at >> 4));
      device::wgmma_commit();
      device::wgmma_wait<1>();
      if (step > 0 && threadIdx.x % 32 == 0) device::mbarrier_arrive(pipeline.empty + before);
      before = turn.stage;
      turn.next();
    }
    device::wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < kM; ++i) device::keep_in_place(sums_[i]);
  }

  __device__ __forceinline__ void leave(float* shared) const {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (int i = 0; i < kM; ++i)
#pragma unroll
      for (int j = 0; j < BlockTile::kColumns / 8; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int at = in_sums<BlockTile>(first_row() + kProductRows * i + 16 * warp + 8 * half + g, 8 * j + 2 * t);
          const float* const two = sums_[i] + 4 * j + 2 * half;
          store_pack<2>(shared + at, Pack<float, 2>{{two[0], two[1]}});
        }
  }
};

// ---- both ----

#ifdef INPAINT_FAST_SM90A
constexpr bool kHasSm90a = true;
#else
constexpr bool kHasSm90a = false;
#endif

// Compiled for other architectures it is empty and takes one thread, by which has_sm90a() knows it.
template <class Math, class BlockTile>
__global__ void __launch_bounds__(kHasSm90a ? BlockTile::kAllThreads : 1, kHasSm90a ? BlockTile::kBlocks : 1)
    convolution_sm90_kernel(const __grid_constant__ ConvolutionArgs args, const __grid_constant__ CUtensorMap pictures,
                            const __grid_constant__ CUtensorMap weights) {
#ifdef INPAINT_FAST_SM90A
  typedef Element<Math> T;
  constexpr int kStep = device::kAtomRowBytes / sizeof(T);
  char* const shared = dynamic_shared<char>();
  const Pipeline<BlockTile> pipeline(shared + (-device::shared_address(shared) & (device::kAtomBytes - 1)));
  if (threadIdx.x == 0) pipeline.init();
  __syncthreads();

  const Place<BlockTile> place(args);
  if (threadIdx.x >= BlockTile::kThreads) {
    if (threadIdx.x == BlockTile::kThreads) copy_steps<kStep>(place, pipeline, pictures, weights);
    return;
  }
  float* const sums = reinterpret_cast<float*>(pipeline.stages);
  float* const epilogue = reinterpret_cast<float*>(pipeline.stages + BlockTile::kPipelineBytes);
  fold_epilogue<T, BlockTile>(args.epilogue, place.first_channel, args.output.channels, epilogue);
  WarpgroupSums<Math, BlockTile> own;
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
