// Checks, allocation and registration of dilated_block. Its definition is inpaint_fast/ops/dilated_block.py, where the
// Python function has named every wrong argument already; the checks here keep a direct call of torch.ops from
// crashing.
#include "dilated_block/host.h"

namespace inpaint_fast {
namespace {

// The weights whose convolution gives the gradient of the input: channels swapped, taps in reverse.
Weights reversed(Weights weights) {
  weights.data += 2 * (weights.of_row + weights.of_column);
  std::swap(weights.out_channels, weights.in_channels);
  std::swap(weights.of_out, weights.of_in);
  weights.of_row = -weights.of_row, weights.of_column = -weights.of_column;
  return weights;
}

// ---- the operators; `tf32` is for GPUs alone ----

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

}  // namespace
}  // namespace inpaint_fast

STABLE_TORCH_LIBRARY_IMPL(inpaint_fast, CPU, m) {
  m.impl("dilated_block", TORCH_BOX(&inpaint_fast::dilated_block_cpu));
  m.impl("dilated_block_weights", TORCH_BOX(&inpaint_fast::dilated_block_weights_cpu));
  m.impl("dilated_block_input_gradient", TORCH_BOX(&inpaint_fast::dilated_block_input_gradient_cpu));
  m.impl("dilated_block_weight_gradient", TORCH_BOX(&inpaint_fast::dilated_block_weight_gradient_cpu));
}
