// weight_clip for lists of plain CUDA tensors, straight from Python (plain_tensors.h says why): the table of 1,000
// tensors is made anew at every call, which takes less time than to ask whether a kept one is still right.
#include <pybind11/pybind11.h>

#include "common/cuda_device.h"
#include "common/python.h"
#include "weight_clip/cuda/launchers.h"
#include "weight_clip/plain_tensors.h"

namespace inpaint_fast {
namespace {

bool weight_clip_cuda_list(const py::list& tensors, double low, double high) {
  PlainTable table;
  table.device_type = kDeviceInDlpack;
  if (!table.fill({tensors}, !is_symmetric(low, high))) return false;
  if (table.numel == 0) return true;
  UpdateSettings settings;
  settings.kind = table.kind, settings.low = low, settings.high = high;
  py::gil_scoped_release release;
  const OnDeviceOf device(table.device_id);
  cuda::update(settings, table.entries.data(), table.entries.size(), nullptr, {}, device.stream());
  return true;
}

const FunctionsOfModule functions_of_weight_clip_on_cuda([](py::module_& m) {
  m.def("weight_clip_cuda", &weight_clip_cuda_list,
        "Clip a list of plain CUDA tensors of one device; False (and nothing done) for others.");
});

}  // namespace
}  // namespace inpaint_fast
