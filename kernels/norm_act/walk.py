"""What both directions share: the parts and tiles of a tensor, numbers of channels, and the normalisation itself."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from inpaint_fast.kernels._walk import is_wide

TILE = 1024  # elements that a program has before it at a time
CHANNELS = 128  # most of them are side by side in a tile, in rows
MAX_PARTS = 512  # of a channel's values
PROGRAMS = 2048  # fill any GPU; more would only leave more to put together
COMBINED = 32  # parts that are put together at a time; channels of a program that does so


# ---- inside the kernels: a program has the values [begin, end) of some channels ----


@triton.jit
def share_of(count, length, parts, WIDE: tl.constexpr, CHANNELS: tl.constexpr):
    """(part, its first value, the one behind its last, channels): what this program has of everything."""
    part = tl.program_id(0) % parts
    begin = part.to(tl.int64 if WIDE else tl.int32) * length
    c = (tl.program_id(0) // parts) * CHANNELS + tl.arange(0, CHANNELS)
    return part, begin, tl.minimum(begin + length, count), c


@triton.jit
def offset_of(i, c, channels, pixels, ROWS: tl.constexpr, WIDE: tl.constexpr):
    """Where value i of channel c lies: rows are (pixels, channels), planes are (samples, channels, pixels)."""
    c = c.to(tl.int64 if WIDE else tl.int32)
    return i * channels + c if ROWS else (i // pixels * channels + c) * pixels + i % pixels


@triton.jit
def tile_at(start, end, c, channels, pixels, ROWS: tl.constexpr, WIDE: tl.constexpr, VALUES: tl.constexpr):
    """(where the values from start on lie, which of them exist)."""
    i = start + tl.arange(0, VALUES)[:, None]
    return offset_of(i, c[None, :], channels, pixels, ROWS, WIDE), (i < end) & (c < channels)[None, :]


@triton.jit
def of_channels(pointer, c, there, otherwise: tl.constexpr, HAS: tl.constexpr):
    """A number of each channel, in float64."""
    found = tl.full(c.shape, otherwise, tl.float64)
    if HAS:
        found = tl.load(pointer + c, there, otherwise).to(tl.float64)
    return found


@triton.jit
def store_number(pointer, c, x, there):
    """x, float64, as pointer's type has it; by way of float32 to the short ones, which interpreted Triton needs."""
    element: tl.constexpr = pointer.dtype.element_ty
    tl.store(pointer + c, x if element == tl.float64 else x.to(tl.float32).to(element), there)


@triton.jit
def normalisation(
    mean, invstd, weight, bias, c, has, compute: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr
):
    """(shift, scale in float64, offset). u - shift is exact where u is near it, and offset takes the rest."""
    shift = mean.to(compute)
    scale = invstd * of_channels(weight, c, has, 1.0, HAS_WEIGHT)
    offset = of_channels(bias, c, has, 0.0, HAS_BIAS) - (mean - shift.to(tl.float64)) * scale
    return shift, scale, offset.to(compute)


# ---- launches ----


class Walk:
    """How the kernels walk a tensor: its memory order, and the parts and tiles that follow from its shape."""

    def __init__(self, input: Tensor) -> None:
        pixels = math.prod(input.shape[2:])
        self.channels = input.shape[1]
        self.count = input.shape[0] * pixels
        rows = not (input.is_contiguous() and pixels > 1)
        channels = min(triton.next_power_of_2(self.channels), CHANNELS) if rows else 1
        values = TILE // channels
        self.groups = triton.cdiv(self.channels, channels)
        parts = min(triton.cdiv(self.count, 4 * values), triton.cdiv(PROGRAMS, self.groups), MAX_PARTS)
        length = triton.cdiv(triton.cdiv(self.count, parts), values) * values
        self.parts = triton.cdiv(self.count, length)  # none of them is empty
        self.grid = (self.parts * self.groups,)
        self.combine_grid = (triton.cdiv(self.channels, COMBINED),)
        self.sizes = (self.count, self.channels, pixels, length, self.parts)
        wide = is_wide(input.numel() + MAX_PARTS * TILE)  # parts end at whole tiles, past the last value
        self.constants = {"ROWS": rows, "WIDE": wide, "VALUES": values, "CHANNELS": channels}

    def partials(self, input: Tensor) -> Tensor:
        return input.new_empty(2 * self.parts * self.channels, dtype=torch.float64)


def dense(tensor: Tensor) -> Tensor:
    """The tensor itself where its elements lie in planes or rows, otherwise a contiguous copy."""
    return tensor if tensor.movedim(1, -1).is_contiguous() else tensor.contiguous()


def dense_like(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor itself where it has the strides of `like`, otherwise a copy that has."""
    strides = zip(tensor.stride(), like.stride(), like.shape, strict=True)
    return tensor if all(a == b or size == 1 for a, b, size in strides) else torch.empty_like(like).copy_(tensor)


def present(*tensors: Tensor | None, otherwise: Tensor) -> list[Tensor]:
    """Each of a number a channel, side by side; something that is never read for what is not there."""
    return [otherwise if tensor is None else tensor.contiguous() for tensor in tensors]
