// float16 of CUDA on the CPU, by the conversions of the CPU kernels.
#pragma once

#define INPAINT_FAST_ISA emulated
#include "common/vec.h"

typedef inpaint_fast::emulated::Half __half;

inline float __half2float(__half x) { return inpaint_fast::emulated::to_scalar(x, 0.0f); }
inline __half __float2half_rn(float x) {
  __half y;
  inpaint_fast::emulated::from_scalar(&y, x);
  return y;
}
