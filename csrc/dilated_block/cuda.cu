// dilated_block on CUDA, from sm_80 on: the 3x3 convolution of stride 1 and any dilation as a matrix product that
// gathers its factors itself ("implicit GEMM"), on the matrix units of one warp (mma.sync) behind a pipeline of
// asynchronous copies (cp.async).
//
//   convolution      output[pixel][out]  = sum over taps and in of  input[pixel moved by the tap][in] *
//   weight[tap][out][in] weight gradient  grad_weight[tap][out][in] = sum over pixels of grad[pixel][out] * input[pixel
//   moved by the tap][in]
//
// and the gradient of the input is the convolution of grad with the weights' taps reversed and channels swapped.
//
// Pictures are NHWC, pixels a multiple of 16 bytes. Such ones are read where they lie; of others (NCHW, odd numbers of
// channels) pack_pictures makes an NHWC copy with zeros behind the channels. Results are written by their strides.
// A tap is nothing but an offset: dilation costs nothing. Copies of 0 bytes give the padding's zeros, and a block
// leaves out the taps that see nothing but padding: 1.44 times fewer products at dilation 16 on 64x64 pixels.
//
// Sums are float32 and rounded once, after the epilogue. Every result is one sum in one order: by taps, then channels,
// or by pixels, whose parts sum_parts_kernel adds in order. So results are bitwise equal from run to run. No atomics.
//
// sm_90a runs this code too. A path of its own, by TMA (box loads that do the padding) and wgmma, is still to be
// written, with a GPU at hand.
#include "dilated_block/cuda.h"

#include "common/device_activation.h"
#include "common/launch.h"
#include "dilated_block/cuda_tile.h"

