// What the host does for the operators whose kernels are those of dilated_block: checks, memory, tasks.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <new>
#include <vector>

#include "common/result_memory.h"
#include "common/torch.h"
#include "dilated_block/tasks.h"

namespace inpaint_fast {

inline void check_float(const Tensor& tensor, int64_t dims, const char* name) {
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Float, name, ": its dtype is not float32");
  STD_TORCH_CHECK(tensor.dim() == dims, name, ": ", dims, " dimensions are expected, got ", tensor.dim());
}

inline Pictures pictures_of(const Tensor& tensor) {
  Pictures pictures;
  pictures.data = static_cast<float*>(tensor.data_ptr());
  pictures.channels = tensor.size(1), pictures.height = tensor.size(2), pictures.width = tensor.size(3);
  pictures.of_image = tensor.stride(0), pictures.of_channel = tensor.stride(1);
  pictures.of_row = tensor.stride(2), pictures.of_column = tensor.stride(3);
  return pictures;
}

// weight(out, in, row, column), or for a transposed convolution weight(in, out, row, column).
inline Weights weights_of(const Tensor& tensor, Stride stride = Stride::one) {
  check_float(tensor, 4, "weight");
  const bool transposed = stride == Stride::transposed_two;
  const int64_t taps = tensor.size(2), out = transposed ? 1 : 0;
  STD_TORCH_CHECK(tensor.size(3) == taps && (taps == 3 || (taps == 4 && stride != Stride::one)),
                  "weight: 3x3 taps are expected, or 4x4 with stride 2");
  Weights weights;
  weights.quarters = {stride, static_cast<int>(taps)};
  weights.data = static_cast<float*>(tensor.data_ptr());
  weights.out_channels = tensor.size(out), weights.in_channels = tensor.size(1 - out);
  weights.of_out = tensor.stride(out), weights.of_in = tensor.stride(1 - out);
  weights.of_row = tensor.stride(2), weights.of_column = tensor.stride(3);
  return weights;
}

inline Tiling tiling_of(int64_t images, int64_t height, int64_t width, int64_t dilation_h, int64_t dilation_w,
                        int64_t padding_h, int64_t padding_w) {
  STD_TORCH_CHECK(dilation_h >= 1 && dilation_w >= 1, "dilation: at least 1 is expected");
  Tiling tiling;
  tiling.images = images, tiling.height = height, tiling.width = width;
  tiling.dilation_h = dilation_h, tiling.dilation_w = dilation_w;
  tiling.padding_h = padding_h, tiling.padding_w = padding_w;
  return tiling;
}

inline Tensor empty_pictures(const Tensor& like, int64_t images, int64_t channels, int64_t height, int64_t width,
                             bool channels_last) {
  if (!channels_last) return empty_result(like, {images, channels, height, width});
  const Tensor pixels_first = empty_result(like, {images, height, width, channels});
  return torch::stable::transpose(torch::stable::transpose(pixels_first, 1, 3), 2, 3);
}

