// The arguments of the blocks' operators as problem.h has them, every one of them checked (common/checks.h).
#pragma once

#include <vector>

#include "common/checks.h"
#include "conv_block/problem.h"

namespace inpaint_fast {

// ---- tensors ----

// float64 is PyTorch's: no GPU multiplies it fast enough for a kernel of ours to matter, and Winograd's transforms on
// the CPU are float32's.
enum class Kinds { float32, float32_or_half };

inline void check_kind(const Tensor& tensor, Kinds kinds, const char* name) {
  const ScalarKind kind = kind_of(tensor);
  if (kinds == Kinds::float32) STD_TORCH_CHECK(kind == ScalarKind::float32, name, ": its dtype is not float32");
  STD_TORCH_CHECK(kind == ScalarKind::float32 || kind == ScalarKind::float16 || kind == ScalarKind::bfloat16, name,
                  ": its dtype is not float32, float16 or bfloat16");
}

inline void check_sides(const Tensor& tensor) {
  for (int64_t d = 1; d < 4; ++d)
    STD_TORCH_CHECK(tensor.size(d) < kSideLimit,
                    "input: sides, channels, dilation and padding below 2^28 are expected");
}

inline void check_pictures(const Tensor& tensor, Kinds kinds, const char* name) {
  check_kind(tensor, kinds, name);
  check_dims(tensor, 4, name);
  check_sides(tensor);
  check_product({tensor.size(0), tensor.size(1), tensor.size(2), tensor.size(3)}, name);
  check_memory(tensor, name);
}

// What comes with pictures has their dtype and lies on their device.
inline void check_beside(const Tensor& tensor, const Tensor& pictures, int64_t dims, const char* name) {
  check_same_kind(tensor, pictures, name, "the pictures");
  check_same_device(tensor, pictures, name, "the pictures");
  check_dims(tensor, dims, name);
}

// The stride of a dimension of size 1 may be anything, and is 0 here, but that of the channels tells the layout.
inline Pictures pictures_of(const Tensor& tensor) {
  const auto stride = [&](int64_t d) { return tensor.size(d) == 1 ? 0 : tensor.stride(d); };
  Pictures pictures;
  pictures.data = tensor.data_ptr();
  pictures.images = tensor.size(0), pictures.channels = tensor.size(1);
  pictures.height = tensor.size(2), pictures.width = tensor.size(3);
  pictures.of_image = stride(0), pictures.of_channel = tensor.stride(1);
  pictures.of_row = stride(2), pictures.of_column = stride(3);
  return pictures;
}

// weight(out, in, row, column), or for a transposed convolution weight(in, out, row, column). As many taps along both
// sides, from `least` to `most`.
inline Weights weights_of(const Tensor& tensor, bool transposed = false, int64_t least = 3, int64_t most = 3) {
  check_dims(tensor, 4, "weight");
  check_sides(tensor);
  const int64_t taps = tensor.size(2);
  STD_TORCH_CHECK(taps == tensor.size(3) && least <= taps && taps <= most, "weight: ", least, "x", least,
                  " taps are expected",
                  most == least ? ""
                  : most == 4   ? ", or 4x4"
                                : ", 4x4 or 5x5");
  const int64_t out = transposed ? 1 : 0;
  Weights weights;
  weights.data = tensor.data_ptr();
  weights.out_channels = tensor.size(out), weights.in_channels = tensor.size(1 - out);
  weights.of_out = tensor.stride(out), weights.of_in = tensor.stride(1 - out);
  weights.of_row = tensor.stride(2), weights.of_column = tensor.stride(3);
  weights.taps = static_cast<int>(taps);
  return weights;
}

// ---- the convolution ----

// One that is asked for, by problem.h; height and width are its result's.
struct Convolution {
  Weights weights;
  Geometry geometry;
  int64_t height = 0, width = 0;
};

// Dilations and paddings, vertical before horizontal.
inline Geometry geometry_of(const std::vector<int64_t>& numbers) {
  STD_TORCH_CHECK(numbers.size() == 4, "geometry: (dilation_h, dilation_w, padding_h, padding_w) is expected, got ",
                  numbers.size(), " numbers");
  const Geometry geometry{{numbers[0], numbers[1]}, {numbers[2], numbers[3]}};
  STD_TORCH_CHECK(geometry.dilation[0] >= 1 && geometry.dilation[1] >= 1, "dilation: at least 1 is expected");
  for (const int64_t number : numbers)
    STD_TORCH_CHECK(-kSideLimit < number && number < kSideLimit,
                    "input: sides, channels, dilation and padding below 2^28 are expected");
  return geometry;
}

inline void check_output(const Convolution& convolution, int64_t images, const char* name) {
  STD_TORCH_CHECK(convolution.height >= 0 && convolution.width >= 0, name,
                  ": smaller than the dilated weights, or the padding");
  check_product({images, convolution.weights.out_channels, convolution.height, convolution.width}, name);
}

// Of stride 1, of the input with the weight.
inline Convolution convolution_of(const Tensor& input, const Tensor& weight, const std::vector<int64_t>& numbers,
                                  Kinds kinds) {
  check_pictures(input, kinds, "input");
  check_beside(weight, input, 4, "weight");
  Convolution convolution;
  convolution.geometry = geometry_of(numbers);
  convolution.weights = weights_of(weight);
  convolution.height = convolution.geometry.output_side(0, input.size(2));
  convolution.width = convolution.geometry.output_side(1, input.size(3));
  STD_TORCH_CHECK(convolution.weights.in_channels == input.size(1),
                  "weight: its channels are not those of the pictures");
  check_output(convolution, input.size(0), "input");
  return convolution;
}

// weight(out, in, row, column), or transposed weight(in, out, row, column), of 3x3 taps or more.
inline Weights resampling_weights_of(const Tensor& weight, Stride stride, int most_taps) {
  return weights_of(weight, stride == Stride::transposed_two, 3, most_taps);
}

// Of stride 2, either way.
inline Convolution resampling_of(const Tensor& input, const Tensor& weight, Stride stride, Kinds kinds, int most_taps) {
  check_pictures(input, kinds, "input");
  check_beside(weight, input, 4, "weight");
  Convolution convolution;
  convolution.weights = resampling_weights_of(weight, stride, most_taps);
  const int64_t padding = resampling_padding(convolution.weights.taps);
  convolution.geometry = {{1, 1}, {padding, padding}, stride};
  STD_TORCH_CHECK(convolution.weights.in_channels == input.size(1),
                  "weight: its channels are not those of the pictures");
  convolution.height = resampled_side(stride, convolution.weights.taps, input.size(2));
  convolution.width = resampled_side(stride, convolution.weights.taps, input.size(3));
  check_output(convolution, input.size(0), "input");
  return convolution;
}

// The one that makes the gradient of the input out of that of the output.
inline Convolution input_gradient_of(const Tensor& grad, const Tensor& weight, const std::vector<int64_t>& numbers,
                                     Kinds kinds) {
  check_pictures(grad, kinds, "grad");
  check_beside(weight, grad, 4, "weight");
  const Geometry back = geometry_of(numbers).of_input_gradient();
  Convolution convolution;
  convolution.geometry = geometry_of({back.dilation[0], back.dilation[1], back.padding[0], back.padding[1]});
  convolution.weights = reversed(weights_of(weight), bytes_of(kind_of(weight)));
  convolution.height = back.output_side(0, grad.size(2)), convolution.width = back.output_side(1, grad.size(3));
  STD_TORCH_CHECK(convolution.weights.in_channels == grad.size(1),
                  "grad: its channels are not the weight's output channels");
  check_output(convolution, grad.size(0), "grad");
  return convolution;
}

// grad is that of the convolution's result.
inline void check_weight_gradient(const Convolution& convolution, const Tensor& grad, const Tensor& input) {
  check_beside(grad, input, 4, "grad");
  check_sides(grad);
  STD_TORCH_CHECK(convolution.weights.out_channels == grad.size(1),
                  "grad: its channels are not the weight's output channels");
  STD_TORCH_CHECK(
      grad.size(0) == input.size(0) && grad.size(2) == convolution.height && grad.size(3) == convolution.width,
      "grad: it is not of that input's output");
}

// ---- the epilogue ----

inline Epilogue epilogue_of(const Tensor& pictures, int64_t out_channels, const std::optional<Tensor>& bias,
                            const std::optional<Tensor>& scale, const std::optional<Tensor>& shift, int64_t activation,
                            double slope, Order order) {
  const auto vector = [&](const std::optional<Tensor>& tensor, const char* name) -> Vector {
    if (!tensor) return {};
    check_beside(*tensor, pictures, 1, name);
    STD_TORCH_CHECK(tensor->size(0) == out_channels, name, ": one number for each output channel is expected");
    return {tensor->data_ptr(), tensor->stride(0)};
  };
  return {vector(bias, "bias"),      vector(scale, "scale"),    vector(shift, "shift"),
          activation_of(activation), static_cast<float>(slope), order};
}

// The side of the tiles that weights are transformed for: of Winograd's algorithms on a CPU; GPUs have none.
inline void check_tile(int64_t tile) {
  STD_TORCH_CHECK(tile == 4 || tile == 6, "tile: 4 or 6 is expected, got ", tile);
}

// Weights as another call has transformed them.
inline void check_transformed(const Tensor& transformed, const Tensor& pictures, ScalarKind kind, int64_t numel) {
  STD_TORCH_CHECK(kind_of(transformed) == kind, "transformed: its dtype is not that of such weights");
  check_same_device(transformed, pictures, "transformed", "the pictures");
  check_dims(transformed, 1, "transformed");
  check_memory(transformed, "transformed");
  STD_TORCH_CHECK(transformed.numel() == numel && transformed.is_contiguous(), "transformed: it is not of this weight");
}

// ---- the result ----

// allocate(sizes, strides): a tensor of them.
template <class Allocate>
Tensor new_pictures(const Convolution& convolution, int64_t images, bool channels_last, const Allocate& allocate) {
  const std::array<int64_t, 4> sizes = {images, convolution.weights.out_channels, convolution.height,
                                        convolution.width};
  const std::array<int, 4> planes = {0, 1, 2, 3}, pixels = {0, 2, 3, 1};
  const std::array<int64_t, 4> strides = strides_of(sizes, channels_last ? pixels : planes);
  return allocate(Sizes(sizes.data(), 4), Sizes(strides.data(), 4));
}

}  // namespace inpaint_fast
