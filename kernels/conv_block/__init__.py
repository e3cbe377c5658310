"""The dilated-convolution block in Triton: one implicit matrix product with its epilogue, and both gradients.

    y[n, o, i, j] = sum over r, s, c of weight[o, c, r, s] * input[n, c, i + r * d - p, j + s * d - p]

Sums are float32; bias, scale, shift and activation follow in float32 before the one rounding to the result's dtype. The
input's gradient is the same product with channels swapped and taps in reverse (convolution.py), the weight's one over
pixels (weight_gradient.py). No atomics: results are equal bit by bit from run to run.

A loop that takes its index apart by division has been miscompiled on 8 warps, never on 4 (pytorch/pytorch#177823,
triton-lang/triton#1254): tiles of 8 warps have a loop for each tap instead, and the weight's gradient runs on 4.

The functions take what the schemas of the registered operators say. `geometry`: (dilation_h, dilation_w, padding_h,
padding_w).
"""

from inpaint_fast.kernels.conv_block.convolution import (
    dilated_block,
    dilated_block_input_gradient,
    dilated_block_statistics,
    dilated_block_weights,
)
from inpaint_fast.kernels.conv_block.weight_gradient import dilated_block_weight_gradient

__all__ = [
    "dilated_block", "dilated_block_input_gradient", "dilated_block_statistics", "dilated_block_weight_gradient",
    "dilated_block_weights",
]  # fmt: skip