// Memory of one thread for one task after the other, kept from call to call; it grows to what the largest needed.
inline float* workspace(int64_t floats) {
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

inline Tensor transformed_weights(const Tensor& like, const Weights& weights) {
  Tensor transformed = empty_result(like, {weights.transformed_floats()});
  const auto kernel = INPAINT_FAST_CPU_KERNEL(transform_weights);
  float* const data = static_cast<float*>(transformed.data_ptr());
  torch::stable::parallel_for(0, weights.quarters.of_output() * weights.blocks(), 1,
                              [&](int64_t begin, int64_t end) { kernel(weights, data, begin, end); });
  return transformed;
}

// [kEpilogueRows][channels]; what is absent changes nothing.
inline std::vector<float> epilogue_of(const Weights& weights, const std::optional<Tensor>& bias,
                                      const std::optional<Tensor>& scale, const std::optional<Tensor>& shift,
                                      bool norm_first) {
  const int64_t out_channels = weights.out_channels, channels = round_up(out_channels, kColumns);
  std::vector<float> epilogue(kEpilogueRows * channels, 0);
  const auto row = [&](EpilogueRow which) { return epilogue.data() + which * channels; };
  const auto read = [&](const std::optional<Tensor>& tensor, const char* name, float otherwise) {
    std::vector<float> values(out_channels, otherwise);
    if (!tensor) return values;
    check_float(*tensor, 1, name);
    STD_TORCH_CHECK(tensor->size(0) == out_channels, name, ": one number for each output channel is expected");
    const float* const data = static_cast<const float*>(tensor->data_ptr());
    for (int64_t c = 0; c < out_channels; ++c) values[c] = data[c * tensor->stride(0)];
    return values;
  };
  const auto biases = read(bias, "bias", 0), scales = read(scale, "scale", 1), shifts = read(shift, "shift", 0);
  for (int64_t c = 0; c < out_channels; ++c) {
    row(kScaleBefore)[c] = norm_first ? scales[c] : 1;
    row(kShiftBefore)[c] = norm_first ? biases[c] * scales[c] + shifts[c] : biases[c];
    row(kScaleAfter)[c] = norm_first ? 1 : scales[c];
    row(kShiftAfter)[c] = norm_first ? 0 : shifts[c];
  }
  return epilogue;
}

// What an operator computes, besides its epilogue.
struct Block {
  Weights weights;
  int64_t dilation[2] = {1, 1}, padding[2] = {1, 1};
  int64_t height = 0, width = 0;  // of the output
};

// `transformed` are the weights, or nothing, and then `weight` is transformed here.
inline Tensor run_block(const Block& block, const Tensor& input, const Tensor& weight,
                        std::optional<Tensor> transformed, const std::vector<float>& epilogue, int64_t activation,
                        double slope, bool channels_last) {
  const Weights& weights = block.weights;
  STD_TORCH_CHECK(weights.in_channels == input.size(1), "weight: its channels are not those of the pictures");
  STD_TORCH_CHECK(activation >= 0 && activation < kActivations, "activation: 0 to ", kActivations - 1, " is expected");
  STD_TORCH_CHECK(block.height >= 0 && block.width >= 0, "input: smaller than the dilated weights, or the padding");
  if (!transformed) transformed = transformed_weights(weight, weights);
  check_float(*transformed, 1, "transformed");
  STD_TORCH_CHECK(transformed->numel() == weights.transformed_floats(), "transformed: it is not of this weight");

  const int64_t images = input.size(0), quarters = weights.quarters.of_output() == 1 ? 1 : 2;  // along a side
  Tensor output = empty_pictures(input, images, weights.out_channels, block.height, block.width, channels_last);
  DilatedBlock args;
  args.tiling = tiling_of(images, block.height / quarters, block.width / quarters, block.dilation[0], block.dilation[1],
                          block.padding[0], block.padding[1]);
  args.input = pictures_of(input), args.output = pictures_of(output);
  args.quarters = weights.quarters;
  args.weights = static_cast<const float*>(transformed->data_ptr());
  args.epilogue = epilogue.data();
  args.activation = static_cast<Activation>(activation), args.slope = static_cast<float>(slope);
  if (output.numel() == 0) return output;

  Tensor zeros = torch::stable::new_zeros(input, {round_up(std::max<int64_t>(args.input.channels, 1), kPanel)});
  args.zeros = static_cast<const float*>(zeros.data_ptr());
  const Tasks tasks(args);
  const auto kernel = INPAINT_FAST_CPU_KERNEL(dilated_block);
  torch::stable::parallel_for(0, tasks.cost(), 1, [&](int64_t from, int64_t to) {
    float* const memory = workspace(tasks.workspace_floats());
    tasks.run(from, to,
              [&](const DilatedBlock& args, int64_t begin, int64_t end) { kernel(args, begin, end, memory); });
  });
  return output;
}

// Bytes of transformed patches and gradient tiles of one chunk of the weight gradient.
constexpr int64_t kChunkBytes = int64_t{20} << 20;

// The gradient of block.weights, in a tensor like `weight`; `grad` is that of the output.
inline Tensor run_weight_gradient(const Block& block, const Tensor& grad, const Tensor& input, const Tensor& weight) {
  check_float(grad, 4, "grad");
  check_float(input, 4, "input");
  Tensor grad_weight = torch::stable::empty_like(weight);
  const Weights weights = weights_of(grad_weight, block.weights.quarters.stride);
  STD_TORCH_CHECK(weights.out_channels == grad.size(1), "grad: its channels are not the weight's output channels");
  STD_TORCH_CHECK(weights.in_channels == input.size(1), "input: its channels are not the weight's input channels");
  STD_TORCH_CHECK(grad.size(0) == input.size(0) && grad.size(2) == block.height && grad.size(3) == block.width,
                  "grad: it is not of that input's output");
  if (grad_weight.numel() == 0) return grad_weight;

  WeightGradient args;
  args.quarters = weights.quarters;
  const int64_t sides = args.quarters.of_output() == 1 ? 1 : 2;
  const Tiling picture = tiling_of(grad.size(0), block.height / sides, block.width / sides, block.dilation[0],
                                   block.dilation[1], block.padding[0], block.padding[1]);
  const std::vector<Tiling> tilings = tilings_of(picture);
  args.input = pictures_of(input), args.grad = pictures_of(grad);
  int64_t most_tiles = 0;
  for (const Tiling& tiling : tilings) most_tiles = std::max(most_tiles, tiling.tiles());
  const int64_t tile_bytes =
      kSpectrum * 4 *
      (args.quarters.of_input() * args.panels() * kPanel + args.quarters.of_output() * args.blocks() * kColumns);
  // A multiple of 16, the depth of one step of the product.
  args.chunk = std::min(std::max(kChunkBytes / tile_bytes / kPanel, int64_t{1}) * kPanel, round_up(most_tiles, kPanel));
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
  for (const Tiling& tiling : tilings) {
    args.tiling = tiling;
    const int64_t tiles = tiling.tiles(), products = args.find_terms() * args.blocks();
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
      torch::stable::parallel_for(0, products, 1, [&](int64_t begin, int64_t end) { add(args, begin, end); });
    }
  }
  const auto transform = INPAINT_FAST_CPU_KERNEL(transform_sums);
  torch::stable::parallel_for(0, args.blocks(), 1,
                              [&](int64_t begin, int64_t end) { transform(args, weights, begin, end); });
  return grad_weight;
}

}  // namespace inpaint_fast
