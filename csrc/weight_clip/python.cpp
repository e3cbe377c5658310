// weight_clip and clipped_step for lists of plain CPU tensors, straight from Python (plain_tensors.h says why).
#include <pybind11/pybind11.h>

#include <vector>

#include "common/python.h"
#include "common/torch.h"
#include "weight_clip/cpu/run.h"
#include "weight_clip/plain_tensors.h"

namespace inpaint_fast {
namespace {

bool weight_clip_list(const py::list& tensors, double low, double high) {
  PlainTable table;
  if (!table.fill({tensors}, !is_symmetric(low, high))) return false;
  UpdateSettings settings;
  settings.kind = table.kind, settings.low = low, settings.high = high;
  py::gil_scoped_release release;
  run(settings, table.entries, table.numel);
  return true;
}

bool clipped_step_list(const py::list& params, const py::list& grads, const py::list& state0, const py::list& state1,
                       const py::list& state2, const py::list& steps, int64_t rule, double lr, double beta1,
                       double beta2, double eps, double weight_decay, double low, double high, bool maximize,
                       bool variant, bool first, bool decoupled) {
  UpdateSettings s =
      update_settings(rule, lr, beta1, beta2, eps, weight_decay, low, high, maximize, variant, first, decoupled);
  PlainTable table;
  const auto has = [](const py::list& list) { return PyList_GET_SIZE(list.ptr()) != 0; };
  if (!is_step(s.rule) || missing_list(s, has(grads), has(state0), has(state1), has(state2), has(steps))) return false;
  if (!table.fill({params, grads, state0, state1, state2})) return false;
  s.kind = table.kind;
  std::vector<float*> counts(PyList_GET_SIZE(steps.ptr()));
  if (!counts.empty() && counts.size() != table.entries.size()) return false;
  for (size_t i = 0; i < counts.size(); ++i) {
    DlTensor t;
    int64_t numel = 0;
    if (!views().view(PyList_GET_ITEM(steps.ptr(), i), kDlCpu, t, numel)) return false;
    if (TensorViews::kind(t) != ScalarKind::float32 || numel != 1) return false;
    counts[i] = static_cast<float*>(TensorViews::data(t));
  }
  for (size_t i = 0; i < counts.size(); ++i) count_step(s, table.entries[i], ++*counts[i]);
  py::gil_scoped_release release;
  run(s, table.entries, table.numel);
  return true;
}

const FunctionsOfModule functions_of_weight_clip([](py::module_& m) {
  m.def("weight_clip", &weight_clip_list, "Clip a list of plain CPU tensors; False (and nothing done) for others.");
  m.def("clipped_step", &clipped_step_list, "Step on lists of plain CPU tensors; False (and nothing done) for others.");
});

}  // namespace
}  // namespace inpaint_fast
