// dilated_block on CUDA, from sm_80 on: the 3x3 convolution of stride 1 and any dilation as a matrix product that
// gathers its factors itself ("implicit GEMM"), on the matrix units of one warp (mma.sync) behind a pipeline of
// asynchronous copies (cp.async).
//
//   convolution:      output[pixel][out]     = sum over tap, in:  input[pixel + tap][in] * weight[tap][out][in]
//   weight gradient:  gradient[tap][out][in] = sum over pixels:   grad[pixel][out] * input[pixel + tap][in]
//
// and the gradient of the input is the convolution of grad with the weights' taps reversed and channels swapped.
//
// Pictures are NHWC, pixels a multiple of 16 bytes. Such ones are read where they lie; of others (NCHW, odd numbers of
// channels) pack_pictures makes an NHWC copy with zeros behind the channels. Results are written by their strides.
// A tap is nothing but an offset: dilation costs nothing. Copies of 0 bytes give the padding's zeros, and a block
// leaves out the taps that see nothing but padding: 1.44 times fewer products at dilation 16 on 64x64 pixels.
//
// For the norm of a training step the epilogue leaves mean and squares of what a block has stored (cuda_moments.h).
//
// Sums are float32 and rounded once, after the epilogue. Every result is one sum in one order: by taps, then channels,
// or by pixels, whose parts sum_parts_kernel adds in order. So results are bitwise equal from run to run. No atomics.
//
// sm_90a runs this code too. A path of its own, by TMA (box loads that do the padding) and wgmma, is still to be
// written, with a GPU at hand.
#include "dilated_block/cuda.h"

#include <algorithm>

#include "dilated_block/cuda_convolution.h"
#include "dilated_block/cuda_pack.h"
#include "dilated_block/cuda_weight_gradient.h"

