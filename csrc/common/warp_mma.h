// What one warp does together on the matrix units of sm_80 and later, and copies to shared memory that go on while the
// threads compute: one function for each PTX instruction, and nothing else. The tests' emulation has its own of the
// same names (tests/emulation/include/emulated_warp_mma.h).
//
// Fragments are those of the PTX ISA, "Matrix multiply-accumulate operation using mma instruction". With g = lane / 4
// and t = lane % 4, a lane holds of the float32 sums c[16][8]
//     c[0], c[1] = (g, 2t), (g, 2t + 1)        c[2], c[3] = (g + 8, 2t), (g + 8, 2t + 1)
// and of the factors, in 32-bit registers of two 16-bit numbers (k and k + 1) or one TF32 number,
//     16 bits:  a[0..3] = (g, k = 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8)     b[0..1] = (k = 2t, g), (2t + 8, g)
//     TF32:     a[0..3] = (g, k = t), (g + 8, t), (g, t + 4), (g + 8, t + 4)         b[0..1] = (k = t, g), (t + 4, g)
#pragma once

#include "common/device.h"

#ifdef INPAINT_FAST_EMULATION
#include <emulated_warp_mma.h>
#else

namespace inpaint_fast {
namespace device {

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Starts a copy of `bytes` (0 to 16) bytes from global to shared memory, both aligned to 16, and zeros for the rest of
// 16. With 0 bytes nothing is read. The data may be used after cp_async_wait, by other threads after a barrier besides.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
               : "memory");
}
// The thread's copies since the last commit become a group, an empty one if there are none.
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until all groups of this thread are there, but for the N that were committed last.
template <int N>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// Four matrices of 8 rows of 16 bytes: lane i names row i % 8 of matrix i / 8, and gets the 32 bits t of row g of each.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
// The same of matrices of 16-bit numbers, transposed: numbers g of rows 2t and 2t + 1.
__device__ __forceinline__ void ldmatrix_x4_transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// c += a * b
template <class T>
__device__ __forceinline__ void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <>
__device__ __forceinline__ void mma_m16n8k16<Half>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void mma_m16n8k16<BFloat16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                                       uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// a and b: rounded by to_tf32.
__device__ __forceinline__ void mma_m16n8k8_tf32(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The bits of a float32 number, rounded to TF32's 10 bits of mantissa: to nearest, halves away from zero.
__device__ __forceinline__ uint32_t to_tf32(uint32_t bits) {
  uint32_t rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__uint_as_float(bits)));
  return rounded;
}

}  // namespace device
}  // namespace inpaint_fast

#endif  // INPAINT_FAST_EMULATION
