// Launchers of the CUDA kernels of weight_clip and the clipped optimizers: raw pointers, sizes and a stream; no torch
// header, no CUDA header. Every pointer inside the entries and scalars is device memory; nothing here waits for the
// device or copies to it: the table of tensors is a parameter of the kernel, so a CUDA graph keeps its own.
#pragma once

#include <cstddef>

#include "weight_clip/params.h"

namespace inpaint_fast {
namespace cuda {

// Dense tensors of one launch: of up to 60, and of up to 508 where they are more (where the toolkit is 12.1 or later,
// before which a kernel takes 4 KB of parameters at most). More than that take further launches; a tensor whose
// operands are not dense in one order takes one of its own.
constexpr int kUpdateFewTensors = 60;
constexpr int kUpdateManyTensors = 508;

// Adam's count of steps, this one included.
struct UpdateCount {
  const float* on_device = nullptr;  // null: the host knows it
  float known = 0;
};

// Numbers that only the device knows; null: none.
struct UpdateScalars {
  const float* grad_scale = nullptr;  // gradients are divided by it
  const float* found_inf = nullptr;   // nothing changes where it is not 0
  const double* rate = nullptr;       // lr is multiplied by it
};

// Adds 1 to each of the counts, unless found_inf says no. To be called before update(), which reads them.
void count_steps(float* const* counts, size_t size, const float* found_inf, void* stream);

// Does the rule for every entry. counts: one for each entry, or null where the rule has none. The entries' begin,
// step_size and root_factor are not used.
void update(const UpdateSettings& settings, const UpdateEntry* entries, size_t size, const UpdateCount* counts,
            const UpdateScalars& scalars, void* stream);

}  // namespace cuda
}  // namespace inpaint_fast
