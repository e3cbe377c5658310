// Checks, allocation and registration of dilated_block. Its definition is inpaint_fast/ops/dilated_block.py, where the
// Python function has named every wrong argument already; the checks here keep a direct call of torch.ops from
// crashing.
#include "dilated_block/host.h"

namespace inpaint_fast {
namespace {

// Bytes of transformed patches and gradient tiles of one chunk of the weight gradient.
constexpr int64_t kChunkBytes = int64_t{20} << 20;

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
  check_float(grad, 4, "grad");
  check_float(input, 4, "input");
  Tensor grad_weight = torch::stable::empty_like(weight);
  const Weights weights = weights_of(grad_weight);
  STD_TORCH_CHECK(weights.out_channels == grad.size(1), "grad: its channels are not the weight's output channels");
  STD_TORCH_CHECK(weights.in_channels == input.size(1), "input: its channels are not the weight's input channels");
  STD_TORCH_CHECK(grad.size(0) == input.size(0) && grad.size(2) == input.size(2) + 2 * (padding_h - dilation_h) &&
                      grad.size(3) == input.size(3) + 2 * (padding_w - dilation_w),
                  "grad: it is not of that input's output");
  if (grad_weight.numel() == 0) return grad_weight;

  WeightGradient args;
  args.tiling = tiling_of(grad.size(0), grad.size(2), grad.size(3), dilation_h, dilation_w, padding_h, padding_w);
  args.input = pictures_of(input), args.grad = pictures_of(grad);
  const int64_t tiles = args.tiling.tiles(),
                tile_bytes = kSpectrum * 4 * (args.panels() * kPanel + args.blocks() * kColumns);
  // A multiple of 16, the depth of one step of the product.
  args.chunk = std::min(std::max(kChunkBytes / tile_bytes / kPanel, int64_t{1}) * kPanel, round_up(tiles, kPanel));
  Tensor zeros = torch::stable::new_zeros(input, {std::max(args.panels() * kPanel, args.blocks() * kColumns)});
  Tensor patches = empty_result(input, {args.patch_floats()});
  Tensor grad_tiles = empty_result(input, {args.grad_tile_floats()});
  Tensor sums = torch::stable::new_zeros(input, {args.sum_floats()});
  args.zeros = static_cast<const float*>(zeros.data_ptr());
  args.patches = static_cast<float*>(patches.data_ptr());
  args.grad_tiles = static_cast<float*>(grad_tiles.data_ptr());
  args.sums = static_cast<float*>(sums.data_ptr());

  const auto gather = INPAINT_FAST_CPU_KERNEL(gather_tiles);
  const auto add = INPAINT_FAST_CPU_KERNEL(add_products);
  for (args.begin = 0; args.begin < tiles; args.begin = args.end) {
    args.end = std::min(args.begin + args.chunk, tiles);
    const int64_t tasks = (args.end - args.begin + kTaskTiles - 1) / kTaskTiles;
    torch::stable::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
      float* const memory = workspace(args.workspace_floats(kTaskTiles));
      for (int64_t task = begin; task < end; ++task) {
        const int64_t first = args.begin + task * kTaskTiles;
        gather(args, first, std::min(first + kTaskTiles, args.end), memory);
      }
    });
    torch::stable::parallel_for(0, kSpectrum * args.blocks(), 1,
                                [&](int64_t begin, int64_t end) { add(args, begin, end); });
  }
  const auto transform = INPAINT_FAST_CPU_KERNEL(transform_sums);
  torch::stable::parallel_for(0, args.blocks(), 1,
                              [&](int64_t begin, int64_t end) { transform(args, weights, begin, end); });
  return grad_weight;
}

}  // namespace
}  // namespace inpaint_fast

STABLE_TORCH_LIBRARY_IMPL(inpaint_fast, CPU, m) {
  m.impl("dilated_block", TORCH_BOX(&inpaint_fast::dilated_block_cpu));
  m.impl("dilated_block_weights", TORCH_BOX(&inpaint_fast::dilated_block_weights_cpu));
  m.impl("dilated_block_input_gradient", TORCH_BOX(&inpaint_fast::dilated_block_input_gradient_cpu));
  m.impl("dilated_block_weight_gradient", TORCH_BOX(&inpaint_fast::dilated_block_weight_gradient_cpu));
}
