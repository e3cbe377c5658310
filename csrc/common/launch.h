// The one way a kernel is started and dynamic shared memory is taken.
//
// It is all that ties a .cu file to CUDA's own syntax: the tests put a <cuda_runtime.h> of theirs first on the include
// path, and the same file compiles as plain C++ (tests/emulation). No torch header.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

// Tensors below this size are indexed with 32 bits, whose divisions are several times faster. Half the range of
// uint32_t, so that a loop may step past the end. The emulation lowers it to reach the 64-bit kernels.
#ifndef INPAINT_FAST_INDEX_LIMIT
#define INPAINT_FAST_INDEX_LIMIT (int64_t{1} << 31)
#endif

namespace inpaint_fast {

// More needs an attribute of the kernel.
constexpr size_t kPlainSharedBytes = 48 << 10;

// Starts kernel<<<grid, block, shared_bytes, stream>>>(arguments...); throws an error that names it if it cannot start.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, void* stream,
            Arguments&&... arguments) {
  cudaError_t status = cudaSuccess;
  if (shared_bytes > kPlainSharedBytes)
    status = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(shared_bytes));
  if (status == cudaSuccess) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = static_cast<cudaStream_t>(stream);
    status = cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
  }
  if (status == cudaSuccess) return;
  cudaGetLastError();  // or the next check of anybody would report this error as its own
  std::string message = std::string("CUDA kernel ") + name + " did not start: " + cudaGetErrorString(status);
  if (status == cudaErrorNoKernelImageForDevice)
    message += ". This build has none for this GPU; build with its compute capability in TORCH_CUDA_ARCH_LIST";
  throw std::runtime_error(message);
}

// The dynamic shared memory of this block, as an array of T.
template <class T>
__device__ T* dynamic_shared() {
#ifdef INPAINT_FAST_EMULATION
  return static_cast<T*>(emulation::dynamic_shared());
#else
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<T*>(bytes);
#endif
}

}  // namespace inpaint_fast
