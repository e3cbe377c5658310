// What the module tells about the blocks on a GPU besides their operators.
#include <pybind11/pybind11.h>

#include "common/python.h"
#include "conv_block/cuda/launchers.h"

namespace inpaint_fast {
namespace {

const FunctionsOfModule functions_of_blocks_on_cuda([](pybind11::module_& m) {
  m.def("dilated_block_cuda_capability", &cuda::convolution_capability,
        "Whose convolution runs on the current CUDA device: 'sm_80' or 'sm_90a'. RuntimeError without a device, and "
        "where INPAINT_FAST_CUDA_CAPABILITY asks for what is not there.");
  m.def("dilated_block_cuda_weight_gradient", &cuda::weight_gradient_capability,
        "Whose code of the weights' gradient runs there on float16 and bfloat16: as above, by "
        "INPAINT_FAST_CUDA_WEIGHT_GRADIENT.");
});

}  // namespace
}  // namespace inpaint_fast
