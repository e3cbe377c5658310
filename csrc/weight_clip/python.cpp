// weight_clip and clipped_step for lists of plain CPU tensors, straight from Python.
//
// The dispatcher takes 0.2 us for each tensor of a list, more than clipping a small one takes. DLPack's C exchange API
// (torch.Tensor.__dlpack_c_exchange_api__) gives address, shape and strides in a tenth of that and is as stable as
// PyTorch's C shim. Anything that is not plain (another device, mixed dtypes, views, subclasses, compilers, transforms)
// is refused by returning false, before anything is changed; the registered operators do that.
#include <pybind11/pybind11.h>

#include <vector>

#include "common/python.h"
#include "common/torch.h"
#include "weight_clip/cpu/run.h"

namespace py = pybind11;

namespace inpaint_fast {
namespace {

// DLPack 1.x, https://dmlc.github.io/dlpack/latest/c_api.html: the part of its layout that is read here.
struct DlTensor {
  void* data;
  int32_t device_type, device_id;
  int32_t ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};
struct DlExchange {
  uint32_t major, minor;
  void* previous;
  void *allocate, *to_managed, *from_managed;
  int (*view)(void* py_object, DlTensor* out);
  void* current_stream;
};
constexpr int32_t kDlCpu = 1;
constexpr uint8_t kDlFloat = 2, kDlBfloat = 4;

// What is looked up once: how to view a tensor, and the two types that are tensors and nothing more.
struct TensorViews {
  const DlExchange* api = nullptr;
  PyTypeObject *tensor = nullptr, *parameter = nullptr;
  PyCFunction is_neg = nullptr;  // Tensor.is_neg, without Python's way to a method: half of the time

  TensorViews() {
    py::object type = py::module_::import("torch").attr("Tensor");
    tensor = reinterpret_cast<PyTypeObject*>(type.ptr());
    parameter = reinterpret_cast<PyTypeObject*>(py::module_::import("torch.nn").attr("Parameter").ptr());
    py::object method = type.attr("is_neg");
    if (Py_TYPE(method.ptr()) != &PyMethodDescr_Type) return;
    const PyMethodDef* const definition = reinterpret_cast<PyMethodDescrObject*>(method.ptr())->d_method;
    if (definition->ml_flags != METH_NOARGS) return;
    is_neg = definition->ml_meth;
    if (!py::hasattr(type, "__dlpack_c_exchange_api__")) return;
    py::object capsule = type.attr("__dlpack_c_exchange_api__");
    auto* found = static_cast<const DlExchange*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    if (!found) PyErr_Clear();
    if (found && found->major == 1 && found->view) api = found;
  }

  // False when the object is no contiguous CPU tensor of a floating-point type; `count`: its elements.
  bool view(PyObject* object, DlTensor& out, int64_t& count) const {
    if (Py_TYPE(object) != tensor && Py_TYPE(object) != parameter) return false;
    if (api->view(object, &out) != 0) {
      PyErr_Clear();
      return false;
    }
    if (out.device_type != kDlCpu || out.lanes != 1 || kind(out) == ScalarKind::none) return false;
    count = 1;
    bool dense = true;
    for (int d = out.ndim - 1; d >= 0; --d) {
      dense = dense && (out.shape[d] == 1 || out.strides[d] == count);
      count = saturating_product(count, out.shape[d]);
    }
    if (count == 0) return true;
    // Zeros that were never written, or given back; elements that begin anywhere.
    return dense && out.data && (reinterpret_cast<uintptr_t>(data(out)) & (out.bits / 8 - 1)) == 0;
  }

  // False for a view that stands for the negated numbers, as z.conj().imag does: DLPack does not tell.
  bool is_as_stored(PyObject* object) const {
    PyObject* const answer = is_neg(object, nullptr);
    if (!answer) PyErr_Clear();
    Py_XDECREF(answer);
    return answer == Py_False;
  }

