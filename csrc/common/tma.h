// Boxes of tensors brought to shared memory by the copy engine of sm_90 (TMA), and the barriers in shared memory that
// tell when they are there (mbarrier): one function for each PTX instruction, and nothing else. The tests' emulation
// has its own of the same names (tests/emulation/include/emulated_tma.h).
//
// A barrier goes from phase to phase. A phase is complete when as many threads have arrived as the barrier was made for
// and as many bytes have come as arrivals have announced. Who waits names the parity of the phase: 0 for the first, 1
// for the second, 0 for the third. Waiting for parity 1 at a new barrier returns at once, as if a phase had gone
// before.
#pragma once

#include <cuda.h>

#include "common/warp_mma.h"

#ifdef INPAINT_FAST_EMULATION
#include <emulated_tma.h>
#else

namespace inpaint_fast {
namespace device {

__device__ __forceinline__ void mbarrier_init(uint64_t* barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
// After mbarrier_init: makes it known to the copy engine. Other threads of the block need a __syncthreads() besides.
__device__ __forceinline__ void fence_mbarrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// Between this thread's own accesses to shared memory and those of the copy engine or of wgmma.
__device__ __forceinline__ void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

__device__ __forceinline__ void mbarrier_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// Arrives, and announces bytes that the copy engine brings before the phase is complete.
__device__ __forceinline__ void mbarrier_arrive_expect_tx(uint64_t* barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
// True when the phase of that parity is complete; waits for it a while.
__device__ __forceinline__ bool mbarrier_try_wait(uint64_t* barrier, unsigned parity) {
  uint32_t complete;
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n"
      "}\n"
      : "=r"(complete)
      : "r"(shared_address(barrier)), "r"(parity)
      : "memory");
  return complete != 0;
}

// Start the copy of the box of `map` whose first element has these coordinates, the innermost first, to `to`, aligned
// to 1024 bytes where the map is swizzled. Coordinates may be negative or too large: what lies outside of the tensor
// comes as zeros, and is counted. By one thread; `map` is a __grid_constant__ parameter of the kernel.
__device__ __forceinline__ void tma_load_3d(void* to, const CUtensorMap& map, uint64_t* barrier, int c0, int c1,
                                            int c2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::
          "r"(shared_address(to)),
      "l"(&map), "r"(shared_address(barrier)), "r"(c0), "r"(c1), "r"(c2)
      : "memory");
}
__device__ __forceinline__ void tma_load_4d(void* to, const CUtensorMap& map, uint64_t* barrier, int c0, int c1, int c2,
                                            int c3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], "
      "[%2];" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(barrier)), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
      : "memory");
}

// __syncthreads() of `threads` threads, whole warps of the block, by the hardware's barrier `id` (1 to 15).
__device__ __forceinline__ void barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

}  // namespace device
}  // namespace inpaint_fast

#endif  // INPAINT_FAST_EMULATION
