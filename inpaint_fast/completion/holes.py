"""Where the holes of a mask are, and how thick."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Box = tuple[int, int, int, int]
"""top, left, bottom, right; the last two excluded."""


def hole_boxes(hole: Tensor) -> list[Box]:
    """The boxes of the holes of a mask, bool (H, W), from top to bottom; pixels whose corners touch are in one hole."""
    runs = _runs(hole.numpy())
    parent = list(range(len(runs)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    above = 0  # the first run of the row above that may still touch
    for i, (row, start, end) in enumerate(runs):
        while above < i and (runs[above][0] < row - 1 or (runs[above][0] == row - 1 and runs[above][2] < start)):
            above += 1
        j = above
        while j < i and runs[j][0] == row - 1 and runs[j][1] <= end:  # <=: corners touch too
            parent[root(i)] = root(j)
            j += 1
    boxes: dict[int, Box] = {}
    for i, (row, start, end) in enumerate(runs):
        top, left, _, right = boxes.get(root(i), (row, start, row, end))
        boxes[root(i)] = (top, min(left, start), row + 1, max(right, end))
    return sorted(boxes.values())


def _runs(mask: np.ndarray) -> list[tuple[int, int, int]]:
    """Runs of true pixels: (row, start, end), rows from the top, starts from the left, end excluded."""
    padded = np.pad(mask.astype(np.int8), ((0, 0), (1, 1)))
    steps = np.diff(padded, axis=1)
    rows, starts = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    return list(zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True))


def thick_part(hole: Tensor, side: int) -> Tensor:
    """The part of a mask, bool (H, W), that squares of `side` pixels inside it cover: its morphological opening."""
    if min(hole.shape) < side:
        return torch.zeros_like(hole)
    corners = _all_in_squares(hole, side)  # of the squares: top, left
    return ~_all_in_squares(~F.pad(corners, (side - 1,) * 4), side)


def grown(hole: Tensor, pixels: int) -> Tensor:
    """A mask, bool (H, W), grown by so many pixels each way: its dilation by a square.

    Raises:
        TypeError, ValueError: pixels is no whole number, or negative.
    """
    if not isinstance(pixels, int) or isinstance(pixels, bool):
        raise TypeError(f"grow: a whole number of pixels is expected, got {pixels!r}")
    if pixels < 0:
        raise ValueError(f"grow: 0 or more pixels are expected, got {pixels}")
    pixels = min(pixels, max(hole.shape))
    return ~_all_in_squares(~F.pad(hole, (pixels,) * 4), 2 * pixels + 1)


def thickness(hole: Tensor) -> int:
    """The side, in pixels, of the largest square inside a mask, bool (H, W)."""
    low, high = 0, min(hole.shape)
    while low < high:
        side = (low + high + 1) // 2
        low, high = (side, high) if _all_in_squares(hole, side).any() else (low, side - 1)
    return low


def tight(hole: Tensor, box: Box) -> Box | None:
    """The smallest box that holds what a mask, bool (H, W), has inside a box; None where that is nothing."""
    top, left, bottom, right = box
    inside = hole[top:bottom, left:right]
    rows, columns = (inside.any(dim=dim).nonzero()[:, 0].tolist() for dim in (1, 0))
    return (top + rows[0], left + columns[0], top + rows[-1] + 1, left + columns[-1] + 1) if rows else None


def windows(hole: Tensor, box: Box, side: int) -> Iterator[Box]:
    """Boxes of at most `side` pixels each way that together hold, once, what a mask, bool (H, W), has inside a box."""
    top, left, bottom, right = box
    while band := tight(hole, (top, left, bottom, right)):
        top = min(band[0] + side, bottom)
        start = left
        while window := tight(hole, (band[0], start, top, right)):
            start = min(window[1] + side, right)
            if (piece := tight(hole, (band[0], window[1], top, start))) is not None:
                yield piece


def _all_in_squares(mask: Tensor, side: int) -> Tensor:
    """Whether a square of `side` pixels is all true; bool (H - side + 1, W - side + 1), by the square's first pixel."""
    for dim in (0, 1):
        reach = 1
        while reach < side:  # a line of 2, 4, 8, ... pixels is two of half its length
            step = min(reach, side - reach)
            length = max(0, mask.shape[dim] - step)
            mask = mask.narrow(dim, 0, length) & mask.narrow(dim, mask.shape[dim] - length, length)
            reach += step
    return mask
