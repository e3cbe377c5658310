// The convolution kernel of dilated_block (cuda.cu tells the whole): which pixels a block has, the taps it computes,
// the copies of each thread, and the epilogue.
#pragma once

#include "common/device_activation.h"
#include "common/launch.h"
#include "dilated_block/cuda_moments.h"

namespace inpaint_fast {
namespace cuda {
namespace {

// ---- arguments ----

struct Convolution {
  Pictures input, output;
  const void* weights = nullptr;
  int dilation[2] = {}, padding[2] = {};
  Epilogue epilogue;
  Cut cut;
  float* moments = nullptr;  // of each place; written: the epilogue's activation is theirs, not the output's
  bool wide_output = false;  // channels_last, in whole packs of 4
};

struct TapRange {
  int first = 0, last = -1;
};

// The taps that see more than padding from outputs [begin, end) along a side of `input` pixels.
__device__ __forceinline__ TapRange taps_of(int begin, int end, int input, int dilation, int padding) {
  TapRange range{3, -1};
#pragma unroll
  for (int k = 0; k < 3; ++k) {
    const int shift = k * dilation - padding;
    if (begin + shift < input && end + shift > 0 && begin < end) {
      range.last = k;
      if (range.first == 3) range.first = k;
    }
  }
  return range;
}

// ---- the convolution ----

// The rows of the epilogue in shared memory, one number for each of the block's output channels.
enum EpilogueRow : int { kScaleBefore = 0, kShiftBefore, kScaleAfter, kShiftAfter, kEpilogueRows };

template <class T>
__device__ __forceinline__ float number_of(const Vector& vector, int64_t channel, float otherwise) {
  return vector.data ? to_compute<float>(static_cast<const T*>(vector.data)[channel * vector.stride]) : otherwise;
}

template <class T, class Tile>
__device__ __forceinline__ void fold_epilogue(const Epilogue& epilogue, int64_t first, int64_t channels, float* rows) {
  for (int c = threadIdx.x; c < Tile::kColumns; c += Tile::kThreads) {
    const int64_t channel = first + c < channels ? first + c : channels - 1;
    const float bias = number_of<T>(epilogue.bias, channel, 0), scale = number_of<T>(epilogue.scale, channel, 1),
                shift = number_of<T>(epilogue.shift, channel, 0);
    const bool before = epilogue.norm_first;
    rows[kScaleBefore * Tile::kColumns + c] = before ? scale : 1;
    rows[kShiftBefore * Tile::kColumns + c] = before ? bias * scale + shift : bias;
    rows[kScaleAfter * Tile::kColumns + c] = before ? 1 : scale;
    rows[kShiftAfter * Tile::kColumns + c] = before ? 0 : shift;
  }
}

template <class Math, class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    convolution_kernel(const __grid_constant__ Convolution args) {
  typedef Element<Math> T;
  constexpr int kElementBytes = sizeof(T), kPack = kChunkBytes / kElementBytes, kStep = kStepBytes / kElementBytes;
  // 4 threads copy a row of a stage.
  constexpr int kAtOnce = Tile::kThreads / 4, kM = Tile::kRows / kAtOnce, kN = Tile::kColumns / kAtOnce;
  char* const shared = dynamic_shared<char>();
  float* const epilogue = reinterpret_cast<float*>(shared + Tile::kSharedBytes);

  // The blocks of one place follow one another: they read the same pixels.
  const unsigned column_blocks = static_cast<unsigned>((args.output.channels + Tile::kColumns - 1) / Tile::kColumns);
  const unsigned this_place = blockIdx.x / column_blocks;
  unsigned place = this_place;
  const int64_t first_channel = static_cast<int64_t>(blockIdx.x - place * column_blocks) * Tile::kColumns;
  const unsigned across = static_cast<unsigned>(args.cut.across), down = static_cast<unsigned>(args.cut.down);
  const int x0 = static_cast<int>(place % across) << args.cut.width;
  place /= across;
  const int y0 = static_cast<int>(place % down) << args.cut.height;
  const int images_each = Tile::kRows >> (args.cut.width + args.cut.height);
  const int64_t image0 = static_cast<int64_t>(place / down) * images_each;
  const int out_height = static_cast<int>(args.output.height), out_width = static_cast<int>(args.output.width);
  const int height = static_cast<int>(args.input.height), width = static_cast<int>(args.input.width);
  const auto image_of = [&](int row) { return image0 + (row >> (args.cut.width + args.cut.height)); };
  const auto y_of = [&](int row) { return y0 + (row >> args.cut.width & ((1 << args.cut.height) - 1)); };
  const auto x_of = [&](int row) { return x0 + (row & ((1 << args.cut.width) - 1)); };

  fold_epilogue<T, Tile>(args.epilogue, first_channel, args.output.channels, epilogue);

  const int y_end = min(out_height, y0 + (1 << args.cut.height)), x_end = min(out_width, x0 + (1 << args.cut.width));
  const TapRange vertical = taps_of(y0, y_end, height, args.dilation[0], args.padding[0]);
  const TapRange horizontal = taps_of(x0, x_end, width, args.dilation[1], args.padding[1]);
  const int channels = static_cast<int>(args.input.channels);
  const int steps = max(0, vertical.last - vertical.first + 1) * max(0, horizontal.last - horizontal.first + 1) *
                    ((channels + kStep - 1) / kStep);

  // What this thread copies: one chunk of each of kM pixels and kN output channels. Of a pixel, the address of its
  // chunk at tap (0, 0), which may lie outside of the picture and is then not read, and a bit for each tap that is no
  // padding.
  const int chunk = threadIdx.x % 4, row = threadIdx.x / 4;
  uintptr_t from[kM];
  unsigned there[kM];
#pragma unroll
  for (int i = 0; i < kM; ++i) {
    const int at = row + i * kAtOnce, y = y_of(at) - args.padding[0], x = x_of(at) - args.padding[1];
    from[i] = reinterpret_cast<uintptr_t>(args.input.data) +
              (image_of(at) * args.input.of_image + y * args.input.of_row + x * args.input.of_column) * kElementBytes +
              chunk * kChunkBytes;
    there[i] = 0;
    const bool any = image_of(at) < args.input.images && y_of(at) < out_height && x_of(at) < out_width;
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap) {
      const int tap_y = y + tap / 3 * args.dilation[0], tap_x = x + tap % 3 * args.dilation[1];
      const bool inside = tap_y >= 0 && tap_y < height && tap_x >= 0 && tap_x < width;
      there[i] |= static_cast<unsigned>(any && inside) << tap;
    }
  }
  const int64_t of_tap = args.output.channels * channels * kElementBytes;
  const int64_t of_rows = static_cast<int64_t>(kAtOnce) * channels * kElementBytes;
  const uintptr_t weights = reinterpret_cast<uintptr_t>(args.weights) +
                            (first_channel + row) * channels * kElementBytes + chunk * kChunkBytes;
  const int channels_left = static_cast<int>(args.output.channels - first_channel);

