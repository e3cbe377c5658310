// Loops that do one thing as fast as a processor can: what benchmarks/parts.py holds the kernels against.
#pragma once

#include <stdint.h>

#include "common/cpu_capability.h"

namespace inpaint_fast {

constexpr int kMostStreams = 4;       // of one kind
constexpr int64_t kStreamStep = 256;  // floats: streams are passed over in whole steps

// Arrays of floats that are passed over side by side, as the operands of an optimizer are: some are read alone, some
// read and, times `factor`, written again.
struct Streams {
  const float* read[kMostStreams];
  float* rewritten[kMostStreams];
  int reads = 0, rewrites = 0;
  float factor = 1;
};

// Fused multiply-adds on registers, in chains that do not wait for one another; returns how many numbers. `numbers` are
// two to begin with and receive a result.
INPAINT_FAST_DECLARE_CPU_KERNEL(int64_t multiply_adds(int64_t rounds, float* numbers))
// The same of a division by a root, as Adam's and RMSprop's.
INPAINT_FAST_DECLARE_CPU_KERNEL(int64_t roots(int64_t rounds, float* numbers))
// Floats [begin, end) of the streams, multiples of kStreamStep. Returns the sum of what is read alone.
// 1 to 4 streams are read and none is rewritten, or at most 1 is read and 1 to 3 are rewritten.
INPAINT_FAST_DECLARE_CPU_KERNEL(float pass(const Streams& streams, int64_t begin, int64_t end))

}  // namespace inpaint_fast
