"""Where the holes of a mask are."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional as F

MERGE = 8  # pixels: holes nearer than twice this are filled, and blended, as one


def hole_boxes(hole: Tensor, *, merge: int = 0) -> list[tuple[int, int, int, int]]:
    """The boxes (top, left, bottom, right; the last two excluded) of a mask's holes, from top to bottom.

    Args:
        hole: bool (H, W), true in the hole.
        merge: holes are grown by so many pixels first, so that near ones count as one; the boxes are not grown.
    """
    grown = hole
    if merge:
        rows = F.max_pool2d(hole[None, None].float(), (2 * merge + 1, 1), stride=1, padding=(merge, 0))
        grown = F.max_pool2d(rows, (1, 2 * merge + 1), stride=1, padding=(0, merge))[0, 0] > 0  # a square, in two lines
    runs = _runs(grown.numpy())
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
    inside = hole.numpy()
    extents: dict[int, list[int]] = {}
    for i, (row, start, end) in enumerate(runs):
        columns = np.flatnonzero(inside[row, start:end])
        if len(columns):
            left, right = start + int(columns[0]), start + int(columns[-1]) + 1
            box = extents.setdefault(root(i), [row, left, row + 1, right])
            box[:] = [min(box[0], row), min(box[1], left), max(box[2], row + 1), max(box[3], right)]
    return sorted((top, left, bottom, right) for top, left, bottom, right in extents.values())


def _runs(mask: np.ndarray) -> list[tuple[int, int, int]]:
    """Runs of true pixels: (row, start, end), rows from the top, starts from the left, end excluded."""
    padded = np.pad(mask.astype(np.int8), ((0, 0), (1, 1)))
    steps = np.diff(padded, axis=1)
    rows, starts = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    return list(zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True))
