// Loops that do one thing as fast as a processor can: what benchmarks/parts.py holds the kernels against.
#pragma once

#include <stdint.h>

#include "common/cpu_capability.h"

namespace inpaint_fast {

constexpr int kMostStreams = 4;       // of one kind
constexpr int64_t kStreamStep = 256;  // floats: streams are passed over in whole steps

// How streams are passed over: line by line of all of them; so, and asked for kAhead floats ahead; asked for in blocks
// of as many, one stream after the other; or written past the caches.
enum class Way : int64_t { plain, ahead, blocks, streamed };

constexpr int64_t kAhead = 1024;

// Arrays of floats that are passed over side by side, as the operands of an optimizer are: some are read alone, some
// read and, times `factor`, written again.
struct Streams {
  const float* read[kMostStreams];
  float* rewritten[kMostStreams];
  int reads = 0, rewrites = 0;
  float factor = 1;
  Way way = Way::plain;
};

// Fused multiply-adds on registers, in chains that do not wait for one another; returns how many numbers. `numbers` are
// two to begin with and receive a result.
INPAINT_FAST_DECLARE_CPU_KERNEL(int64_t multiply_adds(int64_t rounds, float* numbers))
// The same of a division by a root, as Adam's and RMSprop's.
INPAINT_FAST_DECLARE_CPU_KERNEL(int64_t roots(int64_t rounds, float* numbers))
// Floats [begin, end) of the streams, multiples of kStreamStep. Returns the sum of what is read alone.
// 1 to 4 streams are read and none is rewritten, or at most 1 is read and 1 to 3 are rewritten; a way other than the
// plain one is for 1 and 2 or 1 and 3, and `streamed` for rewritten streams that begin at a whole vector.
INPAINT_FAST_DECLARE_CPU_KERNEL(float pass(const Streams& streams, int64_t begin, int64_t end))

}  // namespace inpaint_fast
