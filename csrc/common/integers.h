// Arithmetic of sizes.
#pragma once

#include <stdint.h>

#ifdef __CUDACC__
#define INPAINT_FAST_HOST_DEVICE __host__ __device__
#else
#define INPAINT_FAST_HOST_DEVICE
#endif

namespace inpaint_fast {

INPAINT_FAST_HOST_DEVICE inline constexpr int64_t ceil_div(int64_t x, int64_t y) { return (x + y - 1) / y; }
INPAINT_FAST_HOST_DEVICE inline constexpr int64_t round_up(int64_t x, int64_t step) { return ceil_div(x, step) * step; }

// Of sizes, 0 or more; the largest number there is where the result is larger.
inline int64_t saturating_product(int64_t x, int64_t y) {
  int64_t product;
  return __builtin_mul_overflow(x, y, &product) ? INT64_MAX : product;
}
inline int64_t saturating_sum(int64_t x, int64_t y) {
  int64_t sum;
  return __builtin_add_overflow(x, y, &sum) ? INT64_MAX : sum;
}

}  // namespace inpaint_fast