namespace inpaint_fast {
namespace cuda {
namespace {

// ---- the choice of a kernel ----

// Calls f with a null pointer to how numbers of that kind are multiplied.
template <class F>
void with_math(ScalarKind kind, bool tf32, F f) {
  if (kind == ScalarKind::float16) return f(static_cast<Half*>(nullptr));
  if (kind == ScalarKind::bfloat16) return f(static_cast<BFloat16*>(nullptr));
  if (tf32) return f(static_cast<Tf32*>(nullptr));
  return f(static_cast<Ieee*>(nullptr));
}

template <class F>
void with_bits(ScalarKind kind, F f) {
  if (kind == ScalarKind::float32) return f(static_cast<uint32_t*>(nullptr));
  return f(static_cast<uint16_t*>(nullptr));
}

dim3 grid_of(const char* name, int64_t blocks) {
  if (blocks >= INT32_MAX) throw std::runtime_error(std::string("CUDA kernel ") + name + ": the tensors are too large");
  return dim3(static_cast<unsigned>(blocks));
}

typedef Tile<256, 128, 4, 2, 1> Huge;
typedef Tile<128, 128, 2, 2, 2> Large;
typedef Tile<128, 64, 2, 2, 3> Medium;
typedef Tile<64, 64, 2, 2, 4> Small;

// The tiles of the convolution and how fast a multiprocessor full of them multiplies, against the first. Estimates by
// the bytes that a product moves to and from shared memory; to be replaced by measured ones.
struct Candidate {
  int rows, columns, shared_bytes;
  double speed;
};
template <class Tile>
constexpr int shared_bytes() {
  return Tile::kSharedBytes + kEpilogueRows * Tile::kColumns * static_cast<int>(sizeof(float));
}
template <class Tile>
constexpr Candidate candidate(double speed) {
  return {Tile::kRows, Tile::kColumns, shared_bytes<Tile>(), speed};
}
constexpr Candidate kCandidates[] = {candidate<Huge>(1.0), candidate<Large>(0.95), candidate<Medium>(0.8),
                                     candidate<Small>(0.65)};

int log2_of(int64_t x) {
  int log = 0;
  while (x > 1) x >>= 1, ++log;
  return log;
}

// Pairs of a block and a tap that sees more than padding, along a side that is cut into blocks of 2^log pixels.
int64_t taps_along(int64_t output, int64_t input, int64_t dilation, int64_t padding, int log) {
  int64_t taps = 0;
  for (int64_t k = 0; k < 3; ++k) {
    const int64_t shift = k * dilation - padding;
    const int64_t begin = shift < 0 ? -shift : 0, end = input - shift < output ? input - shift : output;
    if (begin < end) taps += ((end - 1) >> log) - (begin >> log) + 1;
  }
  return taps;
}

struct Choice {
  int candidate = 0;
  Cut cut;
};

// For each tile the cut of the pixels that leaves the fewest taps to compute, and of the tiles the one that should be
// done first. It changes no result, for each is the same sum.
Choice choose(const Convolution& args) {
  int device = 0, multiprocessors = 0, most_shared = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device) != cudaSuccess ||
      cudaDeviceGetAttribute(&most_shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) != cudaSuccess)
    throw std::runtime_error("CUDA: the device cannot be asked for its multiprocessors");
  Choice best;
  double least_time = -1;
  for (int c = 0; c < static_cast<int>(sizeof kCandidates / sizeof *kCandidates); ++c) {
    const Candidate& candidate = kCandidates[c];
    if (candidate.shared_bytes > most_shared) continue;  // the largest on GPUs for graphics
    const int rows = log2_of(candidate.rows);
    Cut cut;
    double least_taps = -1;
    for (int width = rows; width >= 0; --width)
      for (int height = rows - width; height >= 0; --height) {
        // Pictures share a block where one does not fill it; otherwise its pixels are neighbours, for the caches' sake.
        const bool whole = int64_t{1} << width >= args.output.width && int64_t{1} << height >= args.output.height;
        if (width + height < rows && !whole) continue;
        const double taps = static_cast<double>(taps_along(args.output.height, args.input.height, args.dilation[0],
                                                           args.padding[0], height)) *
                            taps_along(args.output.width, args.input.width, args.dilation[1], args.padding[1], width);
        const int64_t deep = ceil_div(args.output.images, int64_t{1} << (rows - width - height));
        if (least_taps >= 0 && taps * deep >= least_taps) continue;
        least_taps = taps * deep;
        cut = {width, height, ceil_div(args.output.width, int64_t{1} << width),
               ceil_div(args.output.height, int64_t{1} << height), deep};
      }
    const int64_t columns = ceil_div(args.output.channels, candidate.columns);
    const int64_t rounds = ceil_div(cut.blocks() * columns, multiprocessors);
    // Of a block, on the average: its taps, and an epilogue that costs about as much as one.
    const double of_block = (least_taps / cut.blocks() + 1) * candidate.rows * candidate.columns / candidate.speed;
    if (least_time >= 0 && rounds * of_block >= least_time) continue;
    least_time = rounds * of_block;
    best = {c, cut};
  }
  return best;
}

Convolution convolution_of(const Taps& taps, const Pictures& input, const Pictures& output) {
  Convolution args;
  args.input = input, args.output = output;
  for (int side : {0, 1}) {
    args.dilation[side] = static_cast<int>(taps.dilation[side]);
    args.padding[side] = static_cast<int>(taps.padding[side]);
  }
  return args;
}

template <class Math, class Tile>
void start_convolution(const Convolution& args, void* stream) {
  const int64_t blocks = args.cut.blocks() * ceil_div(args.output.channels, Tile::kColumns);
  launch("dilated_block", convolution_kernel<Math, Tile>, grid_of("dilated_block", blocks), Tile::kThreads,
         shared_bytes<Tile>(), stream, args);
}

// Large where it does not stand half empty.
bool large_weight_gradient(const Weights& weights) { return weights.out_channels > 64 && weights.in_channels > 64; }

template <class Tile>
int64_t weight_gradient_blocks(const Weights& weights) {
  return ceil_div(weights.out_channels, Tile::kRows) * ceil_div(weights.in_channels, Tile::kColumns) * kTaps;
}

template <class Math, class Tile>
void start_weight_gradient(const WeightGradient& args, const Weights& weights, void* stream) {
  launch("dilated_block (weight gradient)", weight_gradient_kernel<Math, Tile>,
         grid_of("dilated_block (weight gradient)", args.parts * weight_gradient_blocks<Tile>(weights)), Tile::kThreads,
         Tile::kSharedBytes, stream, args);
}

}  // namespace

void pack_pictures(const Pictures& in, ScalarKind kind, void* out, void* stream) {
  with_bits(kind, [&](auto* bits) {
    typedef std::remove_pointer_t<decltype(bits)> Bits;
    const int64_t channels = packed_channels(in.channels, sizeof(Bits));
    const int64_t blocks = in.images * ceil_div(in.height * in.width, kPackSide) * ceil_div(channels, kPackSide);
    if (blocks == 0) return;
    launch("dilated_block (pack pictures)", pack_pictures_kernel<Bits>,
           grid_of("dilated_block (pack pictures)", blocks), kMovingThreads, 0, stream, in, channels,
           static_cast<Bits*>(out));
  });
}

void pack_weights(const Weights& weights, ScalarKind kind, void* out, void* stream) {
  with_bits(kind, [&](auto* bits) {
    typedef std::remove_pointer_t<decltype(bits)> Bits;
    const int64_t channels = packed_channels(weights.in_channels, sizeof(Bits)),
                  pairs = weights.out_channels * channels;
    if (pairs == 0) return;
    launch("dilated_block (pack weights)", pack_weights_kernel<Bits>,
           grid_of("dilated_block (pack weights)", ceil_div(pairs, kMovingThreads)), kMovingThreads, 0, stream, weights,
           channels, static_cast<Bits*>(out));
  });
}

