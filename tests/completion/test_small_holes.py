"""The matrix of a small hole against the solver, and the rules of `harmonic` in the places where the matrix fills."""

from __future__ import annotations

import pytest
import torch

from inpaint_fast._recent import Recent
from inpaint_fast.completion import harmonic, small_holes
from inpaint_fast.completion.centres import generator_inputs
from inpaint_fast.completion.laplace import solve_laplace
from inpaint_fast.completion.small_holes import PIXELS, VALUES, HoleFill, fill_of
from inpaint_fast.data import box, center_square
from inpaint_fast.models import ContextCNN

CPU = torch.device("cpu")
CENTRE = center_square(64, 64)[None]
HOLES = {
    "the centre": CENTRE,
    "a corner": box(20, 30, 0, 0, 9, 7)[None],
    "two, and a pixel": box(16, 20, 1, 2, 4, 5)[None] | box(16, 20, 8, 9, 12, 7)[None] | box(16, 20, 3, 14, 1, 1)[None],
    "all but a pixel": ~box(12, 9, 4, 3, 1, 1)[None],
}


@pytest.mark.parametrize("name", HOLES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.uint8])
def test_it_gives_what_the_solver_gives(name, dtype) -> None:
    hole, generator = HOLES[name], torch.Generator().manual_seed(0)
    picture = torch.rand(2, 3, *hole.shape[2:], generator=generator, dtype=torch.float64)
    picture = (picture * 255).to(dtype) if dtype == torch.uint8 else picture.to(dtype)
    columns = picture.double().flatten(0, 1)[:, None]
    exact = solve_laplace(columns, hole[0], tolerance=1e-12 * 255, max_steps=100).view(2, 3, -1)
    filled = harmonic(picture.masked_fill(hole, 7), hole)
    inside = filled.flatten(2)[..., hole.flatten()]
    rounding = 0.5 if dtype == torch.uint8 else torch.finfo(dtype).eps
    # the solver's error: its residual, 3e-10, times the hole's pixels, which no inverse of Laplace's operator exceeds
    assert (inside.double() - exact).abs().max() <= rounding + 3e-10 * int(hole.sum())
    assert torch.equal(filled.masked_fill(hole, 0), picture.masked_fill(hole, 0))


def test_one_mask_for_all_or_the_same_for_each() -> None:
    picture = torch.rand(4, 3, 64, 64)
    assert torch.equal(harmonic(picture, CENTRE), harmonic(picture, CENTRE.expand(4, 1, 64, 64)))


def test_gradients_flow_to_known_pixels_alone() -> None:
    picture = torch.rand(2, 3, 64, 64, requires_grad=True)
    harmonic(picture, CENTRE).sum().backward()
    assert torch.equal(picture.grad, (~CENTRE).float().expand_as(picture))


def test_one_that_was_made_in_inference_mode_has_gradients(monkeypatch) -> None:
    monkeypatch.setattr(small_holes, "_fills", Recent(1 << 22))
    picture = torch.rand(1, 3, 64, 64, requires_grad=True)
    with torch.inference_mode():
        made = fill_of(CENTRE.clone(), CPU)
    harmonic(picture, CENTRE).sum().backward()
    assert fill_of(CENTRE, CPU) is made and picture.grad is not None


def test_what_a_generator_for_the_centre_sees() -> None:
    """The same, and no mask is read: what it holds does not matter."""
    generator, picture = ContextCNN(prefill="harmonic"), torch.rand(2, 3, 64, 64)
    (seen,) = generator_inputs(generator, picture, torch.full((2, 1, 64, 64), torch.nan), None)
    assert torch.equal(seen, harmonic(picture, CENTRE))
    with pytest.raises(ValueError, match=r"picture: size \(64, 64\) is expected, got \(64, 65\)"):
        generator_inputs(generator, torch.rand(2, 3, 64, 65), CENTRE, None)


def test_only_small_holes_of_small_pictures_have_one() -> None:
    assert fill_of(torch.zeros(1, 1, 8, 8, dtype=torch.bool), CPU) is None
    assert fill_of(torch.ones(1, 1, 8, 8, dtype=torch.bool), CPU) is None
    assert fill_of(box(64, 64, 0, 0, 48, 32)[None], CPU) is None
    assert VALUES < 48 * 32 * (48 * 32 + 48 + 32)
    specks = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    specks[..., ::2, ::2] = True  # 1,024 pixels as the centre, and as many again around each
    assert fill_of(specks, CPU) is None
    assert fill_of(box(PIXELS // 64, 65, 0, 0, 2, 2)[None], CPU) is None
    assert fill_of(CENTRE, CPU) is fill_of(CENTRE.clone(), CPU)


def test_what_is_kept_is_bounded(monkeypatch) -> None:
    one = HoleFill(box(8, 8, 0, 0, 2, 2)[0], CPU).nbytes
    kept = Recent(2 * one)
    monkeypatch.setattr(small_holes, "_fills", kept)
    fills = [fill_of(box(8, 8, left, 1, 2, 2)[None], CPU) for left in (1, 2, 3)]
    assert sum(fill.nbytes for fill in kept._kept.values()) <= kept.capacity
    assert fill_of(box(8, 8, 3, 1, 2, 2)[None], CPU) is fills[2]
    assert fill_of(box(8, 8, 1, 1, 2, 2)[None], CPU) is not fills[0]
