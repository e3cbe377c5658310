"""What Winograd's algorithm costs, as the module tells it, held to a count of every tile."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inpaint_fast import _extension
from inpaint_fast.ops.conv_block import plan as dilated_block_plan

pytestmark = pytest.mark.skipif(_extension.module is None, reason="the extension is not built")

LEAST = 12  # tiles of a task: fewer cost as much


def counted(kind: int, images: int, sides: tuple[int, int], dilation: tuple[int, int], taps: int) -> tuple[int, int]:
    """The cheapest of four ways: the last tiles of each side as whole ones, or as those of the pixels they have."""

    def numbers(pixels: int) -> int:
        return pixels + 2 if kind == 0 else 2 * pixels + taps - 2

    ways = []
    for side, d in zip(sides, dilation, strict=True):
        firsts = [y for y in range(side) if y // d % 4 == 0]
        cut = Counter(sum(y + k * d < side for k in range(4)) for y in firsts)
        ways.append(({4: len(firsts)}, cut))
    found = []
    for rows, columns in product(*ways):
        bands = [(images * r * c, numbers(p) * numbers(q)) for (p, r), (q, c) in product(rows.items(), columns.items())]
        cost = sum(max(tiles, LEAST) * each for tiles, each in bands)
        found.append((cost, sum(tiles for tiles, _ in bands), sum(tiles * each for tiles, each in bands)))
    return min(found, key=lambda way: way[0])[1:]


small = st.integers(0, 40)


@given(st.integers(0, 1), st.integers(0, 20), small, small, st.integers(1, 50), st.integers(1, 9), st.integers(3, 5))
def test_every_tile_is_counted(kind: int, images: int, height: int, width: int, dilation_h: int, dilation_w: int,
                               taps: int) -> None:  # fmt: skip
    taps = 3 if kind == 0 else taps
    found = _extension.module.winograd_cost(kind, images, height, width, dilation_h, dilation_w, taps)
    assert found == counted(kind, images, (height, width), (dilation_h, dilation_w), taps)


def test_sizes_of_any_number_are_answered() -> None:
    """By arithmetic: what walked through so many tiles would not come back."""
    cost, workspace = _extension.module.winograd_cost, _extension.module.dilated_block_workspace
    most = 2**63 - 1
    assert cost(0, 2**31, 2**7, 2**7, 1, 1, 3) == (2**31 * 2**10, 2**31 * 2**10 * 36)
    assert cost(1, 1, 2**22, 2**23, 1, 1, 4) == (2**41, 2**41 * 100)
    assert cost(0, 2**60, 2**60, 2**60, 2**62, 1, 3) == (most, most)
    for last in (True, False):
        for shape in (
            (2**31, 4, 4, 2**6, 2**6),
            (1, 1, 1, 2**22, 2**23),
            (2**45, 1, 1, 1, 1),
            (1, 2**27, 1, 2**9, 2**9),
        ):
            assert workspace(*shape, 1, 1, last) > 0
            assert workspace(*shape, 2**20, 2**20, last) > 0


@pytest.mark.parametrize(
    ("input", "out"),
    [((8, 64, 2**18, 2**18), 64), ((2**27, 64, 64, 64), 64), ((1, 2**20, 2**12, 2**13), 2**20)],
    ids=("sides", "images", "channels"),
)
@pytest.mark.parametrize("dilation", (1, 16, 2**20))
def test_a_plan_for_pictures_that_no_memory_holds(input: tuple[int, ...], out: int, dilation: int) -> None:
    tensors = torch.empty(input, device="meta"), torch.empty((out, input[1], 3, 3), device="meta")
    assert tensors[0].numel() >= 2**45 and dilated_block_plan(*tensors, dilation=dilation).algorithm


def test_a_plan_names_what_is_no_tensor() -> None:
    for tensors, name in ((("x", torch.ones(3)), "input"), ((torch.ones(1, 1, 3, 3), None), "weight")):
        with pytest.raises(TypeError, match=f"{name}: a torch.Tensor is expected"):
            dilated_block_plan(*tensors)


def test_the_workspace_of_a_task_follows_from_its_tiles() -> None:
    """36 numbers of the input's channels and of 32 output channels for each tile, and the window of a run."""
    workspace = _extension.module.dilated_block_workspace
    few, many = (workspace(1, channels, 32, 64, 64, 1, 1, True) for channels in (16, 32))
    assert few > 0 and (many - few) % (4 * 36 * 16) == 0