  static ScalarKind kind(const DlTensor& t) {
    if (t.code == kDlBfloat) return t.bits == 16 ? ScalarKind::bfloat16 : ScalarKind::none;
    if (t.code != kDlFloat) return ScalarKind::none;
    return t.bits == 32   ? ScalarKind::float32
           : t.bits == 64 ? ScalarKind::float64
           : t.bits == 16 ? ScalarKind::float16
                          : ScalarKind::none;
  }
  static void* data(const DlTensor& t) { return static_cast<char*>(t.data) + t.byte_offset; }
};

const TensorViews& views() {
  static const TensorViews* const all = new TensorViews;
  return *all;
}

// Fills the table from lists of operands ([]: there is none); false when one of them is not plain.
bool fill(const std::vector<py::list>& operands, std::vector<UpdateEntry>& entries, ScalarKind& kind, int64_t& total) {
  const TensorViews& torch = views();
  if (!torch.api) return false;
  const Py_ssize_t count = PyList_GET_SIZE(operands[kParam].ptr());
  for (const py::list& list : operands)
    if (PyList_GET_SIZE(list.ptr()) != 0 && PyList_GET_SIZE(list.ptr()) != count) return false;
  entries.resize(count);
  kind = ScalarKind::none;
  for (size_t k = 0; k < operands.size(); ++k) {
    if (PyList_GET_SIZE(operands[k].ptr()) == 0) continue;
    for (Py_ssize_t i = 0; i < count; ++i) {
      DlTensor t;
      int64_t numel = 0;
      PyObject* const operand = PyList_GET_ITEM(operands[k].ptr(), i);
      if (!torch.view(operand, t, numel)) return false;
      // States are the optimizer's own, made as numbers.
      if ((k == kParam || k == kGradient) && !torch.is_as_stored(operand)) return false;
      if (kind == ScalarKind::none) kind = TensorViews::kind(t);
      if (TensorViews::kind(t) != kind) return false;
      UpdateEntry& entry = entries[i];
      entry.data[k] = TensorViews::data(t);
      if (k == kParam) {
        entry.begin = total;
        entry.numel = numel;
        total += numel;
      } else if (entry.numel != numel) {
        return false;
      }
    }
  }
  return true;
}

bool weight_clip_list(const py::list& tensors, double low, double high) {
  std::vector<UpdateEntry> entries;
  UpdateSettings settings;
  int64_t total = 0;
  if (!fill({tensors}, entries, settings.kind, total)) return false;
  settings.low = low, settings.high = high;
  py::gil_scoped_release release;
  run(settings, entries, total);
  return true;
}

bool clipped_step_list(const py::list& params, const py::list& grads, const py::list& state0, const py::list& state1,
                       const py::list& state2, const py::list& steps, int64_t rule, double lr, double beta1,
                       double beta2, double eps, double weight_decay, double low, double high, bool maximize,
                       bool variant, bool first, bool decoupled) {
  std::vector<UpdateEntry> entries;
  UpdateSettings s =
      update_settings(rule, lr, beta1, beta2, eps, weight_decay, low, high, maximize, variant, first, decoupled);
  int64_t total = 0;
  const auto has = [](const py::list& list) { return PyList_GET_SIZE(list.ptr()) != 0; };
  if (!is_step(s.rule) || missing_list(s, has(grads), has(state0), has(state1), has(state2), has(steps))) return false;
  if (!fill({params, grads, state0, state1, state2}, entries, s.kind, total)) return false;
  std::vector<float*> counts(PyList_GET_SIZE(steps.ptr()));
  if (!counts.empty() && counts.size() != entries.size()) return false;
  for (size_t i = 0; i < counts.size(); ++i) {
    DlTensor t;
    int64_t numel = 0;
    if (!views().view(PyList_GET_ITEM(steps.ptr(), i), t, numel)) return false;
    if (TensorViews::kind(t) != ScalarKind::float32 || numel != 1) return false;
    counts[i] = static_cast<float*>(TensorViews::data(t));
  }
  for (size_t i = 0; i < counts.size(); ++i) count_step(s, entries[i], ++*counts[i]);
  py::gil_scoped_release release;
  run(s, entries, total);
  return true;
}

const FunctionsOfModule functions([](py::module_& m) {
  m.def("weight_clip", &weight_clip_list, "Clip a list of plain CPU tensors; False (and nothing done) for others.");
  m.def("clipped_step", &clipped_step_list, "Step on lists of plain CPU tensors; False (and nothing done) for others.");
});

}  // namespace
}  // namespace inpaint_fast
