// Checks and registration of weight_clip and clipped_step on the CPU. Their definition is
// inpaint_fast/ops/weight_clip.py.
#include "weight_clip/arguments.h"
#include "weight_clip/cpu/run.h"

namespace inpaint_fast {
namespace {

void weight_clip(std::vector<Tensor> tensors, double low, double high) {
  if (tensors.empty()) return;
  const Table table = clip_table(tensors);
  run(clip_settings(tensors, low, high), table.entries, table.numel);
}

void clipped_step(std::vector<Tensor> params, std::vector<Tensor> grads,  // of the same shapes
                  std::vector<Tensor> state0, std::vector<Tensor> state1, std::vector<Tensor> state2,  // or []
                  std::vector<Tensor> steps,                                                           // numbers, or []
                  int64_t rule, double lr, double beta1, double beta2, double eps, double weight_decay, double low,
                  double high, bool maximize, bool variant, bool first, bool decoupled,
                  std::optional<Tensor> grad_scale, std::optional<Tensor> found_inf, std::optional<Tensor> rate) {
  const StepLists lists{params, grads, state0, state1, state2, steps};
  if (lists.empty()) return;
  if (const double* const factor = number_beside<double>(rate, params[0], "rate")) lr *= *factor;
  UpdateSettings settings =
      update_settings(rule, lr, beta1, beta2, eps, weight_decay, low, high, maximize, variant, first, decoupled);
  lists.check(settings);
  const float* const scale = number_beside(grad_scale, params[0], "grad_scale");
  const float* const infinite = number_beside(found_inf, params[0], "found_inf");
  for (const Tensor& step : steps) STD_TORCH_CHECK(step.is_cpu(), "steps: they are not on the CPU");
  Table table = lists.table();
  if (infinite && *infinite != 0) return;
  if (scale) settings.gradient_factor /= *scale;
  for (size_t i = 0; i < steps.size(); ++i)
    count_step(settings, table.entries[i], ++*static_cast<float*>(steps[i].data_ptr()));
  run(settings, table.entries, table.numel);
}

}  // namespace
}  // namespace inpaint_fast

STABLE_TORCH_LIBRARY_IMPL(inpaint_fast, CPU, m) {
  m.impl("weight_clip", TORCH_BOX(&inpaint_fast::weight_clip));
  m.impl("clipped_step", TORCH_BOX(&inpaint_fast::clipped_step));
}
