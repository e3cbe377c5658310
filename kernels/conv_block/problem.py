"""What the kernels of conv_block share: what a convolution is, the product, and where a tap lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from inpaint_fast.kernels import _walk

BLOCK = 256  # of the kernels that run along the weight


class Convolution(NamedTuple):
    """Which pixels of its input an output pixel meets, by which taps.

    Attributes:
        taps: along a side.
        stride: 1 or 2, from one pixel of the smaller picture to the next, in pixels of the larger one.
        transposed: it goes from the smaller picture to the larger one; with stride 1, its taps are in reverse.
        geometry: (dilation_h, dilation_w, padding_h, padding_w).
    """

    taps: int
    stride: int
    transposed: bool
    geometry: Sequence[int]

    @property
    def is_input_gradient(self) -> bool:
        """It makes the gradient of the input out of that of the output, of a convolution of stride 1."""
        return self.transposed and self.stride == 1

    @property
    def phases(self) -> int:
        """Along a side of the output: sets of pixels that meet taps of their own."""
        return self.stride if self.transposed else 1

    def channels(self, weight: Tensor) -> tuple[int, int]:
        """(of the input, of the output)."""
        return (weight.shape[0], weight.shape[1]) if self.transposed else (weight.shape[1], weight.shape[0])

    def size(self, pictures: Tensor) -> tuple[int, int]:
        """Height and width of the output for these pictures."""
        height, width = pictures.shape[2:]
        if self.transposed and self.stride == 2:
            return 2 * height, 2 * width
        more_h, more_w = (
            2 * p - d * (self.taps - 1) for d, p in zip(self.geometry[:2], self.geometry[2:], strict=True)
        )
        if self.transposed:
            return height - more_h, width - more_w
        return (height + more_h - 1) // self.stride + 1, (width + more_w - 1) // self.stride + 1


def is_wide(weight: Tensor, *pictures: Tensor) -> bool:
    """Whether offsets in the weight or within one of the pictures need 64 bits."""

    def last(tensor: Tensor, dims: slice) -> int:
        return sum((n - 1) * s for n, s in zip(tensor.shape[dims], tensor.stride()[dims], strict=True))

    furthest = [last(tensor, slice(1, None)) for tensor in pictures]
    return _walk.is_wide(max(weight.numel() + BLOCK, last(weight, slice(None)), *furthest))


# ---- inside the kernels ----


@triton.jit
def tap_offset(row, column, tap, strides, TAPS: tl.constexpr):
    """Where a tap of the weight lies: strides of its row, its column and its taps' row and column, in elements."""
    return row * strides[0] + column * strides[1] + tap // TAPS * strides[2] + tap % TAPS * strides[3]


@triton.jit
def as_tf32(x):
    """float32 rounded to the 11 bits of TF32, half away from zero: tensor cores cut the others off."""
    bits = (x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000
    return tl.where(x - x == 0, bits.to(tl.float32, bitcast=True), x)  # infinities and NaN as they are


@triton.jit
def dot(a, b, sums, PRECISION: tl.constexpr, INTERPRETED: tl.constexpr):
    if INTERPRETED:  # the interpreter multiplies float16 as such and takes bfloat16 for whole numbers
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, sums, input_precision="tf32" if PRECISION == "tf32" else "ieee")
