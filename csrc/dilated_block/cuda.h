// Launchers of dilated_block's CUDA kernels: raw pointers, sizes and a stream; no torch header, no CUDA header.
// Every pointer is device memory; nothing here waits for the device.
#pragma once

#include <stdint.h>

#include "common/activation_kind.h"
#include "common/scalar_kind.h"

namespace inpaint_fast {
namespace cuda {

// Rows of channels are read and written 16 bytes at a time: 8 numbers of 16 bits, 4 of 32.
constexpr int64_t kPackBytes = 16;
constexpr int64_t kTaps = 9;
// Sides, channels, dilations and paddings below this are added and compared in 32 bits; offsets always have 64.
constexpr int64_t kSideLimit = int64_t{1} << 28;

inline constexpr int64_t ceil_div(int64_t x, int64_t y) { return (x + y - 1) / y; }

// Channels with the zeros that fill up the last 16 bytes of a pixel.
inline constexpr int64_t packed_channels(int64_t channels, int64_t element_bytes) {
  return ceil_div(channels * element_bytes, kPackBytes) * kPackBytes / element_bytes;
}

// A stack of pictures: sizes, and strides in elements.
struct Pictures {
  void* data = nullptr;
  int64_t images = 0, channels = 0, height = 0, width = 0;
  int64_t of_image = 0, of_channel = 0, of_row = 0, of_column = 0;
  int64_t pixels() const { return images * height * width; }
};

// weight(out, in, row, column) at data + out * of_out + in * of_in + row * of_row + column * of_column. Swapped and
// negative strides give the weights of the input's gradient.
struct Weights {
  void* data = nullptr;
  int64_t out_channels = 0, in_channels = 0;
  int64_t of_out = 0, of_in = 0, of_row = 0, of_column = 0;
};

// One number for each output channel; null: there is none.
struct Vector {
  const void* data = nullptr;
  int64_t stride = 0;
};

struct Epilogue {
  Vector bias, scale, shift;
  Activation activation = Activation::none;
  float slope = 0;
  bool norm_first = true;
};

// What the norm of a training step needs of a convolution's result, of each output channel.
struct Statistics {
  float* moments = nullptr;                // moments_size() of scratch; null: nothing is wanted
  double *mean = nullptr, *var = nullptr;  // written; the biased variance
};

// What all kernels share. kind: float32, float16 or bfloat16, of every tensor; tf32: float32 is multiplied as TF32.
struct Taps {
  ScalarKind kind = ScalarKind::none;
  bool tf32 = false;
  int64_t dilation[2] = {1, 1}, padding[2] = {1, 1};  // vertical, horizontal; the padding may be negative
};

// out: NHWC without gaps, packed_channels() each, zeros behind the channels.
void pack_pictures(const Pictures& in, ScalarKind kind, void* out, void* stream);

// out: [9][out channels][packed_channels(in channels)], zeros behind the channels.
void pack_weights(const Weights& weights, ScalarKind kind, void* out, void* stream);

// True when the kernels can read these pictures as they are, without pack_pictures.
bool is_packed(const Pictures& pictures, int64_t element_bytes);

// y = scale_after * activation(scale_before * convolution + shift_before) + shift_after. input: is_packed(), its
// channels with the zeros behind them; weights: as pack_weights leaves them; output: any strides. Where statistics are
// wanted they are of activation(y) and y itself has no activation; there are no scale and shift.
void dilated_block(const Taps& taps, const Pictures& input, const void* weights, const Pictures& output,
                   const Epilogue& epilogue, const Statistics& statistics, void* stream);

// Whose convolution runs on the current device: "sm_80" or "sm_90a". Throws where INPAINT_FAST_CUDA_CAPABILITY, which
// every call looks at, asks for what is not there.
const char* convolution_capability();

// How many floats the moments of the blocks take.
int64_t moments_size(const Taps& taps, const Pictures& input, const Pictures& output);

// The gradient of the weights, into `weights`. grad (of the output) and input: is_packed(). sums: scratch of
// weight_gradient_splits() * 9 * out channels * in channels floats.
void weight_gradient(const Taps& taps, const Pictures& grad, const Pictures& input, const Weights& weights, float* sums,
                     void* stream);

// In how many parts the pixels are summed: by the shapes alone, for the order of sums follows from it.
int64_t weight_gradient_splits(const Pictures& grad, const Weights& weights);

}  // namespace cuda
}  // namespace inpaint_fast
