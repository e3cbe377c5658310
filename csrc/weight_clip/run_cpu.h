// The host side of weight_clip on the CPU that its two ways in (bindings.cpp, python.cpp) share.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "weight_clip/params.h"

namespace inpaint_fast {

constexpr int64_t kUpdateGrain = 32768;  // elements: fewer are not worth a second thread

inline UpdateSettings update_settings(int64_t rule, double lr, double beta1, double beta2, double eps,
                                      double weight_decay, double low, double high, bool maximize, bool variant,
                                      bool first) {
  UpdateSettings settings;
  settings.rule = static_cast<Rule>(rule);
  settings.lr = lr, settings.beta1 = beta1, settings.beta2 = beta2, settings.eps = eps;
  settings.weight_decay = weight_decay, settings.low = low, settings.high = high;
  settings.gradient_factor = maximize ? -1 : 1;
  settings.variant = variant, settings.first = first;
  return settings;
}

// What adam makes of the number of steps, the one to come included.
inline void count_step(const UpdateSettings& settings, UpdateEntry& entry, double t) {
  if (settings.rule != Rule::adam) return;
  entry.step_size = settings.lr / (1 - std::pow(settings.beta1, t));
  entry.root_factor = 1 / std::sqrt(1 - std::pow(settings.beta2, t));
}

inline void run_cpu(const UpdateSettings& settings, const std::vector<UpdateEntry>& entries, int64_t numel) {
  const auto kernel = INPAINT_FAST_CPU_KERNEL(update);
  torch::stable::parallel_for(0, numel, kUpdateGrain, [&](int64_t begin, int64_t end) {
    const auto after = std::upper_bound(entries.begin(), entries.end(), begin,
                                        [](int64_t at, const UpdateEntry& entry) { return at < entry.begin; });
    kernel(settings, &*(after - 1), begin, end);
  });
}

}  // namespace inpaint_fast
