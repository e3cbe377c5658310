// The kernels that bring pictures and weights into the layouts that its products read (launchers.h).
#pragma once

#include "common/launch.h"
#include "conv_block/cuda/launchers.h"
#include "conv_block/cuda/tile.h"

namespace inpaint_fast {
namespace cuda {
namespace {

constexpr int kPackSide = 32;

// `channels` are those with the zeros behind them. 32 pixels x 32 channels of one picture, turned in shared memory:
// pixels are neighbours where they are read, channels where they are written. Bits: an unsigned integer of the
// element's size.
template <class Bits>
__global__ void __launch_bounds__(kMovingThreads)
    pack_pictures_kernel(const __grid_constant__ Pictures in, int64_t channels, Bits* out) {
  __shared__ Bits turned[kPackSide][kPackSide + 1];
  constexpr int kAtOnce = kMovingThreads / kPackSide;
  const int lane = threadIdx.x % kPackSide, line = threadIdx.x / kPackSide;
  const int64_t pixels = in.height * in.width;
  const int64_t channel_blocks = ceil_div(channels, kPackSide), pixel_blocks = ceil_div(pixels, kPackSide);
  const int64_t first_channel = blockIdx.x % channel_blocks * kPackSide;
  const int64_t first_pixel = blockIdx.x / channel_blocks % pixel_blocks * kPackSide;
  const int64_t image = blockIdx.x / channel_blocks / pixel_blocks;
  const int64_t pixel = first_pixel + lane, row = pixel / in.width;
  const Bits* const from = static_cast<const Bits*>(in.data) + image * in.of_image + row * in.of_row +
                           (pixel - row * in.width) * in.of_column;
  for (int i = line; i < kPackSide; i += kAtOnce) {
    const int64_t channel = first_channel + i;
    turned[i][lane] = pixel < pixels && channel < in.channels ? from[channel * in.of_channel] : Bits{0};
  }
  __syncthreads();
  if (first_channel + lane >= channels) return;
  for (int i = line; i < kPackSide && first_pixel + i < pixels; i += kAtOnce)
    out[(image * pixels + first_pixel + i) * channels + first_channel + lane] = turned[lane][i];
}

// `in_channels` are those with the zeros behind them. A thread has the taps of one pair of channels.
template <class Bits>
__global__ void __launch_bounds__(kMovingThreads)
    pack_weights_kernel(const __grid_constant__ Weights weights, int64_t in_channels, Bits* out) {
  const int64_t pairs = weights.out_channels * in_channels;
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * kMovingThreads + threadIdx.x;
  if (pair >= pairs) return;
  const int64_t from_channel = pair % in_channels;
  const Bits* const from =
      static_cast<const Bits*>(weights.data) + pair / in_channels * weights.of_out + from_channel * weights.of_in;
#pragma unroll 1
  for (int row = 0; row < weights.taps; ++row)
    for (int column = 0; column < weights.taps; ++column)
      out[(row * weights.taps + column) * pairs + pair] =
          from_channel < weights.in_channels ? from[row * weights.of_row + column * weights.of_column] : Bits{0};
}

}  // namespace
}  // namespace cuda
}  // namespace inpaint_fast
