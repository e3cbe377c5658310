// The instructions of csrc/common/warpgroup_mma.h on the CPU, in the fragment layout and by the descriptors of the PTX
// ISA.
//
// The sums of a product are NaN from its start until its thread has waited for its group, and the tiles are read as
// late as that: a tile that is given back too early shows. All 128 threads of a warpgroup must start the same products
// in the same order. Products without a fence since their thread last waited, products whose sums were written while
// others were under way, and products that nobody has waited for are errors.
#pragma once

#include <emulated_warp_mma.h>

namespace emulation {

typedef void (*DecodeRow)(float* numbers, const char* row);  // of 32 bytes that are neighbours in a row

// sums[64][columns] += a[64][k] * b[columns][k]; of the sums, those of this thread.
void start_product(float* sums, int columns, uint64_t a, uint64_t b, int k, bool mn_major, DecodeRow decode);
void fence_products();
void commit_products();
void wait_for_products(unsigned groups_still_open);

template <class T>
void decode_row(float* numbers, const char* row) {
  for (int i = 0; i < 16; ++i) {
    T number;
    std::memcpy(&number, row + 2 * i, 2);
    numbers[i] = inpaint_fast::emulated::to_scalar(number, 0.0f);
  }
}
// The hardware does not look at the 13 bits that TF32 lacks.
inline void decode_row_tf32(float* numbers, const char* row) {
  for (int i = 0; i < 8; ++i) {
    uint32_t bits;
    std::memcpy(&bits, row + 4 * i, 4);
    bits &= ~0x1fffu;
    std::memcpy(numbers + i, &bits, 4);
  }
}

}  // namespace emulation

namespace inpaint_fast {
namespace device {

inline void wgmma_fence() { emulation::fence_products(); }
inline void wgmma_commit() { emulation::commit_products(); }
template <int N>
void wgmma_wait() {
  emulation::wait_for_products(N);
}
template <int N>
void keep_in_place(float (&)[N]) {}

template <class T, bool kMnMajor, int N>
void wgmma_k16(float (&sums)[N], uint64_t a, uint64_t b) {
  emulation::start_product(sums, 2 * N, a, b, 16, kMnMajor, emulation::decode_row<T>);
}
template <int N>
void wgmma_k8_tf32(float (&sums)[N], uint64_t a, uint64_t b) {
  emulation::start_product(sums, 2 * N, a, b, 8, false, emulation::decode_row_tf32);
}

}  // namespace device
}  // namespace inpaint_fast
