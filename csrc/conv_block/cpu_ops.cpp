// Checks and registration of dilated_block, strided_block and transposed_block on the CPU. Their definitions are the
// files of these names in inpaint_fast/ops.
#include "conv_block/cpu/run.h"

namespace inpaint_fast {
namespace {

constexpr Kinds kKinds = Kinds::float32;

void check_weight(const Tensor& weight) {
  check_kind(weight, kKinds, "weight");
  check_memory(weight, "weight");
}

// split: on AMX, of the sums of bfloat16 numbers that float32 numbers are; weight gradients never are.

// ---- dilated_block: stride 1 ----

// tile: 4, F(4x4, 3x3), or 6, F(6x6, 3x3)
Tensor dilated_block_weights(const Tensor& weight, int64_t tile, bool split) {  // [C_out, C_in, 3, 3]
  check_weight(weight);
  check_tile(tile);
  Quarters quarters;
  quarters.tile = static_cast<int>(tile);
  return transformed_weights(weight, {weights_of(weight), quarters}, split);
}

Tensor dilated_block(const Tensor& input,                   // [N, C_in, H, W]
                     const Tensor& weight,                  // [C_out, C_in, 3, 3]
                     std::optional<Tensor> transformed,     // as dilated_block_weights gives them
                     std::optional<Tensor> bias,            // [C_out]
                     std::optional<Tensor> scale,           // [C_out]
                     std::optional<Tensor> shift,           // [C_out]
                     const std::vector<int64_t>& geometry,  // dilation_h, dilation_w, padding_h, padding_w
                     int64_t activation, double slope, int64_t order, bool channels_last, bool split) {
  const Block block = convolution_of(input, weight, geometry, kKinds);
  const Epilogue epilogue =
      epilogue_of(input, block.weights.out_channels, bias, scale, shift, activation, slope, order_of(order));
  return run_block(block, input, weight, transformed, epilogue, channels_last, split);
}

Tensor dilated_block_input_gradient(const Tensor& grad,    // [N, C_out, H', W']
                                    const Tensor& weight,  // [C_out, C_in, 3, 3]
                                    const std::vector<int64_t>& geometry, bool channels_last, bool split) {
  return run_block(input_gradient_of(grad, weight, geometry, kKinds), grad, weight, {}, {}, channels_last, split);
}

Tensor dilated_block_weight_gradient(const Tensor& grad,    // [N, C_out, H', W']
                                     const Tensor& input,   // [N, C_in, H, W]
                                     const Tensor& weight,  // [C_out, C_in, 3, 3]
                                     const std::vector<int64_t>& geometry, bool split) {
  return run_weight_gradient(convolution_of(input, weight, geometry, kKinds), grad, input, weight);
}

// ---- strided_block and transposed_block: 3x3, 4x4 or 5x5 taps, stride 2, on the four quarters of a picture ----

constexpr int kMostTaps = 5;

template <Stride kStride>
Block block_of(const Tensor& input, const Tensor& weight) {
  Convolution convolution = resampling_of(input, weight, kStride, kKinds, kMostTaps);
  convolution.geometry = {};  // between quarters
  return {convolution, {kStride, convolution.weights.taps}};
}

template <Stride kStride>
Tensor resampling_weights(const Tensor& weight,
                          bool split) {  // [C_out, C_in, 3 to 5, the same]; transposed: [C_in, C_out, ...]
  check_weight(weight);
  const Weights weights = resampling_weights_of(weight, kStride, kMostTaps);
  return transformed_weights(weight, {weights, {kStride, weights.taps}}, split);
}

template <Stride kStride>
Tensor resampling(const Tensor& input,                // [N, C_in, H, W]
                  const Tensor& weight,               // [C_out, C_in, 3 to 5, the same]; transposed: [C_in, C_out, ...]
                  std::optional<Tensor> transformed,  // as resampling_weights gives them
                  std::optional<Tensor> bias,         // [C_out]
                  std::optional<Tensor> scale,        // [C_out]
                  std::optional<Tensor> shift,        // [C_out]
                  int64_t activation, double slope, int64_t order, bool channels_last, bool split) {
  const Block block = block_of<kStride>(input, weight);
  const Epilogue epilogue =
      epilogue_of(input, block.weights.out_channels, bias, scale, shift, activation, slope, order_of(order));
  return run_block(block, input, weight, transformed, epilogue, channels_last, split);
}

template <Stride kStride>
Tensor resampling_weight_gradient(const Tensor& grad,    // [N, C_out, H', W']
                                  const Tensor& input,   // [N, C_in, H, W]
                                  const Tensor& weight,  // [C_out, C_in, 3 to 5, the same]
                                  bool split) {
  return run_weight_gradient(block_of<kStride>(input, weight), grad, input, weight);
}

}  // namespace
}  // namespace inpaint_fast

STABLE_TORCH_LIBRARY_IMPL(inpaint_fast, CPU, m) {
  using namespace inpaint_fast;
  m.impl("dilated_block", TORCH_BOX(&dilated_block));
  m.impl("dilated_block_forward", TORCH_BOX(&dilated_block));
  m.impl("dilated_block_weights", TORCH_BOX(&dilated_block_weights));
  m.impl("dilated_block_input_gradient", TORCH_BOX(&dilated_block_input_gradient));
  m.impl("dilated_block_weight_gradient", TORCH_BOX(&dilated_block_weight_gradient));
  m.impl("strided_block", TORCH_BOX(&resampling<Stride::two>));
  m.impl("strided_block_forward", TORCH_BOX(&resampling<Stride::two>));
  m.impl("strided_block_weights", TORCH_BOX(&resampling_weights<Stride::two>));
  m.impl("strided_block_weight_gradient", TORCH_BOX(&resampling_weight_gradient<Stride::two>));
  m.impl("transposed_block", TORCH_BOX(&resampling<Stride::transposed_two>));
  m.impl("transposed_block_forward", TORCH_BOX(&resampling<Stride::transposed_two>));
  m.impl("transposed_block_weights", TORCH_BOX(&resampling_weights<Stride::transposed_two>));
  m.impl("transposed_block_weight_gradient", TORCH_BOX(&resampling_weight_gradient<Stride::transposed_two>));
}
