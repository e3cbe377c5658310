// Lists of plain tensors straight from Python, for weight_clip and clipped_step.
//
// The dispatcher takes 0.2 us for each tensor of a list, more than clipping a small one takes. DLPack's C exchange API
// (torch.Tensor.__dlpack_c_exchange_api__) gives address, shape and strides in a tenth of that and is as stable as
// PyTorch's C shim. Anything that is not plain (another device, mixed dtypes, views, subclasses, compilers, transforms)
// is refused, before anything is changed; the registered operators do that.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "common/integers.h"
#include "weight_clip/params.h"

namespace inpaint_fast {

namespace py = pybind11;

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

  // False when the object is no contiguous tensor of a floating-point type on such a device; `count`: its elements.
  bool view(PyObject* object, int32_t device_type, DlTensor& out, int64_t& count) const {
    if (Py_TYPE(object) != tensor && Py_TYPE(object) != parameter) return false;
    if (api->view(object, &out) != 0) {
      PyErr_Clear();
      return false;
    }
    if (out.device_type != device_type || out.lanes != 1 || kind(out) == ScalarKind::none) return false;
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

inline const TensorViews& views() {
  static const TensorViews* const all = new TensorViews;
  return *all;
}

// The table of entries of lists of plain tensors, all of one dtype and on one device.
struct PlainTable {
  std::vector<UpdateEntry> entries;
  ScalarKind kind = ScalarKind::none;
  int64_t numel = 0;
  int32_t device_type = kDlCpu, device_id = -1;

  // Fills it from lists of operands ([]: there is none); false when one of them is not plain. With `signs` a view that
  // stands for negated numbers is none.
  bool fill(const std::vector<py::list>& operands, bool signs = true) {
    const TensorViews& torch = views();
    if (!torch.api) return false;
    const Py_ssize_t count = PyList_GET_SIZE(operands[kParam].ptr());
    for (const py::list& list : operands)
      if (PyList_GET_SIZE(list.ptr()) != 0 && PyList_GET_SIZE(list.ptr()) != count) return false;
    entries.resize(count);
    for (size_t k = 0; k < operands.size(); ++k) {
      if (PyList_GET_SIZE(operands[k].ptr()) == 0) continue;
      for (Py_ssize_t i = 0; i < count; ++i) {
        DlTensor t;
        int64_t size = 0;
        PyObject* const operand = PyList_GET_ITEM(operands[k].ptr(), i);
        if (!torch.view(operand, device_type, t, size)) return false;
        // States are the optimizer's own, made as numbers.
        if (signs && (k == kParam || k == kGradient) && !torch.is_as_stored(operand)) return false;
        if (kind == ScalarKind::none) kind = TensorViews::kind(t), device_id = t.device_id;
        if (TensorViews::kind(t) != kind || t.device_id != device_id) return false;
        UpdateEntry& entry = entries[i];
        entry.data[k] = TensorViews::data(t);
        if (k == kParam) {
          entry.begin = numel;
          entry.numel = size;
          numel += size;
        } else if (entry.numel != size) {
          return false;
        }
      }
    }
    return true;
  }
};

// Such bounds are those of the negated numbers, too: nobody needs to be asked, which takes as long as a small clip.
inline bool is_symmetric(double low, double high) { return low == -high; }

}  // namespace inpaint_fast
