// The kernels of the weights' gradient (kernels.cu tells the whole): sums over parts of the pixels, by sm_80's code,
// and the sum of the parts. What a block does is told here for sm_90a's, too (weight_gradient_sm90.h).
#pragma once

#include "common/launch.h"
#include "conv_block/cuda/launchers.h"
#include "conv_block/cuda/taps.h"
#include "conv_block/cuda/tile.h"

namespace inpaint_fast {
namespace cuda {
namespace {

struct WeightGradientArgs {
  Pictures grad, input;
  float* sums = nullptr;  // [parts][taps][taps][out channels][in channels]
  int64_t out_channels = 0, in_channels = 0;
  int stride = 1;
  Taps taps[2];  // vertical, horizontal
  int64_t parts = 1;
};

// Along a side, the pixels of a result at which a tap sees no padding.
struct Seeing {
  int first, count;
};
INPAINT_FAST_HOST_DEVICE inline Seeing seeing(int at, int stride, int64_t result, int64_t input) {
  const int first = at < 0 ? (stride - 1 - at) / stride : 0;
  const int last = (static_cast<int>(input) - at + stride - 1) / stride;
  const int end = last < static_cast<int>(result) ? last : static_cast<int>(result);
  return {first, end > first ? end - first : 0};
}

// What a block does: one tap, a tile of out x in channels, one part of the pixels at which the tap sees no padding, a
// rectangle of each picture.
template <class BlockTile>
struct WeightGradientPlace {
  int64_t first_in, first_out, part;
  int tap, at_y, at_x;  // where the tap lies
  Seeing down, across;

