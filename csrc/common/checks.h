// The checks of arguments that all bindings share, on every device.
//
// The Python functions have named every wrong argument already; these keep a direct call of torch.ops.inpaint_fast from
// doing harm. So each argument is checked before any pointer is read, anything is allocated by it, or a device is asked
// for anything: what does not fit is a RuntimeError, and nothing has happened.
#pragma once

#include <stdint.h>

#include <algorithm>
#include <initializer_list>
#include <utility>
#include <vector>

#include "common/integers.h"
#include "common/torch.h"
#include "common/words.h"

namespace inpaint_fast {

inline bool is_float(ScalarKind kind) { return kind != ScalarKind::none && kind != ScalarKind::uint8; }

// ---- one tensor ----

// torch keeps none for some tensors: those of zeros that were never written, those whose storage was given back. And
// elements of a view of a file's bytes may begin anywhere, where vectors, and GPUs, cannot read them.
inline void check_memory(const Tensor& tensor, const char* name) {
  if (tensor.numel() == 0) return;
  const auto address = reinterpret_cast<uintptr_t>(tensor.data_ptr());
  STD_TORCH_CHECK(address, name, ": a tensor with memory of its own is expected");
  STD_TORCH_CHECK(address % std::max<int64_t>(bytes_of(kind_of(tensor)), 1) == 0, name,
                  ": elements at multiples of their size in memory are expected, as those of its clone are");
}

inline ScalarKind check_float(const Tensor& tensor, const char* name) {
  const ScalarKind kind = kind_of(tensor);
  STD_TORCH_CHECK(is_float(kind), name, ": its dtype is not float32, float64, float16 or bfloat16");
  check_memory(tensor, name);
  return kind;
}

inline void check_dims(const Tensor& tensor, int64_t dims, const char* name) {
  STD_TORCH_CHECK(tensor.dim() == dims, name, ": ", dims, " dimensions are expected, got ", tensor.dim());
}

// One number of float32 or float64.
inline ScalarKind check_scalar(const Tensor& tensor, const char* name) {
  const ScalarKind kind = kind_of(tensor);
  STD_TORCH_CHECK(tensor.numel() == 1, name, ": one element is expected, got ", tensor.numel());
  STD_TORCH_CHECK(kind == ScalarKind::float32 || kind == ScalarKind::float64, name,
                  ": its dtype is not float32 or float64");
  check_memory(tensor, name);
  return kind;
}

// Each stride leads past all that smaller ones reach: no two elements lie at one address. A view that interleaves
// others may be apart for all that; it is not for the few that do so to be changed in place.
inline bool is_apart(const Tensor& tensor) {
  std::vector<std::pair<int64_t, int64_t>> dims;  // stride, size
  for (int64_t d = 0; d < tensor.dim(); ++d)
    if (tensor.size(d) > 1) dims.emplace_back(tensor.stride(d), tensor.size(d));
  std::sort(dims.begin(), dims.end());
  int64_t reach = 0;
  for (const auto& [stride, size] : dims) {
    if (stride <= reach) return false;
    reach = saturating_sum(reach, saturating_product(stride, size - 1));
  }
  return true;
}

// ---- one tensor by another ----

inline void check_same_sizes(const Tensor& tensor, const Tensor& as, const char* name, const char* of) {
  const auto sizes = tensor.sizes(), expected = as.sizes();
  STD_TORCH_CHECK(sizes.size() == expected.size() && std::equal(sizes.begin(), sizes.end(), expected.begin()), name,
                  ": its shape is not that of ", of);
}

inline void check_same_device(const Tensor& tensor, const Tensor& as, const char* name, const char* of) {
  STD_TORCH_CHECK(tensor.device() == as.device(), name, ": it is not on the device of ", of);
}

inline void check_same_kind(const Tensor& tensor, const Tensor& as, const char* name, const char* of) {
  STD_TORCH_CHECK(kind_of(tensor) == kind_of(as), name, ": its dtype is not that of ", of);
  check_memory(tensor, name);
}

// ---- sizes ----

// Sizes of a tensor whose bytes can be counted; that there is memory for them is found out by allocating it.
inline void check_product(std::initializer_list<int64_t> sizes, const char* name) {
  constexpr int64_t kMost = int64_t{1} << 58;
  int64_t product = 1;
  for (const int64_t size : sizes) product = size == 0 ? 0 : saturating_product(product, size);
  STD_TORCH_CHECK(product <= kMost, name, ": the sizes are too large");
}

// ---- words ----

inline Activation activation_of(int64_t activation) {
  STD_TORCH_CHECK(activation >= 0 && activation < kActivations, "activation: 0 to ", kActivations - 1,
                  " is expected, got ", activation);
  return static_cast<Activation>(activation);
}

inline Order order_of(int64_t order) {
  STD_TORCH_CHECK(order >= 0 && order < kOrders, "order: 0 or 1 is expected, got ", order);
  return static_cast<Order>(order);
}

}  // namespace inpaint_fast
