// The convolution kernel from sm_80 on (kernels.cu tells the whole): the copies of each thread.
#pragma once

#include "conv_block/cuda/epilogue.h"

namespace inpaint_fast {
namespace cuda {
namespace {

template <class Math, class BlockTile>
__global__ void __launch_bounds__(BlockTile::kThreads, BlockTile::kBlocks)
    convolution_kernel(const __grid_constant__ ConvolutionArgs args) {
  typedef Element<Math> T;
  constexpr int kElementBytes = sizeof(T), kPack = kChunkBytes / kElementBytes, kStep = kStepBytes / kElementBytes;
  // 4 threads copy a row of a stage.
  constexpr int kAtOnce = BlockTile::kThreads / 4, kM = BlockTile::kRows / kAtOnce, kN = BlockTile::kColumns / kAtOnce;
  char* const shared = dynamic_shared<char>();
  float* const epilogue = reinterpret_cast<float*>(shared + BlockTile::kSharedBytes);

  const Place<BlockTile> place(args);
  const TapRange vertical = place.vertical, horizontal = place.horizontal;
  const Taps &down = place.down_taps(), &across = place.across_taps();
  const int height = static_cast<int>(args.input.height), width = static_cast<int>(args.input.width);
  const int channels = static_cast<int>(args.input.channels);
  const int steps = place.taps() * ((channels + kStep - 1) / kStep);
  fold_epilogue<T, BlockTile>(args.epilogue, place.first_channel, args.output.channels, epilogue);

  // What this thread copies: one chunk of each of kM pixels and kN output channels. Of a pixel, the address of its
  // chunk at tap (0, 0), which may lie outside of the picture and is then not read, and a bit for each row of taps and
  // each column of them that is no padding.
  const int chunk = threadIdx.x % 4, row = threadIdx.x / 4;
  uintptr_t from[kM];
  unsigned there[kM];
#pragma unroll
  for (int i = 0; i < kM; ++i) {
    const int at = row + i * kAtOnce;
    const int y = place.y_of(at) * args.stride + down.first, x = place.x_of(at) * args.stride + across.first;
    from[i] =
        reinterpret_cast<uintptr_t>(args.input.data) +
        (place.image_of(at) * args.input.of_image + y * args.input.of_row + x * args.input.of_column) * kElementBytes +
        chunk * kChunkBytes;
    there[i] = 0;
    const bool any = place.has(at);
#pragma unroll
    for (int k = 0; k < kMostTaps; ++k) {
      const int tap_y = y + k * down.step, tap_x = x + k * across.step;
      there[i] |= static_cast<unsigned>(any && tap_y >= 0 && tap_y < height) << k;
      there[i] |= static_cast<unsigned>(any && tap_x >= 0 && tap_x < width) << (kMostTaps + k);
    }
  }
  const int64_t of_tap = args.output.channels * channels * kElementBytes;
  const int64_t of_rows = static_cast<int64_t>(kAtOnce) * channels * kElementBytes;
  const uintptr_t weights = reinterpret_cast<uintptr_t>(args.weights) +
                            (place.first_channel + row) * channels * kElementBytes + chunk * kChunkBytes;
  const int channels_left = place.channels_left();

  // The step that is copied next: a tap, and the channels from `channel` on. `moved` is what both add to an address.
  int tap_y = vertical.first, tap_x = horizontal.first, channel = 0;
  unsigned tap = 0;  // its bits
  int64_t moved = 0;
  uintptr_t weights_at = 0;
  const auto take_tap = [&] {
    channel = 0;
    tap = 1u << tap_y | 1u << (kMostTaps + tap_x);
    moved = (static_cast<int64_t>(tap_y) * down.step * args.input.of_row +
             static_cast<int64_t>(tap_x) * across.step * args.input.of_column) *
            kElementBytes;
    weights_at = weights + place.weight_tap(tap_y, tap_x) * of_tap;
  };
  take_tap();
  sum_steps<Sums<Math, BlockTile, true>, BlockTile>(steps, shared, [&](char* rows, char* columns) {
    const bool in_channels = channel + chunk * kPack < channels;
#pragma unroll
    for (int i = 0; i < kM; ++i)
      device::cp_async_16(rows + in_rows(row + i * kAtOnce, chunk), reinterpret_cast<const void*>(from[i] + moved),
                          in_channels && (there[i] & tap) == tap ? kChunkBytes : 0);
#pragma unroll
    for (int j = 0; j < kN; ++j)
      device::cp_async_16(columns + in_rows(row + j * kAtOnce, chunk),
                          reinterpret_cast<const void*>(weights_at + j * of_rows),
                          in_channels && row + j * kAtOnce < channels_left ? kChunkBytes : 0);
    channel += kStep, moved += kStepBytes, weights_at += kStepBytes;
    if (channel < channels) return;
    if (++tap_x > horizontal.last) {
      tap_x = horizontal.first;
      ++tap_y;
    }
    take_tap();
  });
  finish_block<T, BlockTile>(place, reinterpret_cast<float*>(shared), epilogue);
}

}  // namespace
}  // namespace cuda
}  // namespace inpaint_fast
