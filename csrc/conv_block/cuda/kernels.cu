// The three blocks on CUDA, from sm_80 on: a convolution as a matrix product that gathers its factors itself ("implicit
// GEMM").
//
//   convolution:      output[pixel][out]     = sum over tap, in:  input[pixel + tap][in] * weight[tap][out][in]
//   weight gradient:  gradient[tap][out][in] = sum over pixels:   grad[pixel][out] * input[pixel + tap][in]
//
// and the gradient of the input is the convolution of grad with the weights' taps reversed and channels swapped. Which
// pixels a pixel and a tap make is data (taps.h): with it one code is dilated_block, strided_block and
// transposed_block, which are each other's gradients.
//
// Pictures are NHWC, pixels a multiple of 16 bytes. Such ones are read where they lie; of others (NCHW, odd numbers of
// channels) pack_pictures makes an NHWC copy with zeros behind the channels. Results are written by their strides.
// A tap is nothing but an offset: dilation costs nothing. Copies of 0 bytes give the padding's zeros, and a block
// leaves out the taps that see nothing but padding: 1.44 times fewer products at dilation 16 on 64x64 pixels. Of a
// transposed convolution a block has the pixels of one phase, whose taps are a quarter of all.
//
// For the norm of a training step the epilogue leaves mean and squares of what a block has stored (moments.h).
//
// Sums are float32 and rounded once, after the epilogue. Every result is one sum in one order: by taps, then channels,
// or by pixels, whose parts sum_parts_kernel adds in order. So results are bitwise equal from run to run. No atomics.
//
// There are two codes. sm_80's, for all GPUs, multiplies on the matrix units of one warp (mma.sync) behind a pipeline
// of asynchronous copies (cp.async): convolution.h, weight_gradient.h. sm_90a's is of the convolution alone,
// by wgmma on boxes that the copy engine (TMA) brings, padding included: convolution_sm90.h. It runs on GPUs of
// compute capability 9.0 in a build for sm_90a, on float16, bfloat16 and TF32, where a tensor map can be made of the
// pictures (can_be_mapped() in choice.h); INPAINT_FAST_CUDA_CAPABILITY=sm_80 turns it off. The weights' gradient,
// stride 2 and float32 in full are sm_80's everywhere.
#include "conv_block/cuda/launchers.h"

#include <algorithm>

#include "common/tensor_map.h"
#include "conv_block/cuda/choice.h"
#include "conv_block/cuda/pack.h"
#include "conv_block/cuda/weight_gradient.h"

