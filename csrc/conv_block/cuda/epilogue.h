// What the convolution kernels (kernels.cu tells the whole) have in common: their arguments, which
// pixels a block has and which taps it computes, and what is made of its sums.
#pragma once

#include "common/device_activation.h"
#include "common/launch.h"
#include "conv_block/cuda/moments.h"
#include "conv_block/cuda/taps.h"

namespace inpaint_fast {
namespace cuda {
namespace {

// ---- arguments ----

struct ConvolutionArgs {
  Pictures input, output;                         // output: of the first phase, whose pixels lie `phases` apart
  int64_t of_phase_row = 0, of_phase_column = 0;  // from there to the next phase
  const void* weights = nullptr;
  int weight_taps = 0;  // along a side
  int stride = 1, phases = 1;
  Taps taps[2][kMostPhases];  // vertical, horizontal
  Epilogue epilogue;
  Cut cut;
  float* moments = nullptr;  // of each place; written: the epilogue's activation is theirs, not the output's
  bool wide_output = false;  // channels_last, in whole packs of 4
};

struct TapRange {
  int first = 0, last = -1;
};

// The taps that see more than padding from outputs [begin, end) along a side of `input` pixels.
__device__ __forceinline__ TapRange seeing_taps(const Taps& taps, int stride, int begin, int end, int input) {
  TapRange range{kMostTaps, -1};
#pragma unroll
  for (int k = 0; k < kMostTaps; ++k)
    if (k < taps.count && begin < end && begin * stride + taps.at(k) < input && (end - 1) * stride + taps.at(k) >= 0) {
      range.last = k;
      if (range.first == kMostTaps) range.first = k;
    }
  return range;
}

// ---- where a block is ----

// The pixels and the output channels of a block, and the taps that see more than padding from there. Its pixels are of
// one phase, as are all that are told here.
template <class BlockTile>
struct Place {
  unsigned index;  // among all places of all phases; blocks that differ in their channels alone have the same
  unsigned row_phase, column_phase;
  int64_t first_channel, image0;
  int y0, x0;
  TapRange vertical, horizontal;
  const ConvolutionArgs& args;

  // The blocks of one place, and those of all its phases, follow one another: they read the same pixels.
  explicit __device__ __forceinline__ Place(const ConvolutionArgs& args) : args(args) {
    const unsigned column_blocks = static_cast<unsigned>(ceil_div(args.output.channels, BlockTile::kColumns));
    const unsigned across = static_cast<unsigned>(args.cut.across), down = static_cast<unsigned>(args.cut.down);
    const unsigned phases = static_cast<unsigned>(args.phases);
    index = blockIdx.x / column_blocks;
    first_channel = static_cast<int64_t>(blockIdx.x - index * column_blocks) * BlockTile::kColumns;
    column_phase = index % phases, row_phase = index / phases % phases;
    const unsigned of_phase = index / (phases * phases);
    x0 = static_cast<int>(of_phase % across) << args.cut.width;
    y0 = static_cast<int>(of_phase / across % down) << args.cut.height;
    image0 = static_cast<int64_t>(of_phase / across / down) * (BlockTile::kRows >> (args.cut.width + args.cut.height));
    const int y_end = min(out_height(), y0 + (1 << args.cut.height)),
              x_end = min(out_width(), x0 + (1 << args.cut.width));
    vertical = seeing_taps(down_taps(), args.stride, y0, y_end, static_cast<int>(args.input.height));
    horizontal = seeing_taps(across_taps(), args.stride, x0, x_end, static_cast<int>(args.input.width));
  }

  __device__ __forceinline__ const Taps& down_taps() const { return args.taps[0][row_phase]; }
  __device__ __forceinline__ const Taps& across_taps() const { return args.taps[1][column_phase]; }
  // Which of the weight's taps it is.
  __device__ __forceinline__ int weight_tap(int k_down, int k_across) const {
    const Taps &down = down_taps(), &across = across_taps();
    return (down.tap + k_down * down.tap_step) * args.weight_taps + across.tap + k_across * across.tap_step;
  }

