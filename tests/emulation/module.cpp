// What csrc/<home>/cuda_python.cpp gives the module, emulated.
#include <pybind11/pybind11.h>

#include "common/python.h"

PYBIND11_MODULE(emulated, m) {
  for (const auto define : inpaint_fast::all_functions_of_module()) define(m);
}
