// Whether facts about Python's objects still stand: what inpaint_fast/nn/fuse/facts.py says in Python, at a tenth of
// its time. It calls no code of anybody's but what the facts name.
#include <pybind11/pybind11.h>

#include "common/python.h"

namespace inpaint_fast {
namespace {

// The order is that of facts.py.
enum Kind {
  kOwnIs,
  kOwnLacks,
  kOwnEmpty,
  kDictIs,
  kDictLacks,
  kDictType,
  kItems,
  kType,
  kClass,
  kClassLacks,
  kFunction,
  kCall,
  kArgument
};

// An object's own attributes, or null: it has none.
PyObject* own(PyObject* object) {
  PyObject* dict = PyObject_GenericGetDict(object, nullptr);
  if (dict == nullptr) PyErr_Clear();
  Py_XDECREF(dict);  // the object holds it
  return dict;
}

// 1 or 0; -1 with an error set.
int entry_is(PyObject* dict, PyObject* key, PyObject* value) {
  if (dict == nullptr || !PyDict_Check(dict)) return 0;
  PyObject* found = PyDict_GetItemWithError(dict, key);
  if (found == nullptr && PyErr_Occurred()) return -1;
  return found == value;
}

int holds_items(PyObject* dict, PyObject* names, PyObject* values) {
  if (!PyDict_Check(dict) || PyDict_GET_SIZE(dict) != PyTuple_GET_SIZE(names)) return 0;
  PyObject *key, *value;
  for (Py_ssize_t place = 0, i = 0; PyDict_Next(dict, &place, &key, &value); ++i) {
    if (i >= PyTuple_GET_SIZE(values) || value != PyTuple_GET_ITEM(values, i)) return 0;
    PyObject* name = PyTuple_GET_ITEM(names, i);
    if (key != name && !(PyUnicode_CheckExact(key) && PyUnicode_Compare(key, name) == 0)) return 0;
  }
  return 1;
}

int is_result(PyObject* found, PyObject* value) {
  if (found == nullptr) return -1;
  const int same = found == value                     ? 1
                   : Py_TYPE(found) == Py_TYPE(value) ? PyObject_RichCompareBool(found, value, Py_EQ)
                                                      : 0;
  Py_DECREF(found);
  return same;
}

int stands(PyObject* which, PyObject* subject, PyObject* key, PyObject* value, PyObject* argument) {
  switch (PyLong_AsLong(which)) {
    case kOwnIs:
      return entry_is(own(subject), key, value);
    case kOwnLacks:
      return entry_is(own(subject), key, nullptr);
    case kOwnEmpty: {
      PyObject* dict = own(subject);
      PyObject* found = dict == nullptr ? nullptr : PyDict_GetItemWithError(dict, key);
      if (found == nullptr) return PyErr_Occurred() ? -1 : 0;
      return PyDict_Check(found) && PyDict_GET_SIZE(found) == 0;
    }
    case kDictIs:
      return entry_is(subject, key, value);
    case kDictLacks:
      return entry_is(subject, key, nullptr);
    case kDictType: {
      PyObject* found = PyDict_Check(subject) ? PyDict_GetItemWithError(subject, key) : nullptr;
      if (found == nullptr) return PyErr_Occurred() ? -1 : 0;
      return reinterpret_cast<PyObject*>(Py_TYPE(found)) == value;
    }
    case kItems:
      return PyTuple_Check(key) && PyTuple_Check(value) && holds_items(subject, key, value);
    case kType:
      return reinterpret_cast<PyObject*>(Py_TYPE(subject)) == value;
    case kClass:
      return PyType_Check(subject) && _PyType_Lookup(reinterpret_cast<PyTypeObject*>(subject), key) == value;
    case kClassLacks:
      return PyType_Check(subject) && _PyType_Lookup(reinterpret_cast<PyTypeObject*>(subject), key) == nullptr;
    case kFunction: {
      if (!PyFunction_Check(subject) || PyFunction_GET_CODE(subject) != key) return 0;
      PyObject* defaults = PyFunction_GET_DEFAULTS(subject);
      return (defaults == nullptr ? Py_None : defaults) == value;
    }
    case kCall:
      return is_result(PyObject_CallNoArgs(subject), value);
    case kArgument:
      return argument == nullptr ? 0 : is_result(PyObject_GetAttr(argument, key), value);
    default:
      if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "facts: a kind that is known is expected");
      return -1;
  }
}

// stand(facts, argument=None): whether all of these do; asked in their order.
PyObject* stand(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count < 1 || count > 2 || !PyTuple_CheckExact(args[0]) || PyTuple_GET_SIZE(args[0]) % 4 != 0) {
    PyErr_SetString(PyExc_TypeError, "facts: a tuple of fours, and the argument that they are about, are expected");
    return nullptr;
  }
  PyObject* facts = args[0];
  PyObject* argument = count == 2 ? args[1] : nullptr;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(facts); i += 4) {
    const int answer = stands(PyTuple_GET_ITEM(facts, i), PyTuple_GET_ITEM(facts, i + 1),
                              PyTuple_GET_ITEM(facts, i + 2), PyTuple_GET_ITEM(facts, i + 3), argument);
    if (answer < 0) return nullptr;
    if (answer == 0) Py_RETURN_FALSE;
  }
  Py_RETURN_TRUE;
}

PyMethodDef methods[] = {
    {"stand", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(&stand)), METH_FASTCALL,
     "stand(facts, argument=None): whether all of these facts (inpaint_fast/nn/fuse/facts.py) stand."},
    {nullptr, nullptr, 0, nullptr}};

const FunctionsOfModule functions_of_facts([](pybind11::module_& m) {
  if (PyModule_AddFunctions(m.ptr(), methods) != 0) throw pybind11::error_already_set();
});

}  // namespace
}  // namespace inpaint_fast
