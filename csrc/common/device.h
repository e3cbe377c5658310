// What kernels share: element types and the type they are computed in, packs of elements that are loaded and stored
// at once, and the sum over a block.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "common/scalar_kind.h"
#include "common/strided.h"

namespace inpaint_fast {
namespace device {

typedef __half Half;
typedef __nv_bfloat16 BFloat16;

// The type an element is computed in: float, or double for double.
template <class T>
struct ComputeOf {
  typedef float type;
};
template <>
struct ComputeOf<double> {
  typedef double type;
};
template <class T>
using Compute = typename ComputeOf<T>::type;

template <class A, class T>
__device__ __forceinline__ A to_compute(T x) {
  return static_cast<A>(x);
}
template <>
__device__ __forceinline__ float to_compute<float, Half>(Half x) {
  return __half2float(x);
}
template <>
__device__ __forceinline__ float to_compute<float, BFloat16>(BFloat16 x) {
  return __bfloat162float(x);
}

// Rounds to nearest even.
__device__ __forceinline__ void store(float* p, float x) { *p = x; }
__device__ __forceinline__ void store(double* p, double x) { *p = x; }
__device__ __forceinline__ void store(Half* p, float x) { *p = __float2half_rn(x); }
__device__ __forceinline__ void store(BFloat16* p, float x) { *p = __float2bfloat16_rn(x); }

constexpr int kLoadBytes = 16;  // the widest load and store of one thread

// N elements in a row, moved by as few loads and stores as their size allows.
template <class T, int N>
struct alignas(sizeof(T) * N < kLoadBytes ? sizeof(T) * N : kLoadBytes) Pack {
  T values[N];
};

template <int N, class T>
__device__ __forceinline__ Pack<T, N> load_pack(const T* p) {
  return *reinterpret_cast<const Pack<T, N>*>(p);
}
template <int N, class T>
__device__ __forceinline__ void store_pack(T* p, const Pack<T, N>& pack) {
  *reinterpret_cast<Pack<T, N>*>(p) = pack;
}
template <class P>
__host__ __device__ __forceinline__ bool is_aligned(const void* p) {
  return (reinterpret_cast<uintptr_t>(p) & (alignof(P) - 1)) == 0;
}

// Where the element of a flat index of the walk lies in every operand, in elements.
template <class Index>
__device__ __forceinline__ void all_offsets(const Strided& walk, Index element, int64_t (&offsets)[kMaxOperands]) {
  for (int k = 0; k < kMaxOperands; ++k) offsets[k] = 0;
  for (int d = walk.dims - 1; d >= 0; --d) {
    const Index size = static_cast<Index>(walk.sizes[d]);
    const Index outer = d > 0 ? element / size : 0;
    const int64_t at = static_cast<int64_t>(element - outer * size);
#pragma unroll
    for (int k = 0; k < kMaxOperands; ++k) offsets[k] += at * walk.strides[k][d];
    element = outer;
  }
}

// The sum over all threads of a block of whole warps, in a fixed order; thread 0 gets it.
__device__ __forceinline__ double block_sum(double value) {
  __shared__ double of_warp[32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_down_sync(~0u, value, offset);
  if (lane == 0) of_warp[warp] = value;
  __syncthreads();
  if (warp == 0) {
    value = lane < warps ? of_warp[lane] : 0;
    for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_down_sync(~0u, value, offset);
  }
  return value;
}

// A float32 or float64 scalar in device memory.
__device__ __forceinline__ double load_scalar(const void* p, ScalarKind kind) {
  return kind == ScalarKind::float64 ? *static_cast<const double*>(p) : *static_cast<const float*>(p);
}

}  // namespace device
}  // namespace inpaint_fast
