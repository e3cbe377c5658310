// Registration of transposed_block. Its definition is inpaint_fast/ops/transposed_block.py; the kernels are those of
// dilated_block, run on the four quarters of the output.
#include "dilated_block/host.h"

namespace inpaint_fast {
namespace {

Tensor transposed_block_weights_cpu(const Tensor& weight) {
  return transformed_weights(weight, weights_of(weight, Stride::transposed_two));
}

Block block_of(const Tensor& input, const Tensor& weight) {
  check_float(input, 4, "input");
  Block block{weights_of(weight, Stride::transposed_two)};
  block.height = 2 * input.size(2), block.width = 2 * input.size(3);
  return block;
}

Tensor transposed_block_cpu(const Tensor& input, const Tensor& weight, std::optional<Tensor> transformed,
                            std::optional<Tensor> bias, std::optional<Tensor> scale, std::optional<Tensor> shift,
                            int64_t activation, double slope, bool norm_first) {
  const Block block = block_of(input, weight);
  return run_block(block, input, weight, transformed, epilogue_of(block.weights, bias, scale, shift, norm_first),
                   activation, slope, true);
}

Tensor transposed_block_weight_gradient_cpu(const Tensor& grad, const Tensor& input, const Tensor& weight) {
  return run_weight_gradient(block_of(input, weight), grad, input, weight);
}

}  // namespace
}  // namespace inpaint_fast

STABLE_TORCH_LIBRARY_IMPL(inpaint_fast, CPU, m) {
  m.impl("transposed_block", TORCH_BOX(&inpaint_fast::transposed_block_cpu));
  m.impl("transposed_block_weights", TORCH_BOX(&inpaint_fast::transposed_block_weights_cpu));
  m.impl("transposed_block_weight_gradient", TORCH_BOX(&inpaint_fast::transposed_block_weight_gradient_cpu));
}
