// Checks, allocation and registration of the three blocks on CUDA. Their definitions are in
// inpaint_fast/ops/conv_block.
#include <tuple>

#include "common/cuda_device.h"
#include "conv_block/arguments.h"
#include "conv_block/cuda/launchers.h"
#include "conv_block/cuda/taps.h"

namespace inpaint_fast {
namespace {

constexpr Kinds kKinds = Kinds::float32_or_half;

Tensor new_output(const Convolution& convolution, const Tensor& input, bool channels_last) {
  return new_pictures(convolution, input.size(0), channels_last, [&](Sizes sizes, Sizes strides) {
    return new_strided(input, sizes, strides, input.scalar_type());
  });
}

int64_t packed_numel(const Tensor& like, const Weights& weights) {
  return weights.taps * weights.taps * weights.out_channels *
         cuda::packed_channels(weights.in_channels, bytes_of(kind_of(like)));
}

// Pictures as the kernels read them: where they lie, or a copy of them in `memory`.
Pictures packed_pictures(const Tensor& tensor, std::optional<Tensor>& memory, void* stream) {
  Pictures pictures = pictures_of(tensor);
  const int64_t element_bytes = bytes_of(kind_of(tensor));
  if (cuda::is_packed(pictures, element_bytes)) return pictures;
  const int64_t channels = cuda::packed_channels(pictures.channels, element_bytes);
  memory = new_vector(tensor, pictures.pixels() * channels);
  cuda::pack_pictures(pictures, kind_of(tensor), memory->data_ptr(), stream);
  pictures.data = memory->data_ptr();
  pictures.channels = channels;
  pictures.of_channel = 1, pictures.of_column = channels, pictures.of_row = channels * pictures.width;
  pictures.of_image = pictures.of_row * pictures.height;
  return pictures;
}

Tensor packed_weights(const Tensor& like, const Weights& weights, void* stream) {
  Tensor packed = new_vector(like, packed_numel(like, weights));
  cuda::pack_weights(weights, kind_of(like), packed.data_ptr(), stream);
  return packed;
}

// Everything has been checked. statistics: where they are wanted, their mean and var.
Tensor convolve(const OnDeviceOf& device, const Convolution& convolution, const Tensor& input, const Tensor& weight,
                std::optional<Tensor> transformed, const Epilogue& epilogue, bool channels_last, bool tf32,
                cuda::Statistics statistics = {}) {
  Tensor output = new_output(convolution, input, channels_last);
  if (output.numel() == 0) return output;
  if (!transformed) transformed = packed_weights(weight, convolution.weights, device.stream());
  std::optional<Tensor> memory, moments;
  const cuda::Multiplication how{kind_of(input), tf32};
  const int taps = convolution.weights.taps;
  const Pictures pictures = packed_pictures(input, memory, device.stream());
  if (statistics.mean) {
    const int64_t size = cuda::moments_size(how, convolution.geometry, taps, pictures, pictures_of(output));
    moments = new_vector(input, size, ScalarType::Float);
    statistics.moments = static_cast<float*>(moments->data_ptr());
  }
  cuda::convolve(how, convolution.geometry, taps, pictures, transformed->data_ptr(), pictures_of(output), epilogue,
                 statistics, device.stream());
  return output;
}

// ---- of every block ----

Tensor block_weights(const Tensor& weight, const Weights& weights) {
  const OnDeviceOf device(weight);
  return packed_weights(weight, weights, device.stream());
}

void check_weight(const Tensor& weight) {
  check_kind(weight, kKinds, "weight");
  check_memory(weight, "weight");
}

Tensor block(const Convolution& convolution, const Tensor& input, const Tensor& weight,
             const std::optional<Tensor>& transformed, const Epilogue& epilogue, bool channels_last, bool tf32) {
  if (transformed) check_transformed(*transformed, input, kind_of(input), packed_numel(weight, convolution.weights));
  const OnDeviceOf device(input);
  return convolve(device, convolution, input, weight, transformed, epilogue, channels_last, tf32);
}

// y and, of each channel of what the activation makes of it, mean and biased variance. y itself has no activation.
typedef std::tuple<Tensor, Tensor, Tensor> WithStatistics;

WithStatistics block_statistics(const Convolution& convolution, const Tensor& input, const Tensor& weight,
                                const std::optional<Tensor>& bias, int64_t activation, double slope, bool channels_last,
                                bool tf32) {
  const int64_t channels = convolution.weights.out_channels;
  const Epilogue epilogue = epilogue_of(input, channels, bias, {}, {}, activation, slope, Order::norm_act);
  const OnDeviceOf device(input);
  const auto zeros = [&] { return torch::stable::new_zeros(input, {channels}, ScalarType::Double); };
  const Tensor mean = zeros(), var = zeros();  // as they stay where there are no pixels
  const Tensor output =
      convolve(device, convolution, input, weight, {}, epilogue, channels_last, tf32,
               {nullptr, static_cast<double*>(mean.data_ptr()), static_cast<double*>(var.data_ptr())});
  return {output, mean, var};
}

// The gradient of a weight; geometry, grad and input: of a convolution that is not transposed.
Tensor block_weight_gradient(const Geometry& geometry, const Tensor& grad, const Tensor& input, const Tensor& weight,
                             bool tf32) {
  const OnDeviceOf device(input);
  Tensor grad_weight = new_like(weight);
  if (grad_weight.numel() == 0) return grad_weight;
  const Weights weights = weights_of(grad_weight, false, weight.size(2), weight.size(2));
  std::optional<Tensor> grad_memory, input_memory;
  const Pictures grads = packed_pictures(grad, grad_memory, device.stream());
  const Pictures pictures = packed_pictures(input, input_memory, device.stream());
  const cuda::Multiplication how{kind_of(input), tf32};
  const int64_t size = cuda::weight_gradient_splits(how, grads, pictures, weights) * weights.taps * weights.taps *
                       weights.out_channels * weights.in_channels;
  Tensor sums = new_vector(input, size, ScalarType::Float);
  cuda::weight_gradient(how, geometry, grads, pictures, weights, static_cast<float*>(sums.data_ptr()), device.stream());
  return grad_weight;
}

// ---- dilated_block ----

// `tile` is for CPUs alone.
Tensor dilated_block_weights(const Tensor& weight, int64_t tile, bool tf32) {  // [C_out, C_in, 3, 3]
  check_weight(weight);
  check_tile(tile);
  return block_weights(weight, weights_of(weight));
}

Tensor dilated_block(const Tensor& input,                   // [N, C_in, H, W]
                     const Tensor& weight,                  // [C_out, C_in, 3, 3]
                     std::optional<Tensor> transformed,     // as dilated_block_weights gives them
                     std::optional<Tensor> bias,            // [C_out]
                     std::optional<Tensor> scale,           // [C_out]
                     std::optional<Tensor> shift,           // [C_out]
                     const std::vector<int64_t>& geometry,  // dilation_h, dilation_w, padding_h, padding_w
                     int64_t activation, double slope, int64_t order, bool channels_last, bool tf32) {
  const Convolution convolution = convolution_of(input, weight, geometry, kKinds);
  const Epilogue epilogue =
      epilogue_of(input, convolution.weights.out_channels, bias, scale, shift, activation, slope, order_of(order));
  return block(convolution, input, weight, transformed, epilogue, channels_last, tf32);
}

WithStatistics dilated_block_statistics(const Tensor& input,                   // [N, C_in, H, W]
                                        const Tensor& weight,                  // [C_out, C_in, 3, 3]
                                        std::optional<Tensor> bias,            // [C_out]
                                        const std::vector<int64_t>& geometry,  // as dilated_block has it
                                        int64_t activation, double slope, bool channels_last, bool tf32) {
  const Convolution convolution = convolution_of(input, weight, geometry, kKinds);
  return block_statistics(convolution, input, weight, bias, activation, slope, channels_last, tf32);
}

Tensor dilated_block_input_gradient(const Tensor& grad,    // [N, C_out, H', W']
                                    const Tensor& weight,  // [C_out, C_in, 3, 3]
                                    const std::vector<int64_t>& geometry, bool channels_last, bool tf32) {
  return block(input_gradient_of(grad, weight, geometry, kKinds), grad, weight, {}, {}, channels_last, tf32);
}

Tensor dilated_block_weight_gradient(const Tensor& grad,    // [N, C_out, H', W']
                                     const Tensor& input,   // [N, C_in, H, W]
                                     const Tensor& weight,  // [C_out, C_in, 3, 3]
                                     const std::vector<int64_t>& geometry, bool tf32) {
  const Convolution convolution = convolution_of(input, weight, geometry, kKinds);
  check_weight_gradient(convolution, grad, input);
  return block_weight_gradient(convolution.geometry, grad, input, weight, tf32);
}

// ---- strided_block and transposed_block: weight [C_out, C_in, 3 or 4, the same]; transposed: [C_in, C_out, ...] ----

template <Stride kStride>
Tensor resampling_weights(const Tensor& weight, bool tf32) {
  check_weight(weight);
  return block_weights(weight, resampling_weights_of(weight, kStride, cuda::kMostTaps));
}

template <Stride kStride>
Tensor resampling(const Tensor& input,  // [N, C_in, H, W]
                  const Tensor& weight,
                  std::optional<Tensor> transformed,  // as resampling_weights gives them
                  std::optional<Tensor> bias,         // [C_out]
                  std::optional<Tensor> scale,        // [C_out]
                  std::optional<Tensor> shift,        // [C_out]
                  int64_t activation, double slope, int64_t order, bool channels_last, bool tf32) {
  const Convolution convolution = resampling_of(input, weight, kStride, kKinds, cuda::kMostTaps);
  const Epilogue epilogue =
      epilogue_of(input, convolution.weights.out_channels, bias, scale, shift, activation, slope, order_of(order));
  return block(convolution, input, weight, transformed, epilogue, channels_last, tf32);
}

template <Stride kStride>
WithStatistics resampling_statistics(const Tensor& input,  // [N, C_in, H, W]
                                     const Tensor& weight,
                                     std::optional<Tensor> bias,  // [C_out]
                                     int64_t activation, double slope, bool channels_last, bool tf32) {
  const Convolution convolution = resampling_of(input, weight, kStride, kKinds, cuda::kMostTaps);
  return block_statistics(convolution, input, weight, bias, activation, slope, channels_last, tf32);
}

template <Stride kStride>
Tensor resampling_weight_gradient(const Tensor& grad,   // [N, C_out, H', W']
                                  const Tensor& input,  // [N, C_in, H, W]
                                  const Tensor& weight, bool tf32) {
  const Convolution convolution = resampling_of(input, weight, kStride, kKinds, cuda::kMostTaps);
  check_weight_gradient(convolution, grad, input);
  Geometry strided = convolution.geometry;
  strided.stride = Stride::two;
  if (kStride == Stride::two) return block_weight_gradient(strided, grad, input, weight, tf32);
  return block_weight_gradient(strided, input, grad, weight, tf32);  // it leads from the larger picture to the smaller
}

}  // namespace
}  // namespace inpaint_fast