namespace inpaint_fast {
namespace cuda {
namespace {

using device::load_pack;
using device::Pack;
using device::store_pack;
using device::to_compute;

// ---- pixels of a block ----

// A block's pixels are 2^width x 2^height ones in each of some neighbouring pictures.
struct Cut {
  int width = 0, height = 0;  // logarithms to base 2
  int64_t across = 0, down = 0, deep = 0;
  int64_t blocks() const { return across * down * deep; }
};

struct Convolution {
  Pictures input, output;
  const void* weights = nullptr;
  int dilation[2] = {}, padding[2] = {};
  Epilogue epilogue;
  Cut cut;
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
  unsigned place = blockIdx.x / column_blocks;
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
  const float* const sums = reinterpret_cast<const float*>(shared);
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
    device::with_activation(args.epilogue.activation, args.epilogue.slope, [&](auto activated) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sum.values[i] = activated(sum.values[i]);
    });
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
  }
}

// ---- the gradient of the weights ----

struct WeightGradient {
  Pictures grad, input;
  float* sums = nullptr;  // [parts][9][out channels][in channels]
  int64_t out_channels = 0, in_channels = 0;
  int dilation[2] = {}, padding[2] = {};
  int64_t parts = 1;
};

// One tap, a tile of out x in channels, one part of the pixels: those at which the tap sees no padding, a rectangle of
// each picture.
template <class Math, class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    weight_gradient_kernel(const __grid_constant__ WeightGradient args) {
  typedef Element<Math> T;
  constexpr int kElementBytes = sizeof(T), kPack = kChunkBytes / kElementBytes, kStep = kStepBytes / kElementBytes;
  // A thread copies chunks of one pixel, kLanes apart.
  constexpr int kLanes = Tile::kThreads / kStep;
  constexpr int kRowBytes = Tile::kRows * kElementBytes, kColumnBytes = Tile::kColumns * kElementBytes;
  constexpr int kM = kRowBytes / kChunkBytes / kLanes, kN = kColumnBytes / kChunkBytes / kLanes;
  char* const shared = dynamic_shared<char>();

  // Blocks that read the same pixels follow one another.
  const unsigned in_blocks = static_cast<unsigned>((args.in_channels + Tile::kColumns - 1) / Tile::kColumns);
  const unsigned out_blocks = static_cast<unsigned>((args.out_channels + Tile::kRows - 1) / Tile::kRows);
  unsigned block = blockIdx.x;
  const int64_t first_in = static_cast<int64_t>(block % in_blocks) * Tile::kColumns;
  block /= in_blocks;
  const int64_t first_out = static_cast<int64_t>(block % out_blocks) * Tile::kRows;
  block /= out_blocks;
  const int tap = block % kTaps;
  const int64_t part = block / kTaps;

  const int shift_y = tap / 3 * args.dilation[0] - args.padding[0];
  const int shift_x = tap % 3 * args.dilation[1] - args.padding[1];
  const int y0 = max(0, -shift_y), x0 = max(0, -shift_x);
  const int height =
      max(0, min(static_cast<int>(args.grad.height), static_cast<int>(args.input.height) - shift_y) - y0);
  const int width = max(0, min(static_cast<int>(args.grad.width), static_cast<int>(args.input.width) - shift_x) - x0);
  const int64_t pixels = args.grad.images * height * width;
  const int64_t all_steps = (pixels + kStep - 1) / kStep, steps_each = (all_steps + args.parts - 1) / args.parts;
  const int64_t begin = part * steps_each * kStep, end = min(pixels, begin + steps_each * kStep);
  const int steps = begin < end ? static_cast<int>((end - begin + kStep - 1) / kStep) : 0;

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
  const T* const input = static_cast<const T*>(args.input.data) + first_in + (y0 + shift_y) * args.input.of_row +
                         (x0 + shift_x) * args.input.of_column;

  sum_steps<Sums<Math, Tile, false>, Tile>(steps, shared, [&](char* rows, char* columns) {
    const bool inside = pixel < end;
    const T* const grad_at = grad + (image * args.grad.of_image + y * args.grad.of_row + x * args.grad.of_column);
    const T* const input_at = input + (image * args.input.of_image + y * args.input.of_row + x * args.input.of_column);
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

  const float* const sums = reinterpret_cast<const float*>(shared);
  float* const to = args.sums + (part * kTaps + tap) * args.out_channels * args.in_channels;
  const bool wide = args.in_channels % 4 == 0;
#pragma unroll 1
  for (int item = threadIdx.x; item < Tile::kRows * Tile::kColumns / 4; item += Tile::kThreads) {
    const int row = item / (Tile::kColumns / 4), column = item % (Tile::kColumns / 4) * 4;
    if (first_out + row >= args.out_channels) continue;
    const Pack<float, 4> sum = load_pack<4>(sums + in_sums<Tile>(row, column));
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

constexpr int kThreads = 256;  // of the kernels that only move numbers

// A thread has the 9 taps of one pair of channels, and adds their parts in order.
template <class T>
__global__ void __launch_bounds__(kThreads) sum_parts_kernel(const float* sums, int64_t parts, const Weights weights) {
  const int64_t pairs = weights.out_channels * weights.in_channels;
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (pair >= pairs) return;
  T* const to = static_cast<T*>(weights.data) + pair / weights.in_channels * weights.of_out +
                pair % weights.in_channels * weights.of_in;
  for (int tap = 0; tap < kTaps; ++tap) {
    float sum = 0;
    for (int64_t part = 0; part < parts; ++part) sum += sums[(part * kTaps + tap) * pairs + pair];
    device::store(to + tap / 3 * weights.of_row + tap % 3 * weights.of_column, sum);
  }
}

// ---- packing ----

constexpr int kPackSide = 32;

// `channels` are those with the zeros behind them. 32 pixels x 32 channels of one picture, turned in shared memory:
// pixels are neighbours where they are read, channels where they are written. Bits: an unsigned integer of the
// element's size.
template <class Bits>
__global__ void __launch_bounds__(kThreads)
    pack_pictures_kernel(const __grid_constant__ Pictures in, int64_t channels, Bits* out) {
  __shared__ Bits turned[kPackSide][kPackSide + 1];
  constexpr int kAtOnce = kThreads / kPackSide;
  const int lane = threadIdx.x % kPackSide, line = threadIdx.x / kPackSide;
  const int64_t pixels = in.height * in.width;
  const int64_t channel_blocks = (channels + kPackSide - 1) / kPackSide,
                pixel_blocks = (pixels + kPackSide - 1) / kPackSide;
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

// `in_channels` are those with the zeros behind them. A thread has the 9 taps of one pair of channels.
template <class Bits>
__global__ void __launch_bounds__(kThreads) pack_weights_kernel(const Weights weights, int64_t in_channels, Bits* out) {
  const int64_t pairs = weights.out_channels * in_channels;
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (pair >= pairs) return;
  const int64_t from_channel = pair % in_channels;
  const Bits* const from =
      static_cast<const Bits*>(weights.data) + pair / in_channels * weights.of_out + from_channel * weights.of_in;
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap)
    out[tap * pairs + pair] =
        from_channel < weights.in_channels ? from[tap / 3 * weights.of_row + tap % 3 * weights.of_column] : Bits{0};
}

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
  int rows, columns;
  double speed;
};
constexpr Candidate kCandidates[] = {{Huge::kRows, Huge::kColumns, 1.0},
                                     {Large::kRows, Large::kColumns, 0.95},
                                     {Medium::kRows, Medium::kColumns, 0.8},
                                     {Small::kRows, Small::kColumns, 0.65}};

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
  int device = 0, multiprocessors = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device) != cudaSuccess)
    throw std::runtime_error("CUDA: the device cannot be asked for its multiprocessors");
  Choice best;
  double least_time = -1;
  for (int c = 0; c < static_cast<int>(sizeof kCandidates / sizeof *kCandidates); ++c) {
    const Candidate& candidate = kCandidates[c];
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

template <class Math, class Tile>
void start_convolution(const Convolution& args, void* stream) {
  const int64_t blocks = args.cut.blocks() * ceil_div(args.output.channels, Tile::kColumns);
  constexpr size_t kShared = Tile::kSharedBytes + kEpilogueRows * Tile::kColumns * sizeof(float);
  launch("dilated_block", convolution_kernel<Math, Tile>, grid_of("dilated_block", blocks), Tile::kThreads, kShared,
         stream, args);
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
           grid_of("dilated_block (pack pictures)", blocks), kThreads, 0, stream, in, channels,
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
           grid_of("dilated_block (pack weights)", ceil_div(pairs, kThreads)), kThreads, 0, stream, weights, channels,
           static_cast<Bits*>(out));
  });
}

