"""norm_act: every implementation against nn.BatchNorm2d and the activation in float64."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ops.norm_act.norm_acts import (
    LAYOUTS,
    SHAPE,
    SHAPES,
    SLOPES,
    SMALL,
    SMALL_SHAPES,
    Parameters,
    check_against_plain,
    laid_out,
    ours,
    plain,
    plain_activation,
    random,
    results,
)  # fmt: skip
from support import relative_error
from torch import Tensor, nn

import inpaint_fast as ipf
from inpaint_fast._words import ACTIVATIONS, DTYPES, ORDERS
from inpaint_fast.ops._plans import forget_plans

STEM = "norm_act"
FAST_BACKENDS = ["reference", "cpp"] if ipf._extension.module else ["reference"]


def shape_for(implementation) -> tuple[int, ...]:
    return SMALL if implementation.slow else SHAPE


@pytest.mark.proves(
    "norm_act",
    equals="nn.BatchNorm2d and the activation, either first, with all gradients and running statistics",
    source="Ioffe, Szegedy (2015)",
    within="as good as PyTorch",
)
@pytest.mark.pairs("dtype", "activation", "order", "layout")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("layout", ("nchw", "channels_last"))
def test_parity(implementation, dtype, activation, order, layout) -> None:
    x = laid_out(random(*shape_for(implementation), dtype=dtype, device=implementation.device), layout)
    for training in (True, False):
        check_against_plain(implementation.backend, x, activation, order, training)


@pytest.mark.parametrize("layout", ("nchw", "channels_last"))
@pytest.mark.parametrize("order", ORDERS)
def test_shapes(implementation, layout, order) -> None:
    for shape in SMALL_SHAPES if implementation.slow else SHAPES:
        x = laid_out(random(*shape, device=implementation.device), layout)
        if x.shape[0] * math.prod(x.shape[2:]) > 1:
            check_against_plain(implementation.backend, x, "leaky_relu", order, True)
        check_against_plain(implementation.backend, x, "leaky_relu", order, False)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_input_and_gradient(implementation, layout) -> None:
    shape, device = shape_for(implementation), implementation.device
    x = laid_out(random(*shape, device=device), layout)
    for grad_layout in LAYOUTS:
        grad = laid_out(torch.randn(shape, device=device), grad_layout)
        check_against_plain(implementation.backend, x, "relu", "norm_act", True, grad=grad)
    p, args = (
        Parameters(shape[1], x.dtype, device=device),
        ("relu", "norm_act", True, 0.1, 1e-5, implementation.backend),
    )
    y = ours(x, p, *args)
    if layout in ("nchw", "channels_last"):
        assert y.stride() == x.stride()
    one_number = results(ours, x, p, torch.ones((), device=device).expand(shape), *args)
    all_numbers = results(ours, x, p, torch.ones(shape, device=device), *args)
    for name in ("y", "grad of input", "grad of weight"):
        torch.testing.assert_close(one_number[name], all_numbers[name])


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("track", [True, False])
def test_absent_parameters(implementation, affine, track) -> None:
    x = random(*shape_for(implementation), device=implementation.device)
    for training in (True, False) if track else (True,):
        check_against_plain(implementation.backend, x, "elu", "norm_act", training, affine=affine, track=track)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_input_with_float32_parameters(implementation, dtype) -> None:
    x = random(*shape_for(implementation), dtype=dtype, device=implementation.device)
    for training in (True, False):
        check_against_plain(implementation.backend, x, "relu", "norm_act", training, parameter_dtype=torch.float32)


def test_each_gradient_alone(implementation) -> None:
    for training in (True, False):
        args = ("tanh", "norm_act", training, 0.1, 1e-5)
        shape, device = shape_for(implementation), implementation.device
        x, grad = random(*shape, device=device), torch.randn(shape, device=device)
        exact = results(plain, x.double(), Parameters(shape[1], torch.float64, device=device), grad.double(), *args)
        for name in ("input", "weight", "bias"):
            p = Parameters(shape[1], torch.float32, device=device)
            operands = {"input": x.clone(), "weight": p.weight, "bias": p.bias}
            for other, operand in operands.items():
                operand.requires_grad_(other == name)
            y = ours(operands["input"], p, *args, implementation.backend)
            (value,) = torch.autograd.grad(y, operands[name], grad)
            torch.testing.assert_close(value.double(), exact[f"grad of {name}"], rtol=1e-5, atol=1e-5)


def test_running_statistics_follow_the_module(implementation) -> None:
    device = implementation.device
    for momentum in (0.1, 1.0, 0.0):
        module, p = nn.BatchNorm2d(5, momentum=momentum).double(), Parameters(5, torch.float32, device=device)
        module.running_mean.copy_(p.running_mean), module.running_var.copy_(p.running_var)
        for _ in range(3):
            x = random(4, 5, 9, 11)
            module(x.double())
            ours(x.to(device), p, "relu", "norm_act", True, momentum, 1e-5, implementation.backend)
            # One unit in the last place, of means below 1 that may cancel: the batch's own statistics round either way.
            mean, var = (statistic.cpu().double() for statistic in (p.running_mean, p.running_var))
            torch.testing.assert_close(mean, module.running_mean, rtol=2.0**-22, atol=2.0**-24)
            torch.testing.assert_close(var, module.running_var, rtol=2.0**-22, atol=0)
        before = p.running_mean.clone(), p.running_var.clone()
        ours(x.to(device), p, "relu", "norm_act", False, momentum, 1e-5, implementation.backend)
        assert torch.equal(before[0], p.running_mean) and torch.equal(before[1], p.running_var)


@pytest.mark.parametrize("layout", ("nchw", "channels_last"))
@pytest.mark.parametrize("order", ORDERS)
def test_statistics_that_are_given(implementation, layout, order) -> None:
    """The same results and gradients, and the same running statistics."""
    x = laid_out(random(*shape_for(implementation), device=implementation.device), layout)
    values, every = plain_activation(x.double(), "elu") if order == "act_norm" else x.double(), (0, 2, 3)
    var, mean = torch.var_mean(values, every, correction=0)
    args, grad = ("elu", order, True, 0.3, 1e-3, implementation.backend), torch.randn_like(x)
    found = [
        results(ours, x, Parameters(x.shape[1], x.dtype, device=x.device), grad, *args, statistics)
        for statistics in (None, (mean, var))
    ]
    for name, wanted in found[0].items():
        assert relative_error(found[1][name], wanted) < 1e-6, name


def test_statistics_that_are_given_are_taken(kernel) -> None:
    x = random(*SMALL, device=kernel.device)
    var, mean = torch.var_mean(x.double(), (0, 2, 3), correction=0)
    mean, var = mean + 1, 4 * var
    y = ipf.norm_act(x, None, None, training=True, statistics=(mean, var), backend=kernel.backend)
    column = (slice(None), None, None)
    assert relative_error(y, (x.double() - mean[column]) / (var[column] + 1e-5).sqrt()) < 1e-6


@pytest.mark.parametrize("layout", ("nchw", "channels_last"))
@pytest.mark.parametrize("std", [1.0, 1e-2])
def test_a_large_offset_costs_no_accuracy(kernel, layout, std) -> None:
    """The reference rounds the mean to float32, 1e-3 at 1e4, before it subtracts."""
    x = laid_out((torch.randn(4, 2 if kernel.slow else 5, 33, 65) * std + 1e4).to(kernel.device), layout)
    p = Parameters(x.shape[1], torch.float32, device=kernel.device)
    y = ours(x, p, "none", "norm_act", True, 1.0, 1e-5, kernel.backend)
    wide = x.double()
    mean, var = wide.mean((0, 2, 3)), wide.var((0, 2, 3), unbiased=False)
    torch.testing.assert_close(p.running_mean.double(), mean, rtol=1e-7, atol=0)
    torch.testing.assert_close(p.running_var.double(), wide.var((0, 2, 3)), rtol=1e-6, atol=0)
    column = (slice(None), None, None)
    exact = (wide - mean[column]) / (var[column] + 1e-5).sqrt()
    exact = exact * p.weight.detach().double()[column] + p.bias.detach().double()[column]
    torch.testing.assert_close(y.detach().double(), exact, rtol=1e-5, atol=1e-6)


def test_values_that_lie_apart_cost_no_accuracy(kernel) -> None:
    """A first value, a sample or a whole part far from all others, about which differences would cancel.

    The reference adds up in float32.
    """
    for layout in ("nchw", "channels_last"):
        for far in ((0, slice(None), 0, 0), (0,), (slice(None), slice(None), slice(0, 16))):
            x = torch.randn((4, 2, 33, 35) if kernel.slow else (6, 3, 80, 70), device=kernel.device)
            x[far] = 1e4
            p = Parameters(x.shape[1], torch.float32, device=kernel.device)
            ours(laid_out(x, layout), p, "none", "norm_act", True, 1.0, 1e-5, kernel.backend)
            torch.testing.assert_close(p.running_mean.double(), x.double().mean((0, 2, 3)), rtol=3e-7, atol=1e-7)
            torch.testing.assert_close(p.running_var.double(), x.double().var((0, 2, 3)), rtol=3e-7, atol=0)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 3, 0, 4), (0, 3)], ids=str)
def test_empty(implementation, shape) -> None:
    for training in (True, False):
        x, args = torch.zeros(shape), ("relu", "norm_act", training, 0.1, 1e-5)
        p, moved = Parameters(3, torch.float32, device=implementation.device), x.to(implementation.device)
        values = results(ours, moved, p, moved, *args, implementation.backend)
        for name, expected in results(plain, x, Parameters(3, torch.float32), x, *args).items():
            assert torch.equal(values[name].cpu(), expected), name


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("order", ORDERS)
def test_nan_and_inf_as_in_torch(implementation, activation, order) -> None:
    """As on the CPU: on a GPU PyTorch's mean of an infinite value is NaN, by the way it updates it."""
    device = implementation.device
    for bad in (math.nan, math.inf, -math.inf):
        for place in (0,) if implementation.slow else (0, 37):
            x, grad = random(2, 3, 5, 9), torch.randn(2, 3, 5, 9)
            x[0, 1].view(-1)[place] = bad
            for layout in ("nchw", "channels_last"):
                for training in (True, False):
                    args, x = (activation, order, training, 0.1, 1e-5), laid_out(x, layout)
                    p = Parameters(3, x.dtype, device=device)
                    values = results(ours, x.to(device), p, grad.to(device), *args, implementation.backend)
                    plains = results(plain, x, Parameters(3, x.dtype), grad, *args)
                    for name, expected in plains.items():
                        if activation == "elu" and plains["y"].isnan().any() and "grad" in name:
                            continue  # PyTorch's slope of elu at NaN is NaN or 1, by the element's place in memory
                        value = values[name].cpu()
                        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5, equal_nan=True)


