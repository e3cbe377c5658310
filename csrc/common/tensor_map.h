// Tensor maps: what tells the copy engine of sm_90 (common/tma.h) where a tensor lies and which box of it a copy takes.
// They are made on the host and handed to a kernel as `const __grid_constant__ CUtensorMap`. The driver's function is
// asked for at run time, so that nothing is linked with libcuda, which a machine without a GPU does not have.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace inpaint_fast {

// Throws an error that names what is missing.
inline decltype(&cuTensorMapEncodeTiled) tensor_map_encoder() {
  static const auto found = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
    constexpr unsigned kSince = 12000;
    const cudaError_t status =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kSince, cudaEnableDefault, &result);
#else
    const cudaError_t status = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &result);
#endif
    if (status != cudaSuccess || result != cudaDriverEntryPointSuccess || !function)
      throw std::runtime_error("CUDA: this driver has no cuTensorMapEncodeTiled; one for CUDA 12 or later is expected");
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
  }();
  return found;
}

// The map of a tensor of kRank dimensions, the innermost first: sizes, strides in bytes of all but the innermost (whose
// elements are neighbours), and the box of a copy: how many elements, and the steps from one of them to the next. The
// box's rows have 128 bytes and come swizzled; outside of the tensor are zeros.
//
// The driver takes sizes from 1 on, strides that are multiples of 16 below 2^40, steps up to 8, boxes that reach over
// at most 256 along each dimension, and data aligned to 16 bytes; what it refuses is an error that names the tensor.
template <int kRank>
CUtensorMap tensor_map(const char* name, CUtensorMapDataType type, const void* data, const uint64_t (&sizes)[kRank],
                       const uint64_t (&strides)[kRank - 1], const uint32_t (&box)[kRank],
                       const uint32_t (&steps)[kRank]) {
  cuuint64_t all_sizes[kRank], all_strides[kRank - 1];
  cuuint32_t reach[kRank], all_steps[kRank];
  for (int i = 0; i < kRank; ++i) all_sizes[i] = sizes[i], reach[i] = box[i] * steps[i], all_steps[i] = steps[i];
  for (int i = 0; i < kRank - 1; ++i) all_strides[i] = strides[i];
  CUtensorMap map;
  const CUresult result =
      tensor_map_encoder()(&map, type, kRank, const_cast<void*>(data), all_sizes, all_strides, reach, all_steps,
                           CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                           CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    throw std::runtime_error(std::string("CUDA: the driver made no tensor map of ") + name + " (error " +
                             std::to_string(static_cast<int>(result)) + ")");
  return map;
}

}  // namespace inpaint_fast
