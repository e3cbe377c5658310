// The module inpaint_fast._C. Importing it registers every operator's implementations (static objects of the
// cpu_ops.cpp and cuda_ops.cpp files); the module itself only answers what was built and which processor it runs on.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <string>

#include "common/amx.h"
#include "common/cpu_capability.h"
#include "common/python.h"

namespace {

std::map<std::string, std::string> build_info() {
  return {
#include "build_facts.h"
  };
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled operators of inpaint_fast; the operators themselves are in torch.ops.inpaint_fast.";
  m.def("build_info", &build_info, "Facts of the build: torch, compiler, CUDA, architectures, commit.");
  m.def(
      "cpu_capability", [] { return inpaint_fast::name_of(inpaint_fast::cpu_capability()); },
      "The instruction set that the CPU kernels use: 'baseline', 'avx2' or 'avx512'.");
  m.def("cpu_capabilities", &inpaint_fast::cpu_capabilities,
        "Every instruction set that this build has and this processor runs, slowest first.");
  m.def("set_cpu_capability", &inpaint_fast::set_cpu_capability, pybind11::arg("name"),
        "Force one instruction set by name. ValueError when it is not there.");
  m.def(
      "amx", [] { return inpaint_fast::name_of(inpaint_fast::amx()); },
      "Whether float32 may be multiplied on AMX: 'tiles', 'none', or in tests 'stand_in', plain C++ in its place.");
  m.def("set_amx", &inpaint_fast::set_amx, pybind11::arg("name"), "For tests: 'stand_in', or '' for what there is.");
  for (const auto define : inpaint_fast::all_functions_of_module()) define(m);
  inpaint_fast::cpu_capability();
}
