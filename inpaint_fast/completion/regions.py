"""Holes of any shape, filled by a `CompletionNetwork` in bounded regions round them.

The network answers for pictures of any size, and well for those of the size that it was trained on: what the far taps
of its dilated convolutions would see beyond that, they have never seen. The published sizes are 5/3 of the longest hole
and more. So a window of a hole, at most as long as the longest hole of the training, is filled from a region of that
length about it; a long hole takes several. What is thicker is reduced to that, with its surroundings, and the answer
enlarged; thickness is the side of the largest square that fits into the hole. Memory is bounded whatever the picture's
size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from inpaint_fast.completion.fills import paste
from inpaint_fast.completion.holes import Box, hole_boxes, thick_part, thickness, windows
from inpaint_fast.completion.scaling import Region, answer, enlarge_into, reduced
from inpaint_fast.data import Batch, to_uint8
from inpaint_fast.models.glcic import CompletionNetwork

SURROUNDINGS = 5 / 3  # times the longest hole: 160 pixels round 96, as published


def complete_holes(network: CompletionNetwork, batch: Batch, *, at_once: int = 16) -> Tensor:
    """A batch's holes filled, (N, 3, H, W), at most `at_once` pictures at a time; known pixels as they were."""
    parts = zip(batch.image.split(at_once), batch.mask.split(at_once), strict=True)
    return torch.cat([paste(network(image, mask), image, mask) for image, mask in parts])


def fill_regions(
    network: CompletionNetwork,
    picture: Tensor,
    hole: Tensor,
    part: Tensor,
    captions: Tensor | None = None,
    told: Callable[[float], object] = lambda done: None,
) -> Tensor:
    """Fill a part of the holes of a picture.

    Args:
        network: in eval mode.
        picture: uint8 (3, H, W); what it holds inside the hole does not matter.
        hole: bool (H, W), true in the hole.
        part: bool (H, W), true where to fill it.
        captions: None: it reads none.
        told: called with the fraction of the work that is done.

    Returns:
        uint8 (3, H, W); pixels outside the part are the picture's own.
    """
    result, device = picture.clone(), network.mean_pixel.device
    found = views(part, network.hole)
    for done, (window, wanted, scale, region, size) in enumerate(found, 1):
        small, unknown = reduced(picture, hole, region, size)
        padded, padded_mask = to_multiple_of_4(small[None]), to_multiple_of_4(unknown[None].float())
        with torch.inference_mode():
            filled = answer(network(padded.to(device), padded_mask.to(device))[0, :, : size[0], : size[1]])
        if scale == 1:
            _write(result, wanted, window, region, filled)
        else:
            enlarge_into(result, wanted, window, region, filled)
        told(done / len(found))
    return result


class View(NamedTuple):
    """A part of a hole, and how a network sees it."""

    window: Box
    wanted: Tensor
    """bool (H, W): what of the window is to be filled."""
    scale: float
    """Of what the network sees; at most 1."""
    region: Region
    size: tuple[int, int]
    """Height and width of the region at that scale."""


def views(part: Tensor, longest: int) -> list[View]:
    """How a network sees a part of the holes, bool (H, W), whose training had holes of at most `longest` pixels: each
    in a region of `SURROUNDINGS` times that, its side a multiple of 4."""
    (height, width), side, found = part.shape, 4 * math.ceil(SURROUNDINGS * longest / 4), []
    for window, wanted, scale in _windows_and_scales(part, longest):
        region = _region_around(window, round(side / scale), (height, width))
        found.append(View(window, wanted, scale, region, _scaled_size(region, scale)))
    return found


def _scaled_size(region: Region, scale: float) -> tuple[int, int]:
    """Height and width at which the network sees a region: as it is, or reduced to multiples of 4."""
    if scale == 1:
        return round(region.height), round(region.width)
    height, width = (max(4, round(extent * scale / 4) * 4) for extent in region[2:])
    return height, width


def _windows_and_scales(part: Tensor, longest: int) -> Iterator[tuple[Box, Tensor, float]]:
    """Windows that hold what is to be filled, what that is, and the scale at which the network sees it."""
    thick = thick_part(part, longest + 1)
    for box in hole_boxes(thick):
        top, left, bottom, right = box
        side = thickness(thick[top:bottom, left:right])
        for window in windows(thick, box, side):
            yield window, thick, longest / side
    rest = part & ~thick
    height, width = rest.shape
    for window in windows(rest, (0, 0, height, width), longest):
        yield window, rest, 1


def _region_around(window: Box, side: int, shape: tuple[int, int]) -> Region:
    """A square about the window's centre, moved into the picture, and no longer than that."""
    height, width = (min(side, length) for length in shape)
    top, left, bottom, right = window
    first_row, first_column = (top + bottom - height) // 2, (left + right - width) // 2
    return Region(min(max(0, first_row), shape[0] - height), min(max(0, first_column), shape[1] - width), height, width)


def to_multiple_of_4(x: Tensor) -> Tensor:
    """Rows and columns at the bottom and the right repeated until height and width are multiples of 4."""
    return F.pad(x, (0, -x.shape[-1] % 4, 0, -x.shape[-2] % 4), mode="replicate")


def _write(result: Tensor, hole: Tensor, box: Box, region: Region, filled: Tensor) -> None:
    top, left, bottom, right = box
    part = filled[:, top - region.top : bottom - region.top, left - region.left : right - region.left]
    window = result[:, top:bottom, left:right]
    window.copy_(torch.where(hole[top:bottom, left:right], to_uint8(part), window))
