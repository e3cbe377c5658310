"""How Triton's kernels walk tensors: of any strides, by 32-bit or 64-bit indices, on the device where they lie."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl

INDEX_LIMIT = 2**31 - 1  # the largest index of 32 bits


def is_wide(furthest: int) -> bool:
    """Whether indices take 64 bits; `furthest`: the largest one computed, those past the ends of tensors included."""
    return furthest > INDEX_LIMIT


@triton.jit
def number(value, dtype: tl.constexpr):
    """A scalar argument as dtype has it: the interpreter hands in a Python float."""
    return tl.full([], value, dtype)


@triton.jit
def block_of(numel, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    """(flat indices, which of them exist) of a program that has one block of the elements."""
    at = tl.program_id(0).to(tl.int64 if WIDE else tl.int32) * BLOCK + tl.arange(0, BLOCK)
    return at, at < numel


@triton.jit
def offsets_of(index, sizes, strides, DIMS: tl.constexpr):
    """Where the elements of a flat index lie: sizes outermost first, strides in elements."""
    offset = tl.zeros_like(index).to(tl.int64)
    for d in tl.static_range(DIMS - 1, 0, -1):
        rest = index // sizes[d]  # and no % besides, which takes registers for a second division
        offset += (index - rest * sizes[d]).to(tl.int64) * strides[d]
        index = rest
    return offset + index.to(tl.int64) * strides[0]


def collapse(sizes: list[int], strides: list[list[int]]) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """The same elements in as few dimensions as the strides allow, in the order of the first operand's memory.

    Args:
        sizes: outermost first.
        strides: for each operand one stride a dimension, in elements.

    Returns:
        (sizes, strides): at least one dimension.
    """
    dims = [d for d in range(len(sizes)) if sizes[d] != 1]
    dims.sort(key=lambda d: abs(strides[0][d]), reverse=True)
    merged: list[tuple[int, ...]] = []  # the size, then the strides of the operands
    for d in dims:
        size, *steps = sizes[d], *(operand[d] for operand in strides)
        if merged and all(outer == step * size for outer, step in zip(merged[-1][1:], steps, strict=True)):
            size *= merged.pop()[0]
        merged.append((size, *steps))
    if not merged:
        merged = [(math.prod(sizes), *(1 for _ in strides))]
    return tuple(part[0] for part in merged), tuple(zip(*(part[1:] for part in merged), strict=True))


def is_dense(sizes: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """True when the elements lie one after the other in the order of the dimensions."""
    return all(stride == math.prod(sizes[d + 1 :]) for d, stride in enumerate(strides))


def on_their_device(operator: Callable) -> Callable:
    """A launch goes to the current device, and that need not be where the tensors are."""

    @functools.wraps(operator)
    def run(*args: Any) -> Any:
        with torch.cuda.device_of(args[0]):
            return operator(*args)

    return run
