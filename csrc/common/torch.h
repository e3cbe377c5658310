// What bindings need of PyTorch's stable ABI, in one place.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <array>
#include <optional>

#include "common/scalar_kind.h"
#include "common/strided.h"

namespace inpaint_fast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline ScalarKind kind_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return ScalarKind::float32;
    case ScalarType::Double:
      return ScalarKind::float64;
    case ScalarType::Half:
      return ScalarKind::float16;
    case ScalarType::BFloat16:
      return ScalarKind::bfloat16;
    case ScalarType::Byte:
    case ScalarType::Bool:
      return ScalarKind::uint8;
    default:
      return ScalarKind::none;
  }
}

inline int64_t bytes_of(ScalarKind kind) {
  switch (kind) {
    case ScalarKind::float64:
      return 8;
    case ScalarKind::float32:
      return 4;
    case ScalarKind::float16:
    case ScalarKind::bfloat16:
      return 2;
    case ScalarKind::uint8:
      return 1;
    default:
      return 0;
  }
}

// The strides of one operand of a Strided whose dimensions were added from a tensor of the same shape.
inline void set_strides(Strided& walk, int operand, const Tensor& tensor) {
  const auto strides = tensor.strides();
  for (size_t d = 0; d < strides.size(); ++d) walk.strides[operand][d] = strides[d];
}

// True when the tensor's elements fill its memory without gaps: empty_like then keeps its strides.
inline bool is_dense(const Tensor& tensor) {
  if (tensor.dim() > kMaxDims) return false;
  Strided walk;
  walk.operands = 1;
  for (const int64_t size : tensor.sizes()) walk.add_dim(size);
  set_strides(walk, 0, tensor);
  walk.collapse();
  return walk.dims == 1 && walk.strides[0][0] == 1;
}

// ---- new tensors: without the dispatcher, which takes longer than the kernels of small tensors ----

typedef torch::headeronly::IntHeaderOnlyArrayRef Sizes;

// On the device of `like`; nothing is written.
inline Tensor new_strided(const Tensor& like, Sizes sizes, Sizes strides, ScalarType type) {
  int32_t device_type = 0, device_index = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  const auto kind = torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
  AtenTensorHandle made = nullptr;
  const AOTITorchError error = aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.data(),
                                                        strides.data(), kind, device_type, device_index, &made);
  STD_TORCH_CHECK(error == AOTI_TORCH_SUCCESS, "there is no memory for a result");
  return Tensor(made);
}

// The strides of sizes in this order of the dimensions, outermost first; as torch has them where sizes are 0.
template <size_t kDims>
std::array<int64_t, kDims> strides_of(const std::array<int64_t, kDims>& sizes, const std::array<int, kDims>& order) {
  std::array<int64_t, kDims> strides;
  int64_t next = 1;
  for (size_t i = kDims; i-- > 0; next = saturating_product(next, std::max<int64_t>(sizes[order[i]], 1)))
    strides[order[i]] = next;
  return strides;
}

inline Tensor new_vector(const Tensor& like, int64_t size, ScalarType type) {
  return new_strided(like, {size}, {int64_t{1}}, type);
}
inline Tensor new_vector(const Tensor& like, int64_t size) { return new_vector(like, size, like.scalar_type()); }

// As torch.empty_like(tensor).
inline Tensor new_like(const Tensor& tensor) {
  if (tensor.numel() == 0 || !is_dense(tensor)) return torch::stable::empty_like(tensor);
  return new_strided(tensor, tensor.sizes(), tensor.strides(), tensor.scalar_type());
}

}  // namespace inpaint_fast
