// A sum over a whole grid in one launch: the last block waits for the partial sums of all others and adds them up.
//
// Every other design needs memory that holds a known value beforehand, a ticket counter that is 0: to clear it is
// another launch (a memset is a node of a CUDA graph, too); a counter that is kept and clears itself belongs to a
// stream, and a graph that was captured on one stream is replayed on another, beside whatever runs on the first. Here
// nothing is known of the memory: each partial sum comes with a tag that is this launch's own, and the last block takes
// away the tags that it has seen, so that a replay of the same launch finds none. Of two launches no tag is the same
// (64 bits, counted up from a random number); memory that never was a tag holds this one with a probability of 2^-64.
//
// Only one block waits, and for blocks that wait for none, so that all of them get their turn on any GPU. The order of
// addition is that of the blocks, whichever comes first: bitwise deterministic.
#pragma once

#include <cuda_runtime.h>

#include "common/device.h"
#include "common/grid_sum_scratch.h"

namespace inpaint_fast {
namespace device {

__device__ __forceinline__ void fence() {
#ifndef INPAINT_FAST_EMULATION  // runs one block after the other
  __threadfence();
#endif
}

// Adds up value over all threads of a one-dimensional grid. True in one thread of all, which gets the sum.
__device__ __forceinline__ bool grid_sum(const GridSumScratch& scratch, double& value) {
  const int last = static_cast<int>(gridDim.x) - 1;
  value = block_sum(value);
  if (static_cast<int>(blockIdx.x) != last) {
    if (threadIdx.x == 0) {
      *const_cast<volatile double*>(scratch.partials + blockIdx.x) = value;
      fence();
      *const_cast<volatile uint64_t*>(scratch.tags + blockIdx.x) = scratch.tag;
    }
    return false;
  }
  double sum = threadIdx.x == 0 ? value : 0;
  for (int i = threadIdx.x; i < last; i += blockDim.x) {
    volatile uint64_t* const tag = scratch.tags + i;
    while (*tag != scratch.tag) {
    }
    fence();
    sum += *const_cast<volatile double*>(scratch.partials + i);
    *tag = 0;  // no launch has this one
  }
  __syncthreads();  // before the second sum of this block
  value = block_sum(sum);
  return threadIdx.x == 0;
}

}  // namespace device
}  // namespace inpaint_fast
