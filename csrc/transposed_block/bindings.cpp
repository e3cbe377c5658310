// Checks, allocation and registration of transposed_block. Its definition is inpaint_fast/ops/transposed_block.py; the
// kernels are those of dilated_block, run on the four quarters of the output.
#include "dilated_block/host.h"

namespace inpaint_fast {
namespace {

Tensor transposed_block_weights_cpu(const Tensor& weight) {
  return transformed_weights(weight, weights_of(weight, Stride::transposed_two));
}

Tensor transposed_block_cpu(const Tensor& input, const Tensor& weight, std::optional<Tensor> transformed,
                            std::optional<Tensor> bias, std::optional<Tensor> scale, std::optional<Tensor> shift,
                            int64_t activation, double slope, bool norm_first) {
  check_float(input, 4, "input");
  const Weights weights = weights_of(weight, Stride::transposed_two);
  STD_TORCH_CHECK(weights.in_channels == input.size(1), "weight: its input channels are not those of input");
  check_activation(activation);
  const int64_t height = input.size(2), width = input.size(3);
  if (!transformed) transformed = transformed_weights(weight, weights);
  check_transformed(*transformed, weights);

  const auto epilogue = epilogue_of(weights.out_channels, bias, scale, shift, norm_first);
  Tensor output = empty_pictures(input, input.size(0), weights.out_channels, 2 * height, 2 * width, true);
  DilatedBlock args;
  args.tiling = tiling_of(input.size(0), height, width, 1, 1, 1, 1);
  args.input = pictures_of(input), args.output = pictures_of(output);
  args.quarters = weights.quarters;
  args.weights = static_cast<const float*>(transformed->data_ptr());
  args.epilogue = epilogue.data();
  args.activation = static_cast<Activation>(activation), args.slope = static_cast<float>(slope);
  run(args, input);
  return output;
}

}  // namespace
}  // namespace inpaint_fast

STABLE_TORCH_LIBRARY_IMPL(inpaint_fast, CPU, m) {
  m.impl("transposed_block", TORCH_BOX(&inpaint_fast::transposed_block_cpu));
  m.impl("transposed_block_weights", TORCH_BOX(&inpaint_fast::transposed_block_weights_cpu));
}
