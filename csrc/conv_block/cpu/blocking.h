// To which sizes the Winograd kernels cut their work: the processor's caches. No torch header.
//
// A task transforms the patches of some tiles, and for one block of 32 output channels after the other multiplies them
// by all of its weights. So weights are read once a task, from the last-level cache or from memory, and patches once a
// block: the more tiles a task has, the fewer bytes come from afar for a multiplication, as long as the core's own
// cache holds the patches. Cutting changes no result but that of a weight gradient, whose sums begin anew with a chunk.
#pragma once

#include <stdint.h>

#include <algorithm>
#include <atomic>

namespace inpaint_fast {

// Bytes of data caches: the last one that a core has for itself, and the one that cores share.
struct Caches {
  int64_t core = int64_t{1} << 20;
  int64_t last = int64_t{32} << 20;
};

// Of a last-level cache no more is counted upon: the rest may be others', on other cores.
constexpr int64_t kMostOfLast = int64_t{32} << 20;

// Bytes.
struct Blocking {
  int64_t few_weights;   // transformed weights, up to which they stay in a core's cache: a task may be small
  int64_t task;          // patches and products of a task
  int64_t task_of_many;  // the same, where weights come from memory: then patches may come from the last-level cache
  int64_t many_weights;  // transformed weights, from which on they do
  int64_t chunk;         // patches and gradient tiles between the two passes of a weight gradient

  explicit Blocking(const Caches& caches)
      : few_weights(caches.core),
        task(caches.core / 8 * 7),
        task_of_many(std::min(caches.last, kMostOfLast) / 4),
        many_weights(std::min(caches.last, kMostOfLast) / 2),
        chunk(std::min(caches.last, kMostOfLast) / 8 * 5) {}
};

// The caches that work is cut to. The module is told those of the processor, and what was measured.
inline std::atomic<int64_t> core_cache{Caches().core}, last_cache{Caches().last};

inline Blocking blocking() { return Blocking({core_cache.load(), last_cache.load()}); }

}  // namespace inpaint_fast
