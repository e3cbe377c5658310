// The three blocks as one matrix product: which pixels of the input, by which weights, a pixel of the output is the sum
// of. Along a side, of a result whose pixels are taken in one or two phases (even and odd ones):
//
//   output[phases * o + phase] = sum over k < count: input[stride * o + first + k * step] * weight[tap + k * tap_step]
//
//   dilated      1 phase,  stride 1: every tap, a dilation apart
//   strided      1 phase,  stride 2: every tap
//   transposed   2 phases, stride 1: every second tap, backwards; 4 taps give each phase 2, 3 give one phase 1
//
// Outside of the input there are zeros. The weights' gradient of a transposed convolution is that of a strided one
// whose two pictures have changed places.
#pragma once

#include "conv_block/problem.h"

namespace inpaint_fast {
namespace cuda {

constexpr int kMostTaps = 4;  // along a side
constexpr int kMostPhases = 2;

struct Taps {
  int count = 0, first = 0, step = 1, tap = 0, tap_step = 1;
  // Where tap k of output pixel 0 lies.
  INPAINT_FAST_HOST_DEVICE constexpr int at(int k) const { return first + k * step; }
};

inline int stride_of(const Geometry& geometry) { return geometry.stride == Stride::two ? 2 : 1; }
inline int phases_of(const Geometry& geometry) { return geometry.stride == Stride::transposed_two ? 2 : 1; }

// side: 0 vertical, 1 horizontal.
inline Taps taps_of(const Geometry& geometry, int taps, int side, int phase) {
  const int dilation = static_cast<int>(geometry.dilation[side]), padding = static_cast<int>(geometry.padding[side]);
  if (geometry.stride != Stride::transposed_two) return {taps, -padding, dilation, 0, 1};
  // Output pixel 2o + phase is given input pixel o + i by tap phase + padding - 2i: from the last such tap on.
  const int first = -((taps - 1 - phase - padding) / 2), last = (phase + padding) / 2;
  return {last - first + 1, first, 1, phase + padding - 2 * first, -2};
}

}  // namespace cuda
}  // namespace inpaint_fast
