// Runs the kernel of weight_clip and the clipped optimizers on the CPU, for its two ways in (cpu_ops.cpp, python.cpp).
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <vector>

#include "weight_clip/settings.h"

namespace inpaint_fast {

constexpr int64_t kUpdateGrain = 32768;  // elements: fewer are not worth a second thread

inline void run(const UpdateSettings& settings, const std::vector<UpdateEntry>& entries, int64_t numel) {
  const auto kernel = INPAINT_FAST_CPU_KERNEL(update);
  torch::stable::parallel_for(0, numel, kUpdateGrain, [&](int64_t begin, int64_t end) {
    const auto after = std::upper_bound(entries.begin(), entries.end(), begin,
                                        [](int64_t at, const UpdateEntry& entry) { return at < entry.begin; });
    kernel(settings, &*(after - 1), begin, end);
  });
}

}  // namespace inpaint_fast
