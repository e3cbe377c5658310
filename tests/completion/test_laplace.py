"""Laplace's and Poisson's equation in holes, against a direct solution of the same equations."""

from __future__ import annotations

import pytest
import torch

from inpaint_fast.completion import harmonic, laplace
from inpaint_fast.completion.laplace import solve_laplace
from inpaint_fast.data import box

H, W = 21, 26


def drawn(*parts: torch.Tensor) -> torch.Tensor:
    return torch.stack(parts).any(dim=0)


def random(share: float) -> torch.Tensor:
    return torch.rand(H, W, generator=torch.Generator().manual_seed(0)) < share


ROW, COLUMN = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
HOLES = {
    "a pixel": (ROW == 7) & (COLUMN == 9),
    "a corner": (ROW < 5) & (COLUMN < 6),
    "a side": COLUMN > 20,
    "a scratch": (ROW - COLUMN).abs() < 2,
    "touching corners": ROW == COLUMN,
    "a chessboard": (ROW + COLUMN) % 2 == 0,
    "a disc": (ROW - 10) ** 2 + (COLUMN - 13) ** 2 < 70,
    "a ring": ((ROW - 10) ** 2 + (COLUMN - 13) ** 2 - 60).abs() < 25,
    "all but a pixel": (ROW != 3) | (COLUMN != 20),
    "all but the edge": (ROW > 0) & (ROW < H - 1) & (COLUMN > 0) & (COLUMN < W - 1),
    "walls": (COLUMN % 9 != 4) | (ROW == 2),
    "specks": random(0.1),
    "half": random(0.5),
    "nearly everything": random(0.97),
    "nothing": torch.zeros(H, W, dtype=torch.bool),
}


def system(hole: torch.Tensor) -> torch.Tensor:
    """The equations' matrix: the hole's pixels in order, each the count of its neighbours less their values."""
    numbers = torch.full(hole.shape, -1)
    numbers[hole] = torch.arange(int(hole.sum()))
    matrix = torch.zeros(int(hole.sum()), int(hole.sum()), dtype=torch.float64)
    for a, b in ((numbers[1:], numbers[:-1]), (numbers[:, 1:], numbers[:, :-1])):
        for one, other in ((a.flatten(), b.flatten()), (b.flatten(), a.flatten())):
            here = one >= 0
            matrix.diagonal().index_add_(0, one[here], torch.ones(int(here.sum()), dtype=torch.float64))
            both = here & (other >= 0)
            matrix[one[both], other[both]] -= 1
    return matrix


def border(picture: torch.Tensor, hole: torch.Tensor, cloned: torch.Tensor | None = None) -> torch.Tensor:
    """The equations' right side, (pixels, channels): known neighbours, less the pixel's own cloned value for each."""
    total = torch.zeros_like(picture)
    for axis, step in ((1, 1), (1, -1), (2, 1), (2, -1)):
        inside = torch.ones_like(hole)
        inside.narrow(axis - 1, 0 if step == 1 else hole.shape[axis - 1] - 1, 1).zero_()
        known = ~hole.roll(step, axis - 1) & inside
        total += known * (picture.roll(step, axis) - (0 if cloned is None else cloned))
    return total[:, hole].T


@pytest.mark.proves(
    "harmonic",
    "blend_holes",
    equals="a direct solver of the same equations",
    within="the tolerance that is asked for, 1e-2 to 1e-9",
    dtypes="float64",
)
@pytest.mark.parametrize("name", HOLES)
def test_the_solution_is_that_of_a_direct_solver(name) -> None:
    hole, draws = HOLES[name], torch.Generator().manual_seed(1)
    picture, cloned = torch.rand(2, 3, H, W, dtype=torch.float64, generator=draws)
    matrix = system(hole)
    for detail in (None, cloned):
        exact = torch.linalg.solve(matrix, border(picture, hole, detail)).T
        exact = exact if detail is None else exact + detail[:, hole]
        for tolerance in (1e-2, 1e-4, 1e-9):
            extra = {} if detail is None else {"cloned": detail[:, None]}
            found = solve_laplace(picture[:, None], hole[None], tolerance=tolerance, max_steps=30, **extra)
            residual = matrix @ (found - exact).T
            assert found.shape == exact.shape and residual.numel() == found.numel()
            # rounding: 4 + 4 products and sums of numbers of about 1
            assert (residual.abs() <= tolerance + 16 * torch.finfo(torch.float64).eps).all()
            assert (found - exact).abs().max() <= 4 * tolerance if hole.any() else True


def test_each_picture_of_a_batch_has_its_own_hole_or_all_have_one() -> None:
    pictures = torch.rand(len(HOLES) + 1, 2, H, W, dtype=torch.float64)
    holes = torch.stack([*HOLES.values(), torch.ones(H, W, dtype=torch.bool)])[:, None]
    together = harmonic(pictures, holes, tolerance=1e-10)
    for picture, hole, filled in zip(pictures, holes, together, strict=True):
        alone = harmonic(picture[None], hole[None], tolerance=1e-10)[0]
        torch.testing.assert_close(filled, alone, atol=1e-9, rtol=0)
        for_all = harmonic(pictures[:2], hole[None], tolerance=1e-10)
        torch.testing.assert_close(
            harmonic(pictures[:2], hole.expand(2, 1, H, W), tolerance=1e-10), for_all, atol=1e-9, rtol=0
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.uint8, torch.int32])
def test_other_dtypes_are_rounded_to(dtype) -> None:
    hole = HOLES["a ring"][None, None]
    picture = (torch.rand(2, 3, H, W, generator=torch.Generator().manual_seed(0)) * 255).to(dtype)
    exact = harmonic(picture.double(), hole, tolerance=1e-9)
    filled = harmonic(picture, hole, tolerance=1e-9)
    step = 1 if not dtype.is_floating_point else torch.finfo(dtype).eps * 256
    assert filled.dtype == dtype and (filled.double() - exact).abs().max() <= step / 2 + 1e-9
    swapped = picture.transpose(2, 3).contiguous().transpose(2, 3).contiguous(memory_format=torch.channels_last)
    assert torch.equal(harmonic(swapped, hole, tolerance=1e-9), filled)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 255.0, 1e30])