bool is_packed(const Pictures& pictures, int64_t element_bytes) {
  const int64_t pack = kPackBytes / element_bytes;
  return (pictures.of_channel == 1 || pictures.channels == 0) && pictures.channels % pack == 0 &&
         pictures.of_image % pack == 0 && pictures.of_row % pack == 0 && pictures.of_column % pack == 0 &&
         device::is_aligned<Pack<char, kPackBytes>>(pictures.data);
}

void dilated_block(const Taps& taps, const Pictures& input, const void* weights, const Pictures& output,
                   const Epilogue& epilogue, void* stream) {
  if (output.pixels() == 0 || output.channels == 0) return;
  Convolution args;
  args.input = input, args.output = output, args.weights = weights, args.epilogue = epilogue;
  for (int side : {0, 1}) {
    args.dilation[side] = static_cast<int>(taps.dilation[side]);
    args.padding[side] = static_cast<int>(taps.padding[side]);
  }
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
}

int64_t weight_gradient_splits(const Pictures& grad, const Weights& weights) {
  constexpr int64_t kMultiprocessors = 128;  // about as many as there are: what is there must not change the sums
  constexpr int64_t kLeastPixels = 256, kMostBytes = int64_t{64} << 20;
  const bool large = large_weight_gradient(weights);
  const int64_t blocks = large ? weight_gradient_blocks<Large>(weights) : weight_gradient_blocks<Small>(weights);
  const int64_t bytes = kTaps * weights.out_channels * weights.in_channels * 4;
  int64_t parts = kMultiprocessors * (large ? Large::kBlocks : Small::kBlocks) / blocks;
  for (const int64_t most : {ceil_div(grad.pixels(), kLeastPixels), kMostBytes / bytes})
    if (parts > most) parts = most;
  return parts < 1 ? 1 : parts;
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
           grid_of("dilated_block (sum parts)", ceil_div(weights.out_channels * weights.in_channels, kThreads)),
           kThreads, 0, stream, static_cast<const float*>(sums), args.parts, weights);
  });
}

}  // namespace cuda
}  // namespace inpaint_fast
