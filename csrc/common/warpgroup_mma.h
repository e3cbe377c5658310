// What a warpgroup (four warps in a row, the first of them a multiple of four) does together on the matrix units of
// sm_90a: products of tiles that lie in shared memory, which go on while the threads do other things (wgmma). One
// function for each PTX instruction, and the descriptors by which they name a tile. The tests' emulation has its own of
// the same names (tests/emulation/include/emulated_warpgroup_mma.h); the descriptors are common to both.
//
// Tiles are made of atoms: 8 rows of 128 bytes, which begin at a multiple of 1024. The chunk of 16 bytes with index c
// in row r lies at place c ^ (r % 8): the order in which a tensor map with CU_TENSOR_MAP_SWIZZLE_128B leaves a box.
//
//   K-major   a row has one row of a (or column of b) and goes along the summed index k. One wgmma takes 32 bytes of
//             each: 16 numbers of 16 bits, 8 of TF32.
//   MN-major  a row has one k and goes along 64 rows of a (or columns of b). One wgmma takes 16 rows, two atoms. Of
//   more
//             than 64 there are planes, one after the other. Numbers of 16 bits alone may lie so.
//
// With g = lane / 4, t = lane % 4 and w the warp in the group, a thread holds of the float32 sums c[64][N]
//     sums[4j], sums[4j + 1] = (16w + g, 8j + 2t), (16w + g, 8j + 2t + 1)
//     sums[4j + 2], sums[4j + 3] = (16w + g + 8, 8j + 2t), (16w + g + 8, 8j + 2t + 1)
// (PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions").
#pragma once

#include "common/warp_mma.h"

// sm_90a has instructions that no other architecture has, its successors neither. Kernels that use them are empty in
// what is compiled for others.
#if defined(INPAINT_FAST_EMULATION) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define INPAINT_FAST_SM90A
#endif

#ifdef INPAINT_FAST_EMULATION
#include <emulated_warpgroup_mma.h>
#endif

