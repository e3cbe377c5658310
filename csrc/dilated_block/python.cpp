// What the module tells about dilated_block besides its operators.
#include <pybind11/pybind11.h>

#include "common/python.h"
#ifdef INPAINT_FAST_CUDA
#include "dilated_block/cuda.h"
#endif
#include "dilated_block/tasks.h"

namespace inpaint_fast {
namespace {

int64_t workspace_bytes(int64_t images, int64_t in_channels, int64_t out_channels, int64_t height, int64_t width,
                        int64_t dilation_h, int64_t dilation_w, bool channels_last) {
  DilatedBlock args;
  args.tiling.images = images, args.tiling.height = height, args.tiling.width = width;
  args.tiling.dilation_h = dilation_h, args.tiling.dilation_w = dilation_w;
  args.input.channels = in_channels, args.output.channels = out_channels;
  args.input.of_channel = args.output.of_channel = channels_last ? 1 : height * width;
  return 4 * Tasks(args).workspace_floats();
}

}  // namespace

void define_dilated_block(pybind11::module_& m) {
  m.def("dilated_block_workspace", &workspace_bytes,
        "Bytes that one thread needs for an output of (images, out_channels, height, width).");
#ifdef INPAINT_FAST_CUDA
  m.def("dilated_block_cuda_capability", &cuda::convolution_capability,
        "Whose convolution runs on the current CUDA device: 'sm_80' or 'sm_90a'. RuntimeError without a device, and "
        "where "
        "INPAINT_FAST_CUDA_CAPABILITY asks for what is not there.");
#endif
}

}  // namespace inpaint_fast