  // Blocks that read the same pixels follow one another.
  explicit __device__ __forceinline__ WeightGradientPlace(const WeightGradientArgs& args) {
    const unsigned in_blocks = static_cast<unsigned>(ceil_div(args.in_channels, BlockTile::kColumns));
    const unsigned out_blocks = static_cast<unsigned>(ceil_div(args.out_channels, BlockTile::kRows));
    const unsigned taps = static_cast<unsigned>(args.taps[0].count * args.taps[1].count);
    unsigned block = blockIdx.x;
    first_in = static_cast<int64_t>(block % in_blocks) * BlockTile::kColumns;
    block /= in_blocks;
    first_out = static_cast<int64_t>(block % out_blocks) * BlockTile::kRows;
    block /= out_blocks;
    tap = static_cast<int>(block % taps);
    part = block / taps;
    at_y = args.taps[0].at(tap / args.taps[1].count), at_x = args.taps[1].at(tap % args.taps[1].count);
    down = seeing(at_y, args.stride, args.grad.height, args.input.height);
    across = seeing(at_x, args.stride, args.grad.width, args.input.width);
  }
};

// The steps of a part, of as many as there are: the last parts may have fewer, or none.
struct Steps {
  int64_t first;
  int count;
};
__device__ __forceinline__ Steps steps_of(int64_t part, int64_t parts, int64_t all) {
  const int64_t each = ceil_div(all, parts), first = part * each, end = min(all, first + each);
  return {first, first < end ? static_cast<int>(end - first) : 0};
}

// The block's sums from shared memory to its part's.
template <class BlockTile>
__device__ __forceinline__ void store_sums(const WeightGradientArgs& args, const WeightGradientPlace<BlockTile>& place,
                                           const float* sums) {
  const int64_t first_out = place.first_out, first_in = place.first_in;
  const int64_t taps = args.taps[0].count * args.taps[1].count;
  float* const to = args.sums + (place.part * taps + place.tap) * args.out_channels * args.in_channels;
  const bool wide = args.in_channels % 4 == 0;
#pragma unroll 1
  for (int item = threadIdx.x; item < BlockTile::kRows * BlockTile::kColumns / 4; item += BlockTile::kThreads) {
    const int row = item / (BlockTile::kColumns / 4), column = item % (BlockTile::kColumns / 4) * 4;
    if (first_out + row >= args.out_channels) continue;
    const Pack<float, 4> sum = load_pack<4>(sums + in_sums<BlockTile>(row, column));
    float* const at = to + (first_out + row) * args.in_channels + first_in + column;
    if (wide) {
      if (first_in + column < args.in_channels) store_pack<4>(at, sum);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (first_in + column + i < args.in_channels) at[i] = sum.values[i];
    }
  }
}

template <class Math, class BlockTile>
__global__ void __launch_bounds__(BlockTile::kThreads, BlockTile::kBlocks)
    weight_gradient_kernel(const __grid_constant__ WeightGradientArgs args) {
  typedef Element<Math> T;
  constexpr int kElementBytes = sizeof(T), kPack = kChunkBytes / kElementBytes, kStep = kStepBytes / kElementBytes;
  // A thread copies chunks of one pixel, kLanes apart.
  constexpr int kLanes = BlockTile::kThreads / kStep;
  constexpr int kRowBytes = BlockTile::kRows * kElementBytes, kColumnBytes = BlockTile::kColumns * kElementBytes;
  constexpr int kM = kRowBytes / kChunkBytes / kLanes, kN = kColumnBytes / kChunkBytes / kLanes;
  char* const shared = dynamic_shared<char>();

  const WeightGradientPlace<BlockTile> place(args);
  const int64_t first_in = place.first_in, first_out = place.first_out;
  const int at_y = place.at_y, at_x = place.at_x;
  const int y0 = place.down.first, height = place.down.count, x0 = place.across.first, width = place.across.count;
  const int64_t pixels = args.grad.images * height * width;
  const Steps part = steps_of(place.part, args.parts, ceil_div(pixels, kStep));
  const int64_t begin = part.first * kStep, end = min(pixels, begin + int64_t{part.count} * kStep);
  const int steps = part.count;

  // The pixel of this thread, and what a step of kStep adds to its image, row and column, as an odometer.
  const int pixel_row = threadIdx.x / kLanes;
  int64_t pixel = begin + pixel_row, image = 0, step_image = 0;
  int y = 0, x = 0, step_y = 0, step_x = 0;
  if (steps > 0) {
    x = static_cast<int>(pixel % width), y = static_cast<int>(pixel / width % height), image = pixel / width / height;
    step_x = kStep % width, step_y = kStep / width % height, step_image = kStep / width / height;
  }
  // Where 4 lanes have a pixel, those of odd ones begin elsewhere: 8 lanes then write 8 different chunks modulo 8.
  const int turn = kLanes < 8 ? pixel_row & 1 : 0;
  const auto chunk_of = [&](int i) { return static_cast<int>(threadIdx.x % kLanes) + (i ^ turn) * kLanes; };
  unsigned grad_there = 0, input_there = 0;  // a bit for each chunk that is not beyond the channels
#pragma unroll
  for (int i = 0; i < kM; ++i)
    grad_there |= static_cast<unsigned>(first_out + chunk_of(i) * kPack < args.grad.channels) << i;
#pragma unroll
  for (int j = 0; j < kN; ++j)
    input_there |= static_cast<unsigned>(first_in + chunk_of(j) * kPack < args.input.channels) << j;
  const T* const grad =
      static_cast<const T*>(args.grad.data) + first_out + y0 * args.grad.of_row + x0 * args.grad.of_column;
  const T* const input = static_cast<const T*>(args.input.data) + first_in +
                         (y0 * args.stride + at_y) * args.input.of_row +
                         (x0 * args.stride + at_x) * args.input.of_column;
  const int64_t input_row = args.stride * args.input.of_row, input_column = args.stride * args.input.of_column;

  sum_steps<Sums<Math, BlockTile, false>, BlockTile>(steps, shared, [&](char* rows, char* columns) {
    const bool inside = pixel < end;
    const T* const grad_at = grad + (image * args.grad.of_image + y * args.grad.of_row + x * args.grad.of_column);
    const T* const input_at = input + (image * args.input.of_image + y * input_row + x * input_column);
    const unsigned grads = inside ? grad_there : 0, inputs = inside ? input_there : 0;
#pragma unroll
    for (int i = 0; i < kM; ++i)
      device::cp_async_16(rows + in_columns<kRowBytes>(pixel_row, chunk_of(i)), grad_at + chunk_of(i) * kPack,
                          grads >> i & 1 ? kChunkBytes : 0);
#pragma unroll
    for (int j = 0; j < kN; ++j)
      device::cp_async_16(columns + in_columns<kColumnBytes>(pixel_row, chunk_of(j)), input_at + chunk_of(j) * kPack,
                          inputs >> j & 1 ? kChunkBytes : 0);
    pixel += kStep;
    x += step_x;
    const int carry_x = x >= width;
    x -= carry_x * width, y += step_y + carry_x;
    const int carry_y = y >= height;
    y -= carry_y * height, image += step_image + carry_y;
  });

  store_sums(args, place, reinterpret_cast<const float*>(shared));
}

// A thread has the taps of one pair of channels, and adds their parts in order.
template <class T>
__global__ void __launch_bounds__(kMovingThreads)
    sum_parts_kernel(const float* sums, int64_t parts, const Weights weights) {
  const int64_t pairs = weights.out_channels * weights.in_channels;
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * kMovingThreads + threadIdx.x;
  if (pair >= pairs) return;
  T* const to = static_cast<T*>(weights.data) + pair / weights.in_channels * weights.of_out +
                pair % weights.in_channels * weights.of_in;
  const int taps = weights.taps * weights.taps;
  for (int tap = 0; tap < taps; ++tap) {
    float sum = 0;
    for (int64_t part = 0; part < parts; ++part) sum += sums[(part * taps + tap) * pairs + pair];
    device::store(to + tap / weights.taps * weights.of_row + tap % weights.taps * weights.of_column, sum);
  }
}

}  // namespace
}  // namespace cuda
}  // namespace inpaint_fast
