// Launchers of masked_l2's CUDA kernels: raw pointers, sizes and a stream; no torch header, no CUDA header.
// Every pointer is device memory; nothing here waits for the device.
#pragma once

#include "common/grid_sum_scratch.h"
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

// Where one sum goes: a float64, or a float32.
struct MaskedL2Sum {
  void* data = nullptr;
  bool wide = false;
};

// *sum = times * the sum of the mask that is walk's first operand. scratch: of masked_l2_blocks(walk.numel) blocks.
void mask_sum(const Strided& walk, const void* mask, ScalarKind kind, double times, const GridSumScratch& scratch,
              double* sum, void* stream);

// One pass over args.walk (collapsed): the gradient and the composite where args has a pointer for them, and the loss
// where there is scratch, of masked_l2_blocks(args.walk.numel) blocks. args.factor is not used: scale has it.
void masked_l2(const MaskedL2& args, const MaskedL2Scale& scale, const GridSumScratch& scratch, const MaskedL2Sum& loss,
               void* stream);

// grad[0, numel) *= *scale, over dense memory; nothing is read or written where that is 1.
void scale_in_place(void* grad, ScalarKind kind, const void* scale, ScalarKind scale_kind, int64_t numel, void* stream);

// Blocks of threads for a tensor of that size: on no other thing may it depend, for the order of sums follows from it.
int masked_l2_blocks(int64_t numel);

}  // namespace cuda
}  // namespace inpaint_fast
