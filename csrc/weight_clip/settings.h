// The numbers of a step as its arguments give them, and what its rule needs. No torch header.
#pragma once

#include <cmath>

#include "weight_clip/params.h"

namespace inpaint_fast {

inline UpdateSettings update_settings(int64_t rule, double lr, double beta1, double beta2, double eps,
                                      double weight_decay, double low, double high, bool maximize, bool variant,
                                      bool first, bool decoupled) {
  UpdateSettings settings;
  settings.rule = static_cast<Rule>(rule);
  settings.lr = lr, settings.beta1 = beta1, settings.beta2 = beta2, settings.eps = eps;
  settings.weight_decay = decoupled ? 0 : weight_decay;
  settings.shrink = decoupled ? weight_decay : 0;
  settings.keep = settings.shrink != 0 ? 1 - lr * settings.shrink : 1;
  settings.low = low, settings.high = high;
  settings.gradient_factor = maximize ? -1 : 1;
  settings.variant = variant, settings.first = first;
  return settings;
}

inline bool is_step(Rule rule) { return rule >= Rule::adam && rule <= Rule::adadelta; }

// The list that the rule of a step needs and that is empty; null: it has all.
inline const char* missing_list(const UpdateSettings& settings, bool grads, bool state0, bool state1, bool state2,
                                bool steps) {
  const bool adam = settings.rule == Rule::adam, two = adam || settings.rule == Rule::adadelta;
  if (!grads) return "grads: they are missing";
  if (settings.rule != Rule::sgd && !state0) return "state0: it is missing";
  if (two && !state1) return "state1: it is missing";
  if (adam && settings.variant && !state2) return "state2: it is missing";
  if (adam && !steps) return "steps: they are missing";
  return nullptr;
}

// What adam makes of the number of steps, the one to come included.
inline void count_step(const UpdateSettings& settings, UpdateEntry& entry, double t) {
  if (settings.rule != Rule::adam) return;
  entry.step_size = settings.lr / (1 - std::pow(settings.beta1, t));
  entry.root_factor = 1 / std::sqrt(1 - std::pow(settings.beta2, t));
}

}  // namespace inpaint_fast
