// Runs the kernels of the blocks on the CPU: memory, tasks. Arguments have been checked (conv_block/arguments.h).
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "common/amx.h"
#include "common/result_memory.h"
#include "conv_block/arguments.h"
#include "conv_block/cpu/tasks.h"

namespace inpaint_fast {

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

// At the start of a cache line, as torch's memory is.
inline Tensor zeros_for(const Tensor& like, int64_t floats) {
  const Tensor zeros = new_vector(like, floats);
  memset(zeros.data_ptr(), 0, sizeof(float) * floats);
  return zeros;
}

// What multiplies split numbers; null: products are float32's.
inline MultiplySplit* multiply_split(bool split) {
  if (!split) return nullptr;
#ifdef INPAINT_FAST_AMX
  if (amx() == Amx::tiles) return multiply_by_amx;
#endif
  STD_TORCH_CHECK(amx() == Amx::stand_in, "matrix_units: False is expected, for there is no AMX");
  return multiply_by_stand_in;
}

// In float32, or split for AMX, in bfloat16.
inline Tensor transformed_weights(const Tensor& like, const QuarteredWeights& weights, bool split) {
  Tensor transformed = empty_result(like, {weights.transformed_numbers(false)}, {int64_t{1}}), result = transformed;
  if (split)
    result = empty_result(new_vector(like, 0, ScalarType::BFloat16), {weights.transformed_numbers(true)}, {int64_t{1}});
  const auto transform = INPAINT_FAST_CPU_KERNEL(transform_weights);
  const auto split_planes = INPAINT_FAST_CPU_KERNEL(split_weights);
  float* const data = static_cast<float*>(transformed.data_ptr());
  const auto run = [&](int64_t begin, int64_t end) {
    transform(weights, data, begin, end);
    if (!split) return;
    const int64_t first = weights.planes_before(begin), planes = weights.planes_before(end) - first;
    split_planes(data + first * weights.plane(), planes, weights.in_channels,
                 static_cast<uint16_t*>(result.data_ptr()) + first * weights.split_plane());
  };
  torch::stable::parallel_for(0, weights.quarters.of_output() * weights.blocks(), 1, run);
  return result;
}

// [kEpilogueRows][channels, rounded up to 32].
inline std::vector<float> folded(const Epilogue& epilogue, int64_t channels) {
  const int64_t padded = round_up(channels, kColumns);
  std::vector<float> rows(kEpilogueRows * padded, 0);
  const auto number = [](const Vector& vector, int64_t channel, float otherwise) {
    return vector.data ? static_cast<const float*>(vector.data)[channel * vector.stride] : otherwise;
  };
  for (int64_t c = 0; c < channels; ++c) {
    float of_channel[kEpilogueRows];
    fold_epilogue(epilogue.order, number(epilogue.bias, c, 0), number(epilogue.scale, c, 1),
                  number(epilogue.shift, c, 0), of_channel);
    for (int row = 0; row < kEpilogueRows; ++row) rows[row * padded + c] = of_channel[row];
  }
  return rows;
}

// A convolution of this stride; with stride 2, either way, its geometry is that between quarters.
struct Block : Convolution {
  Quarters quarters;
  Block(const Convolution& convolution, Quarters quarters = {}) : Convolution(convolution), quarters(quarters) {}
  QuarteredWeights quartered() const { return {weights, quarters}; }
  // The same in tiles of another side.
  Block in_tiles(int tile) const {
    Block block = *this;
    block.quarters.tile = tile;
    return block;
  }
  // That which is fastest for pictures of that layout; weights are transformed for one call.
  Block in_best_tiles(int64_t images, bool channels_last) const {
    if (quarters.stride != Stride::one) return *this;
    return in_tiles(tile_of(picture(images), weights.in_channels, weights.out_channels, channels_last, false));
  }
  // Of the result, or of one of its quarters.
  Tiling picture(int64_t images) const {
    const int64_t sides = quarters.of_output() == 1 ? 1 : 2;
    Tiling tiling;
    tiling.images = images, tiling.height = height / sides, tiling.width = width / sides;
    tiling.dilation_h = geometry.dilation[0], tiling.dilation_w = geometry.dilation[1];
    tiling.padding_h = geometry.padding[0], tiling.padding_w = geometry.padding[1];
    tiling.tile = quarters.tile;
    return tiling;
  }
};

// Pictures of that block, in planes of channels.
inline Tensor in_planes(const Block& block, const Tensor& pictures) {
  const Tensor planes = new_pictures(block, pictures.size(0), false, [&](Sizes sizes, Sizes strides) {
    return empty_result(pictures, sizes, strides);
  });
  const Pictures from = pictures_of(pictures), to = pictures_of(planes);
  const auto kernel = INPAINT_FAST_CPU_KERNEL(copy_rows);
  torch::stable::parallel_for(0, from.images * from.height, 1,
                              [&](int64_t begin, int64_t end) { kernel(from, to, begin, end); });
  return planes;
}

// `transformed` are the weights, or nothing, and then `weight` is transformed here. split: for products on AMX.
inline Tensor run_block(Block block, const Tensor& input, const Tensor& weight, std::optional<Tensor> transformed,
                        const Epilogue& epilogue, bool channels_last, bool split) {
  MultiplySplit* const multiply = multiply_split(split);
  if (!transformed) {
    block = block.in_best_tiles(input.size(0), channels_last && pictures_of(input).of_channel == 1);
  } else if (block.quarters.stride == Stride::one) {  // their number tells the tile
    const Block larger = block.in_tiles(6);
    if (transformed->numel() == larger.quartered().transformed_numbers(split)) block = larger;
  }
  const QuarteredWeights weights = block.quartered();
  if (transformed) {
    const ScalarKind kind = split ? ScalarKind::bfloat16 : ScalarKind::float32;
    check_transformed(*transformed, input, kind, weights.transformed_numbers(split));
  }
  // Quarters, whose pixels lie apart, are slow to write as planes of channels: they are copied in the end.
  const bool copied = !channels_last && weights.quarters.of_output() > 1;
  Tensor output = new_pictures(block, input.size(0), channels_last || copied,
                               [&](Sizes sizes, Sizes strides) { return empty_result(input, sizes, strides); });
  if (output.numel() == 0) return copied ? in_planes(block, output) : output;
  if (!transformed) transformed = transformed_weights(weight, weights, split);
  const std::vector<float> rows = folded(epilogue, weights.out_channels);
  ConvBlock args;
  args.tiling = block.picture(input.size(0));
  args.input = pictures_of(input), args.output = pictures_of(output);
  args.quarters = weights.quarters;
  args.weights = transformed->data_ptr(), args.multiply_split = multiply;
  args.epilogue = rows.data();
  args.activation = epilogue.activation, args.slope = epilogue.slope;

  const Tensor zeros = zeros_for(input, round_up(std::max<int64_t>(args.input.channels, 1), kPanel));
  args.zeros = static_cast<const float*>(zeros.data_ptr());
  const Tasks tasks(args);
  const auto kernel = INPAINT_FAST_CPU_KERNEL(conv_block);
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), tasks.count());
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    float* const memory = workspace(tasks.workspace());
    tasks.run(next, [&](const ConvBlock& args, const Task& task) { kernel(args, task, memory); });
  });
  return copied ? in_planes(block, output) : output;
}

