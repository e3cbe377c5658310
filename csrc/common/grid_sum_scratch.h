// What a grid's sum is put together in (common/grid_sum.h); plain data without torch or CUDA headers.
#pragma once

#include <atomic>
#include <cstdint>
#include <random>

namespace inpaint_fast {

// Device memory of one number for each block, whatever it holds, and the tag of this launch.
struct GridSumScratch {
  double* partials = nullptr;  // null: no sum is wanted
  uint64_t* tags = nullptr;
  uint64_t tag = 0;
};

// A number that no other launch of this process gets, and never 0. All bits of it change from one to the next.
inline uint64_t next_tag() {
  static std::atomic<uint64_t> count{(uint64_t{std::random_device{}()} << 32 | std::random_device{}()) | 1};
  return count.fetch_add(2) * 0x9e3779b97f4a7c15u;  // of two odd numbers: odd, and another for each
}

}  // namespace inpaint_fast
