from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from inpaint_fast.completion.holes import hole_boxes, thick_part, thickness, windows


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


@st.composite
def masks(draw: st.DrawFn) -> torch.Tensor:
    height, width, seed = draw(st.integers(1, 12)), draw(st.integers(1, 12)), draw(st.integers(0, 10**6))
    return torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) < draw(st.floats(0.05, 0.95))


MASKS = masks()


@given(MASKS)
def test_boxes_are_those_of_a_flood_fill(hole: torch.Tensor) -> None:
    assert hole_boxes(hole) == flooded(hole)


def test_corners_touch() -> None:
    hole = torch.zeros(40, 40, dtype=torch.bool)
    hole[5:8, 5:8] = hole[5:8, 12:14] = hole[8, 8] = hole[30, 30] = True
    assert hole_boxes(hole) == [(5, 5, 9, 9), (5, 12, 8, 14), (30, 30, 31, 31)]


@given(MASKS, st.integers(1, 6))
def test_thickness_is_that_of_the_largest_square_inside(hole: torch.Tensor, side: int) -> None:
    """Against squares that are tried one by one."""
    height, width = hole.shape
    covered = torch.zeros_like(hole)
    for y in range(height - side + 1):
        for x in range(width - side + 1):
            if hole[y : y + side, x : x + side].all():
                covered[y : y + side, x : x + side] = True
    assert torch.equal(thick_part(hole, side), covered)
    assert (thickness(hole) >= side) == bool(covered.any())


@given(MASKS, st.integers(1, 6))
def test_windows_hold_every_pixel_once(hole: torch.Tensor, side: int) -> None:
    held = torch.zeros(hole.shape, dtype=torch.int)
    for top, left, bottom, right in windows(hole, (0, 0, *hole.shape), side):
        assert 0 < bottom - top <= side and 0 < right - left <= side
        part = hole[top:bottom, left:right]
        assert part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any()
        held[top:bottom, left:right] += part
    assert torch.equal(held, hole.int())