STABLE_TORCH_LIBRARY_IMPL(inpaint_fast, INPAINT_FAST_CUDA_KEY, m) {
  using namespace inpaint_fast;
  m.impl(INPAINT_FAST_CUDA_NAME("dilated_block"), TORCH_BOX(&dilated_block));
  m.impl(INPAINT_FAST_CUDA_NAME("dilated_block_forward"), TORCH_BOX(&dilated_block));
  m.impl(INPAINT_FAST_CUDA_NAME("dilated_block_statistics"), TORCH_BOX(&dilated_block_statistics));
  m.impl(INPAINT_FAST_CUDA_NAME("dilated_block_statistics_forward"), TORCH_BOX(&dilated_block_statistics));
  m.impl(INPAINT_FAST_CUDA_NAME("dilated_block_weights"), TORCH_BOX(&dilated_block_weights));
  m.impl(INPAINT_FAST_CUDA_NAME("dilated_block_input_gradient"), TORCH_BOX(&dilated_block_input_gradient));
  m.impl(INPAINT_FAST_CUDA_NAME("dilated_block_weight_gradient"), TORCH_BOX(&dilated_block_weight_gradient));
  m.impl(INPAINT_FAST_CUDA_NAME("strided_block"), TORCH_BOX(&resampling<Stride::two>));
  m.impl(INPAINT_FAST_CUDA_NAME("strided_block_forward"), TORCH_BOX(&resampling<Stride::two>));
  m.impl(INPAINT_FAST_CUDA_NAME("strided_block_statistics"), TORCH_BOX(&resampling_statistics<Stride::two>));
  m.impl(INPAINT_FAST_CUDA_NAME("strided_block_statistics_forward"), TORCH_BOX(&resampling_statistics<Stride::two>));
  m.impl(INPAINT_FAST_CUDA_NAME("strided_block_weights"), TORCH_BOX(&resampling_weights<Stride::two>));
  m.impl(INPAINT_FAST_CUDA_NAME("strided_block_weight_gradient"), TORCH_BOX(&resampling_weight_gradient<Stride::two>));
  m.impl(INPAINT_FAST_CUDA_NAME("transposed_block"), TORCH_BOX(&resampling<Stride::transposed_two>));
  m.impl(INPAINT_FAST_CUDA_NAME("transposed_block_forward"), TORCH_BOX(&resampling<Stride::transposed_two>));
  m.impl(INPAINT_FAST_CUDA_NAME("transposed_block_statistics"),
         TORCH_BOX(&resampling_statistics<Stride::transposed_two>));
  m.impl(INPAINT_FAST_CUDA_NAME("transposed_block_statistics_forward"),
         TORCH_BOX(&resampling_statistics<Stride::transposed_two>));
  m.impl(INPAINT_FAST_CUDA_NAME("transposed_block_weights"), TORCH_BOX(&resampling_weights<Stride::transposed_two>));
  m.impl(INPAINT_FAST_CUDA_NAME("transposed_block_weight_gradient"),
         TORCH_BOX(&resampling_weight_gradient<Stride::transposed_two>));
}