// The gradient of block's weights, in a tensor like `weight`; `grad` is that of the output.
inline Tensor run_weight_gradient(Block block, const Tensor& grad, const Tensor& input, const Tensor& weight) {
  check_weight_gradient(block, grad, input);
  block = block.in_best_tiles(grad.size(0), pictures_of(input).of_channel == 1 && pictures_of(grad).of_channel == 1);
  Tensor grad_weight = new_like(weight);
  if (grad_weight.numel() == 0) return grad_weight;
  const bool transposed = block.quarters.stride == Stride::transposed_two;
  const QuarteredWeights weights{weights_of(grad_weight, transposed, weight.size(2), weight.size(2)), block.quarters};

  WeightGradient args;
  args.quarters = block.quarters;
  const std::vector<Tiling> tilings = tilings_of(block.picture(grad.size(0)));
  args.input = pictures_of(input), args.grad = pictures_of(grad);
  int64_t most_tiles = 0;
  for (const Tiling& tiling : tilings) most_tiles = std::max(most_tiles, tiling.tiles());
  const int64_t tile_bytes =
      args.quarters.spectrum() * 4 *
      (args.quarters.of_input() * args.panels() * kPanel + args.quarters.of_output() * args.blocks() * kColumns);
  // A multiple of 16, the depth of one step of the product.
  args.chunk =
      std::min(std::max(blocking().chunk / tile_bytes / kPanel, int64_t{1}) * kPanel, round_up(most_tiles, kPanel));
  const Tensor zeros = zeros_for(input, std::max(args.panels() * kPanel, args.blocks() * kColumns));
  Tensor patches = empty_result(input, {args.patch_floats()}, {int64_t{1}});
  Tensor grad_tiles = empty_result(input, {args.grad_tile_floats()}, {int64_t{1}});
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
      const int64_t tasks = ceil_div(args.end - args.begin, kTaskTiles);
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
