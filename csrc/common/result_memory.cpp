#include "common/result_memory.h"

#include <cstdlib>
#include <map>
#include <mutex>
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace inpaint_fast {
namespace {

constexpr int64_t kLargePage = int64_t{2} << 20;

// Blocks that were given back, by size. Never destroyed: tensors may outlive static objects.
struct Kept {
  std::mutex mutex;
  std::multimap<int64_t, void*> blocks;
  int64_t bytes = 0;

  void* take(int64_t size) {
    {
      std::lock_guard<std::mutex> lock(mutex);
      auto found = blocks.find(size);
      if (found != blocks.end()) {
        void* block = found->second;
        blocks.erase(found);
        bytes -= size;
        return block;
      }
    }
    void* block = std::aligned_alloc(kLargePage, size);
#ifdef __linux__
    if (block) madvise(block, size, MADV_HUGEPAGE);  // a wish: a refusal changes nothing
#endif
    return block;
  }

  void give_back(int64_t size, void* block) {
    if (size > kKeptBytes) return std::free(block);
    std::lock_guard<std::mutex> lock(mutex);
    while (!blocks.empty() && bytes + size > kKeptBytes) {  // sizes that are no longer asked for make room
      auto other = blocks.begin()->first == size ? std::prev(blocks.end()) : blocks.begin();
      bytes -= other->first;
      std::free(other->second);
      blocks.erase(other);
    }
    blocks.emplace(size, block);
    bytes += size;
  }
};

Kept& kept() {
  static Kept* const all = new Kept;
  return *all;
}

// A tensor in a kept block; nothing when there is no memory.
std::optional<Tensor> in_kept_block(const Tensor& like, Sizes sizes, Sizes strides, int64_t bytes) {
  if (bytes > INT64_MAX - kLargePage) return std::nullopt;
  const int64_t size = round_up(bytes, kLargePage);
  void* const block = kept().take(size);
  if (!block) return std::nullopt;
  return torch::stable::from_blob(block, sizes, strides, like.device(), like.scalar_type(),
                                  [size](void* memory) { kept().give_back(size, memory); });
}

}  // namespace

Tensor empty_result_like(const Tensor& tensor) {
  const int64_t bytes = tensor.numel() * bytes_of(kind_of(tensor));
  if (bytes >= kLargeResult && is_dense(tensor))
    if (auto result = in_kept_block(tensor, tensor.sizes(), tensor.strides(), bytes)) return *result;
  return new_like(tensor);
}

Tensor empty_result(const Tensor& like, Sizes sizes, Sizes strides) {
  int64_t bytes = bytes_of(kind_of(like));
  for (const int64_t size : sizes) bytes = saturating_product(bytes, size);
  if (bytes >= kLargeResult)
    if (auto result = in_kept_block(like, sizes, strides, bytes)) return *result;
  return new_strided(like, sizes, strides, like.scalar_type());
}

}  // namespace inpaint_fast
