// What every bindings.cpp needs of PyTorch's stable ABI, in one place.
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

inline void check_same_sizes(const Tensor& tensor, const Tensor& as, const char* name, const char* of = "pred") {
  bool same = tensor.dim() == as.dim();
  for (int64_t d = 0; same && d < as.dim(); ++d) same = tensor.size(d) == as.size(d);
  STD_TORCH_CHECK(same, name, ": its shape is not that of ", of);
}

// The strides of one operand of a Strided whose dimensions were added from a tensor of the same shape.
inline void set_strides(Strided& walk, int operand, const Tensor& tensor) {
  for (int64_t d = 0; d < tensor.dim(); ++d) walk.strides[operand][d] = tensor.stride(d);
}

}  // namespace inpaint_fast
