"""Convolutions to few channels by rows of taps, against float64; and when they run."""

from __future__ import annotations

import pytest
import torch
from support import assert_as_good
from torch.nn import functional as F

from inpaint_fast.ops._dispatch import elsewhere
from inpaint_fast.ops._plans import facts
from inpaint_fast.ops.conv_block import DILATED, NARROW, Epilogue, Geometry
from inpaint_fast.ops.conv_block.plan import Circumstances, Convolution, Tensors, plan_convolution
from inpaint_fast.ops.conv_block.rows import convolution_by_rows, gains_by_rows


def plan(
    shape: tuple[int, ...], *, size: tuple[int, int] = (100, 100), dtype: torch.dtype = torch.float32,
    gradient: bool = False, backend: str | None = None,
) -> Convolution:  # fmt: skip
    """Of a convolution with a weight of this shape."""
    block = DILATED if shape[2] == 3 else NARROW
    input, weight = torch.randn(1, shape[1], *size, dtype=dtype), torch.randn(shape, dtype=dtype)
    circumstances = Circumstances("fast", backend, gradient, False, None, False, elsewhere())
    tensors = Tensors(facts(input), facts(weight), None)
    return plan_convolution(block, Geometry.of(1, shape[2] // 2), Epilogue(), tensors, circumstances)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("taps", "dilation", "padding", "size"),
    [
        (3, 1, 1, (9, 11)), (3, (2, 3), (1, 4), (7, 8)), (5, 1, (0, 2), (5, 6)), (7, 1, 3, (12, 10)),
        (7, 2, 0, (13, 14)), (7, 1, 9, (1, 2)),
    ],
)  # fmt: skip
def test_it_is_the_convolution(
    taps: int, dilation, padding, size: tuple[int, int], bias: bool, channels_last: bool
) -> None:
    torch.manual_seed(0)
    input, weight = torch.randn(2, 6, *size), torch.randn(3, 6, taps, taps)
    input = input.contiguous(memory_format=torch.channels_last) if channels_last else input
    vector = torch.randn(3) if bias else None
    got = convolution_by_rows(Geometry.of(dilation, padding), channels_last)(input, weight, vector)
    plain = F.conv2d(input, weight, vector, 1, padding, dilation)
    tensors = [t if t is None else t.double() for t in (input, weight, vector)]
    assert_as_good(got, plain, F.conv2d(*tensors, 1, padding, dilation))
    assert got.shape == plain.shape and got.stride() == plain.stride()


@pytest.mark.parametrize(
    ("shape", "gains"),
    [
        ((3, 64, 7, 7), True),  # 7 times 16 lanes, or once 32
        ((3, 32, 3, 3), True),
        ((1, 64, 5, 5), True),
        ((8, 64, 7, 7), False),  # 7 times 16, or once 64
        ((16, 64, 7, 7), False),
        ((3, 64, 1, 1), False),
    ],
)
def test_it_runs_where_lanes_would_be_idle(shape: tuple[int, ...], gains: bool) -> None:
    assert gains_by_rows(shape) is gains
    if shape[2] > 1:
        assert plan(shape).algorithm == ("rows" if gains else "plain")


def test_it_runs_in_float32_without_gradients_on_large_maps_where_nothing_else_was_asked_for() -> None:
    shape = (3, 64, 7, 7)
    assert plan(shape).algorithm == "rows"
    assert plan(shape, gradient=True).algorithm == plan(shape, backend="reference").algorithm == "plain"
    assert plan(shape, dtype=torch.float64).algorithm == plan(shape, size=(12, 12)).algorithm == "plain"
