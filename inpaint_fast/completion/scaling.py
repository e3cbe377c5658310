"""Parts of a picture to a network's size, and its answer back into the hole; bounded memory, whatever the size."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from inpaint_fast.data import to_float, to_uint8

SAMPLES = 8  # at most so many source pixels, in each direction, make one pixel of the network's input
ROWS = 256  # rows of a hole that are enlarged at a time


class Region(NamedTuple):
    """A rectangle of a picture, in pixels, perhaps reaching over the picture's edges."""

    top: float
    left: float
    height: float
    width: float


def reduced(picture: Tensor, hole: Tensor, region: Region, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """A region at another size, its pixels the means of the known pixels that they stand for.

    Args:
        picture: uint8 (3, H, W). Beyond its edges it is mirrored.
        hole: bool (H, W), true in the hole.
        region: the part to take.
        size: height and width of the result, at most those of the region.

    Returns:
        float32 (3, *size) in [0, 1], and bool (1, *size), true where nothing was known and the picture is 0.
    """
    places = zip(region[:2], region[2:], hole.shape, size, strict=True)
    rows, columns = (_samples(start, extent, length, count) for start, extent, length, count in places)
    pixels = to_float(picture[:, rows][:, :, columns])
    known = (~hole[rows][:, columns]).float()[None]
    weight = F.adaptive_avg_pool2d(known, size)
    return F.adaptive_avg_pool2d(pixels * known, size) / weight.clamp(min=1e-6), weight == 0


def _samples(start: float, extent: float, length: int, count: int) -> Tensor:
    """Indices of samples over [start, start + extent) of a line of `length` pixels, mirrored at its ends."""
    taken = min(round(extent), count * SAMPLES)
    position = torch.floor(start + (torch.arange(taken) + 0.5) * (extent / taken)).long()
    position = position % (2 * length)
    return torch.minimum(position, 2 * length - 1 - position)


def check_picture(name: str, picture: Tensor) -> None:
    """Raise ValueError, naming the argument, where it is no uint8 tensor (3, H, W)."""
    if picture.dtype != torch.uint8 or picture.dim() != 3 or picture.shape[0] != 3:
        levels = picture.is_floating_point() and picture.dim() == 3 and picture.shape[0] == 3
        hint = "; of levels in [0, 1]: (255 * picture).round().byte()" if levels else ""
        raise ValueError(
            f"{name}: a uint8 tensor (3, H, W) is expected, got {picture.dtype} {tuple(picture.shape)}{hint}"
        )


def answer(filled: Tensor) -> Tensor:
    """What a network gave, float32 on the CPU.

    Raises:
        ValueError: it holds NaN or infinities, which a picture would show as black or white.
    """
    filled = filled.float().cpu()
    if not filled.isfinite().all():
        raise ValueError("weights: the generator's answer holds NaN or infinities; its weights are damaged")
    return filled


def enlarge_into(
    result: Tensor, hole: Tensor, box: tuple[int, int, int, int], region: Region, small: Tensor, *, add: bool = False
) -> None:
    """Write the hole's pixels inside `box` from a region's completed picture, interpolated bilinearly.

    Args:
        result: uint8 (3, H, W), written into.
        hole: bool (H, W); only its pixels are written.
        box: top, left, bottom, right (the last two excluded) of the part to write.
        region: what `small` shows.
        small: float (3, height, width) in [0, 1].
        add: `small` is a correction in [-1, 1], added to what `result` holds.
    """
    top, left, bottom, right = box
    # grid_sample's coordinates: -1 and 1 are the region's edges
    x = (torch.arange(left, right) + 0.5 - region.left) * (2 / region.width) - 1
    for row in range(top, bottom, ROWS):
        end = min(row + ROWS, bottom)
        y = (torch.arange(row, end) + 0.5 - region.top) * (2 / region.height) - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None].float()
        large = F.grid_sample(small[None], grid, align_corners=False, padding_mode="border")[0]
        inside = hole[row:end, left:right]
        window = result[:, row:end, left:right]
        window.copy_(torch.where(inside, to_uint8(to_float(window) + large if add else large), window))
