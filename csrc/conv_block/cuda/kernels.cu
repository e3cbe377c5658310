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
// of asynchronous copies (cp.async): convolution.h, weight_gradient.h. sm_90a's multiplies by wgmma on boxes that the
// copy engine (TMA) brings, padding included: convolution_sm90.h, weight_gradient_sm90.h. It runs on GPUs of compute
// capability 9.0 in a build for sm_90a, where a tensor map can be made of the pictures (can_be_mapped() in choice.h):
//   the convolution      float16, bfloat16 and TF32, stride 1; INPAINT_FAST_CUDA_CAPABILITY=sm_80 turns it off
//   the weight gradient  float16 and bfloat16, where INPAINT_FAST_CUDA_WEIGHT_GRADIENT=sm_90a asks for it
// All else is sm_80's everywhere, float32 in full among it, and float32's weight gradient, whose factors lie as wgmma
// takes 16 bits alone.
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

// Calls f with a null pointer to a tile of sm_90a's.
template <class F>
void with_warpgroup_tile(int candidate, F f) {
  if (candidate == 0) return f(static_cast<WarpgroupHuge*>(nullptr));
  if (candidate == 1) return f(static_cast<WarpgroupLarge*>(nullptr));
  if (candidate == 2) return f(static_cast<WarpgroupMedium*>(nullptr));
  return f(static_cast<WarpgroupSmall*>(nullptr));
}

// Tensor maps whose boxes have 128 bytes of channels.
template <class Math>
struct Mapped {
  static constexpr uint64_t kElementBytes = sizeof(Element<Math>);
  static constexpr uint32_t kStep = device::kAtomRowBytes / kElementBytes;
  static constexpr CUtensorMapDataType kType = std::is_same<Math, Half>::value       ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                               : std::is_same<Math, BFloat16>::value ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                                                                     : CU_TENSOR_MAP_DATA_TYPE_TFLOAT32;
  static uint64_t size(int64_t x) { return static_cast<uint64_t>(x); }
  static uint64_t bytes(int64_t stride) { return static_cast<uint64_t>(stride) * kElementBytes; }

  // Boxes of 2^width x 2^height pixels, `stride` apart, of 2^images pictures.
  static CUtensorMap pictures(const char* name, const Pictures& all, int width, int height, int images,
                              uint32_t stride = 1) {
    const Pictures some = with_plain_strides(all);
    return tensor_map<4>(name, kType, some.data,
                         {size(some.channels), size(some.width), size(some.height), size(some.images)},
                         {bytes(some.of_column), bytes(some.of_row), bytes(some.of_image)},
                         {kStep, 1u << width, 1u << height, 1u << images}, {1, stride, stride, 1});
  }
  // Boxes of a tap of some output channels; weights: as pack_weights leaves them.
  static CUtensorMap weights(const void* packed, int64_t taps, int64_t out_channels, int64_t in_channels, int columns) {
    return tensor_map<3>("the weights", kType, packed, {size(in_channels), size(out_channels), size(taps)},
                         {bytes(in_channels), bytes(out_channels * in_channels)},
                         {kStep, static_cast<uint32_t>(columns), 1}, {1, 1, 1});
  }
};

template <class Math, class BlockTile>
void start_convolution_sm90(const ConvolutionArgs& args, void* stream) {
  const int images = log2_of(BlockTile::kRows) - args.cut.width - args.cut.height;
  const CUtensorMap pictures =
      Mapped<Math>::pictures("the pictures", args.input, args.cut.width, args.cut.height, images);
  const int64_t out_channels = args.output.channels;
  const CUtensorMap weights = Mapped<Math>::weights(args.weights, args.weight_taps * args.weight_taps, out_channels,
                                                    args.input.channels, BlockTile::kColumns);
  const int64_t blocks = args.cut.blocks() * ceil_div(out_channels, BlockTile::kColumns);
  launch("conv_block", convolution_sm90_kernel<Math, BlockTile>, grid_of("conv_block", blocks), BlockTile::kAllThreads,
         BlockTile::kSharedBytes, stream, args, pictures, weights);
}

template <class Math, class BlockTile>
void start_weight_gradient(const WeightGradientArgs& args, dim3 grid, void* stream) {
  launch("conv_block (weight gradient)", weight_gradient_kernel<Math, BlockTile>, grid, BlockTile::kThreads,
         BlockTile::kSharedBytes, stream, args);
}

template <class T, class BlockTile>
void start_weight_gradient_sm90(const WeightGradientArgs& args, dim3 grid, void* stream) {
  const PixelBox box = choose_box(args);
  const auto map = [&](const char* name, const Pictures& pictures, int stride) {
    return Mapped<T>::pictures(name, pictures, box.width, box.height, box.images(), static_cast<uint32_t>(stride));
  };
  launch("conv_block (weight gradient)", weight_gradient_sm90_kernel<T, BlockTile>, grid, BlockTile::kAllThreads,
         BlockTile::kSharedBytes, stream, args, box, map("the gradient", args.grad, 1),
         map("the input", args.input, args.stride));
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

const char* convolution_capability() { return convolution_by_sm90a() ? "sm_90a" : "sm_80"; }
const char* weight_gradient_capability() { return weight_gradient_by_sm90a() ? "sm_90a" : "sm_80"; }

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
      if (choice.sm90a)
        return with_warpgroup_tile(choice.candidate, [&](auto* tile) {
          start_convolution_sm90<Math, std::remove_pointer_t<decltype(tile)>>(args, stream);
        });
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

int64_t weight_gradient_splits(const Multiplication& how, const Pictures& grad, const Pictures& input,
                               const Weights& weights) {
  return choose_weight_gradient(how, grad, input, weights).parts;
}

void weight_gradient(const Multiplication& how, const Geometry& geometry, const Pictures& grad, const Pictures& input,
                     const Weights& weights, float* sums, void* stream) {
  if (weights.out_channels == 0 || weights.in_channels == 0) return;
  WeightGradientArgs args;
  args.grad = grad, args.input = input, args.sums = sums;
  args.out_channels = weights.out_channels, args.in_channels = weights.in_channels;
  args.stride = stride_of(geometry);
  for (int side : {0, 1}) args.taps[side] = taps_of(geometry, weights.taps, side, 0);
  const WeightGradientChoice choice = choose_weight_gradient(how, grad, input, weights);
  args.parts = choice.parts;
  const dim3 grid = grid_of("conv_block (weight gradient)", choice.parts * choice.blocks);
  with_math(how.kind, how.tf32, [&](auto* math) {
    typedef std::remove_pointer_t<decltype(math)> Math;
    if constexpr (sizeof(Element<Math>) == 2)
      if (choice.sm90a)
        return with_warpgroup_tile(choice.candidate, [&](auto* tile) {
          start_weight_gradient_sm90<Math, std::remove_pointer_t<decltype(tile)>>(args, grid, stream);
        });
    if (choice.candidate == kLarge) return start_weight_gradient<Math, Large>(args, grid, stream);
    start_weight_gradient<Math, Small>(args, grid, stream);
  });
  with_math(how.kind, how.tf32, [&](auto* math) {
    launch("conv_block (sum parts)", sum_parts_kernel<Element<std::remove_pointer_t<decltype(math)>>>,
           grid_of("conv_block (sum parts)", ceil_div(weights.out_channels * weights.in_channels, kMovingThreads)),
           kMovingThreads, 0, stream, static_cast<const float*>(sums), args.parts, weights);
  });
}

}  // namespace cuda
}  // namespace inpaint_fast
