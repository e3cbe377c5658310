// Checks, allocation and registration of dilated_block. Its definition is inpaint_fast/ops/dilated_block.py, where the
// Python function has named every wrong argument already; the checks here keep a direct call of torch.ops from
// crashing.
#include <algorithm>
#include <cstdlib>
#include <new>
#include <vector>

#include "common/result_memory.h"
#include "common/torch.h"
#include "dilated_block/tasks.h"

namespace inpaint_fast {
namespace {

// Bytes of transformed patches and gradient tiles of one chunk of the weight gradient.
constexpr int64_t kChunkBytes = int64_t{20} << 20;

void check_float(const Tensor& tensor, int64_t dims, const char* name) {
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Float, name, ": its dtype is not float32");
  STD_TORCH_CHECK(tensor.dim() == dims, name, ": ", dims, " dimensions are expected, got ", tensor.dim());
}

Pictures pictures_of(const Tensor& tensor) {
  Pictures pictures;
  pictures.data = static_cast<float*>(tensor.data_ptr());
  pictures.channels = tensor.size(1), pictures.height = tensor.size(2), pictures.width = tensor.size(3);
  pictures.of_image = tensor.stride(0), pictures.of_channel = tensor.stride(1);
  pictures.of_row = tensor.stride(2), pictures.of_column = tensor.stride(3);
  return pictures;
}

Weights weights_of(const Tensor& tensor) {
  check_float(tensor, 4, "weight");
  STD_TORCH_CHECK(tensor.size(2) == 3 && tensor.size(3) == 3, "weight: 3x3 taps are expected");
  Weights weights;
  weights.data = static_cast<float*>(tensor.data_ptr());
  weights.out_channels = tensor.size(0), weights.in_channels = tensor.size(1);
  weights.of_out = tensor.stride(0), weights.of_in = tensor.stride(1);
  weights.of_row = tensor.stride(2), weights.of_column = tensor.stride(3);
  return weights;
}

// The weights whose convolution gives the gradient of the input: channels swapped, taps in reverse.
Weights reversed(Weights weights) {
  weights.data += 2 * (weights.of_row + weights.of_column);
  std::swap(weights.out_channels, weights.in_channels);
  std::swap(weights.of_out, weights.of_in);
  weights.of_row = -weights.of_row, weights.of_column = -weights.of_column;
  return weights;
}

Tiling tiling_of(const Tensor& output, int64_t dilation_h, int64_t dilation_w, int64_t padding_h, int64_t padding_w) {
  STD_TORCH_CHECK(dilation_h >= 1 && dilation_w >= 1, "dilation: at least 1 is expected");
  Tiling tiling;
  tiling.images = output.size(0), tiling.height = output.size(2), tiling.width = output.size(3);
  tiling.dilation_h = dilation_h, tiling.dilation_w = dilation_w;
  tiling.padding_h = padding_h, tiling.padding_w = padding_w;
  tiling.cut();
  return tiling;
}

Tensor empty_pictures(const Tensor& like, int64_t images, int64_t channels, int64_t height, int64_t width,
                      bool channels_last) {
  if (!channels_last) return empty_result(like, {images, channels, height, width});
  const Tensor pixels_first = empty_result(like, {images, height, width, channels});
  return torch::stable::transpose(torch::stable::transpose(pixels_first, 1, 3), 2, 3);
}

// Memory of one thread for one task after the other, kept from call to call; it grows to what the largest needed.
float* workspace(int64_t floats) {
  struct Memory {
    float* data = nullptr;
    int64_t floats = 0;
    ~Memory() { std::free(data); }
  };
  static thread_local Memory memory;
  if (memory.floats < floats) {
    std::free(memory.data);
    memory.floats = 0;
    memory.data = static_cast<float*>(std::aligned_alloc(64, round_up(floats * 4, 64)));
    if (!memory.data) throw std::bad_alloc();
    memory.floats = floats;
  }
  return memory.data;
}

Tensor transformed_weights(const Tensor& like, const Weights& weights) {
  Tensor transformed = empty_result(like, {weights.transformed_floats()});
  const auto kernel = INPAINT_FAST_CPU_KERNEL(transform_weights);
  float* const data = static_cast<float*>(transformed.data_ptr());
  torch::stable::parallel_for(0, weights.blocks(), 1,
                              [&](int64_t begin, int64_t end) { kernel(weights, data, begin, end); });
  return transformed;
}

void run(DilatedBlock& args, const Tensor& like) {
  if (args.tiling.tiles() == 0 || args.output.channels == 0) return;
  Tensor zeros = torch::stable::new_zeros(like, {round_up(std::max<int64_t>(args.input.channels, 1), kPanel)});
  args.zeros = static_cast<const float*>(zeros.data_ptr());
  const Tasks tasks(args);
  const auto kernel = INPAINT_FAST_CPU_KERNEL(dilated_block);
  torch::stable::parallel_for(0, tasks.count(), 1, [&](int64_t begin, int64_t end) {
    float* const memory = workspace(args.workspace_floats());
    for (int64_t task = begin; task < end; ++task) kernel(args, tasks.begin(task), tasks.begin(task + 1), memory);
  });
}

// ---- the operators ----

Tensor dilated_block_weights_cpu(const Tensor& weight) { return transformed_weights(weight, weights_of(weight)); }

Tensor dilated_block_cpu(const Tensor& input, const Tensor& weight, std::optional<Tensor> transformed,
                         std::optional<Tensor> bias, std::optional<Tensor> scale, std::optional<Tensor> shift,
                         int64_t dilation_h, int64_t dilation_w, int64_t padding_h, int64_t padding_w,
                         int64_t activation, double slope, bool norm_first, bool channels_last) {
  check_float(input, 4, "input");
  const Weights weights = weights_of(weight);
  STD_TORCH_CHECK(weights.in_channels == input.size(1), "weight: its input channels are not those of input");
  STD_TORCH_CHECK(activation >= 0 && activation < kActivations, "activation: 0 to ", kActivations - 1, " is expected");
  const int64_t height = input.size(2) + 2 * (padding_h - dilation_h);
  const int64_t width = input.size(3) + 2 * (padding_w - dilation_w);
  STD_TORCH_CHECK(height >= 0 && width >= 0, "input: smaller than the dilated weights");
  if (!transformed) transformed = transformed_weights(weight, weights);
  check_float(*transformed, 1, "transformed");
  STD_TORCH_CHECK(transformed->numel() == weights.transformed_floats(), "transformed: it is not of this weight");

  const int64_t channels = round_up(weights.out_channels, kColumns);
  std::vector<float> epilogue(kEpilogueRows * channels, 0);
  const auto row = [&](EpilogueRow which) { return epilogue.data() + which * channels; };
  const auto read = [&](const std::optional<Tensor>& tensor, const char* name, float otherwise) {
    std::vector<float> values(weights.out_channels, otherwise);
    if (!tensor) return values;
    check_float(*tensor, 1, name);
    STD_TORCH_CHECK(tensor->size(0) == weights.out_channels, name, ": one number for each output channel is expected");
    const float* const data = static_cast<const float*>(tensor->data_ptr());
    for (int64_t c = 0; c < weights.out_channels; ++c) values[c] = data[c * tensor->stride(0)];
    return values;
  };
  const auto biases = read(bias, "bias", 0), scales = read(scale, "scale", 1), shifts = read(shift, "shift", 0);
  for (int64_t c = 0; c < weights.out_channels; ++c) {
    row(kScaleBefore)[c] = norm_first ? scales[c] : 1;
    row(kShiftBefore)[c] = norm_first ? biases[c] * scales[c] + shifts[c] : biases[c];
    row(kScaleAfter)[c] = norm_first ? 1 : scales[c];
    row(kShiftAfter)[c] = norm_first ? 0 : shifts[c];
  }

  Tensor output = empty_pictures(input, input.size(0), weights.out_channels, height, width, channels_last);
  DilatedBlock args;
  args.tiling = tiling_of(output, dilation_h, dilation_w, padding_h, padding_w);
  args.input = pictures_of(input), args.output = pictures_of(output);
  args.weights = static_cast<const float*>(transformed->data_ptr());
  args.epilogue = epilogue.data();
  args.activation = static_cast<Activation>(activation), args.slope = static_cast<float>(slope);
  run(args, input);
  return output;
}

// A convolution of the output's gradient with the reversed weights, padded by what the forward pass was not.
Tensor dilated_block_input_gradient_cpu(const Tensor& grad, const Tensor& weight, int64_t dilation_h,
                                        int64_t dilation_w, int64_t padding_h, int64_t padding_w, bool channels_last) {
  check_float(grad, 4, "grad");
  const Weights weights = reversed(weights_of(weight));
  STD_TORCH_CHECK(weights.in_channels == grad.size(1), "weight: its output channels are not those of grad");
  const int64_t height = grad.size(2) - 2 * (padding_h - dilation_h);
  const int64_t width = grad.size(3) - 2 * (padding_w - dilation_w);
  STD_TORCH_CHECK(height >= 0 && width >= 0, "grad: smaller than the padding");
  const Tensor transformed = transformed_weights(weight, weights);
  const int64_t channels = round_up(weights.out_channels, kColumns);
  std::vector<float> epilogue(kEpilogueRows * channels, 0);
  std::fill_n(epilogue.data() + kScaleBefore * channels, channels, 1.0f);
  std::fill_n(epilogue.data() + kScaleAfter * channels, channels, 1.0f);

  Tensor output = empty_pictures(grad, grad.size(0), weights.out_channels, height, width, channels_last);
  DilatedBlock args;
  args.tiling = tiling_of(output, dilation_h, dilation_w, 2 * dilation_h - padding_h, 2 * dilation_w - padding_w);
  args.input = pictures_of(grad), args.output = pictures_of(output);
  args.weights = static_cast<const float*>(transformed.data_ptr());
  args.epilogue = epilogue.data();
  run(args, grad);
  return output;
}

Tensor dilated_block_weight_gradient_cpu(const Tensor& grad, const Tensor& input, const Tensor& weight,
                                         int64_t dilation_h, int64_t dilation_w, int64_t padding_h, int64_t padding_w) {
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
  args.tiling = tiling_of(grad, dilation_h, dilation_w, padding_h, padding_w);
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