namespace inpaint_fast {
namespace cuda {
namespace {

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

ConvolutionArgs convolution_of(const Geometry& geometry, int taps, const Pictures& input, const Pictures& output) {
  ConvolutionArgs args;
  args.input = input, args.output = output;
  args.weight_taps = taps, args.stride = stride_of(geometry), args.phases = phases_of(geometry);
  for (int side : {0, 1})
    for (int phase = 0; phase < args.phases; ++phase) args.taps[side][phase] = taps_of(geometry, taps, side, phase);
  args.of_phase_row = output.of_row, args.of_phase_column = output.of_column;
  args.output.height /= args.phases, args.output.width /= args.phases;
  args.output.of_row *= args.phases, args.output.of_column *= args.phases;
  return args;
}

template <class Math, class BlockTile>
void start_convolution(const ConvolutionArgs& args, void* stream) {
  const int64_t blocks = args.cut.blocks() * ceil_div(args.output.channels, BlockTile::kColumns);
  launch("conv_block", convolution_kernel<Math, BlockTile>, grid_of("conv_block", blocks), BlockTile::kThreads,
         shared_bytes<BlockTile>(), stream, args);
}

// Boxes of the pictures of a block and of the weights of a tap, both of 128 bytes of channels.
template <class Math, class BlockTile>
void start_convolution_sm90(const ConvolutionArgs& args, void* stream) {
  constexpr uint64_t kElementBytes = sizeof(Element<Math>);
  constexpr uint32_t kStep = device::kAtomRowBytes / kElementBytes;
  constexpr CUtensorMapDataType kType = std::is_same<Math, Half>::value       ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                        : std::is_same<Math, BFloat16>::value ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                                                              : CU_TENSOR_MAP_DATA_TYPE_TFLOAT32;
  const auto size = [](int64_t x) { return static_cast<uint64_t>(x); };
  const auto bytes = [](int64_t stride) { return static_cast<uint64_t>(stride) * kElementBytes; };
  const Pictures in = with_plain_strides(args.input);
  const int rows = log2_of(BlockTile::kRows) - args.cut.width - args.cut.height;
  const CUtensorMap pictures = tensor_map<4>("the pictures", kType, in.data,
                                             {size(in.channels), size(in.width), size(in.height), size(in.images)},
                                             {bytes(in.of_column), bytes(in.of_row), bytes(in.of_image)},
                                             {kStep, 1u << args.cut.width, 1u << args.cut.height, 1u << rows});
  const int64_t out_channels = args.output.channels;
  const CUtensorMap weights = tensor_map<3>(
      "the weights", kType, args.weights,
      {size(in.channels), size(out_channels), size(args.weight_taps * args.weight_taps)},
      {bytes(in.channels), bytes(out_channels * in.channels)}, {kStep, static_cast<uint32_t>(BlockTile::kColumns), 1});
  const int64_t blocks = args.cut.blocks() * ceil_div(out_channels, BlockTile::kColumns);
  launch("conv_block", convolution_sm90_kernel<Math, BlockTile>, grid_of("conv_block", blocks), BlockTile::kAllThreads,
         BlockTile::kSharedBytes, stream, args, pictures, weights);
}

// Large where it does not stand half empty.
bool large_weight_gradient(const Weights& weights) { return weights.out_channels > 64 && weights.in_channels > 64; }

template <class BlockTile>
int64_t weight_gradient_blocks(const Weights& weights) {
  return ceil_div(weights.out_channels, BlockTile::kRows) * ceil_div(weights.in_channels, BlockTile::kColumns) *
         weights.taps * weights.taps;
}

template <class Math, class BlockTile>
void start_weight_gradient(const WeightGradientArgs& args, const Weights& weights, void* stream) {
  launch("conv_block (weight gradient)", weight_gradient_kernel<Math, BlockTile>,
         grid_of("conv_block (weight gradient)", args.parts * weight_gradient_blocks<BlockTile>(weights)),
         BlockTile::kThreads, BlockTile::kSharedBytes, stream, args);
}

}  // namespace

void pack_pictures(const Pictures& in, ScalarKind kind, void* out, void* stream) {
  with_bits(kind, [&](auto* bits) {
    typedef std::remove_pointer_t<decltype(bits)> Bits;
    const int64_t channels = packed_channels(in.channels, sizeof(Bits));
    const int64_t blocks = in.images * ceil_div(in.height * in.width, kPackSide) * ceil_div(channels, kPackSide);
    if (blocks == 0) return;
    launch("conv_block (pack pictures)", pack_pictures_kernel<Bits>, grid_of("conv_block (pack pictures)", blocks),
           kMovingThreads, 0, stream, in, channels, static_cast<Bits*>(out));
  });
}

void pack_weights(const Weights& weights, ScalarKind kind, void* out, void* stream) {
  with_bits(kind, [&](auto* bits) {
    typedef std::remove_pointer_t<decltype(bits)> Bits;
    const int64_t channels = packed_channels(weights.in_channels, sizeof(Bits)),
                  pairs = weights.out_channels * channels;
    if (pairs == 0) return;
    launch("conv_block (pack weights)", pack_weights_kernel<Bits>,
           grid_of("conv_block (pack weights)", ceil_div(pairs, kMovingThreads)), kMovingThreads, 0, stream, weights,
           channels, static_cast<Bits*>(out));
  });
}

bool is_packed(const Pictures& pictures, int64_t element_bytes) {
  const int64_t pack = kPackBytes / element_bytes;
  return (pictures.of_channel == 1 || pictures.channels == 0) && pictures.channels % pack == 0 &&
         pictures.of_image % pack == 0 && pictures.of_row % pack == 0 && pictures.of_column % pack == 0 &&
         device::is_aligned<Pack<char, kPackBytes>>(pictures.data);
}

const char* convolution_capability() { return use_sm90a() ? "sm_90a" : "sm_80"; }

int64_t moments_size(const Multiplication& how, const Geometry& geometry, int taps, const Pictures& input,
                     const Pictures& output) {
  return 2 * choose(how, convolution_of(geometry, taps, input, output)).cut.blocks() * output.channels;
}

void convolve(const Multiplication& how, const Geometry& geometry, int taps, const Pictures& input, const void* weights,
              const Pictures& output, const Epilogue& epilogue, const Statistics& statistics, void* stream) {
  if (output.pixels() == 0 || output.channels == 0) return;
  ConvolutionArgs args = convolution_of(geometry, taps, input, output);
  args.weights = weights, args.epilogue = epilogue, args.moments = statistics.moments;
  args.wide_output = output.of_channel == 1 && output.channels % 4 == 0 && output.of_image % 4 == 0 &&
                     output.of_row % 4 == 0 && output.of_column % 4 == 0 &&
                     device::is_aligned<Pack<char, kPackBytes>>(output.data);
  const Choice choice = choose(how, args);
  args.cut = choice.cut;
  with_math(how.kind, how.tf32, [&](auto* math) {
    typedef std::remove_pointer_t<decltype(math)> Math;
    if constexpr (!std::is_same<Math, Ieee>::value)
      if (choice.sm90a) {
        if (choice.candidate == 0) return start_convolution_sm90<Math, WarpgroupHuge>(args, stream);
        if (choice.candidate == 1) return start_convolution_sm90<Math, WarpgroupLarge>(args, stream);
        if (choice.candidate == 2) return start_convolution_sm90<Math, WarpgroupMedium>(args, stream);
        return start_convolution_sm90<Math, WarpgroupSmall>(args, stream);
      }
    if (choice.candidate == 0) return start_convolution<Math, Huge>(args, stream);
    if (choice.candidate == 1) return start_convolution<Math, Large>(args, stream);
    if (choice.candidate == 2) return start_convolution<Math, Medium>(args, stream);
    start_convolution<Math, Small>(args, stream);
  });
  if (!statistics.moments) return;
  launch("conv_block (statistics)", combine_moments_kernel,
         grid_of("conv_block (statistics)", ceil_div(output.channels, kCombined)), kMovingThreads, 0, stream, args.cut,
         args.output, statistics, choice.tile().rows);
}

int64_t weight_gradient_splits(const Pictures& grad, const Weights& weights) {
  constexpr int64_t kMultiprocessors = 128;  // about as many as there are: what is there must not change the sums
  constexpr int64_t kLeastPixels = 256, kMostPixels = int64_t{1} << 16;  // of a part: more lose digits of a float32 sum
  constexpr int64_t kMostBytes = int64_t{64} << 20;
  const bool large = large_weight_gradient(weights);
  const int64_t blocks = large ? weight_gradient_blocks<Large>(weights) : weight_gradient_blocks<Small>(weights);
  const int64_t bytes = weights.taps * weights.taps * weights.out_channels * weights.in_channels * 4;
  int64_t parts = kMultiprocessors * (large ? Large::kBlocks : Small::kBlocks) / blocks;
  parts = std::max(parts, ceil_div(grad.pixels(), kMostPixels));
  parts = std::min({parts, ceil_div(grad.pixels(), kLeastPixels), kMostBytes / bytes});
  return std::max<int64_t>(parts, 1);
}

void weight_gradient(const Multiplication& how, const Geometry& geometry, const Pictures& grad, const Pictures& input,
                     const Weights& weights, float* sums, void* stream) {
  if (weights.out_channels == 0 || weights.in_channels == 0) return;
  WeightGradientArgs args;
  args.grad = grad, args.input = input, args.sums = sums;
  args.out_channels = weights.out_channels, args.in_channels = weights.in_channels;
  args.stride = stride_of(geometry);
  for (int side : {0, 1}) args.taps[side] = taps_of(geometry, weights.taps, side, 0);
  args.parts = weight_gradient_splits(grad, weights);
  with_math(how.kind, how.tf32, [&](auto* math) {
    typedef std::remove_pointer_t<decltype(math)> Math;
    if (large_weight_gradient(weights))
      start_weight_gradient<Math, Large>(args, weights, stream);
    else
      start_weight_gradient<Math, Small>(args, weights, stream);
    launch("conv_block (sum parts)", sum_parts_kernel<Element<Math>>,
           grid_of("conv_block (sum parts)", ceil_div(weights.out_channels * weights.in_channels, kMovingThreads)),
           kMovingThreads, 0, stream, static_cast<const float*>(sums), args.parts, weights);
  });
}

}  // namespace cuda
}  // namespace inpaint_fast
