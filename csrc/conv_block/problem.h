// What the blocks of convolution, norm and activation compute, told in numbers and pointers: once for every device.
// Plain data without torch or CUDA headers.
#pragma once

#include <stdint.h>

#include "common/integers.h"
#include "common/words.h"

namespace inpaint_fast {

// Channels, sides, dilations and paddings are smaller: sums of a few of them fit 32 bits. Offsets always have 64.
constexpr int64_t kSideLimit = int64_t{1} << 28;

// A stack of pictures in memory: sizes, and strides in elements. of_channel == 1 is channels_last.
struct Pictures {
  void* data = nullptr;
  int64_t images = 0, channels = 0, height = 0, width = 0;
  int64_t of_image = 0, of_channel = 0, of_row = 0, of_column = 0;
  int64_t pixels() const { return images * height * width; }
  float* floats() const { return static_cast<float*>(data); }
};

// weight(out, in, row, column) at data + out * of_out + in * of_in + row * of_row + column * of_column.
struct Weights {
  void* data = nullptr;
  int64_t out_channels = 0, in_channels = 0;
  int64_t of_out = 0, of_in = 0, of_row = 0, of_column = 0;
  int taps = 3;  // along a side
  float* floats() const { return static_cast<float*>(data); }
};

// Channels swapped, taps in reverse order. Their convolution gives the gradient of the input.
inline Weights reversed(Weights weights, int64_t element_bytes) {
  const int64_t last = (weights.taps - 1) * (weights.of_row + weights.of_column);
  Weights result = weights;
  result.data = static_cast<char*>(weights.data) + last * element_bytes;
  result.out_channels = weights.in_channels, result.in_channels = weights.out_channels;
  result.of_out = weights.of_in, result.of_in = weights.of_out;
  result.of_row = -weights.of_row, result.of_column = -weights.of_column;
  return result;
}

// From one output pixel to the next; or of a transposed convolution, which doubles the sides.
enum class Stride : int { one, two, transposed_two };

// Of a convolution: vertical, horizontal. Stride 2 comes with the dilation that stands here and the padding of
// resampling_padding(), and its sides are told by resampled_side().
struct Geometry {
  int64_t dilation[2] = {1, 1}, padding[2] = {1, 1};
  Stride stride = Stride::one;
  // Of 3 taps and stride 1.
  int64_t output_side(int side, int64_t input) const { return input + 2 * (padding[side] - dilation[side]); }
  // Of the convolution with the reversed weights that gives the gradient of the input, which pads the output's gradient
  // by what the forward pass has not padded: less than nothing where that was more than 2 dilations.
  Geometry of_input_gradient() const {
    return {{dilation[0], dilation[1]}, {2 * dilation[0] - padding[0], 2 * dilation[1] - padding[1]}};
  }
};

// Zeros round the input of a convolution of stride 2; of a transposed one, pixels cut off round its result.
constexpr int resampling_padding(int taps) { return (taps - 1) / 2; }

// A side of what a convolution of stride 2, either way, makes of a side. 3 or 5 taps read the last one of an odd number
// of pixels, 4 do not.
inline int64_t resampled_side(Stride stride, int64_t taps, int64_t input) {
  return stride == Stride::two ? (input + taps % 2) / 2 : 2 * input;
}

// One number for each output channel; null: there is none.
struct Vector {
  const void* data = nullptr;
  int64_t stride = 0;
};

// What is made of the convolution's result x:
//   norm_act:  activation(scale * (x + bias) + shift)
//   act_norm:  scale * activation(x + bias) + shift
struct Epilogue {
  Vector bias, scale, shift;
  Activation activation = Activation::none;
  float slope = 0;
  Order order = Order::norm_act;
};

// The same with four numbers for each output channel, whatever the order:
//   scale_after * activation(scale_before * x + shift_before) + shift_after
enum EpilogueRow : int { kScaleBefore = 0, kShiftBefore, kScaleAfter, kShiftAfter, kEpilogueRows };

INPAINT_FAST_HOST_DEVICE inline void fold_epilogue(Order order, float bias, float scale, float shift,
                                                   float (&folded)[kEpilogueRows]) {
  const bool before = order == Order::norm_act;
  folded[kScaleBefore] = before ? scale : 1;
  folded[kShiftBefore] = before ? bias * scale + shift : bias;
  folded[kScaleAfter] = before ? 1 : scale;
  folded[kShiftAfter] = before ? 0 : shift;
}

}  // namespace inpaint_fast
