// What bindings need of PyTorch's stable ABI, in one place.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

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

// An uninitialised tensor on the device of `like`. By the shim itself: torch::stable::new_empty and empty_like look for
// an operator by its name first, which takes longer than a small kernel.
inline Tensor new_tensor(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef sizes,
                         torch::headeronly::IntHeaderOnlyArrayRef strides, ScalarType type) {
  int32_t device_type, device_index;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  const int32_t dtype = torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
  AtenTensorHandle made;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.data(),
                                                         strides.data(), dtype, device_type, device_index, &made));
  return Tensor(made);
}

inline Tensor new_vector(const Tensor& like, int64_t size, ScalarType type) {
  const int64_t one = 1;
  return new_tensor(like, {&size, 1}, {&one, 1}, type);
}

// What an operator returns where nothing was asked for.
inline Tensor nothing(const Tensor& like) { return new_vector(like, 0, like.scalar_type()); }

}  // namespace inpaint_fast
