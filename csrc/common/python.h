// What csrc/module.cpp takes into the module from csrc/<stem>/python.cpp.
#pragma once

namespace pybind11 {
class module_;
}

namespace inpaint_fast {

void define_dilated_block(pybind11::module_& m);
void define_weight_clip(pybind11::module_& m);

}  // namespace inpaint_fast
