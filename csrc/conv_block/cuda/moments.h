// Mean and variance of a convolution's result: every block leaves two numbers a channel of its pixels, in float32, and
// one kernel puts these together in double, in a fixed order (Chan, Golub, LeVeque, Updating formulae and a pairwise
// algorithm for computing sample variances, 1979).
#pragma once

#include "conv_block/cuda/launchers.h"
#include "conv_block/cuda/tile.h"

namespace inpaint_fast {
namespace cuda {
namespace {

// A block's pixels are 2^width x 2^height ones in each of some neighbouring pictures, all of one phase.
struct Cut {
  int width = 0, height = 0;  // logarithms to base 2
  int64_t across = 0, down = 0, deep = 0;
  int phases = 1;  // those of a place follow one another
  int64_t blocks() const { return across * down * deep * phases; }
};

__device__ __forceinline__ int64_t cut_off(int64_t size, int64_t place, int64_t of_place) {
  const int64_t rest = size - place * of_place;
  return rest < of_place ? rest : of_place;
}

// How many pixels of a phase lie in a place of it; output: that phase.
__device__ __forceinline__ int64_t pixels_of(const Cut& cut, const Pictures& output, int64_t place, int tile_rows) {
  return cut_off(output.width, place % cut.across, int64_t{1} << cut.width) *
         cut_off(output.height, place / cut.across % cut.down, int64_t{1} << cut.height) *
         cut_off(output.images, place / (cut.across * cut.down), tile_rows >> (cut.width + cut.height));
}

// The mean of each channel over `count` of the block's rows, those that are there, and the sum of squares about it.
// values: in_sums(), written by all of BlockTile::kThreads; scratch: a float for each of them.
template <class BlockTile, class There>
__device__ __forceinline__ void leave_moments(const float* values, float* scratch, float count, There there,
                                              float* moments, int64_t channels, int channels_left) {
  constexpr int kParts = BlockTile::kThreads / BlockTile::kColumns, kAtOnce = 8;
  const int column = threadIdx.x % BlockTile::kColumns, part = threadIdx.x / BlockTile::kColumns;
  const auto over_rows = [&](auto number) {
    BlockTile::sync();  // the values are there, and all have done with what was in scratch
    float sum = 0;
#pragma unroll 1
    for (int first = part; first < BlockTile::kRows; first += kParts * kAtOnce) {
      float some = 0;  // short sums: fewer digits are lost
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int row = first + i * kParts;
        if (there(row)) some += number(values[in_sums<BlockTile>(row, column)]);
      }
      sum += some;
    }
    scratch[threadIdx.x] = sum;
    BlockTile::sync();
    sum = 0;
#pragma unroll
    for (int i = 0; i < kParts; ++i) sum += scratch[i * BlockTile::kColumns + column];
    return sum;
  };
  const float mean = over_rows([](float x) { return x; }) / count;
  const float squares = over_rows([=](float x) { return (x - mean) * (x - mean); });
  if (part != 0 || column >= channels_left) return;
  moments[column] = mean;
  moments[channels + column] = squares;
}

constexpr int kCombined = 8;  // channels of a block that puts moments together; the other threads take turns

// The sum over the threads that have the same channel, in a fixed order, to all of them.
__device__ __forceinline__ double of_channel(double value) {
  __shared__ double of_threads[kMovingThreads];
  of_threads[threadIdx.x] = value;
  __syncthreads();
  double sum = 0;
  for (int i = threadIdx.x % kCombined; i < kMovingThreads; i += kCombined) sum += of_threads[i];
  __syncthreads();
  return sum;
}

__global__ void __launch_bounds__(kMovingThreads)
    combine_moments_kernel(const Cut cut, const Pictures output, const Statistics statistics, int tile_rows) {
  const int64_t channels = output.channels;
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kCombined + threadIdx.x % kCombined;
  const bool there = c < channels;
  const float *const means = statistics.moments + c, *const deviations = means + channels;
  // About the first mean: differences leave no large numbers to cancel. An infinite one would make them all NaN.
  const double given = there ? means[0] : 0, first = given - given == 0 ? given : 0;
  double sum = 0, squares = 0;
  const int64_t places = cut.across * cut.down * cut.deep * cut.phases;
  for (int64_t place = threadIdx.x / kCombined; there && place < places; place += kMovingThreads / kCombined) {
    const double n = static_cast<double>(pixels_of(cut, output, place / cut.phases, tile_rows));
    const double difference = means[place * 2 * channels] - first;
    sum += n * difference;
    squares += deviations[place * 2 * channels] + n * difference * difference;
  }
  sum = of_channel(sum);
  squares = of_channel(squares);
  if (threadIdx.x >= kCombined || !there) return;
  const double count = static_cast<double>(output.images * output.height * output.width * cut.phases);
  const double about_mean = squares - sum * sum / count;
  statistics.mean[c] = first + sum / count;
  statistics.var[c] = (about_mean < 0 ? 0 : about_mean) / count;
}

}  // namespace
}  // namespace cuda
}  // namespace inpaint_fast
