"""The statistics that dilated_block's Triton kernel finds of its own result, for the norm after it. Those of stride 2
are in test_resampling_triton.py."""

from __future__ import annotations

import pytest
import torch
from emulation.ahead_of_time import Kernel, compile_all
from ops.conv_block.small_tiles import take_small_tiles
from support import assert_as_good, relative_error
from torch import Tensor

import inpaint_fast as ipf
from inpaint_fast._words import ACTIVATIONS, DEFAULT_SLOPE, ORDERS
from inpaint_fast.kernels.conv_block import moments
from inpaint_fast.ops._activations import activate
from inpaint_fast.ops.conv_block import dilated_block_statistics

EVERY = (0, 2, 3)


@pytest.fixture
def small_tiles(monkeypatch) -> None:
    take_small_tiles(monkeypatch)


def tensors(*size: int, out: int = 5, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    torch.manual_seed(0)
    drawn = (torch.randn(size[0], 3, *size[1:]), torch.randn(out, 3, 3, 3) / 5, torch.randn(out))
    return [tensor.to(dtype) for tensor in drawn]


def check(given: list[Tensor], activation: str = "none", order: str = "norm_act", dilation: int = 2) -> None:
    """The result is that of the convolution alone; the statistics are those of it as it is rounded."""
    named = {"activation": activation, "order": order, "backend": "triton"}
    y, (mean, var) = dilated_block_statistics(*given, dilation=dilation, **named)
    assert torch.equal(y, ipf.dilated_block(*given, dilation=dilation, backend="triton"))
    assert mean.dtype == var.dtype == torch.float64

    def expected(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        values = (
            activate(y.to(dtype), activation, DEFAULT_SLOPE.get(activation, 0.0))
            if order == "act_norm"
            else y.to(dtype)
        )
        return torch.var_mean(values, EVERY, correction=0)

    for value, plain, exact in zip((var, mean), expected(torch.float32), expected(torch.float64), strict=True):
        assert value.shape == exact.shape
        assert_as_good(value.float(), plain, exact)
    again = dilated_block_statistics(*given, dilation=dilation, **named)[1]
    assert torch.equal(again[0], mean) and torch.equal(again[1], var)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float16, torch.bfloat16), ids=str)
@pytest.mark.parametrize("order", ORDERS)
def test_statistics_of_the_rounded_result(dtype, order) -> None:
    check(tensors(2, 9, 21, dtype=dtype), "elu", order)


@pytest.mark.usefixtures("overflows_are_errors")
@pytest.mark.parametrize("size", [(1, 1, 2), (3, 4, 4), (2, 5, 13)])
def test_edges_of_tiles(small_tiles, size) -> None:
    check(tensors(*size), "leaky_relu", "act_norm")


@pytest.mark.parametrize("out", (1, 16, 35))
def test_tails_of_channels(small_tiles, out) -> None:
    check(tensors(2, 6, 5, out=out))


def test_layouts(small_tiles) -> None:
    input, weight, bias = tensors(2, 6, 5)
    last = input.contiguous(memory_format=torch.channels_last)
    check([last, weight, bias])
    y, _ = dilated_block_statistics(last, weight, backend="triton")
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_a_large_offset(small_tiles) -> None:
    """The mean of squares less the square of the mean would have no digit right."""
    input, weight, bias = tensors(2, 12, 12)
    y, (mean, var) = dilated_block_statistics(input, weight, bias + 1e3, backend="triton")
    exact, exact_mean = torch.var_mean(y.double(), EVERY, correction=0)
    assert relative_error(mean, exact_mean) < 1e-7 and relative_error(var, exact) < 1e-4


def test_nan_and_infinity_stay_in_their_channels(small_tiles) -> None:
    input, weight, bias = tensors(2, 6, 5)
    _, (mean, var) = dilated_block_statistics(input, weight, bias, backend="triton")
    bias[0], bias[3] = float("nan"), float("inf")
    _, (strange_mean, strange_var) = dilated_block_statistics(input, weight, bias, backend="triton")
    assert strange_mean[0].isnan() and strange_mean[3].isinf() and strange_var[[0, 3]].isnan().all()
    assert torch.equal(strange_mean[[1, 2, 4]], mean[[1, 2, 4]]) and torch.equal(strange_var[[1, 2, 4]], var[[1, 2, 4]])


def test_none_where_no_kernel_finds_them() -> None:
    given = tensors(2, 6, 5)
    y, statistics = dilated_block_statistics(*given, backend="reference")
    assert statistics is None and torch.equal(y, ipf.dilated_block(*given, backend="reference"))
    doubles = [tensor.double() for tensor in given]
    y, statistics = dilated_block_statistics(*doubles, backend="triton")
    assert statistics is None and torch.equal(y, ipf.dilated_block(*doubles, backend="triton"))


def test_no_pictures() -> None:
    y, statistics = dilated_block_statistics(torch.empty(0, 3, 5, 5), torch.randn(4, 3, 3, 3), backend="triton")
    assert y.shape == (0, 4, 5, 5) and [s.tolist() for s in statistics] == [[0.0] * 4] * 2


def test_autocast() -> None:
    given = tensors(2, 6, 5)
    with torch.autocast("cpu", torch.bfloat16):
        y, (mean, _) = dilated_block_statistics(*given, backend="triton")
    assert y.dtype == torch.bfloat16 and relative_error(mean, y.double().mean(EVERY)) < 1e-6


def test_gradients_are_those_of_the_convolution() -> None:
    def first_and_second(function) -> list[Tensor]:
        given = [tensor.requires_grad_() for tensor in tensors(1, 4, 5)]
        y = function(*given)
        first = torch.autograd.grad(y.square().sum(), given, create_graph=True)
        return [*first, *torch.autograd.grad(sum(g.square().sum() for g in first), given)]

    values = first_and_second(lambda *given: dilated_block_statistics(*given, backend="triton")[0])
    expected = first_and_second(lambda *given: ipf.dilated_block(*given, backend="triton"))
    for value, wanted in zip(values, expected, strict=True):
        assert torch.equal(value, wanted)


def test_opcheck() -> None:
    given, settings = tensors(1, 6, 5), ([2, 2, 2, 2], ACTIVATIONS.index("elu"), 1.0, True, False)
    ops = torch.ops.inpaint_fast
    torch.library.opcheck(ops.dilated_block_statistics_forward_triton.default, (*given, *settings))
    given = [tensor.requires_grad_() for tensor in given]
    torch.library.opcheck(ops.dilated_block_statistics_triton.default, (*given, *settings))


@pytest.mark.long
def test_what_puts_tiles_together_spills_nothing() -> None:
    types = {"moments": "*fp32", "mean": "*fp64", "var": "*fp64", "pixels": "fp64"}
    types |= dict.fromkeys(("parts", "channels", "height", "width"), "i32")
    constants = {"TILE_H": 8, "TILE_W": 16, "PARTS": moments.PARTS, "CHANNELS": moments.CHANNELS}
    place = ("inpaint_fast.kernels.conv_block.moments", "combine_kernel")
    for compiled in compile_all([Kernel(*place, types, constants, capability) for capability in (80, 90)]):
        assert compiled.stack_bytes == 0
