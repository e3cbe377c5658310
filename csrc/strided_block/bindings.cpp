// Registration of strided_block. Its definition is inpaint_fast/ops/strided_block.py; the kernels are those of
// dilated_block, run on the four quarters of the input.
#include "dilated_block/host.h"

namespace inpaint_fast {
namespace {

Tensor strided_block_weights_cpu(const Tensor& weight) {
  return transformed_weights(weight, weights_of(weight, Stride::two));
}

Block block_of(const Tensor& input, const Tensor& weight) {
  check_float(input, 4, "input");
  Block block{weights_of(weight, Stride::two)};
  const int64_t odd = block.weights.quarters.taps == 3;  // the last row or column of an odd number is read
  block.height = (input.size(2) + odd) / 2, block.width = (input.size(3) + odd) / 2;
  return block;
}

Tensor strided_block_cpu(const Tensor& input, const Tensor& weight, std::optional<Tensor> transformed,
                         std::optional<Tensor> bias, std::optional<Tensor> scale, std::optional<Tensor> shift,
                         int64_t activation, double slope, bool norm_first) {
  const Block block = block_of(input, weight);
  return run_block(block, input, weight, transformed, epilogue_of(block.weights, bias, scale, shift, norm_first),
                   activation, slope, true);
}

Tensor strided_block_weight_gradient_cpu(const Tensor& grad, const Tensor& input, const Tensor& weight) {
  return run_weight_gradient(block_of(input, weight), grad, input, weight);
}

}  // namespace
}  // namespace inpaint_fast

STABLE_TORCH_LIBRARY_IMPL(inpaint_fast, CPU, m) {
  m.impl("strided_block", TORCH_BOX(&inpaint_fast::strided_block_cpu));
  m.impl("strided_block_weights", TORCH_BOX(&inpaint_fast::strided_block_weights_cpu));
  m.impl("strided_block_weight_gradient", TORCH_BOX(&inpaint_fast::strided_block_weight_gradient_cpu));
}
