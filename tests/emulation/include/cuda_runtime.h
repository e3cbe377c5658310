// The part of CUDA's runtime that the kernels of this project use, on the CPU, for tests: see ../README.md.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>
#include <utility>

// ---- what nvcc knows by itself ----

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
// One copy for all threads; blocks run one after the other.
#define __shared__ static

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// ---- the runtime ----

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDeviceFunction = 98,
  cudaErrorNoKernelImageForDevice = 209
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
typedef struct EmulatedStream* cudaStream_t;

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

const char* cudaGetErrorString(cudaError_t status);
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
// By INPAINT_FAST_EMULATED_MULTIPROCESSORS, _SHARED_KB and _CAPABILITY. Without these, 2 multiprocessors, so that small
// tensors fill them, with what an H100 has of shared memory and its compute capability, 90.
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
struct cudaFuncAttributes {
  int maxThreadsPerBlock;
};
inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  return *attributes = {1024}, cudaSuccess;
}

#define CUDART_VERSION 13000
enum cudaDriverEntryPointQueryResult { cudaDriverEntryPointSuccess = 0, cudaDriverEntryPointSymbolNotFound = 1 };
constexpr unsigned long long cudaEnableDefault = 0;
// Of the functions of the emulated <cuda.h>.
cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned version,
                                             unsigned long long flags, cudaDriverEntryPointQueryResult* result);

namespace emulation {

// Runs body once for every thread of every block. Throws std::runtime_error when the threads of a block wait for each
// other in a way that a GPU would not survive.
cudaError_t run(const cudaLaunchConfig_t& config, const void* kernel, const std::function<void()>& body);

void* dynamic_shared();
void block_barrier();

// Hands in one value and waits for the lanes of mask; returns the value that lane `source` of this warp handed in.
uint64_t exchange(unsigned mask, uint64_t value, int source);
// Waits for the lanes of mask; returns a bit for each of them that handed in a value other than 0.
unsigned vote(unsigned mask, bool value);
int lane();

template <class T>
T exchange_as(unsigned mask, T value, int source) {
  static_assert(std::is_trivially_copyable<T>::value && sizeof(T) <= 8, "a shuffle moves 8 bytes at most");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = exchange(mask, bits, source);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace emulation

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  return emulation::run(*config, reinterpret_cast<const void*>(kernel), [&] { kernel(Parameters(arguments)...); });
}

// ---- device functions ----

using std::max;
using std::min;

inline void __syncthreads() { emulation::block_barrier(); }
inline void __syncwarp(unsigned mask = ~0u) { emulation::vote(mask, false); }

inline unsigned __ballot_sync(unsigned mask, int predicate) { return emulation::vote(mask, predicate); }
inline int __any_sync(unsigned mask, int predicate) { return emulation::vote(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return emulation::vote(mask, !predicate) == 0; }

// A source outside this lane's group of `width` lanes leaves it its own value.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize) {
  return emulation::exchange_as(mask, value, (emulation::lane() & -width) + (source & (width - 1)));
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  const int lane = emulation::lane(), source = lane + static_cast<int>(delta);
  return emulation::exchange_as(mask, value, source < (lane & -width) + width ? source : lane);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  const int lane = emulation::lane(), source = lane - static_cast<int>(delta);
  return emulation::exchange_as(mask, value, source >= (lane & -width) ? source : lane);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = warpSize) {
  const int lane = emulation::lane(), source = lane ^ lanes;
  return emulation::exchange_as(mask, value, source < (lane & -width) + width ? source : lane);
}
