// Checks and registration of weight_clip and clipped_step on CUDA. Their definition is inpaint_fast/ops/weight_clip.py.
#include "common/cuda_device.h"
#include "weight_clip/arguments.h"
#include "weight_clip/cuda/launchers.h"

namespace inpaint_fast {
namespace {

void weight_clip(std::vector<Tensor> tensors, double low, double high) {
  if (tensors.empty()) return;
  const Table table = clip_table(tensors);
  const OnDeviceOf device(tensors[0]);
  cuda::update(clip_settings(tensors, low, high), table.entries.data(), table.entries.size(), nullptr, {},
               device.stream());
}

// Steps may stay on the CPU, as in torch.optim.
void clipped_step(std::vector<Tensor> params, std::vector<Tensor> grads,  // of the same shapes
                  std::vector<Tensor> state0, std::vector<Tensor> state1, std::vector<Tensor> state2,  // or []
                  std::vector<Tensor> steps,                                                           // numbers, or []
                  int64_t rule, double lr, double beta1, double beta2, double eps, double weight_decay, double low,
                  double high, bool maximize, bool variant, bool first, bool decoupled,
                  std::optional<Tensor> grad_scale, std::optional<Tensor> found_inf, std::optional<Tensor> rate) {
  const StepLists lists{params, grads, state0, state1, state2, steps};
  if (lists.empty()) return;
  UpdateSettings settings =
      update_settings(rule, lr, beta1, beta2, eps, weight_decay, low, high, maximize, variant, first, decoupled);
  lists.check(settings);
  cuda::UpdateScalars scalars;
  scalars.grad_scale = number_beside(grad_scale, params[0], "grad_scale");
  scalars.found_inf = number_beside(found_inf, params[0], "found_inf");
  scalars.rate = number_beside<double>(rate, params[0], "rate");
  std::vector<cuda::UpdateCount> counts(steps.size());
  std::vector<float*> on_device, on_host;
  for (size_t i = 0; i < counts.size(); ++i) {
    float* const count = static_cast<float*>(steps[i].data_ptr());
    if (is_on_host(steps[i])) {
      STD_TORCH_CHECK(!found_inf,
                      "steps: with found_inf they are needed on the device, which alone can tell whether "
                      "they count");
      counts[i].known = *count + 1;
      on_host.push_back(count);
    } else {
      check_same_device(steps[i], params[0], "steps", "the parameters");
      counts[i].on_device = count;
      on_device.push_back(count);
    }
  }
  const Table table = lists.table();
  const OnDeviceOf device(params[0]);
  for (float* count : on_host) ++*count;  // not before every check has passed
  cuda::count_steps(on_device.data(), on_device.size(), scalars.found_inf, device.stream());
  cuda::update(settings, table.entries.data(), table.entries.size(), counts.empty() ? nullptr : counts.data(), scalars,
               device.stream());
}

}  // namespace
}  // namespace inpaint_fast

STABLE_TORCH_LIBRARY_IMPL(inpaint_fast, INPAINT_FAST_CUDA_KEY, m) {
  m.impl(INPAINT_FAST_CUDA_NAME("weight_clip"), TORCH_BOX(&inpaint_fast::weight_clip));
  m.impl(INPAINT_FAST_CUDA_NAME("clipped_step"), TORCH_BOX(&inpaint_fast::clipped_step));
}
