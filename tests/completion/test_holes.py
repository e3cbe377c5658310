from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from inpaint_fast.completion.holes import hole_boxes


def flooded(hole: torch.Tensor) -> list[tuple[int, int, int, int]]:
    """The same by flooding, pixel by pixel."""
    left = {(int(y), int(x)) for y, x in hole.nonzero()}
    boxes = []
    while left:
        queue, part = [left.pop()], []
        while queue:
            y, x = queue.pop()
            part.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            queue += near
        ys, xs = zip(*part, strict=True)
        boxes.append((min(ys), min(xs), max(ys) + 1, max(xs) + 1))
    return sorted(boxes)


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.05, 0.95), st.integers(0, 10**6))
def test_boxes_are_those_of_a_flood_fill(height: int, width: int, share: float, seed: int) -> None:
    hole = torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) < share
    assert hole_boxes(hole) == flooded(hole)


def test_near_holes_merge_and_their_box_is_not_grown() -> None:
    hole = torch.zeros(40, 40, dtype=torch.bool)
    hole[5:8, 5:8] = hole[5:8, 12:14] = hole[30, 30] = True
    assert hole_boxes(hole) == [(5, 5, 8, 8), (5, 12, 8, 14), (30, 30, 31, 31)]
    assert hole_boxes(hole, merge=2) == [(5, 5, 8, 14), (30, 30, 31, 31)]
