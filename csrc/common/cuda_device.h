// Where an operator's CUDA kernels run: the device and stream of its tensors, and the names they are registered by.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include "common/torch.h"

#ifdef INPAINT_FAST_EMULATION
// The tests' emulation registers the same implementations for CPU tensors, under names of their own.
#define INPAINT_FAST_CUDA_KEY CPU
#define INPAINT_FAST_CUDA_NAME(name) name "_emulated"
#else
#define INPAINT_FAST_CUDA_KEY CUDA
#define INPAINT_FAST_CUDA_NAME(name) name
// The stable ABI has no other way to the native handle of a stream before torch 2.13. Weak, because a torch without
// CUDA lacks it and must still be able to load this module.
extern "C" __attribute__((weak, visibility("default"))) AOTITorchError
aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);
#endif

namespace inpaint_fast {

// Makes the tensor's device the current one for its own lifetime: a launch goes to the current device, and that need
// not be where the tensors are. A kernel on any but the current stream would not wait for what made its inputs.
class OnDeviceOf {
 public:
#ifdef INPAINT_FAST_EMULATION
  explicit OnDeviceOf(const Tensor&) {}
  void* stream() const { return nullptr; }
#else
  explicit OnDeviceOf(const Tensor& tensor) : index_(tensor.get_device_index()), guard_(index_) {}
  void* stream() const {
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream, "this PyTorch was built without CUDA");
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index_, &stream));
    return stream;
  }

 private:
  torch::stable::accelerator::DeviceIndex index_;
  torch::stable::accelerator::DeviceGuard guard_;
#endif
};

inline void check_same_device(const Tensor& tensor, const Tensor& as, const char* name, const char* of = "pred") {
  STD_TORCH_CHECK(tensor.is_cuda() == as.is_cuda() && tensor.get_device_index() == as.get_device_index(), name,
                  ": it is not on the device of ", of);
}

}  // namespace inpaint_fast
