// Checks, tables and registration of weight_clip and clipped_step. Their definition is
// inpaint_fast/ops/weight_clip.py; the checks here keep a direct call of torch.ops from crashing.
#include <deque>
#include <string>
#include <vector>

#include "common/torch.h"
#include "weight_clip/run_cpu.h"
#ifdef INPAINT_FAST_CUDA
#include "common/cuda_device.h"
#include "weight_clip/cuda.h"
#endif

namespace inpaint_fast {
namespace {

// The table of entries of one call, and what it points to.
struct Table {
  std::vector<UpdateEntry> entries;
  std::deque<Strided> strided;  // a deque: its elements stay where they are
  int64_t numel = 0;

  // operands[k]: the tensor of operand k, or null.
  void add(const Tensor* const (&operands)[kUpdateOperands], int64_t index) {
    const Tensor& param = *operands[kParam];
    UpdateEntry entry;
    entry.begin = numel;
    entry.numel = param.numel();
    bool dense = true;
    for (int k = 0; k < kUpdateOperands; ++k)
      if (operands[k]) {
        entry.data[k] = operands[k]->data_ptr();
        dense = dense && operands[k]->is_contiguous();
        STD_TORCH_CHECK(operands[k]->numel() == entry.numel, "tensor ", index, ": operand ", k, " has ",
                        operands[k]->numel(), " elements, its parameter ", entry.numel);
      }
    if (!dense) entry.strided = walk(operands, index);
    numel += entry.numel;
    entries.push_back(entry);
  }

 private:
  // Null when the operands are dense in one order after all (channels_last weights).
  const Strided* walk(const Tensor* const (&operands)[kUpdateOperands], int64_t index) {
    const Tensor& param = *operands[kParam];
    STD_TORCH_CHECK(param.dim() <= kMaxDims, "tensor ", index, ": a view of at most ", kMaxDims,
                    " dimensions is expected, got ", param.dim());
    Strided walk;
    walk.operands = kUpdateOperands;
    for (int64_t d = 0; d < param.dim(); ++d) walk.add_dim(param.size(d));
    for (int k = 0; k < kUpdateOperands; ++k) {
      const Tensor& operand = operands[k] ? *operands[k] : param;
      check_same_sizes(operand, param, "an operand");
      set_strides(walk, k, operand);
    }
    for (int64_t d = 0; d < param.dim(); ++d)
      STD_TORCH_CHECK(param.size(d) <= 1 || param.stride(d) != 0, "tensor ", index,
                      ": its elements share memory (an expanded view); it cannot be changed in place");
    walk.collapse();
    bool dense = walk.dims == 1;
    for (int k = 0; k < kUpdateOperands; ++k) dense = dense && walk.strides[k][0] == 1;
    if (dense) return nullptr;
    strided.push_back(walk);
    return &strided.back();
  }
};

ScalarKind common_kind(const std::vector<Tensor>& tensors, const char* name) {
  const ScalarKind kind = kind_of(tensors[0]);
  STD_TORCH_CHECK(kind != ScalarKind::none && kind != ScalarKind::uint8, name, "[0]: its dtype is not floating point");
  for (const Tensor& tensor : tensors)
    STD_TORCH_CHECK(kind_of(tensor) == kind, name, ": tensors of one dtype are expected");
  return kind;
}

Table clip_table(const std::vector<Tensor>& tensors) {
  Table table;
  table.entries.reserve(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Tensor* operands[kUpdateOperands] = {&tensors[i]};
    table.add(operands, static_cast<int64_t>(i));
  }
  return table;
}

UpdateSettings clip_settings(const std::vector<Tensor>& tensors, double low, double high) {
  UpdateSettings settings;
  settings.kind = common_kind(tensors, "tensors");
  settings.low = low, settings.high = high;
  return settings;
}

const Tensor* at(const std::vector<Tensor>& list, size_t i, size_t count, const char* name) {
  if (list.empty()) return nullptr;
  STD_TORCH_CHECK(list.size() == count, name, ": ", count, " tensors are expected, got ", list.size());
  return &list[i];
}

// The tensors of clipped_step, as its schema names them.
struct StepLists {
  const std::vector<Tensor>&params, &grads, &state0, &state1, &state2, &steps;

