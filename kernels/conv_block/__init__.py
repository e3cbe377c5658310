"""The three blocks in Triton: one implicit matrix product with its epilogue, and both gradients.

    dilated      y[n, o, i, j] is the sum over r, s, c of weight[o, c, r, s] * input[n, c, i + r * d - p, j + s * d - p]
    strided      y[n, o, i, j] is that of weight[o, c, r, s] * input[n, c, 2 * i + r - 1, 2 * j + s - 1]
    transposed   y[n, o, i, j] is that of weight[c, o, r, s] * input[n, c, k, l], 2 * k + r - 1 = i, 2 * l + s - 1 = j

Sums are float32; bias, scale, shift and activation follow in float32 before the one rounding to the result's dtype. The
transposed product is the same one on four phases of the output, each by every second tap (convolution.py). An input's
gradient is the product the other way: strided and transposed are each other's. The weight's gradient is a product over
pixels (weight_gradient.py). No atomics: results are equal bit by bit from run to run. blocks.py has the operators.

A loop that takes its index apart by division has been miscompiled on 8 warps, never on 4 (pytorch/pytorch#177823,
triton-lang/triton#1254): all tiles have 4.

The functions take what the schemas of the registered operators say. `geometry`: (dilation_h, dilation_w, padding_h,
padding_w).
"""

from inpaint_fast.kernels.conv_block.blocks import (
    dilated_block,
    dilated_block_input_gradient,
    dilated_block_statistics,
    dilated_block_weight_gradient,
    dilated_block_weights,
    strided_block,
    strided_block_statistics,
    strided_block_weight_gradient,
    strided_block_weights,
    transposed_block,
    transposed_block_statistics,
    transposed_block_weight_gradient,
    transposed_block_weights,
)

__all__ = [
    "dilated_block", "dilated_block_input_gradient", "dilated_block_statistics", "dilated_block_weight_gradient",
    "dilated_block_weights", "strided_block", "strided_block_statistics", "strided_block_weight_gradient",
    "strided_block_weights", "transposed_block", "transposed_block_statistics", "transposed_block_weight_gradient",
    "transposed_block_weights",
]  # fmt: skip
