"""The tiles of conv_block's Triton kernels: what one program computes, by architecture, precision and shape.

Nothing is tuned at import or at run time. `TILES` and `WEIGHT_GRADIENT_TILES` are all there is to replace after
measuring; results differ between tiles in nothing but the order of sums.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import triton
from torch import Tensor


@dataclass(frozen=True)
class Tile:
    """What one program computes, and with what.

    Attributes:
        pixels: of the result; for the weight's gradient, of one step of its sum.
        rows: output channels; for the weight's gradient too.
        channels: input channels: of one step of the sum; for the weight's gradient, of the result.
        warps: of 32 threads; 4 at most (kernels/conv_block says why).
        stages: how many steps' operands are in shared memory at a time.
    """

    pixels: int
    rows: int
    channels: int
    warps: int
    stages: int


# (architecture, precision) -> tiles, the largest first: the first that gives 9 in 10 multiprocessors work is taken.
# "sm_90" may hold 227 KiB of operands; "sm_80" keeps below the 99 KiB of smaller GPUs (8.6, 8.9, 12.x), which take it
# too. Chosen by registers and memory, not yet by measurement.
TILES = {
    ("sm_90", "half"): (
        Tile(128, 128, 64, warps=4, stages=3),
        Tile(128, 64, 64, warps=4, stages=4),
        Tile(64, 64, 64, warps=4, stages=4),
    ),
    ("sm_90", "tf32"): (
        Tile(128, 64, 32, warps=4, stages=4),
        Tile(64, 64, 32, warps=4, stages=4),
    ),
    ("sm_90", "ieee"): (Tile(64, 64, 16, warps=4, stages=3),),
    ("sm_80", "half"): (
        Tile(128, 128, 32, warps=4, stages=4),
        Tile(64, 128, 32, warps=4, stages=4),
        Tile(64, 64, 32, warps=4, stages=4),
    ),
    ("sm_80", "tf32"): (Tile(128, 64, 16, warps=4, stages=4), Tile(64, 64, 32, warps=4, stages=4)),
    ("sm_80", "ieee"): (Tile(64, 64, 16, warps=4, stages=3),),
}
WEIGHT_GRADIENT_TILES = {
    ("sm_90", "half"): Tile(64, 128, 128, warps=4, stages=4),
    ("sm_90", "tf32"): Tile(32, 128, 64, warps=4, stages=3),
    ("sm_90", "ieee"): Tile(16, 64, 32, warps=4, stages=3),
    ("sm_80", "half"): Tile(32, 128, 128, warps=4, stages=4),
    ("sm_80", "tf32"): Tile(32, 64, 64, warps=4, stages=3),
    ("sm_80", "ieee"): Tile(16, 64, 64, warps=4, stages=3),
}
# Sums of a program that leaves statistics of an activation's results: those take registers, more would spill.
MOST_WITH_STATISTICS = 128 * 64
LEAST_STEPS = 8  # of a program of the weight's gradient: below, adding its sum costs more than it saves


@functools.cache
def _device(index: int | None) -> tuple[str, int]:
    """(row of the tables, multiprocessors); of the interpreter, whose tensors are on the CPU, one."""
    if index is None:
        return "sm_90", 1
    facts = torch.cuda.get_device_properties(index)
    return "sm_90" if facts.major in (9, 10) else "sm_80", facts.multi_processor_count


def precision_of(tensor: Tensor, tf32: bool) -> str:
    return "half" if tensor.dtype != torch.float32 else "tf32" if tf32 else "ieee"


def _power(number: int, least: int, most: int) -> int:
    """The power of 2 between these bounds that covers number."""
    return min(most, max(least, triton.next_power_of_2(number)))


def box_of(pixels: int, height: int, width: int, columns: int = 16) -> dict[str, int]:
    """That many pixels as a box, `columns` wide where the picture is not smaller: both sides are powers of 2."""
    tile_h = _power(height, 1, pixels // _power(width, 1, min(columns, pixels)))
    return {"TILE_H": tile_h, "TILE_W": pixels // tile_h}


def tile_of(
    tensor: Tensor,
    tf32: bool,
    pictures: int,
    height: int,
    width: int,
    rows: int,
    channels: int,
    most: int | None = None,
) -> tuple[dict[str, int], dict[str, int]]:
    """(constants of the convolution's kernel, options of its launch) for a result of pictures of that size.

    `most`: sums of a program.
    """
    architecture, multiprocessors = _device(tensor.get_device() if tensor.is_cuda else None)
    for tile in TILES[architecture, precision_of(tensor, tf32)]:
        if most is not None and tile.pixels * tile.rows > most:
            continue
        box = box_of(tile.pixels, height, width)
        block = _power(rows, 16, tile.rows)
        programs = pictures * triton.cdiv(height, box["TILE_H"]) * triton.cdiv(width, box["TILE_W"])
        if programs * triton.cdiv(rows, block) >= 0.9 * multiprocessors:
            break
    constants = box | {"BLOCK_N": block, "BLOCK_K": _power(channels, 16, tile.channels)}
    return constants, {"num_warps": tile.warps, "num_stages": tile.stages}


def weight_gradient_tile_of(
    tensor: Tensor, tf32: bool, images: int, height: int, width: int, taps: int, rows: int, channels: int
) -> tuple[dict[str, int], dict[str, int], int]:
    """(constants of the weight gradient's kernel, options of its launch, shares of the pixels).

    `height`, `width`: of the smaller pictures; `taps`: along a side.
    """
    architecture, multiprocessors = _device(tensor.get_device() if tensor.is_cuda else None)
    tile = WEIGHT_GRADIENT_TILES[architecture, precision_of(tensor, tf32)]
    box = box_of(tile.pixels, height, width, columns=8)
    blocks = {"BLOCK_M": _power(rows, 16, tile.rows), "BLOCK_N": _power(channels, 16, tile.channels)}
    programs = taps**2 * triton.cdiv(rows, blocks["BLOCK_M"]) * triton.cdiv(channels, blocks["BLOCK_N"])
    steps = images * triton.cdiv(height, box["TILE_H"]) * triton.cdiv(width, box["TILE_W"])
    shares = min(triton.cdiv(2 * multiprocessors, programs), max(steps // LEAST_STEPS, 1))
    return box | blocks, {"num_warps": tile.warps, "num_stages": tile.stages}, shares
