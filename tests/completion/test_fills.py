from __future__ import annotations

import pytest
import torch

from inpaint_fast.completion import FILLS, harmonic, ring_mean
from inpaint_fast.completion.fills import prefilled
from inpaint_fast.data import box, center_square
from inpaint_fast.models.centre import PREFILLS


@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
def test_known_pixels_are_bitwise_untouched_and_the_hole_is_not_read(fill) -> None:
    picture = torch.rand(2, 3, 20, 24)
    mask = torch.stack([box(20, 24, 3, 4, 7, 9), box(20, 24, 0, 0, 24, 5)])
    spoiled = picture.masked_fill(mask, float("nan"))
    filled = fill(spoiled, mask)
    assert torch.equal(filled[~mask.expand_as(picture)], picture[~mask.expand_as(picture)])
    assert filled.isfinite().all()


@pytest.mark.proves("ring_mean", equals="the mean of the ring's pixels")
def test_ring_mean_is_the_mean_of_the_two_pixel_ring() -> None:
    picture = torch.rand(1, 3, 16, 16)
    hole, outer = slice(5, 9), slice(3, 11)
    ring = picture[..., outer, outer].sum((2, 3)) - picture[..., hole, hole].sum((2, 3))
    filled = ring_mean(picture, box(16, 16, 5, 5, 4, 4)[None])
    torch.testing.assert_close(filled[..., 6, 6], ring / (64 - 16))


def test_harmonic_restores_what_is_harmonic() -> None:
    y, x = torch.meshgrid(torch.linspace(0, 1, 40), torch.linspace(0, 1, 40), indexing="ij")
    picture = torch.stack([x, y, 0.25 + 0.5 * x * y])[None]  # x, y and x*y solve Laplace's equation on the grid
    filled = harmonic(picture, center_square(40, 40)[None], tolerance=1e-7)
    torch.testing.assert_close(filled, picture, atol=1e-4, rtol=0)


def test_harmonic_pixels_are_means_of_their_neighbours_also_at_the_edge() -> None:
    picture = torch.rand(1, 1, 12, 12, dtype=torch.float64)
    filled = harmonic(picture, box(12, 12, 0, 0, 5, 6)[None], tolerance=1e-10)[0, 0]
    torch.testing.assert_close(filled[3, 3], (filled[2, 3] + filled[4, 3] + filled[3, 2] + filled[3, 4]) / 4)
    torch.testing.assert_close(filled[0, 0], (filled[0, 1] + filled[1, 0]) / 2)


def test_a_hole_that_covers_everything_is_grey() -> None:
    for fill in FILLS.values():
        assert (fill(torch.rand(1, 3, 8, 8), torch.ones(1, 1, 8, 8)) == 0.5).all()


def test_means_of_many_pixels_do_not_overflow() -> None:
    picture, mask = torch.full((1, 3, 300, 300), 3.0, dtype=torch.float16), center_square(300, 300, 40)[None]
    assert (ring_mean(picture, mask, width=100) == 3).all() and (prefilled(picture, mask, "mean") == 3).all()


def test_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"picture.*\(3, 8, 8\)"):
        ring_mean(torch.rand(3, 8, 8), torch.ones(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"mask.*\(1, 1, 8, 9\)"):
        harmonic(torch.rand(1, 3, 8, 8), torch.ones(1, 1, 8, 9))


def test_prefilled() -> None:
    picture, mask = torch.rand(2, 3, 12, 12), torch.zeros(1, 1, 12, 12, dtype=torch.bool)
    mask[..., 3:9, 4:10] = True
    inside, outside = mask.expand_as(picture), ~mask.expand_as(picture)
    holed = picture.masked_fill(mask, torch.nan)  # what the hole holds must not matter
    filled = {kind: prefilled(holed, mask, kind) for kind in PREFILLS}
    assert all(torch.equal(result[outside], picture[outside]) for result in filled.values())
    assert (filled["zero"][inside] == 0).all()
    known = torch.where(mask, 0.0, picture).sum(dim=(2, 3)) / (144 - 36)
    torch.testing.assert_close(filled["mean"][..., 5, 5], known)
    noise = 2 * filled["noise"][inside] - 1  # in [-1, 1], as published
    assert noise.min() + 1e-6 >= 0.01 and noise.max() < 0.02 and noise.std() > 1e-3
    gaussian = 2 * filled["gaussian_noise"][inside] - 1
    assert gaussian.min() == -1 and gaussian.max() == 1 and 0.5 < gaussian.std() < 1
    torch.testing.assert_close(filled["harmonic"], harmonic(picture, mask))
    with pytest.raises(ValueError, match="kind.*'grey'"):
        prefilled(picture, mask, "grey")