  // The step that is copied next: a tap, and the channels from `channel` on. `moved` is what both add to an address.
  int tap_y = vertical.first, tap_x = horizontal.first, channel = 0;
  int64_t moved = 0;
  uintptr_t weights_at = 0;
  const auto take_tap = [&] {
    channel = 0;
    moved = (static_cast<int64_t>(tap_y) * args.dilation[0] * args.input.of_row +
             static_cast<int64_t>(tap_x) * args.dilation[1] * args.input.of_column) *
            kElementBytes;
    weights_at = weights + (tap_y * 3 + tap_x) * of_tap;
  };
  take_tap();
  sum_steps<Sums<Math, Tile, true>, Tile>(steps, shared, [&](char* rows, char* columns) {
    const bool in_channels = channel + chunk * kPack < channels;
    const unsigned tap = in_channels ? 1u << (tap_y * 3 + tap_x) : 0;
#pragma unroll
    for (int i = 0; i < kM; ++i)
      device::cp_async_16(rows + in_rows(row + i * kAtOnce, chunk), reinterpret_cast<const void*>(from[i] + moved),
                          there[i] & tap ? kChunkBytes : 0);
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

  // Four channels of a pixel at a time: neighbouring threads have neighbouring channels in channels_last, neighbouring
  // pixels otherwise.
  float* const sums = reinterpret_cast<float*>(shared);
  T* const output = static_cast<T*>(args.output.data);
#pragma unroll 1
  for (int item = threadIdx.x; item < Tile::kRows * Tile::kColumns / 4; item += Tile::kThreads) {
    constexpr int kFours = Tile::kColumns / 4;
    const bool along_channels = args.output.of_channel == 1;
    const int at = along_channels ? item / kFours : item % Tile::kRows;
    const int column = (along_channels ? item % kFours : item / Tile::kRows) * 4;
    const int64_t image = image_of(at);
    const int y = y_of(at), x = x_of(at);
    if (image >= args.output.images || y >= out_height || x >= out_width || column >= channels_left) continue;
    Pack<float, 4> sum = load_pack<4>(sums + in_sums<Tile>(at, column));
    const auto epilogue_row = [&](EpilogueRow which) {
      return load_pack<4>(epilogue + which * Tile::kColumns + column);
    };
    const Pack<float, 4> scale_before = epilogue_row(kScaleBefore), shift_before = epilogue_row(kShiftBefore);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum.values[i] = scale_before.values[i] * sum.values[i] + shift_before.values[i];
    const auto activate = [&] {
      device::with_activation(args.epilogue.activation, [&](auto activation) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          sum.values[i] = device::activated<decltype(activation)::value>(sum.values[i], args.epilogue.slope);
      });
    };
    if (!args.moments) activate();
    const Pack<float, 4> scale_after = epilogue_row(kScaleAfter), shift_after = epilogue_row(kShiftAfter);
    Pack<T, 4> result;
#pragma unroll
    for (int i = 0; i < 4; ++i)
      device::store(&result.values[i], scale_after.values[i] * sum.values[i] + shift_after.values[i]);
    T* const to = output + image * args.output.of_image + y * args.output.of_row + x * args.output.of_column +
                  (first_channel + column) * args.output.of_channel;
    if (args.wide_output) {
      store_pack<4>(to, result);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (column + i < channels_left) to[i * args.output.of_channel] = result.values[i];
    }
    if (args.moments) {  // what they are of takes the sums' place
#pragma unroll
      for (int i = 0; i < 4; ++i) sum.values[i] = to_compute<float>(result.values[i]);
      activate();
      store_pack<4>(sums + in_sums<Tile>(at, column), sum);
    }
  }
  if (!args.moments) return;
  const auto is_there = [&](int at) {
    return image_of(at) < args.output.images && y_of(at) < out_height && x_of(at) < out_width;
  };
  leave_moments<Tile>(sums, epilogue, static_cast<float>(pixels_of(args.cut, args.output, this_place, Tile::kRows)),
                      is_there, args.moments + this_place * 2 * args.output.channels + first_channel,
                      args.output.channels, channels_left);
}

}  // namespace
}  // namespace cuda
}  // namespace inpaint_fast
