// Checks, tables and registration of weight_clip and clipped_step. Their definition is
// inpaint_fast/ops/weight_clip.py; the checks here keep a direct call of torch.ops from crashing.
#include <algorithm>
#include <cmath>
#include <deque>
#include <string>
#include <vector>

#include "common/torch.h"
#include "weight_clip/params.h"

namespace inpaint_fast {
namespace {

constexpr int64_t kGrain = 32768;  // elements: fewer are not worth a second thread

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

void run_cpu(const UpdateSettings& settings, const Table& table) {
  const auto kernel = INPAINT_FAST_CPU_KERNEL(update);
  const auto& entries = table.entries;
  torch::stable::parallel_for(0, table.numel, kGrain, [&](int64_t begin, int64_t end) {
    const auto after = std::upper_bound(entries.begin(), entries.end(), begin,
                                        [](int64_t at, const UpdateEntry& entry) { return at < entry.begin; });
    kernel(settings, &*(after - 1), begin, end);
  });
}

ScalarKind common_kind(const std::vector<Tensor>& tensors, const char* name) {
  const ScalarKind kind = kind_of(tensors[0]);
  STD_TORCH_CHECK(kind != ScalarKind::none && kind != ScalarKind::uint8, name, "[0]: its dtype is not floating point");
  for (const Tensor& tensor : tensors)
    STD_TORCH_CHECK(kind_of(tensor) == kind, name, ": tensors of one dtype are expected");
  return kind;
}

void weight_clip_cpu(std::vector<Tensor> tensors, double low, double high) {
  if (tensors.empty()) return;
  UpdateSettings settings;
  settings.kind = common_kind(tensors, "tensors");
  settings.low = low, settings.high = high;
  Table table;
  table.entries.reserve(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Tensor* operands[kUpdateOperands] = {&tensors[i]};
    table.add(operands, static_cast<int64_t>(i));
  }
  run_cpu(settings, table);
}

const Tensor* at(const std::vector<Tensor>& list, size_t i, size_t count, const char* name) {
  if (list.empty()) return nullptr;
  STD_TORCH_CHECK(list.size() == count, name, ": ", count, " tensors are expected, got ", list.size());
  return &list[i];
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
  STD_TORCH_CHECK(rule >= static_cast<int64_t>(Rule::adam) && rule <= static_cast<int64_t>(Rule::adadelta),
                  "rule: 1 to 4 is expected, got ", rule);
  UpdateSettings settings;
  settings.rule = static_cast<Rule>(rule);
  settings.kind = common_kind(params, "params");
  for (const auto* list : {&grads, &state0, &state1, &state2})
    if (!list->empty())
      STD_TORCH_CHECK(common_kind(*list, "grads and states") == settings.kind, "the dtype of params is expected");
  settings.lr = lr, settings.beta1 = beta1, settings.beta2 = beta2, settings.eps = eps;
  settings.weight_decay = weight_decay, settings.low = low, settings.high = high;
  settings.gradient_factor = (maximize ? -1 : 1) / scalar_or(grad_scale, 1, "grad_scale");
  settings.variant = variant, settings.first = first;

  const size_t count = params.size();
  const bool adam = settings.rule == Rule::adam, two = adam || settings.rule == Rule::adadelta;
  STD_TORCH_CHECK(settings.rule == Rule::sgd || !state0.empty(), "state0: it is missing");
  STD_TORCH_CHECK(!two || !state1.empty(), "state1: it is missing");
  STD_TORCH_CHECK(!adam || !variant || !state2.empty(), "state2: it is missing");
  STD_TORCH_CHECK(!adam || !steps.empty(), "steps: they are missing");
  Table table;
  table.entries.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const Tensor* operands[kUpdateOperands] = {&params[i], at(grads, i, count, "grads"), at(state0, i, count, "state0"),
                                               at(state1, i, count, "state1"), at(state2, i, count, "state2")};
    STD_TORCH_CHECK(operands[kGradient], "grads: they are missing");
    table.add(operands, static_cast<int64_t>(i));
    if (const Tensor* step = at(steps, i, count, "steps")) {
      STD_TORCH_CHECK(step->is_cpu() && step->numel() == 1 && kind_of(*step) == ScalarKind::float32,
                      "steps: float32 numbers on the CPU are expected");
      const double t = ++*static_cast<float*>(step->data_ptr());
      table.entries.back().step_size = lr / (1 - std::pow(beta1, t));
      table.entries.back().root_factor = 1 / std::sqrt(1 - std::pow(beta2, t));
    }
  }
  run_cpu(settings, table);
}

}  // namespace
}  // namespace inpaint_fast

STABLE_TORCH_LIBRARY_IMPL(inpaint_fast, CPU, m) {
  m.impl("weight_clip", TORCH_BOX(&inpaint_fast::weight_clip_cpu));
  m.impl("clipped_step", TORCH_BOX(&inpaint_fast::clipped_step_cpu));
}
