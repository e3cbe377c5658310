// Launchers of masked_l2's CUDA kernels: raw pointers, sizes and a stream; no torch header, no CUDA header.
// Every pointer is device memory; nothing here waits for the device.
#pragma once

#include "masked_l2/params.h"

namespace inpaint_fast {
namespace cuda {

constexpr int kMaskedL2MaxBlocks = 4096;

// What the sum and its gradient are multiplied by, where only the device knows it.
struct MaskedL2Scale {
  double weight = 1;                             // over the denominator, where the host knows that
  const double* denominator = nullptr;           // null: 1
  const void* grad_loss = nullptr;               // null: 1; multiplies the gradient
  ScalarKind grad_loss_kind = ScalarKind::none;  // float32 or float64
};

// *sum = times * the sum of the mask that is walk's first operand. partials: kMaskedL2MaxBlocks doubles of scratch.
void mask_sum(const Strided& walk, const void* mask, ScalarKind kind, double times, double* partials, double* sum,
              void* stream);

// One pass over args.walk (collapsed): the gradient and the composite where args has a pointer for them, and the loss.
// loss: one float64 for float64 tensors, otherwise float32; null: not wanted. args.factor is not used: scale has it.
// partials: kMaskedL2MaxBlocks doubles of scratch, needed for the loss.
void masked_l2(const MaskedL2& args, const MaskedL2Scale& scale, double* partials, void* loss, void* stream);

// grad[0, numel) *= *scale, over dense memory; nothing is read or written where that is 1.
void scale_in_place(void* grad, ScalarKind kind, const void* scale, ScalarKind scale_kind, int64_t numel, void* stream);

// Blocks of threads for a tensor of that size: on no other thing may it depend, for the order of sums follows from it.
int masked_l2_blocks(int64_t numel);

}  // namespace cuda
}  // namespace inpaint_fast
