// The arguments of weight_clip and clipped_step as params.h has them, every one of them checked (common/checks.h).
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "common/checks.h"
#include "weight_clip/settings.h"

namespace inpaint_fast {

// The table of entries of one call, and what it points to.
struct Table {
  std::vector<UpdateEntry> entries;
  std::deque<Strided> strided;  // a deque: its elements stay where they are
  int64_t numel = 0;

  // operands[k]: the tensor of operand k, or null; names[k]: of its list.
  void add(const Tensor* const (&operands)[kUpdateOperands], const char* const* names, int64_t index) {
    const Tensor& param = *operands[kParam];
    UpdateEntry entry;
    entry.begin = numel;
    entry.numel = param.numel();
    bool dense = true;
    for (int k = 0; k < kUpdateOperands; ++k)
      if (operands[k]) {
        const Tensor& operand = *operands[k];
        const std::string name = std::string(names[k]) + "[" + std::to_string(index) + "]";
        check_same_sizes(operand, param, name.c_str(), "its parameter");
        check_memory(operand, name.c_str());
        entry.data[k] = operand.data_ptr();
        dense = dense && operand.is_contiguous();
      }
    if (!dense) entry.strided = walk(operands, names, index);
    STD_TORCH_CHECK(!__builtin_add_overflow(numel, entry.numel, &numel), "the tensors are too large");
    entries.push_back(entry);
  }

 private:
  // Null when the operands are dense in one order after all (channels_last weights).
  const Strided* walk(const Tensor* const (&operands)[kUpdateOperands], const char* const* names, int64_t index) {
    const Tensor& param = *operands[kParam];
    STD_TORCH_CHECK(param.dim() <= kMaxDims, names[kParam], "[", index, "]: a view of at most ", kMaxDims,
                    " dimensions is expected, got ", param.dim());
    Strided walk;
    walk.operands = kUpdateOperands;
    for (int64_t d = 0; d < param.dim(); ++d) walk.add_dim(param.size(d));
    for (int k = 0; k < kUpdateOperands; ++k) set_strides(walk, k, operands[k] ? *operands[k] : param);
    for (int k : {kParam, kState0, kState1, kState2})
      STD_TORCH_CHECK(!operands[k] || is_apart(*operands[k]), names[k], "[", index,
                      "]: its elements share memory (an expanded view); it cannot be changed in place");
    walk.collapse();
    bool dense = walk.dims == 1;
    for (int k = 0; k < kUpdateOperands; ++k) dense = dense && walk.strides[k][0] == 1;
    if (dense) return nullptr;
    strided.push_back(walk);
    return &strided.back();
  }
};

// Tensors of one floating-point dtype, that of the first one of all, on its device.
inline void check_list(const std::vector<Tensor>& tensors, const Tensor& first, const char* name) {
  for (const Tensor& tensor : tensors) {
    STD_TORCH_CHECK(is_float(kind_of(tensor)), name, ": a dtype is not floating point");
    STD_TORCH_CHECK(kind_of(tensor) == kind_of(first), name,
                    ": tensors of one dtype are expected, the dtype of params everywhere");
    check_same_device(tensor, first, name, "the first");
  }
}

// ---- weight_clip ----

inline Table clip_table(const std::vector<Tensor>& tensors) {
  check_list(tensors, tensors[0], "tensors");
  constexpr const char* names[] = {"tensors"};
  Table table;
  table.entries.reserve(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Tensor* operands[kUpdateOperands] = {&tensors[i]};
    table.add(operands, names, static_cast<int64_t>(i));
  }
  return table;
}

inline UpdateSettings clip_settings(const std::vector<Tensor>& tensors, double low, double high) {
  UpdateSettings settings;
  settings.kind = kind_of(tensors[0]);
  settings.low = low, settings.high = high;
  return settings;
}

// ---- clipped_step ----

// The tensors of clipped_step, as its schema names them: a list of each kind, as long as that of the parameters, or
// empty.
struct StepLists {
  const std::vector<Tensor>&params, &grads, &state0, &state1, &state2, &steps;

  // Without a parameter nothing is to be done.
  bool empty() const {
    for (const auto* list : {&grads, &state0, &state1, &state2, &steps})
      STD_TORCH_CHECK(!params.empty() || list->empty(), "params: they are missing");
    return params.empty();
  }

  // What the rule needs is there, of one dtype, which is noted, and on one device.
  void check(UpdateSettings& settings) const {
    STD_TORCH_CHECK(is_step(settings.rule), "rule: 1 to 4 is expected, got ", static_cast<int64_t>(settings.rule));
    const char* const missing =
        missing_list(settings, !grads.empty(), !state0.empty(), !state1.empty(), !state2.empty(), !steps.empty());
    STD_TORCH_CHECK(!missing, missing ? missing : "");
    check_list(params, params[0], "params");
    settings.kind = kind_of(params[0]);
    const auto check_length = [&](const std::vector<Tensor>& list, const char* name) {
      STD_TORCH_CHECK(list.empty() || list.size() == params.size(), name, ": ", params.size(),
                      " tensors are expected, got ", list.size());
    };
    check_length(grads, "grads"), check_length(state0, "state0"), check_length(state1, "state1");
    check_length(state2, "state2"), check_length(steps, "steps");
    for (const auto* list : {&grads, &state0, &state1, &state2}) check_list(*list, params[0], "grads and states");
    for (const Tensor& step : steps) {
      STD_TORCH_CHECK(step.numel() == 1 && kind_of(step) == ScalarKind::float32, "steps: float32 numbers are expected");
      check_memory(step, "steps");
    }
  }

  Table table() const {
    const auto at = [](const std::vector<Tensor>& list, size_t i) { return list.empty() ? nullptr : &list[i]; };
    constexpr const char* names[kUpdateOperands] = {"params", "grads", "state0", "state1", "state2"};
    Table table;
    table.entries.reserve(params.size());
    for (size_t i = 0; i < params.size(); ++i) {
      const Tensor* operands[kUpdateOperands] = {&params[i], at(grads, i), at(state0, i), at(state1, i), at(state2, i)};
      table.add(operands, names, static_cast<int64_t>(i));
    }
    return table;
  }
};

// One number beside the parameters, float32 or, of T double, float64; or null.
template <class T = float>
const T* number_beside(const std::optional<Tensor>& tensor, const Tensor& param, const char* name) {
  if (!tensor) return nullptr;
  constexpr bool wide = sizeof(T) == sizeof(double);
  STD_TORCH_CHECK(tensor->numel() == 1 && kind_of(*tensor) == (wide ? ScalarKind::float64 : ScalarKind::float32), name,
                  ": one ", wide ? "float64" : "float32", " number on the parameters' device is expected");
  check_same_device(*tensor, param, name, "the parameters");
  check_memory(*tensor, name);
  return static_cast<const T*>(tensor->data_ptr());
}

}  // namespace inpaint_fast
