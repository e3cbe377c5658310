"""Which algorithm runs a convolution on the CPU, and from which size on a kernel of ours is faster than PyTorch's.

The numbers were measured on 2 cores of an AMD EPYC (Zen 5, AVX-512).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from inpaint_fast import _extension
from inpaint_fast.ops.conv_block.geometry import Block, Geometry

LEAST_CHANNELS = 24  # of input and output: fewer leave the vectors of a tile's transforms without work to share
# Of 4x4 pixels in all pictures, by stride: each task reads all transformed weights. Where these are kept, and where
# they are transformed at every call.
LEAST_TILES = {1: 4, 2: 9}
LEAST_TILES_UNKEPT = {1: 24, 2: 36}
# Where they are transformed twice at every call, and a gradient is transformed back; by stride and taps.
LEAST_TILES_TRAINING = {(1, 3): 24, (2, 3): 256, (2, 4): 128}
# Multiplications of the definition for one of ours, by stride: at best 4 and (for 4 taps) 2.6.
LEAST_GAIN = {1: 1.4, 2: 1.2}


def algorithm(
    block: Block,
    geometry: Geometry,
    dtype: torch.dtype,
    input: Sequence[int],
    weight: Sequence[int],
    training: bool,
    kept: bool,
) -> str:
    """What precision="fast" runs on the CPU: "winograd", or "direct", PyTorch's own convolution.

    Args:
        input, weight: their shapes.
        training: a gradient is wanted.
        kept: otherwise, the weight is kept transformed from call to call.
    """
    if dtype == torch.float64 or min(weight[:2]) < LEAST_CHANNELS:
        return "direct"
    images, taps = input[0], weight[2]
    smaller = input[2:] if block.transposed else block.size(input, weight, geometry)
    if block.stride == 1:
        products = images
        for side, out, d, p in zip(input[2:], smaller, geometry.dilation, geometry.padding, strict=True):
            # Pairs of a result and a tap on it that is no padding: PyTorch skips the others.
            products *= sum(max(0, min(out, side + p - k * d) - max(0, p - k * d)) for k in range(3))
    else:
        products = images * taps**2 * smaller[0] * smaller[1]
    tiles, ours = winograd_cost(block, images, smaller, geometry.dilation, taps)
    if training:
        least = LEAST_TILES_TRAINING[block.stride, taps]
    else:
        least = (LEAST_TILES if kept else LEAST_TILES_UNKEPT)[block.stride]
    return "winograd" if tiles >= least and products >= LEAST_GAIN[block.stride] * ours else "direct"


def winograd_cost(
    block: Block, images: int, sides: Sequence[int], dilation: Sequence[int], taps: int
) -> tuple[int, int]:
    """(tiles, products for a pair of channels) of pictures of these sides: the input's or output's, if smaller."""
    if torch.compiler.is_compiling():  # sizes may be symbols, and each question about one compiles for its answer
        tiles = images
        for side, d in zip(sides, dilation, strict=True):
            tiles *= side // (4 * d) * d + min(side % (4 * d), d)
        return tiles, tiles * (6 if block.stride == 1 else 6 + taps) ** 2
    kind = 0 if block.stride == 1 else 1
    return _extension.module.winograd_cost(kind, images, *sides, *dilation, taps)
