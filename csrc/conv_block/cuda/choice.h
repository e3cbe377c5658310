// How a convolution and the weights' gradient are cut into blocks, and by which code: sm_80's or sm_90a's (kernels.cu
// tells the whole).
#pragma once

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "conv_block/cuda/convolution.h"
#include "conv_block/cuda/convolution_sm90.h"
#include "conv_block/cuda/weight_gradient_sm90.h"

namespace inpaint_fast {
namespace cuda {
namespace {

// ---- tiles ----

typedef BlockTile<256, 128, 4, 2, 1> Huge;
typedef BlockTile<128, 128, 2, 2, 2> Large;
typedef BlockTile<128, 64, 2, 2, 3> Medium;
typedef BlockTile<64, 64, 2, 2, 4> Small;

// The same for sm_90a.
typedef WarpgroupTile<256, 128, 2, 4, 1> WarpgroupHuge;
typedef WarpgroupTile<128, 128, 2, 3, 2> WarpgroupLarge;
typedef WarpgroupTile<128, 64, 2, 4, 2> WarpgroupMedium;
typedef WarpgroupTile<64, 64, 1, 4, 3> WarpgroupSmall;

// The tiles, how many blocks a multiprocessor should hold of them, and how fast it then multiplies, against the first.
// Estimates by the bytes that a product moves to and from shared memory; to be replaced by measured ones.
struct Candidate {
  int rows, columns, shared_bytes, at_once;
  double speed;
};
template <class BlockTile>
constexpr int shared_bytes() {
  return BlockTile::kSharedBytes + kEpilogueRows * BlockTile::kColumns * static_cast<int>(sizeof(float));
}
template <class BlockTile>
constexpr Candidate candidate(double speed) {
  return {BlockTile::kRows, BlockTile::kColumns, shared_bytes<BlockTile>(), BlockTile::kBlocks, speed};
}
template <class BlockTile>
constexpr Candidate warpgroup_candidate(double speed) {
  return {BlockTile::kRows, BlockTile::kColumns, BlockTile::kSharedBytes, BlockTile::kBlocks, speed};
}
constexpr int kTiles = 4, kLarge = 1, kSmall = 3;  // how many, and where two of them stand
constexpr Candidate kCandidates[kTiles] = {candidate<Huge>(1.0), candidate<Large>(0.95), candidate<Medium>(0.8),
                                           candidate<Small>(0.65)};
constexpr Candidate kWarpgroupCandidates[kTiles] = {
    warpgroup_candidate<WarpgroupHuge>(1.0), warpgroup_candidate<WarpgroupLarge>(0.95),
    warpgroup_candidate<WarpgroupMedium>(0.8), warpgroup_candidate<WarpgroupSmall>(0.65)};

// ---- sm_80 or sm_90a ----

int attribute_of_device(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  if (cudaGetDevice(&device) != cudaSuccess || cudaDeviceGetAttribute(&value, attribute, device) != cudaSuccess)
    throw std::runtime_error("CUDA: the device cannot be asked for its properties");
  return value;
}

// Whether the current device runs sm_90a's code and this build has it.
bool has_sm90a() {
  if (attribute_of_device(cudaDevAttrComputeCapabilityMajor) != 9 ||
      attribute_of_device(cudaDevAttrComputeCapabilityMinor) != 0)
    return false;
  static const bool built = [] {
    cudaFuncAttributes attributes = {};
    const auto kernel = reinterpret_cast<const void*>(convolution_sm90_kernel<Half, WarpgroupSmall>);
    const cudaError_t status = cudaFuncGetAttributes(&attributes, kernel);
    if (status != cudaSuccess) cudaGetLastError();  // or the next check of anybody would report it as its own
    if (status == cudaErrorNoKernelImageForDevice || status == cudaErrorInvalidDeviceFunction) return false;
    if (status != cudaSuccess) throw std::runtime_error("CUDA: the kernels of this build cannot be asked for");
    return attributes.maxThreadsPerBlock >= WarpgroupSmall::kAllThreads;
  }();
  return built;
}

// What runs on the current device: what the environment variable asks for, or, unset, sm_90a's if `by_default` and
// there.
bool use_sm90a(const std::string& variable, bool by_default) {
  const char* const value = std::getenv(variable.c_str());
  const std::string wish = value ? value : "";
  if (wish.empty()) return by_default && has_sm90a();
  if (wish == "sm_80") return false;
  if (wish != "sm_90a")
    throw std::runtime_error(variable + ": sm_80, sm_90a or nothing is expected, got '" + wish + "'");
  if (has_sm90a()) return true;
  throw std::runtime_error(variable +
                           ": sm_90a needs a GPU of compute capability 9.0 and a build for 9.0a "
                           "(TORCH_CUDA_ARCH_LIST); sm_80 or nothing is expected here");
}
bool convolution_by_sm90a() { return use_sm90a("INPAINT_FAST_CUDA_CAPABILITY", true); }

// No GPU has run sm_90a's code of the weights' gradient: sm_80's, which one has measured, is the default.
constexpr bool kWeightGradientBySm90a = false;
bool weight_gradient_by_sm90a() {
  return use_sm90a("INPAINT_FAST_CUDA_WEIGHT_GRADIENT", kWeightGradientBySm90a && convolution_by_sm90a());
}

// A stride along a size of 1 says nothing and may be anything: as it would be without gaps.
Pictures with_plain_strides(Pictures pictures) {
  if (pictures.width == 1) pictures.of_column = pictures.channels;
  if (pictures.height == 1) pictures.of_row = pictures.width * pictures.of_column;
  if (pictures.images == 1) pictures.of_image = pictures.height * pictures.of_row;
  return pictures;
}

// Whether a tensor map can be made of pictures that is_packed(): there is something of every dimension, coordinates fit
// 32 bits and strides 40, and each stride is a multiple of the one before, with room for it. So it is with NHWC tensors
// and slices of them, not with transposed ones or with one picture expanded to many.
bool can_be_mapped(const Pictures& packed, int64_t element_bytes) {
  const Pictures pictures = with_plain_strides(packed);
  const int64_t limit = (int64_t{1} << 40) / element_bytes;
  const auto follows = [=](int64_t stride, int64_t size, int64_t before) {
    return stride < limit && before > 0 && stride >= size * before && stride % before == 0;
  };
  return pictures.channels > 0 && pictures.pixels() > 0 && pictures.images <= INT32_MAX &&
         follows(pictures.of_column, pictures.channels, 1) &&
         follows(pictures.of_row, pictures.width, pictures.of_column) &&
         follows(pictures.of_image, pictures.height, pictures.of_row);
}

// ---- blocks of a convolution ----

int log2_of(int64_t x) {
  int log = 0;
  while (x > 1) x >>= 1, ++log;
  return log;
}

// Pairs of a block and a tap that sees more than padding, along a side of all phases, each of which is cut into blocks
// of 2^log pixels.
int64_t taps_along(const ConvolutionArgs& args, int side, int log) {
  const int64_t output = side == 0 ? args.output.height : args.output.width;
  const int64_t input = side == 0 ? args.input.height : args.input.width;
  int64_t sum = 0;
  for (int phase = 0; phase < args.phases; ++phase)
    for (int k = 0; k < args.taps[side][phase].count; ++k) {
      const int64_t at = args.taps[side][phase].at(k);
      const int64_t begin = at < 0 ? ceil_div(-at, args.stride) : 0;
      const int64_t end = at < input ? std::min(ceil_div(input - at, args.stride), output) : 0;
      if (begin < end) sum += ((end - 1) >> log) - (begin >> log) + 1;
    }
  return sum;
}

struct Choice {
  bool sm90a = false;
  int candidate = 0;
  Cut cut;
  const Candidate& tile() const { return (sm90a ? kWarpgroupCandidates : kCandidates)[candidate]; }
};

// For each tile the cut of the pixels that leaves the fewest taps to compute, and of the tiles the one that should be
// done first. It changes no result, for each is the same sum.
Choice choose(const Multiplication& how, const ConvolutionArgs& args) {
  const int multiprocessors = attribute_of_device(cudaDevAttrMultiProcessorCount),
            most_shared = attribute_of_device(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  const bool ieee = how.kind == ScalarKind::float32 && !how.tf32;
  Choice best;
  best.sm90a = convolution_by_sm90a() && !ieee && args.stride == 1 &&
               can_be_mapped(args.input, how.kind == ScalarKind::float32 ? 4 : 2);
  double least_time = -1;
  for (int c = 0; c < kTiles; ++c) {
    const Candidate& candidate = Choice{best.sm90a, c, {}}.tile();
    if (candidate.shared_bytes > most_shared) continue;  // the largest on GPUs for graphics
    const int rows = log2_of(candidate.rows);
    Cut cut;
    double least_taps = -1;
    for (int width = rows; width >= 0; --width)
      for (int height = rows - width; height >= 0; --height) {
        // Pictures share a block where one does not fill it; otherwise its pixels are neighbours, for the caches' sake.
        const bool whole = int64_t{1} << width >= args.output.width && int64_t{1} << height >= args.output.height;
        if (width + height < rows && !whole) continue;
        const double taps = static_cast<double>(taps_along(args, 0, height)) * taps_along(args, 1, width);
        const int64_t deep = ceil_div(args.output.images, int64_t{1} << (rows - width - height));
        if (least_taps >= 0 && taps * deep >= least_taps) continue;
        least_taps = taps * deep;
        cut = {width,
               height,
               ceil_div(args.output.width, int64_t{1} << width),
               ceil_div(args.output.height, int64_t{1} << height),
               deep,
               args.phases * args.phases};
      }
    const int64_t columns = ceil_div(args.output.channels, candidate.columns);
    const int64_t rounds = ceil_div(cut.blocks() * columns, multiprocessors);
    // Of a block, on the average: its taps, and an epilogue that costs about as much as one.
    const double of_block = (least_taps / cut.blocks() + 1) * candidate.rows * candidate.columns / candidate.speed;
    if (least_time >= 0 && rounds * of_block >= least_time) continue;
    least_time = rounds * of_block;
    best.candidate = c, best.cut = cut;
  }
  return best;
}

// ---- blocks of the weights' gradient ----

struct WeightGradientChoice {
  bool sm90a = false;
  int candidate = 0;
  int64_t blocks = 0, parts = 1;  // blocks of each part
};

// By the shapes alone, not by what the device has: the order of the sums follows from it.
WeightGradientChoice choose_weight_gradient(const Multiplication& how, const Pictures& grad, const Pictures& input,
                                            const Weights& weights) {
  constexpr int64_t kMultiprocessors = 128;                              // about as many as there are
  constexpr int64_t kLeastPixels = 256, kMostPixels = int64_t{1} << 16;  // of a part: more lose digits of a float32 sum
  constexpr int64_t kMostBytes = int64_t{64} << 20;
  const auto blocks = [&](const Candidate& tile) {
    return ceil_div(weights.out_channels, tile.rows) * ceil_div(weights.in_channels, tile.columns) * weights.taps *
           weights.taps;
  };
  WeightGradientChoice best;
  best.sm90a = weight_gradient_by_sm90a() && how.kind != ScalarKind::float32 && can_be_mapped(grad, 2) &&
               can_be_mapped(input, 2);
  if (best.sm90a) {
    const auto time = [&](int c) {
      const Candidate& tile = kWarpgroupCandidates[c];
      return blocks(tile) * tile.rows * tile.columns / tile.speed;
    };
    for (int c = 1; c < kTiles; ++c)
      if (time(c) < time(best.candidate)) best.candidate = c;
  } else {  // large where it does not stand half empty
    best.candidate = weights.out_channels > 64 && weights.in_channels > 64 ? kLarge : kSmall;
  }
  const Candidate& tile = (best.sm90a ? kWarpgroupCandidates : kCandidates)[best.candidate];
  best.blocks = blocks(tile);
  best.parts = std::max(kMultiprocessors * tile.at_once / best.blocks, ceil_div(grad.pixels(), kMostPixels));
  const int64_t bytes = weights.taps * weights.taps * weights.out_channels * weights.in_channels * 4;
  best.parts = std::min({best.parts, ceil_div(grad.pixels(), kLeastPixels), kMostBytes / bytes});
  best.parts = std::max<int64_t>(best.parts, 1);
  return best;
}

// The box of a step that leaves the fewest to compute, and of those the widest, whose pixels are neighbours.
PixelBox choose_box(const WeightGradientArgs& args) {
  const auto along = [&](int side, int log) {
    const int64_t result = side == 0 ? args.grad.height : args.grad.width;
    const int64_t input = side == 0 ? args.input.height : args.input.width;
    int64_t sum = 0;
    for (int k = 0; k < args.taps[side].count; ++k)
      sum += ceil_div(seeing(args.taps[side].at(k), args.stride, result, input).count, int64_t{1} << log);
    return sum;
  };
  PixelBox best;
  double least = -1;
  for (int width = kStepPixelsLog; width >= 0; --width)
    for (int height = kStepPixelsLog - width; height >= 0; --height) {
      const PixelBox box = {width, height};
      const double boxes = static_cast<double>(along(0, height)) * along(1, width) *
                           ceil_div(args.grad.images, int64_t{1} << box.images());
      if (least >= 0 && boxes >= least) continue;
      least = boxes, best = box;
    }
  return best;
}

}  // namespace
}  // namespace cuda
}  // namespace inpaint_fast
