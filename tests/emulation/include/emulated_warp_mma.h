// The instructions of csrc/common/warp_mma.h on the CPU, in the fragment layouts of the PTX ISA.
//
// A copy to shared memory makes its place NaN at once and fills it when the thread waits for it, no sooner: what is
// read too early, or overwritten while others still read it, shows. The sums of a product are float32, one by one.
// Bank conflicts of copies and of ldmatrix are errors: they cost a kernel of this kind its speed, and nothing tells.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <emulated_block.h>

namespace emulation {

// The copies of the current thread. Throw std::runtime_error where addresses or sizes are none that a GPU takes.
void start_copy(void* shared, const void* global, int bytes);
void commit_copies();
void wait_for_copies(unsigned groups_still_open);

// What each lane of this warp hands in, once all have. It stays until the lane has called this twice more.
struct LaneNumbers {
  const void* row;
  float a[8], b[4];
};
const LaneNumbers* hand_in(const LaneNumbers& mine);
// The rows of 16 bytes that the lanes name for ldmatrix.
const LaneNumbers* hand_in_row(const void* row);

// c[16][8] += a[16][8 or 16] * b: every lane its four numbers. Lane (g, t) hands in a's numbers at rows g, g + 8 and
// columns k_of(t, 0..), and b's at the same k and column g.
template <int kPerRegister>
void multiply(float (&c)[4], const float (&a)[4 * kPerRegister], const float (&b)[2 * kPerRegister]) {
  LaneNumbers mine = {};
  for (int i = 0; i < 4 * kPerRegister; ++i) mine.a[i] = a[i];
  for (int i = 0; i < 2 * kPerRegister; ++i) mine.b[i] = b[i];
  const LaneNumbers* const all = hand_in(mine);
  const int g = lane() / 4, t = lane() % 4;
  for (int half = 0; half < 2; ++half)    // of k: the first and the second registers
    for (int of_k = 0; of_k < 4; ++of_k)  // the lane that has it
      for (int i = 0; i < kPerRegister; ++i)
        for (int row = 0; row < 2; ++row)
          for (int column = 0; column < 2; ++column)
            c[2 * row + column] += all[4 * g + of_k].a[(2 * half + row) * kPerRegister + i] *
                                   all[4 * (2 * t + column) + of_k].b[half * kPerRegister + i];
}

template <class T>
void decode(float* numbers, uint32_t bits) {
  T pair[2];
  std::memcpy(pair, &bits, sizeof bits);
  for (int i = 0; i < 2; ++i) numbers[i] = inpaint_fast::emulated::to_scalar(pair[i], 0.0f);
}

}  // namespace emulation

namespace inpaint_fast {
namespace device {

inline uint32_t shared_address(const void* p) { return emulation::shared_address(p); }

inline void cp_async_16(void* shared, const void* global, int bytes) { emulation::start_copy(shared, global, bytes); }
inline void cp_async_commit() { emulation::commit_copies(); }
template <int N>
void cp_async_wait() {
  emulation::wait_for_copies(N);
}

inline void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  const emulation::LaneNumbers* const all = emulation::hand_in_row(row);
  const int g = emulation::lane() / 4, t = emulation::lane() % 4;
  for (int i = 0; i < 4; ++i) std::memcpy(&r[i], static_cast<const char*>(all[8 * i + g].row) + 4 * t, 4);
}
inline void ldmatrix_x4_transposed(uint32_t (&r)[4], const void* row) {
  const emulation::LaneNumbers* const all = emulation::hand_in_row(row);
  const int g = emulation::lane() / 4, t = emulation::lane() % 4;
  for (int i = 0; i < 4; ++i) {
    uint16_t pair[2];
    for (int j = 0; j < 2; ++j) std::memcpy(&pair[j], static_cast<const char*>(all[8 * i + 2 * t + j].row) + 2 * g, 2);
    std::memcpy(&r[i], pair, 4);
  }
}

template <class T>
void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  float a_numbers[8], b_numbers[4];
  for (int i = 0; i < 4; ++i) emulation::decode<T>(a_numbers + 2 * i, a[i]);
  emulation::decode<T>(b_numbers, b0);
  emulation::decode<T>(b_numbers + 2, b1);
  emulation::multiply<2>(c, a_numbers, b_numbers);
}
// The hardware does not look at the 13 bits that TF32 lacks.
inline void mma_m16n8k8_tf32(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  float numbers[6];
  const uint32_t bits[6] = {a[0], a[1], a[2], a[3], b0, b1};
  for (int i = 0; i < 6; ++i) {
    const uint32_t seen = bits[i] & ~0x1fffu;
    std::memcpy(&numbers[i], &seen, 4);
  }
  emulation::multiply<1>(c, {numbers[0], numbers[1], numbers[2], numbers[3]}, {numbers[4], numbers[5]});
}

inline uint32_t to_tf32(uint32_t bits) {
  const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  return finite ? (bits + 0x1000u) & ~0x1fffu : bits;  // adding half a unit carries into the exponent as it should
}

}  // namespace device
}  // namespace inpaint_fast
