// Checks, allocation and registration of dilated_block. Its definition is inpaint_fast/ops/dilated_block.py, where the
// Python function has named every wrong argument already; the checks here keep a direct call of torch.ops from
// crashing.
#include <tuple>
#include <utility>

#include "common/torch.h"
#ifndef INPAINT_FAST_EMULATION  // which has kernels of the CUDA half alone
#include "dilated_block/host.h"
#endif
#ifdef INPAINT_FAST_CUDA
#include "common/cuda_device.h"
#include "dilated_block/cuda.h"
#endif

namespace inpaint_fast {
namespace {

#ifndef INPAINT_FAST_EMULATION

// ---- CPU ----

// The weights whose convolution gives the gradient of the input: channels swapped, taps in reverse.
Weights reversed(Weights weights) {
  weights.data += 2 * (weights.of_row + weights.of_column);
  std::swap(weights.out_channels, weights.in_channels);
  std::swap(weights.of_out, weights.of_in);
  weights.of_row = -weights.of_row, weights.of_column = -weights.of_column;
  return weights;
}

// `tf32` is for GPUs alone.

Tensor dilated_block_weights_cpu(const Tensor& weight) { return transformed_weights(weight, weights_of(weight)); }

Tensor dilated_block_cpu(const Tensor& input, const Tensor& weight, std::optional<Tensor> transformed,
                         std::optional<Tensor> bias, std::optional<Tensor> scale, std::optional<Tensor> shift,
                         int64_t dilation_h, int64_t dilation_w, int64_t padding_h, int64_t padding_w,
                         int64_t activation, double slope, bool norm_first, bool channels_last, bool tf32) {
  check_float(input, 4, "input");
  Block block{weights_of(weight), {dilation_h, dilation_w}, {padding_h, padding_w}};
  block.height = input.size(2) + 2 * (padding_h - dilation_h);
  block.width = input.size(3) + 2 * (padding_w - dilation_w);
  return run_block(block, input, weight, transformed, epilogue_of(block.weights, bias, scale, shift, norm_first),
                   activation, slope, channels_last);
}

// A convolution of the output's gradient with the reversed weights, padded by what the forward pass was not.
Tensor dilated_block_input_gradient_cpu(const Tensor& grad, const Tensor& weight, int64_t dilation_h,
                                        int64_t dilation_w, int64_t padding_h, int64_t padding_w, bool channels_last,
                                        bool tf32) {
  check_float(grad, 4, "grad");
  Block block{reversed(weights_of(weight)), {dilation_h, dilation_w}};
  block.padding[0] = 2 * dilation_h - padding_h, block.padding[1] = 2 * dilation_w - padding_w;
  block.height = grad.size(2) - 2 * (padding_h - dilation_h);
  block.width = grad.size(3) - 2 * (padding_w - dilation_w);
  return run_block(block, grad, weight, {}, epilogue_of(block.weights, {}, {}, {}, false), 0, 0, channels_last);
}

Tensor dilated_block_weight_gradient_cpu(const Tensor& grad, const Tensor& input, const Tensor& weight,
                                         int64_t dilation_h, int64_t dilation_w, int64_t padding_h, int64_t padding_w,
                                         bool tf32) {
  STD_TORCH_CHECK(input.dim() == 4 && grad.dim() == 4 && grad.size(2) == input.size(2) + 2 * (padding_h - dilation_h) &&
                      grad.size(3) == input.size(3) + 2 * (padding_w - dilation_w),
                  "grad: it is not of that input's output");
  const Block block{weights_of(weight), {dilation_h, dilation_w}, {padding_h, padding_w}, grad.size(2), grad.size(3)};
  return run_weight_gradient(block, grad, input, weight);
}

#endif  // INPAINT_FAST_EMULATION
#ifdef INPAINT_FAST_CUDA

// ---- CUDA ----

// float64 is PyTorch's: no GPU multiplies it fast enough for a kernel of ours to matter.
void check_half_or_float(const Tensor& tensor, int64_t dims, const char* name) {
  const ScalarKind kind = kind_of(tensor);
  STD_TORCH_CHECK(kind == ScalarKind::float32 || kind == ScalarKind::float16 || kind == ScalarKind::bfloat16, name,
                  ": its dtype is not float32, float16 or bfloat16");
  STD_TORCH_CHECK(tensor.dim() == dims, name, ": ", dims, " dimensions are expected, got ", tensor.dim());
}

void check_like(const Tensor& tensor, const Tensor& as, int64_t dims, const char* name) {
  check_half_or_float(tensor, dims, name);
  STD_TORCH_CHECK(kind_of(tensor) == kind_of(as), name, ": its dtype is not that of the pictures");
  check_same_device(tensor, as, name);
}

// The stride of a dimension of size 1 may be anything, and is 0 here.
cuda::Pictures cuda_pictures(const Tensor& tensor) {
  const auto stride = [&](int64_t d) { return tensor.size(d) == 1 ? 0 : tensor.stride(d); };
  cuda::Pictures pictures;
  pictures.data = tensor.data_ptr();
  pictures.images = tensor.size(0), pictures.channels = tensor.size(1);
  pictures.height = tensor.size(2), pictures.width = tensor.size(3);
  pictures.of_image = stride(0), pictures.of_channel = stride(1);
  pictures.of_row = stride(2), pictures.of_column = stride(3);
  return pictures;
}

cuda::Weights cuda_weights(const Tensor& tensor) {
  STD_TORCH_CHECK(tensor.size(2) == 3 && tensor.size(3) == 3, "weight: 3x3 taps are expected");
  cuda::Weights weights;
  weights.data = tensor.data_ptr();
  weights.out_channels = tensor.size(0), weights.in_channels = tensor.size(1);
  weights.of_out = tensor.stride(0), weights.of_in = tensor.stride(1);
  weights.of_row = tensor.stride(2), weights.of_column = tensor.stride(3);
  return weights;
}

// Channels swapped, taps in reverse: whose convolution gives the gradient of the input.
cuda::Weights reversed(cuda::Weights weights, int64_t element_bytes) {
  const int64_t last = 2 * (weights.of_row + weights.of_column);
  weights.data = static_cast<char*>(weights.data) + last * element_bytes;
  std::swap(weights.out_channels, weights.in_channels);
  std::swap(weights.of_out, weights.of_in);
  weights.of_row = -weights.of_row, weights.of_column = -weights.of_column;
  return weights;
}

cuda::Taps taps_of(const Tensor& pictures, int64_t dilation_h, int64_t dilation_w, int64_t padding_h, int64_t padding_w,
                   bool tf32) {
  const auto fits = [](int64_t x) { return -cuda::kSideLimit < x && x < cuda::kSideLimit; };
  STD_TORCH_CHECK(dilation_h >= 1 && dilation_w >= 1, "dilation: at least 1 is expected");
  STD_TORCH_CHECK(fits(dilation_h) && fits(dilation_w) && fits(padding_h) && fits(padding_w) &&
                      fits(pictures.size(1)) && fits(pictures.size(2)) && fits(pictures.size(3)),
                  "input: sides, channels, dilation and padding below 2^28 are expected");
  return {kind_of(pictures), tf32, {dilation_h, dilation_w}, {padding_h, padding_w}};
}

// Pictures as the kernels read them: where they lie, or a copy of them in `memory`.
cuda::Pictures packed_pictures(const Tensor& tensor, std::optional<Tensor>& memory, void* stream) {
  cuda::Pictures pictures = cuda_pictures(tensor);
  const int64_t element_bytes = bytes_of(kind_of(tensor));
  if (cuda::is_packed(pictures, element_bytes)) return pictures;
  const int64_t channels = cuda::packed_channels(pictures.channels, element_bytes);
  memory = torch::stable::new_empty(tensor, {pictures.pixels() * channels});
  cuda::pack_pictures(pictures, kind_of(tensor), memory->data_ptr(), stream);
  pictures.data = memory->data_ptr();
  pictures.channels = channels;
  pictures.of_channel = 1, pictures.of_column = channels, pictures.of_row = channels * pictures.width;
  pictures.of_image = pictures.of_row * pictures.height;
  return pictures;
}

Tensor packed_weights(const Tensor& like, const cuda::Weights& weights, void* stream) {
  const int64_t in_channels = cuda::packed_channels(weights.in_channels, bytes_of(kind_of(like)));
  Tensor packed = torch::stable::new_empty(like, {cuda::kTaps * weights.out_channels * in_channels});
  cuda::pack_weights(weights, kind_of(like), packed.data_ptr(), stream);
  return packed;
}

Tensor new_pictures(const Tensor& like, int64_t images, int64_t channels, int64_t height, int64_t width,
                    bool channels_last) {
  STD_TORCH_CHECK(height >= 0 && width >= 0, "input: smaller than the dilated weights, or the padding");
  if (!channels_last) return torch::stable::new_empty(like, {images, channels, height, width});
  const Tensor pixels_first = torch::stable::new_empty(like, {images, height, width, channels});
  return torch::stable::transpose(torch::stable::transpose(pixels_first, 1, 3), 2, 3);
}

Tensor dilated_block_weights_cuda(const Tensor& weight) {
  const OnDeviceOf device(weight);
  check_half_or_float(weight, 4, "weight");
  return packed_weights(weight, cuda_weights(weight), device.stream());
}

// Mean and biased variance of each channel of what the activation makes of the result, which itself has none.
struct MeanAndVariance {
  Tensor mean, var;
};

Tensor convolve_cuda(const Tensor& input, const Tensor& weight, std::optional<Tensor> transformed,
                     std::optional<Tensor> bias, std::optional<Tensor> scale, std::optional<Tensor> shift,
                     int64_t dilation_h, int64_t dilation_w, int64_t padding_h, int64_t padding_w, int64_t activation,
                     double slope, bool norm_first, bool channels_last, bool tf32, MeanAndVariance* wanted) {
  const OnDeviceOf device(input);
  check_half_or_float(input, 4, "input");
  check_like(weight, input, 4, "weight");
  const cuda::Taps taps = taps_of(input, dilation_h, dilation_w, padding_h, padding_w, tf32);
  const cuda::Weights weights = cuda_weights(weight);
  STD_TORCH_CHECK(weights.in_channels == input.size(1), "weight: its channels are not those of the input");
  STD_TORCH_CHECK(activation >= 0 && activation < kActivations, "activation: 0 to ", kActivations - 1, " is expected");
  Tensor output = new_pictures(input, input.size(0), weights.out_channels, input.size(2) + 2 * (padding_h - dilation_h),
                               input.size(3) + 2 * (padding_w - dilation_w), channels_last);
  if (output.numel() == 0) return output;
  cuda::Epilogue epilogue;
  const auto vector = [&](const std::optional<Tensor>& tensor, const char* name) -> cuda::Vector {
    if (!tensor) return {};
    check_like(*tensor, input, 1, name);
    STD_TORCH_CHECK(tensor->size(0) == weights.out_channels, name, ": one number for each output channel is expected");
    return {tensor->data_ptr(), tensor->stride(0)};
  };
  epilogue.bias = vector(bias, "bias"), epilogue.scale = vector(scale, "scale");
  epilogue.shift = vector(shift, "shift");
  epilogue.activation = static_cast<Activation>(activation), epilogue.slope = static_cast<float>(slope);
  epilogue.norm_first = norm_first;
  if (!transformed) transformed = packed_weights(weight, weights, device.stream());
  check_like(*transformed, input, 1, "transformed");
  const int64_t in_channels = cuda::packed_channels(weights.in_channels, bytes_of(taps.kind));
  STD_TORCH_CHECK(
      transformed->numel() == cuda::kTaps * weights.out_channels * in_channels && transformed->is_contiguous(),
      "transformed: it is not of this weight");
  std::optional<Tensor> memory;
  const cuda::Pictures pictures = packed_pictures(input, memory, device.stream());
  cuda::Statistics statistics;
  std::optional<Tensor> moments;
  if (wanted) {
    const int64_t size = cuda::moments_size(taps, pictures, cuda_pictures(output));
    moments = torch::stable::new_empty(input, {size}, ScalarType::Float);
    statistics = {static_cast<float*>(moments->data_ptr()), static_cast<double*>(wanted->mean.data_ptr()),
                  static_cast<double*>(wanted->var.data_ptr())};
  }
  cuda::dilated_block(taps, pictures, transformed->data_ptr(), cuda_pictures(output), epilogue, statistics,
                      device.stream());
  return output;
}

Tensor dilated_block_cuda(const Tensor& input, const Tensor& weight, std::optional<Tensor> transformed,
                          std::optional<Tensor> bias, std::optional<Tensor> scale, std::optional<Tensor> shift,
                          int64_t dilation_h, int64_t dilation_w, int64_t padding_h, int64_t padding_w,
                          int64_t activation, double slope, bool norm_first, bool channels_last, bool tf32) {
  return convolve_cuda(input, weight, transformed, bias, scale, shift, dilation_h, dilation_w, padding_h, padding_w,
                       activation, slope, norm_first, channels_last, tf32, nullptr);
}

std::tuple<Tensor, Tensor, Tensor> dilated_block_statistics_cuda(const Tensor& input, const Tensor& weight,
                                                                 std::optional<Tensor> bias, int64_t dilation_h,
                                                                 int64_t dilation_w, int64_t padding_h,
                                                                 int64_t padding_w, int64_t activation, double slope,
                                                                 bool channels_last, bool tf32) {
  const OnDeviceOf device(input);
  check_half_or_float(weight, 4, "weight");
  const auto zeros = [&] { return torch::stable::new_zeros(input, {weight.size(0)}, ScalarType::Double); };
  MeanAndVariance statistics{zeros(), zeros()};
  const Tensor output = convolve_cuda(input, weight, {}, bias, {}, {}, dilation_h, dilation_w, padding_h, padding_w,
                                      activation, slope, true, channels_last, tf32, &statistics);
  return {output, statistics.mean, statistics.var};
}

// A convolution of the output's gradient with the reversed weights, padded by what the forward pass was not.
Tensor dilated_block_input_gradient_cuda(const Tensor& grad, const Tensor& weight, int64_t dilation_h,
                                         int64_t dilation_w, int64_t padding_h, int64_t padding_w, bool channels_last,
                                         bool tf32) {
  const OnDeviceOf device(grad);
  check_half_or_float(grad, 4, "grad");
  check_like(weight, grad, 4, "weight");
  const cuda::Taps taps =
      taps_of(grad, dilation_h, dilation_w, 2 * dilation_h - padding_h, 2 * dilation_w - padding_w, tf32);
  const cuda::Weights weights = reversed(cuda_weights(weight), bytes_of(taps.kind));
  STD_TORCH_CHECK(weights.in_channels == grad.size(1), "grad: its channels are not the weight's output channels");
  Tensor output = new_pictures(grad, grad.size(0), weights.out_channels, grad.size(2) - 2 * (padding_h - dilation_h),
                               grad.size(3) - 2 * (padding_w - dilation_w), channels_last);
  if (output.numel() == 0) return output;
  const Tensor packed = packed_weights(weight, weights, device.stream());
  std::optional<Tensor> memory;
  const cuda::Pictures pictures = packed_pictures(grad, memory, device.stream());
  cuda::dilated_block(taps, pictures, packed.data_ptr(), cuda_pictures(output), {}, {}, device.stream());
  return output;
}

Tensor dilated_block_weight_gradient_cuda(const Tensor& grad, const Tensor& input, const Tensor& weight,
                                          int64_t dilation_h, int64_t dilation_w, int64_t padding_h, int64_t padding_w,
                                          bool tf32) {
  const OnDeviceOf device(input);
  check_half_or_float(input, 4, "input");
  check_like(grad, input, 4, "grad");
  check_like(weight, input, 4, "weight");
  const cuda::Taps taps = taps_of(input, dilation_h, dilation_w, padding_h, padding_w, tf32);
  Tensor grad_weight = torch::stable::empty_like(weight);
  const cuda::Weights weights = cuda_weights(grad_weight);
  STD_TORCH_CHECK(weights.out_channels == grad.size(1), "grad: its channels are not the weight's output channels");
  STD_TORCH_CHECK(weights.in_channels == input.size(1), "input: its channels are not the weight's input channels");
  STD_TORCH_CHECK(grad.size(0) == input.size(0) && grad.size(2) == input.size(2) + 2 * (padding_h - dilation_h) &&
                      grad.size(3) == input.size(3) + 2 * (padding_w - dilation_w),
                  "grad: it is not of that input's output");
  if (grad_weight.numel() == 0) return grad_weight;
  std::optional<Tensor> grad_memory, input_memory;
  const cuda::Pictures grads = packed_pictures(grad, grad_memory, device.stream());
  const cuda::Pictures pictures = packed_pictures(input, input_memory, device.stream());
  const int64_t splits = cuda::weight_gradient_splits(grads, weights);
  Tensor sums = torch::stable::new_empty(input, {splits * cuda::kTaps * weights.out_channels * weights.in_channels},
                                         ScalarType::Float);
  cuda::weight_gradient(taps, grads, pictures, weights, static_cast<float*>(sums.data_ptr()), device.stream());
  return grad_weight;
}

#endif  // INPAINT_FAST_CUDA

}  // namespace
}  // namespace inpaint_fast

