"""Poisson blending of a completion into its picture."""

from __future__ import annotations

import pytest
import torch

import inpaint_fast as ipf
from inpaint_fast.completion import blend_holes
from inpaint_fast.data import box, center_square, free_form, samples
from inpaint_fast.models import CompletionNetwork


def smooth(height: int, width: int) -> torch.Tensor:
    """A picture without edges."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([60 + 80 * x, 90 + 60 * y, 130 - 50 * x * y]).round().byte()


HOLES = {
    "in the middle": lambda h, w: center_square(h, w),
    "at the left edge": lambda h, w: box(h, w, 0, 20, 15, 20),
    "in a corner": lambda h, w: box(h, w, w - 21, h - 14, 21, 14),
    "across": lambda h, w: box(h, w, 0, 20, w, 12),
    "all but a row": lambda h, w: box(h, w, 0, 0, w, h - 1),
    "several": lambda h, w: box(h, w, 3, 3, 9, 9) | box(h, w, 40, 40, 12, 15) | box(h, w, w - 5, 0, 5, 30),
    "a pixel": lambda h, w: box(h, w, 30, 31, 1, 1),
    "a scratch": lambda h, w: box(h, w, 5, 31, 50, 2),
    "a corner pixel": lambda h, w: box(h, w, 0, 0, 1, 1),
    "free form": lambda h, w: free_form(h, w, torch.Generator().manual_seed(2)),
    "specks": lambda h, w: torch.rand(1, h, w, generator=torch.Generator().manual_seed(2)) < 0.1,
}


@pytest.mark.parametrize("hole", HOLES)
def test_any_hole_and_every_known_pixel_untouched(hole) -> None:
    picture = samples("heldout")[0][:, 100:172, 60:140]
    mask = HOLES[hole](72, 80)
    completed = torch.where(mask, 255 - picture, picture)
    blended = blend_holes(completed, picture, mask)
    assert blended.dtype == torch.uint8 and torch.equal(blended[:, ~mask[0]], picture[:, ~mask[0]])


@pytest.mark.parametrize("hole", HOLES)
def test_a_completion_of_other_colours_is_drawn_into_the_picture(hole) -> None:
    """A smooth picture completed rightly but 40 levels too bright: blending takes the difference away."""
    picture = smooth(72, 80)
    mask = HOLES[hole](72, 80)
    completed = torch.where(mask, picture + 40, picture)
    blended = blend_holes(completed, picture, mask)
    known = (~mask).expand_as(picture)
    steps = [
        (picture[:, 1:].int() - picture[:, :-1].int()).abs().max(),
        (picture[..., 1:].int() - picture[..., :-1].int()).abs().max(),
    ]
    assert torch.equal(blended[known], picture[known])
    assert (blended.int() - picture.int()).abs().max() <= max(steps) + 1  # none across the border, and roundings


def test_detail_of_the_completion_stays() -> None:
    picture = smooth(72, 80)
    mask = box(72, 80, 20, 20, 40, 36)
    y, x = torch.meshgrid(torch.arange(72.0), torch.arange(80.0), indexing="ij")
    # the detail is 0 at the edge of the hole
    window = (torch.sin((y - 20) / 36 * torch.pi) * torch.sin((x - 20) / 40 * torch.pi)).square()
    detail = (50 * window * torch.sin(x * 0.8)).expand(3, 72, 80)
    completed = torch.where(mask, (picture + detail + 30).round().byte(), picture)
    blended = blend_holes(completed, picture, mask)
    inner = (slice(None), slice(26, 50), slice(26, 54))
    difference = (blended.float() - picture)[inner] - detail[inner]
    assert difference.abs().mean() < 6


def test_nothing_of_what_the_hole_held_leaks_through() -> None:
    picture = samples("heldout")[1][:, :90, :100]
    for name in ("in the middle", "at the left edge", "across", "specks"):
        mask = HOLES[name](90, 100)
        completed = picture.masked_fill(mask, 99)
        spoiled = picture.masked_fill(mask, 255)
        assert torch.equal(blend_holes(completed, picture, mask), blend_holes(completed, spoiled, mask)), name


def test_no_hole_and_all_hole() -> None:
    picture = smooth(20, 20)
    assert torch.equal(blend_holes(picture, picture, torch.zeros(1, 20, 20)), picture)
    with pytest.raises(ValueError, match="mask.*whole picture"):
        blend_holes(picture, picture, torch.ones(1, 20, 20))


def test_wrong_shapes_are_named() -> None:
    picture = smooth(20, 20)
    with pytest.raises(ValueError, match=r"one height and width.*\(1, 20, 10\)"):
        blend_holes(picture, picture, torch.ones(1, 20, 10))
    with pytest.raises(ValueError, match="completed: a uint8.*float32"):
        blend_holes(picture / 255, picture, torch.ones(1, 20, 20))


def test_complete_blends_where_asked() -> None:
    torch.manual_seed(0)
    network, picture = CompletionNetwork(2, hole=40), samples("heldout")[2][:, :100, :90]
    mask = box(100, 90, 30, 20, 33, 25)
    plain = ipf.complete(picture, mask, weights=network)
    blended = ipf.complete(picture, mask, weights=network, blend=True)
    assert torch.equal(blended, blend_holes(plain, picture, mask)) and not torch.equal(blended, plain)


def test_complete_blends() -> None:
    picture, mask = samples("heldout")[0][:, 100:172, 60:140], HOLES["several"](72, 80)
    network = CompletionNetwork(2).eval()
    completed = ipf.complete(picture, mask, weights=network)
    blended = ipf.complete(picture, mask, weights=network, blend=True)
    assert torch.equal(blended, blend_holes(completed, picture, mask)) and not torch.equal(blended, completed)