bool is_packed(const Pictures& pictures, int64_t element_bytes) {
  const int64_t pack = kPackBytes / element_bytes;
  return (pictures.of_channel == 1 || pictures.channels == 0) && pictures.channels % pack == 0 &&
         pictures.of_image % pack == 0 && pictures.of_row % pack == 0 && pictures.of_column % pack == 0 &&
         device::is_aligned<Pack<char, kPackBytes>>(pictures.data);
}

int64_t moments_size(const Taps& taps, const Pictures& input, const Pictures& output) {
  return 2 * choose(convolution_of(taps, input, output)).cut.blocks() * output.channels;
}

void dilated_block(const Taps& taps, const Pictures& input, const void* weights, const Pictures& output,
                   const Epilogue& epilogue, const Statistics& statistics, void* stream) {
  if (output.pixels() == 0 || output.channels == 0) return;
  Convolution args = convolution_of(taps, input, output);
  args.weights = weights, args.epilogue = epilogue, args.moments = statistics.moments;
  args.wide_output = output.of_channel == 1 && output.channels % 4 == 0 && output.of_image % 4 == 0 &&
                     output.of_row % 4 == 0 && output.of_column % 4 == 0 &&
                     device::is_aligned<Pack<char, kPackBytes>>(output.data);
  const Choice choice = choose(args);
  args.cut = choice.cut;
  with_math(taps.kind, taps.tf32, [&](auto* math) {
    typedef std::remove_pointer_t<decltype(math)> Math;
    if (choice.candidate == 0) return start_convolution<Math, Huge>(args, stream);
    if (choice.candidate == 1) return start_convolution<Math, Large>(args, stream);
    if (choice.candidate == 2) return start_convolution<Math, Medium>(args, stream);
    start_convolution<Math, Small>(args, stream);
  });
  if (!statistics.moments) return;
  launch("dilated_block (statistics)", combine_moments_kernel,
         grid_of("dilated_block (statistics)", ceil_div(output.channels, kCombined)), kMovingThreads, 0, stream,
         args.cut, output, statistics, kCandidates[choice.candidate].rows);
}

int64_t weight_gradient_splits(const Pictures& grad, const Weights& weights) {
  constexpr int64_t kMultiprocessors = 128;  // about as many as there are: what is there must not change the sums
  constexpr int64_t kLeastPixels = 256, kMostPixels = int64_t{1} << 16;  // of a part: more lose digits of a float32 sum
  constexpr int64_t kMostBytes = int64_t{64} << 20;
  const bool large = large_weight_gradient(weights);
  const int64_t blocks = large ? weight_gradient_blocks<Large>(weights) : weight_gradient_blocks<Small>(weights);
  const int64_t bytes = kTaps * weights.out_channels * weights.in_channels * 4;
  int64_t parts = kMultiprocessors * (large ? Large::kBlocks : Small::kBlocks) / blocks;
  parts = std::max(parts, ceil_div(grad.pixels(), kMostPixels));
  parts = std::min({parts, ceil_div(grad.pixels(), kLeastPixels), kMostBytes / bytes});
  return std::max<int64_t>(parts, 1);
}

void weight_gradient(const Taps& taps, const Pictures& grad, const Pictures& input, const Weights& weights, float* sums,
                     void* stream) {
  if (weights.out_channels == 0 || weights.in_channels == 0) return;
  WeightGradient args;
  args.grad = grad, args.input = input, args.sums = sums;
  args.out_channels = weights.out_channels, args.in_channels = weights.in_channels;
  for (int side : {0, 1}) {
    args.dilation[side] = static_cast<int>(taps.dilation[side]);
    args.padding[side] = static_cast<int>(taps.padding[side]);
  }
  args.parts = weight_gradient_splits(grad, weights);
  with_math(taps.kind, taps.tf32, [&](auto* math) {
    typedef std::remove_pointer_t<decltype(math)> Math;
    if (large_weight_gradient(weights))
      start_weight_gradient<Math, Large>(args, weights, stream);
    else
      start_weight_gradient<Math, Small>(args, weights, stream);
    launch("dilated_block (sum parts)", sum_parts_kernel<Element<Math>>,
           grid_of("dilated_block (sum parts)", ceil_div(weights.out_channels * weights.in_channels, kMovingThreads)),
           kMovingThreads, 0, stream, static_cast<const float*>(sums), args.parts, weights);
  });
}

}  // namespace cuda
}  // namespace inpaint_fast
