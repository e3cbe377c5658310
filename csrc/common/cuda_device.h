// Where an operator's CUDA kernels run: the device and stream of its tensors, and the names they are registered by.
// Only cuda_ops.cpp and cuda_python.cpp files include it, and only here does the tests' emulation differ from CUDA.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include "common/torch.h"

#ifdef INPAINT_FAST_EMULATION
// The tests' emulation registers the same implementations for CPU tensors, under names of their own.
#define INPAINT_FAST_CUDA_KEY CPU
#define INPAINT_FAST_CUDA_NAME(name) name "_emulated"
#define INPAINT_FAST_CUDA_IN_DLPACK 1
#else
#define INPAINT_FAST_CUDA_KEY CUDA
#define INPAINT_FAST_CUDA_NAME(name) name
#define INPAINT_FAST_CUDA_IN_DLPACK 2
// The stable ABI has no other way to the native handle of a stream before torch 2.13. Weak, because a torch without
// CUDA lacks it and must still be able to load this module.
extern "C" __attribute__((weak, visibility("default"))) AOTITorchError
aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);
#endif

namespace inpaint_fast {

constexpr int32_t kDeviceInDlpack = INPAINT_FAST_CUDA_IN_DLPACK;  // how DLPack names where the tensors are

// Makes the tensor's device the current one for its own lifetime: a launch goes to the current device, and that need
// not be where the tensors are. A kernel on any but the current stream would not wait for what made its inputs.
class OnDeviceOf {
 public:
#ifdef INPAINT_FAST_EMULATION
  explicit OnDeviceOf(const Tensor&) {}
  explicit OnDeviceOf(int32_t) {}
  void* stream() const { return nullptr; }
#else
  explicit OnDeviceOf(const Tensor& tensor) : OnDeviceOf(tensor.get_device_index()) {}
  explicit OnDeviceOf(int32_t index) : index_(index), guard_(index_) {}
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

// Whether a number that may lie on either side lies in the host's memory.
inline bool is_on_host(const Tensor& number) {
#ifdef INPAINT_FAST_EMULATION  // where all memory is the host's: a number with a dimension stands for one on the CPU
  return number.dim() > 0;
#else
  return number.is_cpu();
#endif
}

}  // namespace inpaint_fast
