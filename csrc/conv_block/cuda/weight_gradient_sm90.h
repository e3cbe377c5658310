// The kernel of the weights' gradient for sm_90a (kernels.cu tells the whole): what the producer copies
// (warpgroup_tile.h has the consumers). Blocks, parts and their sum are those of weight_gradient.h.
//
// A step takes a box of 64 pixels of the gradient and the pixels of the input that the tap sees from them: the same
// box, its place moved by the tap, its pixels a stride apart. Both come from the pictures as they lie, pixels by
// channels, and are multiplied so: their channels are the rows and columns of the sums (MN-major). Numbers of 16 bits
// alone may lie so; float32, as TF32 too, is sm_80's.
//
// Boxes cover the pixels at which the tap sees no padding, and where they reach beyond, one of the two factors is zero:
// past the last pixel of the gradient or past that of the input. So a border costs nothing but the rest of its boxes;
// but the other factor, if it is no finite number, makes NaN of a zero that sm_80's code leaves out.
#pragma once

#include "conv_block/cuda/warpgroup_tile.h"
#include "conv_block/cuda/weight_gradient.h"

namespace inpaint_fast {
namespace cuda {
namespace {

// Powers of two of a step's box; images have the rest of kStepPixels.
struct PixelBox {
  int width = 0, height = 0;
  INPAINT_FAST_HOST_DEVICE int images() const { return kStepPixelsLog - width - height; }
};

// The boxes of all pixels at which a tap sees no padding, in the pictures' order.
class PixelBoxes {
  PixelBox box_;
  Seeing down_, across_;
  int64_t wide_, high_, deep_;

 public:
  __device__ __forceinline__ PixelBoxes(const PixelBox& box, const Seeing& down, const Seeing& across, int64_t images)
      : box_(box),
        down_(down),
        across_(across),
        wide_(ceil_div(across.count, 1 << box.width)),
        high_(ceil_div(down.count, 1 << box.height)),
        deep_(ceil_div(images, 1 << box.images())) {}

  __device__ __forceinline__ int64_t count() const { return wide_ * high_ * deep_; }

  // Calls f(image, y, x) of the first pixel of each of the steps.
  template <class F>
  __device__ __forceinline__ void each(const Steps& steps, F f) const {
    if (steps.count == 0) return;
    int64_t x = steps.first % wide_, y = steps.first / wide_ % high_, image = steps.first / wide_ / high_;
    for (int step = 0; step < steps.count; ++step) {
      f(static_cast<int>(image << box_.images()), down_.first + static_cast<int>(y << box_.height),
        across_.first + static_cast<int>(x << box_.width));
      if (++x < wide_) continue;
      x = 0;
      if (++y < high_) continue;
      y = 0;
      ++image;
    }
  }
};

template <class BlockTile>
__device__ __forceinline__ void copy_steps(const WeightGradientPlace<BlockTile>& place, int stride,
                                           const PixelBoxes& boxes, const Steps& steps,
                                           const Pipeline<BlockTile>& pipeline, const CUtensorMap& grad,
                                           const CUtensorMap& input) {
  const int first_out = static_cast<int>(place.first_out), first_in = static_cast<int>(place.first_in);
  Turn<BlockTile> turn;
  boxes.each(steps, [&](int image, int y, int x) {
    uint64_t* const full = pipeline.refill(turn.stage, turn.parity);
#pragma unroll
    for (int plane = 0; plane < BlockTile::kRows / kPlaneChannels; ++plane)
      device::tma_load_4d(pipeline.rows(turn.stage) + plane * kPlaneBytes, grad, full,
                          first_out + plane * kPlaneChannels, x, y, image);
#pragma unroll
    for (int plane = 0; plane < BlockTile::kColumns / kPlaneChannels; ++plane)
      device::tma_load_4d(pipeline.columns(turn.stage) + plane * kPlaneBytes, input, full,
                          first_in + plane * kPlaneChannels, x * stride + place.at_x, y * stride + place.at_y, image);
    turn.next();
  });
}

// Compiled for other architectures it is empty, as convolution_sm90_kernel is.
template <class T, class BlockTile>
__global__ void __launch_bounds__(kHasSm90a ? BlockTile::kAllThreads : 1, kHasSm90a ? BlockTile::kBlocks : 1)
    weight_gradient_sm90_kernel(const __grid_constant__ WeightGradientArgs args, const PixelBox box,
                                const __grid_constant__ CUtensorMap grad, const __grid_constant__ CUtensorMap input) {
#ifdef INPAINT_FAST_SM90A
  const Pipeline<BlockTile> pipeline = Pipeline<BlockTile>::begin();
  const WeightGradientPlace<BlockTile> place(args);
  const PixelBoxes boxes(box, place.down, place.across, args.grad.images);
  const Steps steps = steps_of(place.part, args.parts, boxes.count());
  if (threadIdx.x >= BlockTile::kThreads) {
    if (threadIdx.x == BlockTile::kThreads) copy_steps(place, args.stride, boxes, steps, pipeline, grad, input);
    return;
  }
  WarpgroupSums<T, BlockTile, false> own;
  own.add(steps.count, pipeline);
  BlockTile::sync();  // all stages have been read
  float* const sums = reinterpret_cast<float*>(pipeline.stages);
  own.leave(sums);
  BlockTile::sync();
  store_sums(args, place, sums);
#endif
}

}  // namespace
}  // namespace cuda
}  // namespace inpaint_fast
