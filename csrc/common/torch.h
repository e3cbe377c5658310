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
  for (int64_t d = 0; d < tensor.dim(); ++d) walk.strides[operand][d] = tensor.stride(d);
}

// True when the tensor's elements fill its memory without gaps: empty_like then keeps its strides.
inline bool is_dense(const Tensor& tensor) {
  if (tensor.dim() > kMaxDims) return false;
  Strided walk;
  walk.operands = 1;
  for (int64_t d = 0; d < tensor.dim(); ++d) walk.add_dim(tensor.size(d));
  set_strides(walk, 0, tensor);
  walk.collapse();
  return walk.dims == 1 && walk.strides[0][0] == 1;
}

}  // namespace inpaint_fast