namespace inpaint_fast {
namespace device {

constexpr int kAtomBytes = 1024, kAtomRowBytes = 128;
constexpr int kProductBytes = 32;  // of one wgmma: of each row, where that goes along k
constexpr int kProductK = 16;      // of one wgmma of 16-bit numbers

// Of the K-major tile at `tile`, a whole number of atoms one after the other. To go along k, add bytes >> 4; not past
// the end of a row.
__device__ __forceinline__ uint64_t tile_descriptor(const void* tile) {
  constexpr uint64_t kSwizzle128 = 1;
  return (shared_address(tile) & 0x3ffff) >> 4 |  // bits 0 to 13: where it begins
         uint64_t{kAtomBytes >> 4} << 32 |        // bits 32 to 45, the stride: from 8 rows to the next 8
         kSwizzle128 << 62;                       // bits 62 and 63; the offset along the rows is not looked at
}
// Of the MN-major tile at `tile`, of planes of `plane_bytes`. To go along k, add the bytes of whole atoms >> 4; not
// past the end of a plane.
__device__ __forceinline__ uint64_t mn_major_descriptor(const void* tile, unsigned plane_bytes) {
  return tile_descriptor(tile) |            // whose stride is here from 8 k to the next 8
         uint64_t{plane_bytes >> 4} << 16;  // bits 16 to 29, the leading dimension's: from 64 rows of a to the next 64
}

#ifndef INPAINT_FAST_EMULATION

// The threads have done with the sums' registers, which products now write. Before the first product, and before
// products that follow upon others access to their sums.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// The products since the last commit become a group.
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until all groups but the last N are done: their tiles have been read, their sums are there.
template <int N>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
// No instruction: keeps the compiler from moving accesses to the sums across.
template <int N>
__device__ __forceinline__ void keep_in_place(float (&sums)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

// sums[64][N] += a[64][k] * b[N][k], of the tiles at two descriptors, which are both K-major or both MN-major.
#define INPAINT_FAST_SUMS_8(s, i)                                                                             \
  "+f"(s[i]), "+f"(s[i + 1]), "+f"(s[i + 2]), "+f"(s[i + 3]), "+f"(s[i + 4]), "+f"(s[i + 5]), "+f"(s[i + 6]), \
      "+f"(s[i + 7])
#define INPAINT_FAST_SUMS_32(s, i)                                                          \
  INPAINT_FAST_SUMS_8(s, i), INPAINT_FAST_SUMS_8(s, i + 8), INPAINT_FAST_SUMS_8(s, i + 16), \
      INPAINT_FAST_SUMS_8(s, i + 24)
#define INPAINT_FAST_NAMES_32                                                                                      \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31"
#define INPAINT_FAST_NAMES_64                                                                                      \
  INPAINT_FAST_NAMES_32                                                                                            \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53" \
  ", %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
// `factors`: not negated ("1, 1"), and of 16 bits whether they are transposed, which PTX calls MN-major.
#define INPAINT_FAST_WGMMA_64(shape_and_types, factors, transposed)                                        \
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, 1, 0;\nwgmma.mma_async.sync.aligned." shape_and_types \
               " {" INPAINT_FAST_NAMES_32 "}, %32, %33, add, " factors ";\n}\n"                            \
               : INPAINT_FAST_SUMS_32(sums, 0)                                                             \
               : "l"(a), "l"(b), "n"(static_cast<int>(transposed))                                         \
               : "memory")
#define INPAINT_FAST_WGMMA_128(shape_and_types, factors, transposed)                                       \
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, 1, 0;\nwgmma.mma_async.sync.aligned." shape_and_types \
               " {" INPAINT_FAST_NAMES_64 "}, %64, %65, add, " factors ";\n}\n"                            \
               : INPAINT_FAST_SUMS_32(sums, 0), INPAINT_FAST_SUMS_32(sums, 32)                             \
               : "l"(a), "l"(b), "n"(static_cast<int>(transposed))                                         \
               : "memory")

template <class T, bool kMnMajor>
__device__ __forceinline__ void wgmma_k16(float (&sums)[32], uint64_t a, uint64_t b) {
  if constexpr (std::is_same<T, Half>::value)
    INPAINT_FAST_WGMMA_64("m64n64k16.f32.f16.f16", "1, 1, %34, %34", kMnMajor);
  else
    INPAINT_FAST_WGMMA_64("m64n64k16.f32.bf16.bf16", "1, 1, %34, %34", kMnMajor);
}
template <class T, bool kMnMajor>
__device__ __forceinline__ void wgmma_k16(float (&sums)[64], uint64_t a, uint64_t b) {
  if constexpr (std::is_same<T, Half>::value)
    INPAINT_FAST_WGMMA_128("m64n128k16.f32.f16.f16", "1, 1, %66, %66", kMnMajor);
  else
    INPAINT_FAST_WGMMA_128("m64n128k16.f32.bf16.bf16", "1, 1, %66, %66", kMnMajor);
}
// Looks at TF32's bits of each float32 alone.
__device__ __forceinline__ void wgmma_k8_tf32(float (&sums)[32], uint64_t a, uint64_t b) {
  INPAINT_FAST_WGMMA_64("m64n64k8.f32.tf32.tf32", "1, 1", false);
}
__device__ __forceinline__ void wgmma_k8_tf32(float (&sums)[64], uint64_t a, uint64_t b) {
  INPAINT_FAST_WGMMA_128("m64n128k8.f32.tf32.tf32", "1, 1", false);
}

#undef INPAINT_FAST_WGMMA_128
#undef INPAINT_FAST_WGMMA_64
#undef INPAINT_FAST_NAMES_64
#undef INPAINT_FAST_NAMES_32
#undef INPAINT_FAST_SUMS_32
#undef INPAINT_FAST_SUMS_8

#endif  // INPAINT_FAST_EMULATION

}  // namespace device
}  // namespace inpaint_fast