  // What the rule needs is there and of one dtype, which is noted.
  void check(UpdateSettings& settings) const {
    STD_TORCH_CHECK(settings.rule >= Rule::adam && settings.rule <= Rule::adadelta, "rule: 1 to 4 is expected, got ",
                    static_cast<int64_t>(settings.rule));
    settings.kind = common_kind(params, "params");
    for (const auto* list : {&grads, &state0, &state1, &state2})
      if (!list->empty())
        STD_TORCH_CHECK(common_kind(*list, "grads and states") == settings.kind, "the dtype of params is expected");
    const bool adam = settings.rule == Rule::adam, two = adam || settings.rule == Rule::adadelta;
    STD_TORCH_CHECK(!grads.empty(), "grads: they are missing");
    STD_TORCH_CHECK(settings.rule == Rule::sgd || !state0.empty(), "state0: it is missing");
    STD_TORCH_CHECK(!two || !state1.empty(), "state1: it is missing");
    STD_TORCH_CHECK(!adam || !settings.variant || !state2.empty(), "state2: it is missing");
    STD_TORCH_CHECK(!adam || !steps.empty(), "steps: they are missing");
  }

  Table table() const {
    const size_t count = params.size();
    Table table;
    table.entries.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      const Tensor* operands[kUpdateOperands] = {&params[i], at(grads, i, count, "grads"),
                                                 at(state0, i, count, "state0"), at(state1, i, count, "state1"),
                                                 at(state2, i, count, "state2")};
      table.add(operands, static_cast<int64_t>(i));
    }
    return table;
  }

