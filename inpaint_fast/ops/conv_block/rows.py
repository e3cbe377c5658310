"""A convolution to few channels, one row of taps at a time.

PyTorch's convolution on the CPU (oneDNN's) computes 16 output channels at once, the lanes of a vector, however few are
wanted: of 3 channels, four fifths of the work is for nothing. All rows of taps as a convolution of their own have as
many times more channels, and one row of taps: 7 rows of 3 channels fill 21 of 32 lanes. What they give is added, each
row of taps for another row of pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from inpaint_fast.ops.conv_block.geometry import Geometry

# Measured on an AMD EPYC (Zen 5, AVX-512), one thread: 3 times faster for 64 -> 3 channels with 7x7 taps on 512x512
# pixels, 1.5 times for 64 -> 3 with 3x3 on 64x64, slower for 32 -> 3 with 3x3 on 32x32.
LANES = 16
LEAST_GAIN = 2.0  # multiplications of the usual way for one
LEAST_PRODUCTS = 1 << 24  # of the usual way, below which the sums take longer than is gained


def gains_by_rows(weight: Sequence[int]) -> bool:
    """Whether a weight of this shape, (C_out, C_in, taps, taps), has so few output channels that rows pay on a map of
    some size."""
    out, _, rows, _ = weight
    return rows * _lanes(out) >= LEAST_GAIN * _lanes(rows * out)


def pays_by_rows(weight: Sequence[int], pixels: int) -> bool:
    """The same on this many pixels of the result, in all pictures."""
    out, channels, rows, columns = weight
    return gains_by_rows(weight) and pixels * channels * rows * columns * _lanes(out) >= LEAST_PRODUCTS


def _lanes(channels: int) -> int:
    return -(-channels // LANES) * LANES


def convolution_by_rows(geometry: Geometry, channels_last: bool) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """The convolution of stride 1, as a function of input, weight and bias. channels_last: the result is."""
    dilation_h, dilation_w, padding_h, padding_w = geometry
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def convolve(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        out, channels, rows, columns = weight.shape
        of_rows = weight.permute(2, 0, 1, 3).reshape(rows * out, channels, 1, columns)
        y = torch.conv2d(input, of_rows, None, 1, (0, padding_w), (1, dilation_w)).unflatten(1, (rows, out))
        side = input.shape[2]
        height = side + 2 * padding_h - (rows - 1) * dilation_h
        total = y.new_zeros(y.shape[0], out, height, y.shape[4]).contiguous(memory_format=layout)
        if bias is not None:
            total += bias.view(-1, 1, 1)
        for row in range(rows):
            below = row * dilation_h - padding_h  # the row of pixels that this row of taps reads for the result's first
            first, last = max(0, -below), min(height, side - below)
            if first < last:
                total[:, :, first:last] += y[:, row, :, first + below : last + below]
        return total

    return convolve
