// The instructions of csrc/common/tma.h on the CPU, as the PTX ISA tells them.
//
// A copy makes its box NaN at once and fills it when a thread waits for the phase of its barrier, no sooner, and only
// when as many bytes have been announced. Barriers that the copy engine has not been told of, phases with too many
// arrivals or bytes, and copies that nobody has waited for are errors; a phase that is never complete is a deadlock.
#pragma once

#include <cuda.h>
#include <emulated_block.h>

#include <initializer_list>

namespace emulation {

void make_barrier(uint64_t* barrier, unsigned arrivals);
void show_barriers(bool by_mbarrier_fence);
void arrive(uint64_t* barrier, unsigned bytes);
bool wait_for_phase(uint64_t* barrier, unsigned parity);
void copy_box(void* to, const CUtensorMap& map, uint64_t* barrier, std::initializer_list<int> at);
void named_barrier(int id, int threads);

}  // namespace emulation

namespace inpaint_fast {
namespace device {

inline void mbarrier_init(uint64_t* barrier, unsigned arrivals) { emulation::make_barrier(barrier, arrivals); }
inline void fence_mbarrier_init() { emulation::show_barriers(true); }
inline void fence_proxy_async() { emulation::show_barriers(false); }
inline void mbarrier_arrive(uint64_t* barrier) { emulation::arrive(barrier, 0); }
inline void mbarrier_arrive_expect_tx(uint64_t* barrier, unsigned bytes) { emulation::arrive(barrier, bytes); }
inline bool mbarrier_try_wait(uint64_t* barrier, unsigned parity) { return emulation::wait_for_phase(barrier, parity); }

inline void tma_load_3d(void* to, const CUtensorMap& map, uint64_t* barrier, int c0, int c1, int c2) {
  emulation::copy_box(to, map, barrier, {c0, c1, c2});
}
inline void tma_load_4d(void* to, const CUtensorMap& map, uint64_t* barrier, int c0, int c1, int c2, int c3) {
  emulation::copy_box(to, map, barrier, {c0, c1, c2, c3});
}
inline void barrier_sync(int id, int threads) { emulation::named_barrier(id, threads); }

}  // namespace device
}  // namespace inpaint_fast