  // The step of parameter i, or null.
  const Tensor* step(size_t i) const {
    const Tensor* step = at(steps, i, params.size(), "steps");
    if (step)
      STD_TORCH_CHECK(step->numel() == 1 && kind_of(*step) == ScalarKind::float32,
                      "steps: float32 numbers are expected");
    return step;
  }
};

#ifndef INPAINT_FAST_EMULATION  // which has kernels of the CUDA half alone

// ---- CPU ----

void weight_clip_cpu(std::vector<Tensor> tensors, double low, double high) {
  if (tensors.empty()) return;
  const Table table = clip_table(tensors);
  run_cpu(clip_settings(tensors, low, high), table.entries, table.numel);
}

double scalar_or(const std::optional<Tensor>& tensor, double otherwise, const char* name) {
  if (!tensor) return otherwise;
  STD_TORCH_CHECK(tensor->is_cpu() && tensor->numel() == 1 && kind_of(*tensor) == ScalarKind::float32, name,
                  ": one float32 number on the parameters' device is expected");
  return *static_cast<const float*>(tensor->data_ptr());
}

void clipped_step_cpu(std::vector<Tensor> params, std::vector<Tensor> grads, std::vector<Tensor> state0,
                      std::vector<Tensor> state1, std::vector<Tensor> state2, std::vector<Tensor> steps, int64_t rule,
                      double lr, double beta1, double beta2, double eps, double weight_decay, double low, double high,
                      bool maximize, bool variant, bool first, std::optional<Tensor> grad_scale,
                      std::optional<Tensor> found_inf) {
  if (params.empty() || scalar_or(found_inf, 0, "found_inf") != 0) return;
  const StepLists lists{params, grads, state0, state1, state2, steps};
  UpdateSettings settings =
      update_settings(rule, lr, beta1, beta2, eps, weight_decay, low, high, maximize, variant, first);
  lists.check(settings);
  settings.gradient_factor /= scalar_or(grad_scale, 1, "grad_scale");
  Table table = lists.table();
  for (size_t i = 0; i < params.size(); ++i)
    if (const Tensor* step = lists.step(i)) {
      STD_TORCH_CHECK(step->is_cpu(), "steps: they are not on the CPU");
      count_step(settings, table.entries[i], ++*static_cast<float*>(step->data_ptr()));
    }
  run_cpu(settings, table.entries, table.numel);
}

#endif  // INPAINT_FAST_EMULATION
#ifdef INPAINT_FAST_CUDA

// ---- CUDA ----

void check_on_device(const std::vector<Tensor>& tensors, const Tensor& as, const char* name) {
  for (const Tensor& tensor : tensors)
    STD_TORCH_CHECK(tensor.is_cuda() == as.is_cuda() && tensor.get_device_index() == as.get_device_index(), name,
                    ": tensors on one device are expected");
}

void weight_clip_cuda(std::vector<Tensor> tensors, double low, double high) {
  if (tensors.empty()) return;
  const OnDeviceOf device(tensors[0]);
  check_on_device(tensors, tensors[0], "tensors");
  const Table table = clip_table(tensors);
  cuda::update(clip_settings(tensors, low, high), table.entries.data(), table.entries.size(), nullptr, {},
               device.stream());
}

const float* device_scalar(const std::optional<Tensor>& tensor, const Tensor& param, const char* name) {
  if (!tensor) return nullptr;
  check_on_device({*tensor}, param, name);
  STD_TORCH_CHECK(tensor->numel() == 1 && kind_of(*tensor) == ScalarKind::float32, name,
                  ": one float32 number on the parameters' device is expected");
  return static_cast<const float*>(tensor->data_ptr());
}

// Steps may stay on the CPU, as in torch.optim.
bool is_on_host(const Tensor& step) {
#ifdef INPAINT_FAST_EMULATION  // where all memory is the host's: a step with a dimension stands for one on the CPU
  return step.dim() > 0;
#else
  return step.is_cpu();
#endif
}

void clipped_step_cuda(std::vector<Tensor> params, std::vector<Tensor> grads, std::vector<Tensor> state0,
                       std::vector<Tensor> state1, std::vector<Tensor> state2, std::vector<Tensor> steps, int64_t rule,
                       double lr, double beta1, double beta2, double eps, double weight_decay, double low, double high,
                       bool maximize, bool variant, bool first, std::optional<Tensor> grad_scale,
                       std::optional<Tensor> found_inf) {
  if (params.empty()) return;
  const OnDeviceOf device(params[0]);
  const StepLists lists{params, grads, state0, state1, state2, steps};
  UpdateSettings settings =
      update_settings(rule, lr, beta1, beta2, eps, weight_decay, low, high, maximize, variant, first);
  lists.check(settings);
  for (const auto* list : {&params, &grads, &state0, &state1, &state2})
    check_on_device(*list, params[0], "params, grads and states");
  cuda::UpdateScalars scalars;
  scalars.grad_scale = device_scalar(grad_scale, params[0], "grad_scale");
  scalars.found_inf = device_scalar(found_inf, params[0], "found_inf");
  const Table table = lists.table();

  std::vector<cuda::UpdateCount> counts(steps.empty() ? 0 : params.size());
  std::vector<float*> on_device, on_host;
  for (size_t i = 0; i < counts.size(); ++i) {
    const Tensor& step = *lists.step(i);
    float* const count = static_cast<float*>(step.data_ptr());
    if (is_on_host(step)) {
      STD_TORCH_CHECK(!found_inf,
                      "steps: with found_inf they are needed on the device, which alone can tell whether "
                      "they count");
      counts[i].known = *count + 1;
      on_host.push_back(count);
    } else {
      check_on_device({step}, params[0], "steps");
      counts[i].on_device = count;
      on_device.push_back(count);
    }
  }
  for (float* count : on_host) ++*count;  // not before every check has passed
  cuda::count_steps(on_device.data(), on_device.size(), scalars.found_inf, device.stream());
  cuda::update(settings, table.entries.data(), table.entries.size(), counts.empty() ? nullptr : counts.data(), scalars,
               device.stream());
}

#endif  // INPAINT_FAST_CUDA

}  // namespace
}  // namespace inpaint_fast

#ifndef INPAINT_FAST_EMULATION
STABLE_TORCH_LIBRARY_IMPL(inpaint_fast, CPU, m) {
  m.impl("weight_clip", TORCH_BOX(&inpaint_fast::weight_clip_cpu));
  m.impl("clipped_step", TORCH_BOX(&inpaint_fast::clipped_step_cpu));
}
#endif
#ifdef INPAINT_FAST_CUDA
STABLE_TORCH_LIBRARY_IMPL(inpaint_fast, INPAINT_FAST_CUDA_KEY, m) {
  m.impl(INPAINT_FAST_CUDA_NAME("weight_clip"), TORCH_BOX(&inpaint_fast::weight_clip_cuda));
  m.impl(INPAINT_FAST_CUDA_NAME("clipped_step"), TORCH_BOX(&inpaint_fast::clipped_step_cuda));
}
#endif
