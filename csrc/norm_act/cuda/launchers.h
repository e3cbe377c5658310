// Launchers of norm_act's CUDA kernels: raw pointers, sizes and a stream; no torch header, no CUDA header.
// Every pointer is device memory; nothing here waits for the device.
#pragma once

#include "norm_act/params.h"

namespace inpaint_fast {
namespace cuda {

// One number for each channel, or none: null.
struct NormActNumbers {
  void* data = nullptr;
  ScalarKind kind = ScalarKind::none;
};

struct NormActChannels {
  NormActNumbers weight, bias;                // null: 1 and 0
  NormActNumbers running_mean, running_var;   // read
  NormActNumbers new_mean, new_var;           // written in training, where there are running statistics
  NormActNumbers grad_weight, grad_bias;      // written; null: not wanted
  double *mean = nullptr, *invstd = nullptr;  // of the normalisation: written by norm_act, read by its gradient
  const double *batch_mean = nullptr, *batch_var = nullptr;  // given: the statistics pass is left out
  double* partials = nullptr;                                // norm_act_partials() of scratch
  double* totals = nullptr;                                  // 2 * channels of scratch for the gradient
  double momentum = 0, eps = 0;
};

// How many doubles the sums of the parts take; 0 for an empty tensor, which must not be launched.
int64_t norm_act_partials(const NormAct& args);

// args.input -> args.output and mean, invstd, new_mean, new_var. The pointers of params.h of each channel are not used.
void norm_act(const NormAct& args, const NormActChannels& channels, void* stream);

// args.grad, args.input, mean, invstd -> args.output (null: not wanted), grad_weight, grad_bias.
void norm_act_backward(const NormAct& args, const NormActChannels& channels, void* stream);

}  // namespace cuda
}  // namespace inpaint_fast