  __device__ __forceinline__ int out_height() const { return static_cast<int>(args.output.height); }
  __device__ __forceinline__ int out_width() const { return static_cast<int>(args.output.width); }
  // The pixel of a row of the tile, which may lie outside of the output.
  __device__ __forceinline__ int64_t image_of(int row) const {
    return image0 + (row >> (args.cut.width + args.cut.height));
  }
  __device__ __forceinline__ int y_of(int row) const {
    return y0 + (row >> args.cut.width & ((1 << args.cut.height) - 1));
  }
  __device__ __forceinline__ int x_of(int row) const { return x0 + (row & ((1 << args.cut.width) - 1)); }
  __device__ __forceinline__ bool has(int row) const {
    return image_of(row) < args.output.images && y_of(row) < out_height() && x_of(row) < out_width();
  }
  __device__ __forceinline__ int taps() const {
    return max(0, vertical.last - vertical.first + 1) * max(0, horizontal.last - horizontal.first + 1);
  }
  __device__ __forceinline__ int channels_left() const {
    return static_cast<int>(args.output.channels - first_channel);
  }
};

// ---- the epilogue ----

template <class T>
__device__ __forceinline__ float number_of(const Vector& vector, int64_t channel, float otherwise) {
  return vector.data ? to_compute<float>(static_cast<const T*>(vector.data)[channel * vector.stride]) : otherwise;
}

// The rows of the epilogue in shared memory, one number for each of the block's output channels. By BlockTile::kThreads
// threads; they may read the rows after a BlockTile::sync().
template <class T, class BlockTile>
__device__ __forceinline__ void fold_epilogue(const Epilogue& epilogue, int64_t first, int64_t channels, float* rows) {
  for (int c = threadIdx.x; c < BlockTile::kColumns; c += BlockTile::kThreads) {
    const int64_t channel = first + c < channels ? first + c : channels - 1;
    float folded[kEpilogueRows];
    inpaint_fast::fold_epilogue(epilogue.order, number_of<T>(epilogue.bias, channel, 0),
                                number_of<T>(epilogue.scale, channel, 1), number_of<T>(epilogue.shift, channel, 0),
                                folded);
#pragma unroll
    for (int row = 0; row < kEpilogueRows; ++row) rows[row * BlockTile::kColumns + c] = folded[row];
  }
}

// Makes results of a block's sums (in_sums(), written by all of BlockTile::kThreads) and stores them. epilogue: the
// rows of fold_epilogue(), which the moments overwrite.
template <class T, class BlockTile>
__device__ __forceinline__ void finish_block(const Place<BlockTile>& place, float* sums, float* epilogue) {
  // Four channels of a pixel at a time: neighbouring threads have neighbouring channels in channels_last, neighbouring
  // pixels otherwise.
  const ConvolutionArgs& args = place.args;
  const int channels_left = place.channels_left();
  T* const output = static_cast<T*>(args.output.data) + place.row_phase * args.of_phase_row +
                    place.column_phase * args.of_phase_column;
#pragma unroll 1
  for (int item = threadIdx.x; item < BlockTile::kRows * BlockTile::kColumns / 4; item += BlockTile::kThreads) {
    constexpr int kFours = BlockTile::kColumns / 4;
    const bool along_channels = args.output.of_channel == 1;
    const int at = along_channels ? item / kFours : item % BlockTile::kRows;
    const int column = (along_channels ? item % kFours : item / BlockTile::kRows) * 4;
    if (!place.has(at) || column >= channels_left) continue;
    Pack<float, 4> sum = load_pack<4>(sums + in_sums<BlockTile>(at, column));
    const auto epilogue_row = [&](EpilogueRow which) {
      return load_pack<4>(epilogue + which * BlockTile::kColumns + column);
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
    T* const to = output + place.image_of(at) * args.output.of_image + place.y_of(at) * args.output.of_row +
                  place.x_of(at) * args.output.of_column + (place.first_channel + column) * args.output.of_channel;
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
      store_pack<4>(sums + in_sums<BlockTile>(at, column), sum);
    }
  }
  if (!args.moments) return;
  const int64_t channels = args.output.channels;
  leave_moments<BlockTile>(
      sums, epilogue,
      static_cast<float>(pixels_of(args.cut, args.output, place.index / args.cut.phases, BlockTile::kRows)),
      [&](int row) { return place.has(row); }, args.moments + place.index * 2 * channels + place.first_channel,
      channels, channels_left);
}

}  // namespace
}  // namespace cuda
}  // namespace inpaint_fast
