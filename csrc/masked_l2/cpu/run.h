// Runs the kernels of masked_l2 on the CPU: sums of chunks. Arguments have been checked (masked_l2/arguments.h).
#pragma once

#include <memory>

#include "masked_l2/arguments.h"

namespace inpaint_fast {

// Sums task(begin, end) over fixed chunks of [0, numel), in chunk order whatever the number of threads.
template <class Task>
double sum_chunks(int64_t numel, const Task& task) {
  const int64_t chunks = ceil_div(numel, kMaskedL2Chunk);
  std::unique_ptr<double[]> partial(new double[chunks > 0 ? chunks : 1]);
  torch::stable::parallel_for(0, chunks, 1, [&](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t begin = chunk * kMaskedL2Chunk;
      partial[chunk] = task(begin, begin + kMaskedL2Chunk < numel ? begin + kMaskedL2Chunk : numel);
    }
  });
  double sum = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk];
  return sum;
}

inline double denominator_of(const MaskedL2& args, const std::optional<Tensor>& mask, Reduction reduction) {
  if (reduction == Reduction::sum) return 1;
  if (reduction == Reduction::mean || !mask) return static_cast<double>(args.walk.numel);
  const MaskWalk mask_walk(*mask, args.walk);
  const auto kernel = INPAINT_FAST_CPU_KERNEL(mask_sum);
  return mask_walk.times * sum_chunks(mask_walk.walk.numel, [&](int64_t begin, int64_t end) {
           return kernel(mask_walk.walk, args.mask, args.mask_kind, begin, end);
         });
}

// Runs the kernel and returns the loss.
inline double run(MaskedL2& args, const std::optional<Tensor>& mask, double weight, Reduction reduction,
                  double grad_loss) {
  const double scale = scale_of(weight, denominator_of(args, mask, reduction), reduction);
  args.factor = 2 * scale * grad_loss;
  args.walk.collapse();
  args.arrange();
  // Larger than a last-level cache's share of one core: the results would not survive there anyway.
  args.stream = args.grad && args.walk.numel * bytes_of(args.kind) > (int64_t{4} << 20);
  const auto kernel = INPAINT_FAST_CPU_KERNEL(masked_l2);
  const double sum = sum_chunks(args.walk.numel, [&](int64_t begin, int64_t end) { return kernel(args, begin, end); });
  return scale * sum;
}

}  // namespace inpaint_fast