def test_any_range(scale) -> None:
    hole, picture = HOLES["walls"][None, None], torch.rand(1, 3, H, W, dtype=torch.float64)
    exact = harmonic(picture, hole, tolerance=1e-10)
    assert (harmonic(picture * scale, hole) / scale - exact).abs().max() <= 4e-4
    assert (harmonic(-picture * scale, hole, tolerance=1e-8 * scale) / scale + exact).abs().max() <= 4e-8


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 0, 8, 8), (1, 3, 0, 8), (1, 3, 8, 0)])
def test_nothing_to_fill(shape) -> None:
    for masks in {1, shape[0]}:
        assert harmonic(torch.rand(shape), torch.ones(masks, 1, *shape[2:])).shape == shape


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_known_pixels_that_are_no_numbers(value) -> None:
    picture, hole = torch.rand(1, 1, H, W), HOLES["a disc"][None, None]
    picture[0, 0, 0, 0] = value  # away from the hole it does not matter
    assert harmonic(picture, hole)[hole].isfinite().all()
    picture[0, 0, 10, 22] = value
    with pytest.raises(ValueError, match="picture.*finite"):
        harmonic(picture, hole)


def test_it_says_when_it_has_not_converged() -> None:
    with pytest.raises(RuntimeError, match="max_steps: 2 .*residual"):
        solve_laplace(torch.rand(1, 1, H, W), HOLES["a disc"][None], tolerance=1e-12, max_steps=2)


def cost(monkeypatch: pytest.MonkeyPatch, picture: torch.Tensor, hole: torch.Tensor) -> tuple[torch.Tensor, int, int]:
    """The solution, how many steps it took, and how many values were read for it."""
    steps, read, cycle, total = [], [], laplace._cycle, laplace._sum
    depth = len(laplace._levels(laplace._Cells(hole.flatten().nonzero()[:, 0], *hole.shape[1:])))
    with monkeypatch.context() as patch:
        patch.setattr(laplace, "_cycle", lambda levels, x: (steps.append(len(levels) == depth), cycle(levels, x))[1])
        patch.setattr(
            laplace, "_sum", lambda x, places, *w: (read.append(len(x) * places.numel()), total(x, places, *w))[1]
        )
        values = solve_laplace(picture, hole, tolerance=1e-4, max_steps=100)
    return values, sum(steps), sum(read)


def test_a_hole_costs_the_same_in_a_large_picture(monkeypatch) -> None:
    """24 megapixels with a scratch from corner to corner and a hole of 80 pixels: only theirs are looked at."""
    hole = torch.zeros(1, 4000, 6000, dtype=torch.bool)
    hole[0, 1000:1080, 2000:2080] = True
    picture = torch.rand(1, 1, 1, 6000).expand(1, 1, 4000, 6000)
    crop = (..., slice(896, 1152), slice(1920, 2176))  # on the grids of all levels
    values, steps, read = cost(monkeypatch, picture, hole)
    expected = cost(monkeypatch, picture[crop], hole[crop])
    torch.testing.assert_close(values, expected[0], atol=1e-12, rtol=0)
    assert (steps, read) == expected[1:]
    rows = torch.arange(4000)
    for right in range(3):
        hole[0, rows, rows + right] = True
    _, steps, both = cost(monkeypatch, picture, hole)
    assert both - read < 12_000 * 30 * (steps + 1)  # values read for each pixel of the scratch, a step


def test_the_number_of_steps_does_not_grow_with_the_hole(monkeypatch) -> None:
    for side in (16, 60, 200):
        rows, columns = torch.meshgrid(torch.arange(side + 3), torch.arange(side + 5), indexing="ij")
        noise = torch.rand(side + 3, side + 5, generator=torch.Generator().manual_seed(0))
        holes = {
            "square": box(side + 3, side + 5, 1, 1, side, side)[0],
            "corner": (rows < side) & (columns < side),
            "disc": (rows - side / 2) ** 2 + (columns - side / 2) ** 2 < side**2 / 4,
            "all but a pixel": (rows != 2) | (columns != side),
            "few known": noise > 20 / side**2,
            "many known": noise > 0.05,
            "stripes": (rows - columns) % 40 < 8,
        }
        for name, hole in holes.items():
            hole[0, -1] = False
            _, steps, _ = cost(monkeypatch, noise[None, None], hole[None])
            assert steps <= 15, (name, side, steps)


def test_it_tells_how_much_is_done() -> None:
    told: list[float] = []
    picture = torch.rand(1, 3, 120, 130, generator=torch.Generator().manual_seed(0))
    harmonic(picture, box(120, 130, 5, 5, 110, 100)[None], told=told.append)
    assert len(told) >= 3 and told == sorted(told) and told[0] == 0 and told[-1] < 1
