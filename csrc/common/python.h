// What csrc/module.cpp takes into the module: functions of csrc/<stem>/python.cpp and, in a build with CUDA,
// csrc/<stem>/cuda_python.cpp. Whichever of these files are in the build say so themselves. All of them are compiled as
// one file (setup.py), so that a name of one is no other's.
#pragma once

#include <vector>

namespace pybind11 {
class module_;
}

namespace inpaint_fast {

typedef void (*DefineFunctions)(pybind11::module_& m);

inline std::vector<DefineFunctions>& all_functions_of_module() {
  static std::vector<DefineFunctions> all;
  return all;
}

// To be made as a static object.
struct FunctionsOfModule {
  explicit FunctionsOfModule(DefineFunctions define) { all_functions_of_module().push_back(define); }
};

}  // namespace inpaint_fast