@given(data=st.data())
def test_any_shape_and_stride(data) -> None:
    side = st.integers(0, 9)
    shape = (data.draw(st.integers(0, 5)), data.draw(st.integers(1, 40)), data.draw(side), data.draw(side))
    order, step = data.draw(st.permutations(range(4))), data.draw(st.integers(1, 2))

    def strided(values: Tensor) -> Tensor:
        """The same values, dimensions in any memory order, every `step`-th element of a larger buffer."""
        sizes = [values.shape[d] for d in order]
        buffer = torch.full((*sizes[:-1], sizes[-1] * step), math.nan)[..., ::step]
        return buffer.permute([order.index(d) for d in range(4)]).copy_(values)

    training = data.draw(st.booleans()) and shape[0] * shape[2] * shape[3] > 1
    args = (data.draw(st.sampled_from(ACTIVATIONS)), data.draw(st.sampled_from(ORDERS)), training, 0.2, 1e-2)
    x, grad = random(*shape), torch.randn(shape)
    backend = data.draw(st.sampled_from(FAST_BACKENDS))
    values = results(ours, strided(x), Parameters(shape[1], x.dtype), grad, *args, backend)
    exacts = results(plain, x.double(), Parameters(shape[1], torch.float64), grad.double(), *args)
    for name, exact in exacts.items():
        torch.testing.assert_close(values[name].double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.proves("norm_act", equals="finite differences", within="gradcheck's", dtypes="float64")
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("order", ORDERS)
def test_gradcheck(implementation, activation, order) -> None:
    p = Parameters(2, torch.float64, device=implementation.device)
    for training in (True, False):

        def function(x: Tensor, weight: Tensor, bias: Tensor, training=training) -> Tensor:
            return ipf.norm_act(
                x, p.running_mean.clone(), p.running_var.clone(), weight, bias, training=training, eps=1e-2,
                activation=activation, slope=SLOPES.get(activation), order=order, backend=implementation.backend,
            )  # fmt: skip

        x = random(2, 2, 2, 3, dtype=torch.float64, device=implementation.device)
        operands = (x.requires_grad_(), p.weight, p.bias)
        assert torch.autograd.gradcheck(function, operands, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, operands, fast_mode=True)


def test_second_derivatives_where_the_weight_comes_from_the_input(implementation) -> None:
    """A weight computed from the input: its part of the gradient must be counted once."""

    def penalty(function) -> Tensor:
        torch.manual_seed(3)
        x = random(3, 4, 5, 5, dtype=torch.float64, device=implementation.device).requires_grad_()
        p = Parameters(4, torch.float64, device=implementation.device)
        p.weight = x.mean((0, 2, 3)) + 1
        args = ("tanh", "norm_act", True, 0.1, 1e-5)
        y = function(x, p, *args)
        (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x)[0]

    value = penalty(lambda *args: ours(*args, implementation.backend))
    torch.testing.assert_close(value, penalty(plain), rtol=1e-9, atol=1e-9)


def test_bitwise_deterministic_for_any_number_of_threads(kernel) -> None:
    """The reference may add up in an order that depends on the number of threads."""
    threads, args = torch.get_num_threads(), ("elu", "norm_act", True, 0.1, 1e-5)
    shapes = ((3, 37, 65, 67), (4, 2, 129, 131), (2, 300, 17, 19), (70, 5, 6, 6))
    try:
        for shape in (SMALL, (1, 2, 65, 67)) if kernel.slow else shapes:
            for layout in ("nchw", "channels_last"):
                x = laid_out(random(*shape, device=kernel.device), layout)
                grad = torch.randn(shape, device=kernel.device)
                found = []
                for count in (1, 2) if kernel.slow else (1, 2, 4, 1):
                    torch.set_num_threads(count)
                    p = Parameters(shape[1], x.dtype, device=kernel.device)
                    found.append(results(ours, x, p, grad, *args, kernel.backend))
                for other in found[1:]:
                    assert all(torch.equal(other[name], value) for name, value in found[0].items())
    finally:
        torch.set_num_threads(threads)


@pytest.mark.skipif(ipf._extension.module is None, reason="the extension is not built")
@pytest.mark.parametrize("training", [True, False])
def test_unasked_pytorch_normalises_what_is_small(training, monkeypatch) -> None:
    """The way to our one operator costs more there than PyTorch's two."""

    def run(shape: tuple[int, ...], backend: str | None, function=ours) -> list[Tensor]:
        torch.manual_seed(0)
        x, args = random(*shape), ("relu", "norm_act", training, 0.1, 1e-5)
        args = args if function is plain else (*args, backend)
        return list(results(function, x, Parameters(5, torch.float32), x, *args).values())

    def same(a: list[Tensor], b: list[Tensor]) -> bool:
        return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))

    small, large = (2, 5, 16, 16), (2, 5, 96, 96)
    for shape in (small, large):
        assert same(run(shape, None), run(shape, None, plain)) == (shape == small)
        assert same(run(shape, None), run(shape, "cpp")) == (shape == large)
    with ipf.use_backend("cpp"):  # is to ask
        assert same(run(small, None), run(small, "cpp"))
    monkeypatch.setattr(sys.modules["inpaint_fast.ops.norm_act"], "LEAST_ELEMENTS_TRAINING", 0)
    forget_plans()
    assert same(run(small, None), run(small, "cpp"))
    monkeypatch.undo()
    forget_plans()


@pytest.mark.skipif(ipf._extension.module is None, reason="the extension is not built")
def test_results_past_the_caches() -> None:
    """More than 4 MB: kept memory, and writes that go past the caches."""
    for layout in ("nchw", "channels_last"):
        check_against_plain("cpp", laid_out(random(2, 16, 193, 191), layout), "relu", "norm_act", True)
