// Memory for CPU results of some megabytes.
//
// Such a result usually comes as fresh memory from the system, page by page, which costs several times what computing
// it does. So a block that a result gives back is kept for the next result of its size, as PyTorch does for GPU memory,
// up to kKeptBytes in all; and blocks are aligned to 2 MB, which lets the system back them with large pages.
#pragma once

#include "common/torch.h"

namespace inpaint_fast {

constexpr int64_t kLargeResult = int64_t{4} << 20;  // bytes; smaller ones are PyTorch's own
constexpr int64_t kKeptBytes = int64_t{64} << 20;

// As torch.empty_like(tensor), for a CPU tensor.
Tensor empty_result_like(const Tensor& tensor);
// A tensor of these sizes and strides, without gaps, with the dtype and device of `like`, a CPU tensor.
Tensor empty_result(const Tensor& like, Sizes sizes, Sizes strides);

}  // namespace inpaint_fast
