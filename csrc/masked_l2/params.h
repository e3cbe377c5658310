// What the bindings hand to a kernel of masked_l2, on any device: plain data, no torch header.
//
//   loss      = weight / denominator * sum(mask * (pred - target)^2)
//   grad      = factor * mask * (pred - target),  factor = 2 * weight / denominator  (d loss / d pred)
//   composite = target * (1 - mask) + pred * mask
#pragma once

#include <cstdint>

#include "common/cpu_capability.h"
#include "common/scalar_kind.h"
#include "common/strided.h"

namespace inpaint_fast {

enum MaskedL2Operand : int { kPred, kTarget, kMask, kGrad, kComposite, kMaskedL2Operands };

struct MaskedL2 {
  Strided walk;  // over the shape of pred; strides by MaskedL2Operand
  // walk's last dimension counts each mask value mask_repeat times (channels_last: one value for C channels).
  int64_t mask_repeat = 1;
  const void* pred = nullptr;
  const void* target = nullptr;
  const void* mask = nullptr;               // null: all ones
  void* grad = nullptr;                     // null: not wanted
  void* composite = nullptr;                // null: not wanted
  ScalarKind kind = ScalarKind::none;       // of pred, target, grad and composite
  ScalarKind mask_kind = ScalarKind::none;  // none, uint8 (bool too), float32 or kind
  double factor = 0;
  bool stream = false;  // results are larger than the caches: write past them

  // Reads better in memory: call once, after walk.collapse().
  void arrange() {
    Strided& w = walk;
    if (w.dims < 2) return;
    const int inner = w.dims - 1, outer = w.dims - 2;
    if (w.sizes[inner] >= 16 || w.sizes[outer] <= w.sizes[inner]) return;
    bool repeats = w.strides[kMask][inner] == 0 && w.strides[kMask][outer] == 1;
    for (int k = 0; k < w.operands; ++k)
      if (k != kMask) repeats &= w.strides[k][inner] == 1 && w.strides[k][outer] == w.sizes[inner];
    if (repeats) {
      mask_repeat = w.sizes[inner];
      w.sizes[outer] *= mask_repeat;
      for (int k = 0; k < w.operands; ++k) w.strides[k][outer] = 1;
      w.dims = inner;
      return;
    }
    // A short inner row (channels of mixed layouts) would be all overhead: walk the longer one instead.
    const Strided was = w;
    w.sizes[inner] = was.sizes[outer], w.sizes[outer] = was.sizes[inner];
    for (int k = 0; k < w.operands; ++k)
      w.strides[k][inner] = was.strides[k][outer], w.strides[k][outer] = was.strides[k][inner];
  }
};

// The elements of one task: fixed, so that a sum never depends on the number of threads.
constexpr int64_t kMaskedL2Chunk = 16384;

// Does elements [begin, end) of walk's order and returns their sum of mask * (pred - target)^2.
INPAINT_FAST_DECLARE_CPU_KERNEL(double masked_l2(const MaskedL2& args, int64_t begin, int64_t end))
// Returns the sum of elements [begin, end) of the mask that is walk's first operand.
INPAINT_FAST_DECLARE_CPU_KERNEL(double mask_sum(const Strided& walk, const void* mask, ScalarKind kind, int64_t begin,
                                                int64_t end))
// grad[begin, end) *= scale, over dense memory.
INPAINT_FAST_DECLARE_CPU_KERNEL(void scale_in_place(void* grad, ScalarKind kind, double scale, int64_t begin,
                                                    int64_t end))

}  // namespace inpaint_fast
