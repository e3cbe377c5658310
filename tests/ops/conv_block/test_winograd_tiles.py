"""Winograd's F(6x6, 3x3): held to float64 wherever a tile may end, and when it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from ops.conv_block.blocks import BOUND, arguments, compiled, random, weights
from support import exactly, laid_out, relative_error, run

import inpaint_fast as ipf
from inpaint_fast import _extension
from inpaint_fast.ops import forget, prepare
from inpaint_fast.ops._plans import forget_plans
from inpaint_fast.ops.conv_block import dilated_reference as reference
from inpaint_fast.ops.conv_block import plan
from inpaint_fast.ops.conv_block.kept import prepared

pytestmark = compiled
CAPABILITIES = _extension.module.cpu_capabilities() if _extension.module else []


@contextmanager
def tiles(side: int) -> Iterator[None]:
    """Tiles of this side for every convolution; 0: of the one that is chosen."""
    _extension.module.force_winograd_tile(side)
    forget_plans()
    try:
        yield
    finally:
        _extension.module.force_winograd_tile(0)
        forget_plans()


@pytest.fixture(params=CAPABILITIES)
def capability(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _extension.module.cpu_capability()
    _extension.module.set_cpu_capability(request.param)
    yield request.param
    _extension.module.set_cpu_capability(before)


# With dilation 2, 12 + rest pixels end in tiles of every number of pixels, in two numbers of them where rest is odd.
@pytest.mark.parametrize("layout", ("nchw", "channels_last", "sliced"))
@pytest.mark.parametrize("rest", range(12))
def test_parity(winograd, capability, rest, layout) -> None:
    torch.manual_seed(0)
    tensors = arguments(shape=(2, 21, 12 + rest, 36 - rest), out=37)
    seed = random(2, 37, 12 + rest, 36 - rest)
    settings = {"dilation": 2, "activation": "tanh"}
    exact = run(reference, exactly(tensors), seed.double(), **settings)
    tensors[0] = laid_out(tensors[0], layout)
    with tiles(6):
        values = run(ipf.dilated_block, tensors, laid_out(seed, layout), **settings)
    for value, wanted in zip(values, exact, strict=True):
        assert relative_error(value, wanted) < BOUND


@pytest.mark.parametrize("side", range(1, 14))
def test_few_pixels(winograd, side) -> None:
    """One map is a tile or two, which is none of the cheapest ways to cut a large one."""
    torch.manual_seed(0)
    for dilation in (1, 3, (1, 2)):
        tensors, seed = [random(3, 33, side, 7), weights(5, 33), None, None, None], random(3, 5, side, 7)
        exact = run(reference, exactly(tensors), seed.double(), dilation=dilation)
        with tiles(6):
            values = run(ipf.dilated_block, tensors, seed, dilation=dilation)
        for value, wanted in zip(values, exact, strict=True):
            assert relative_error(value, wanted) < BOUND


@pytest.mark.parametrize("channels", (256, 512))
@pytest.mark.parametrize("dilation", (1, 2))
def test_error_at_many_channels(channels, dilation, record_property) -> None:
    """Below 1e-5 of the norm at the most channels that take it, too."""
    torch.manual_seed(0)
    tensors = [random(1, channels, 32, 40), weights(channels, channels), None, None, None]
    seed = random(1, channels, 32, 40)
    exact = run(reference, exactly(tensors), seed.double(), dilation=dilation)
    for side in (4, 6):
        with tiles(side):
            values = run(ipf.dilated_block, tensors, seed, dilation=dilation)
        errors = [relative_error(value, wanted) for value, wanted in zip(values, exact, strict=True)]
        record_property(f"F({side}x{side})", errors)
        print(f"{channels} channels, dilation {dilation}, F({side}x{side}): "
              + ", ".join(f"{error:.1e}" for error in errors))  # fmt: skip
        assert max(errors) < BOUND


def test_bitwise_equal_for_any_number_of_threads(winograd) -> None:
    torch.manual_seed(0)
    tensors, seed = arguments(shape=(3, 40, 33, 41), out=70, affine=False), random(3, 70, 33, 41)
    threads, found = torch.get_num_threads(), []
    try:
        with tiles(6):
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                found.append(run(ipf.dilated_block, tensors, seed, dilation=2))
    finally:
        torch.set_num_threads(threads)
    for values in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(values, found[0], strict=True))


def of(shape: tuple[int, ...], out: int | None = None, dilation: int = 1, last: bool = True, kept: bool = True) -> int:
    images, channels, height, width = shape
    return _extension.module.winograd_tile(images, channels, out or channels, height, width, dilation, dilation, last,
                                           kept)  # fmt: skip


def test_where_it_runs() -> None:
    assert of((1, 128, 56, 56)) == of((1, 128, 56, 56), dilation=2) == of((1, 64, 128, 128)) == 6
    assert of((1, 128, 56, 56), last=False) == 4
    assert of((1, 128, 56, 56), kept=False) == 4  # 196 tiles do not pay for more numbers of a weight
    assert of((1, 64, 128, 128), kept=False) == of((8, 128, 56, 56), kept=False) == 6
    assert of((1, 32, 128, 128)) == of((1, 64, 128, 128), out=32) == 4
    assert of((1, 1024, 64, 64)) == 4  # whose sums round by more than 1e-5
    assert of((1, 128, 56, 56), dilation=16) == 4  # phases of 3 and 4 pixels
    assert of((1, 128, 16, 16)) == 4
    assert of((1, 128, 0, 56)) == 4


def test_kept_weights_are_those_of_the_tile(winograd) -> None:
    torch.manual_seed(0)
    small, large = (laid_out(random(1, 64, side, side), "channels_last") for side in (16, 96))
    weight = weights(64, 64)
    with torch.no_grad():
        with tiles(6):
            wanted = ipf.dilated_block(large, weight)
        prepare(weight)
        try:
            for _ in range(2):
                assert torch.equal(ipf.dilated_block(large, weight), wanted)
                assert relative_error(ipf.dilated_block(small, weight), reference(small, weight)) < BOUND
            numbers = {value.numel() // 64**2 for _, value in prepared(weight)._values.values()}
        finally:
            forget(weight)
    assert numbers == {36, 64}
    assert plan(large, weight, kept=True).transformed_bytes == 64**2 * 64 * 4
    assert plan(large, weight, kept=True).workspace_bytes > plan(large, weight).workspace_bytes


def test_exact_never_takes_it() -> None:
    torch.manual_seed(0)
    x, weight = laid_out(random(1, 64, 96, 96), "channels_last"), weights(64, 64)
    with torch.no_grad(), tiles(6):
        y = ipf.dilated_block(x, weight, precision="exact")
        assert torch.equal(y, torch.conv2d(x, weight, padding=1))
