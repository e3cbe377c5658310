// The element types that kernels read and write, by names of our own: kernels include no torch header.
#pragma once

namespace inpaint_fast {

enum class ScalarKind : int { none, float32, float64, float16, bfloat16, uint8 };

}  // namespace inpaint_fast
