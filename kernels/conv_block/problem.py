"""What the kernels of conv_block share: the arguments that launches rely on, the product, and where a tap lies."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from inpaint_fast._words import ACTIVATIONS, ORDERS
from inpaint_fast.kernels import _walk

BLOCK = 256  # of the kernels that run along the weight


# ---- arguments; the public functions have named every wrong one already ----


def expect(condition: bool, message: str) -> None:
    if not condition:
        raise RuntimeError(f"dilated_block: {message}")


def check_pictures(pictures: Tensor, weight: Tensor, channels: int, geometry: Sequence[int]) -> None:
    expect(pictures.dim() == 4 and weight.dim() == 4, "pictures and a weight of 4 dimensions are expected")
    expect(weight.shape[2:] == (3, 3), f"taps of 3x3 are expected, got {tuple(weight.shape[2:])}")
    expect(pictures.shape[1] == channels, f"{channels} channels are expected, got {pictures.shape[1]}")
    expect(pictures.dtype == weight.dtype, f"one dtype is expected, got {pictures.dtype} and {weight.dtype}")
    expect(pictures.dtype in (torch.float32, torch.float16, torch.bfloat16), f"no kernel for {pictures.dtype}")
    expect(len(geometry) == 4, f"geometry: two dilations and two paddings are expected, got {list(geometry)}")
    expect(min(geometry[:2]) >= 1, f"a dilation of at least 1 is expected, got {tuple(geometry[:2])}")


def check_epilogue(channels: int, vectors: Sequence[Tensor | None], activation: int, order: int) -> None:
    expect(
        all(vector is None or vector.shape == (channels,) for vector in vectors), f"vectors of {channels} are expected"
    )
    expect(0 <= activation < len(ACTIVATIONS), f"there is no activation {activation}")
    expect(0 <= order < len(ORDERS), f"there is no order {order}")


def output_size(size: Sequence[int], geometry: Sequence[int]) -> tuple[int, int]:
    """Height and width of the convolution of pictures of that height and width."""
    height, width = (side + 2 * (p - d) for side, d, p in zip(size, geometry[:2], geometry[2:], strict=True))
    return height, width


def is_wide(weight: Tensor, *pictures: Tensor) -> bool:
    """Whether offsets in the weight or within one of the pictures need 64 bits."""

    def last(tensor: Tensor, dims: slice) -> int:
        return sum((n - 1) * s for n, s in zip(tensor.shape[dims], tensor.stride()[dims], strict=True))

    furthest = [last(tensor, slice(1, None)) for tensor in pictures]
    return _walk.is_wide(max(weight.numel() + BLOCK, last(weight, slice(None)), *furthest))


# ---- inside the kernels ----


@triton.jit
def tap_offset(row, column, tap, strides):
    """Where a tap of the weight lies: strides of its row, its column and its taps' row and column, in elements."""
    return row * strides[0] + column * strides[1] + tap // 3 * strides[2] + tap % 3 * strides[3]


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
