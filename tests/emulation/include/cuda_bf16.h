// bfloat16 of CUDA on the CPU, by the conversions of the CPU kernels.
#pragma once

#include <cuda_fp16.h>

typedef inpaint_fast::emulated::BFloat16 __nv_bfloat16;

inline float __bfloat162float(__nv_bfloat16 x) { return inpaint_fast::emulated::to_scalar(x, 0.0f); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  __nv_bfloat16 y;
  inpaint_fast::emulated::from_scalar(&y, x);
  return y;
}
