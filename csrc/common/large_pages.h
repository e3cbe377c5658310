// Asks the system to back a new large result with large pages.
//
// A result of some megabytes usually comes as fresh memory, and touching that 4 KB at a time costs several times what
// computing it does. Where the system allows it (madvise mode, the default of most Linux distributions) 2 MB pages
// take that cost away; PyTorch does the same for all its memory when THP_MEM_ALLOC_ENABLE=1 is set.
#pragma once

#include <cstdint>
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace inpaint_fast {

inline void prefer_large_pages(void* data, int64_t bytes) {
#ifdef __linux__
  constexpr uintptr_t kPage = 4096;
  constexpr int64_t kLargePage = int64_t{2} << 20;
  if (bytes < 2 * kLargePage) return;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + kPage - 1) & ~(kPage - 1);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) & ~(kPage - 1);
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // a wish: a refusal changes nothing
#endif
}

}  // namespace inpaint_fast
