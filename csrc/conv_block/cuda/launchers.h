// Launchers of the blocks' CUDA kernels: raw pointers, sizes and a stream; no torch header, no CUDA header.
// Every pointer is device memory; nothing here waits for the device.
#pragma once

#include "common/scalar_kind.h"
#include "conv_block/problem.h"

namespace inpaint_fast {
namespace cuda {

// Rows of channels are read and written 16 bytes at a time: 8 numbers of 16 bits, 4 of 32.
constexpr int64_t kPackBytes = 16;

// Channels with the zeros that fill up the last 16 bytes of a pixel.
inline constexpr int64_t packed_channels(int64_t channels, int64_t element_bytes) {
  return ceil_div(channels * element_bytes, kPackBytes) * kPackBytes / element_bytes;
}

// What the norm of a training step needs of a convolution's result, of each output channel.
struct Statistics {
  float* moments = nullptr;                // moments_size() of scratch; null: nothing is wanted
  double *mean = nullptr, *var = nullptr;  // written; the biased variance
};

// kind: float32, float16 or bfloat16, of every tensor; tf32: float32 is multiplied as TF32.
struct Multiplication {
  ScalarKind kind = ScalarKind::none;
  bool tf32 = false;
};

// out: NHWC without gaps, packed_channels() each, zeros behind the channels.
void pack_pictures(const Pictures& in, ScalarKind kind, void* out, void* stream);

// out: [taps][taps][out channels][packed_channels(in channels)], zeros behind the channels.
void pack_weights(const Weights& weights, ScalarKind kind, void* out, void* stream);

// True when the kernels can read these pictures as they are, without pack_pictures.
bool is_packed(const Pictures& pictures, int64_t element_bytes);

// y = scale_after * activation(scale_before * convolution + shift_before) + shift_after. input: is_packed(), its
// channels with the zeros behind them; weights: as pack_weights leaves them; output: any strides. Where statistics are
// wanted they are of activation(y) and y itself has no activation; there are no scale and shift. taps: along a side.
void convolve(const Multiplication& how, const Geometry& geometry, int taps, const Pictures& input, const void* weights,
              const Pictures& output, const Epilogue& epilogue, const Statistics& statistics, void* stream);

// Whose convolution runs on the current device: "sm_80" or "sm_90a". Throws where INPAINT_FAST_CUDA_CAPABILITY, which
// every call looks at, asks for what is not there.
const char* convolution_capability();
// The same of the weights' gradient, by INPAINT_FAST_CUDA_WEIGHT_GRADIENT.
const char* weight_gradient_capability();

// How many floats the moments of the blocks take.
int64_t moments_size(const Multiplication& how, const Geometry& geometry, int taps, const Pictures& input,
                     const Pictures& output);

// The gradient of the weights, into `weights`. grad (of the output) and input: is_packed(). sums: scratch of
// weight_gradient_splits() * taps * taps * out channels * in channels floats. Of a transposed convolution it is that of
// a strided one (geometry) whose input is the gradient and whose gradient is the input.
void weight_gradient(const Multiplication& how, const Geometry& geometry, const Pictures& grad, const Pictures& input,
                     const Weights& weights, float* sums, void* stream);

// In how many parts the pixels are summed: not by how much the device has, for the order of sums follows from it.
int64_t weight_gradient_splits(const Multiplication& how, const Pictures& grad, const Pictures& input,
                               const Weights& weights);

}  // namespace cuda
}  // namespace inpaint_fast
