// What the bindings hand to a kernel of weight_clip and the clipped optimizers: plain data, no torch header.
//
// One rule updates every parameter from its gradient and up to three states and then clips it, element by element; the
// names of lr, betas and states are those of torch.optim. g is the gradient, divided by grad_scale, its sign turned by
// maximize, plus weight_decay * p; decoupled decay (AdamW) leaves g alone and shrinks p instead, before the rule. The
// first rule clips and does nothing else.
//
//   rule      state0          state1           state2          beta1     beta2      variant
//   clip      -               -                -               -         -          -
//   adam      exp_avg         exp_avg_sq       max_exp_avg_sq  beta1     beta2      amsgrad
//   rmsprop   square_avg      momentum_buffer  grad_avg        alpha     momentum   epsilon inside the root (Lasagne)
//   sgd       momentum_buffer -                -               momentum  dampening  nesterov
//   adadelta  square_avg      acc_delta        -               rho       -          -
#pragma once

#include <cstdint>

#include "common/cpu_capability.h"
#include "common/scalar_kind.h"
#include "common/strided.h"

namespace inpaint_fast {

enum class Rule : int64_t { clip, adam, rmsprop, sgd, adadelta };

enum UpdateOperand : int { kParam, kGradient, kState0, kState1, kState2, kUpdateOperands };

struct UpdateSettings {
  Rule rule = Rule::clip;
  ScalarKind kind = ScalarKind::none;  // of every operand
  double lr = 0, beta1 = 0, beta2 = 0, eps = 0;
  double weight_decay = 0;     // what g gets of p
  double keep = 1;             // what p keeps of itself before the rule: 1 - lr * shrink
  double shrink = 0;           // weight_decay where it is decoupled
  double gradient_factor = 1;  // 1 / grad_scale, negative to maximize
  double low = 0, high = 0;    // -inf and inf: no clip
  bool variant = false;
  bool first = false;  // sgd: the momentum buffer starts as the gradient
};

// One parameter with its gradient and states.
struct UpdateEntry {
  void* data[kUpdateOperands] = {};       // null: the rule has no such operand here
  const Strided* strided = nullptr;       // null: all operands lie densely in the same order, elements [0, numel)
  int64_t begin = 0, numel = 0;           // its place among the elements of all entries
  double step_size = 0, root_factor = 1;  // adam: lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t)
};

// Does elements [begin, end) of all entries in a row; `entry` is the one that holds `begin`.
INPAINT_FAST_DECLARE_CPU_KERNEL(void update(const UpdateSettings& settings, const UpdateEntry* entry, int64_t begin,
                                            int64_t end))

}  // namespace inpaint_fast
