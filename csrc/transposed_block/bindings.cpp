// Checks, allocation and registration of transposed_block. Its definition is inpaint_fast/ops/transposed_block.py; the
// kernels are those of dilated_block, run on the four parities of the output's pixels.
#include "dilated_block/host.h"

namespace inpaint_fast {
namespace {

// weight(in, out, 4, 4) as the 3x3 weights of the parities. An output row 2i + a is the sum of input rows i + a - 1 and
// i + a, by taps 3 - a and 1 - a: in the 3 taps round row i, tap r = a, a + 1 is tap 3 + a - 2r of the 4.
Weights parity_weights_of(const Tensor& tensor) {
  check_float(tensor, 4, "weight");
  STD_TORCH_CHECK(tensor.size(2) == 4 && tensor.size(3) == 4, "weight: 4x4 taps are expected");
  Weights weights;
  weights.parities = kParities;
  weights.data = static_cast<float*>(tensor.data_ptr()) + 3 * (tensor.stride(2) + tensor.stride(3));
  weights.in_channels = tensor.size(0), weights.out_channels = tensor.size(1);
  weights.of_in = tensor.stride(0), weights.of_out = tensor.stride(1);
  weights.of_row = -2 * tensor.stride(2), weights.of_column = -2 * tensor.stride(3);
  return weights;
}

Tensor transposed_block_weights_cpu(const Tensor& weight) {
  return transformed_weights(weight, parity_weights_of(weight));
}

Tensor transposed_block_cpu(const Tensor& input, const Tensor& weight, std::optional<Tensor> transformed,
                            std::optional<Tensor> bias, std::optional<Tensor> scale, std::optional<Tensor> shift,
                            int64_t activation, double slope, bool norm_first) {
  check_float(input, 4, "input");
  const Weights weights = parity_weights_of(weight);
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
  args.parities = kParities;
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