#ifndef INPAINT_FAST_EMULATION
STABLE_TORCH_LIBRARY_IMPL(inpaint_fast, CPU, m) {
  m.impl("dilated_block", TORCH_BOX(&inpaint_fast::dilated_block_cpu));
  m.impl("dilated_block_weights", TORCH_BOX(&inpaint_fast::dilated_block_weights_cpu));
  m.impl("dilated_block_input_gradient", TORCH_BOX(&inpaint_fast::dilated_block_input_gradient_cpu));
  m.impl("dilated_block_weight_gradient", TORCH_BOX(&inpaint_fast::dilated_block_weight_gradient_cpu));
}
#endif
#ifdef INPAINT_FAST_CUDA
STABLE_TORCH_LIBRARY_IMPL(inpaint_fast, INPAINT_FAST_CUDA_KEY, m) {
  m.impl(INPAINT_FAST_CUDA_NAME("dilated_block"), TORCH_BOX(&inpaint_fast::dilated_block_cuda));
  m.impl(INPAINT_FAST_CUDA_NAME("dilated_block_statistics"), TORCH_BOX(&inpaint_fast::dilated_block_statistics_cuda));
  m.impl(INPAINT_FAST_CUDA_NAME("dilated_block_weights"), TORCH_BOX(&inpaint_fast::dilated_block_weights_cuda));
  m.impl(INPAINT_FAST_CUDA_NAME("dilated_block_input_gradient"),
         TORCH_BOX(&inpaint_fast::dilated_block_input_gradient_cuda));
  m.impl(INPAINT_FAST_CUDA_NAME("dilated_block_weight_gradient"),
         TORCH_BOX(&inpaint_fast::dilated_block_weight_gradient_cuda));
}
#endif
