"""norm_act: every implementation against nn.BatchNorm2d and the activation in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import assert_as_good, relative_error
from torch import Tensor, nn
from torch.nn import functional as F

import inpaint_fast as ipf
from inpaint_fast.ops._activations import ACTIVATIONS, DEFAULT_SLOPE, ORDERS
from inpaint_fast.ops._backends import OPERATORS, why_not
from inpaint_fast.ops.norm_act import DTYPES

STEM = "norm_act"
FAST_BACKENDS = ["reference", "cpp"] if ipf._extension.module else ["reference"]
LAYOUTS = ("nchw", "channels_last", "sliced", "transposed")
SHAPE = (3, 21, 7, 13)  # no multiple of any vector; 21 channels leave a tail in rows, 91 pixels in planes
SHAPES = (SHAPE, (2, 259, 4, 5), (2, 3, 129, 131), (70, 5, 2, 2), (5, 9), (1, 2), (9, 17, 6), (2, 4, 3, 3, 2))
SLOPES = {"leaky_relu": 0.2, "elu": 1.3}


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.randn(shape, dtype=torch.float64) * 1.5 + 0.4).to(dtype)


def only_compiled(implementation, why: str) -> None:
    """Leaves PyTorch's own implementation out of a test of what it does not promise."""
    if implementation.backend == "reference":
        pytest.skip(f"the reference {why}")


def laid_out(tensor: Tensor, layout: str) -> Tensor:
    """The same values in another memory order."""
    if layout == "channels_last":
        return tensor.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "sliced":
        return tensor.new_full((*tensor.shape[:-1], 2 * tensor.shape[-1]), math.nan)[..., ::2].copy_(tensor)
    if layout == "transposed":
        return tensor.transpose(2, 3).contiguous().transpose(2, 3)
    return tensor


class Parameters:
    """Weight, bias and running statistics of one normalisation, the same numbers for every dtype."""

    def __init__(self, channels: int, dtype: torch.dtype, *, affine: bool = True, track: bool = True) -> None:
        at = torch.arange(channels, dtype=torch.float64)
        # Weights of both signs; statistics unlike those of the batch.
        self.weight = (0.8 * torch.cos(at) + 0.1).to(dtype).requires_grad_() if affine else None
        self.bias = (0.3 * torch.sin(3 * at)).to(dtype).requires_grad_() if affine else None
        self.running_mean = (0.2 * torch.cos(2 * at)).to(dtype) if track else None
        self.running_var = (1.5 + torch.sin(at)).to(dtype) if track else None

    def tensors(self) -> tuple[Tensor | None, ...]:
        return self.running_mean, self.running_var, self.weight, self.bias


def plain_activation(x: Tensor, activation: str) -> Tensor:
    return {
        "none": lambda: x,
        "relu": lambda: F.relu(x),
        "leaky_relu": lambda: F.leaky_relu(x, SLOPES["leaky_relu"]),
        "elu": lambda: F.elu(x, SLOPES["elu"]),
        "sigmoid": lambda: torch.sigmoid(x),
        "tanh": lambda: torch.tanh(x),
    }[activation]()


def plain(x: Tensor, p: Parameters, activation: str, order: str, training: bool, momentum: float, eps: float) -> Tensor:
    """nn.BatchNorm2d's computation and the activation, as a user would write them."""
    if order == "act_norm":
        x = plain_activation(x, activation)
    y = F.batch_norm(x, *p.tensors(), training, momentum, eps)
    return y if order == "act_norm" else plain_activation(y, activation)


def ours(
    x: Tensor, p: Parameters, activation: str, order: str, training: bool, momentum: float, eps: float, backend: str
) -> Tensor:
    return ipf.norm_act(
        x, *p.tensors(), training=training, momentum=momentum, eps=eps, activation=activation,
        slope=SLOPES.get(activation), order=order, backend=backend,
    )  # fmt: skip


def results(function, x: Tensor, p: Parameters, grad: Tensor, *args) -> dict[str, Tensor]:
    """y, the gradients of input, weight and bias, and the running statistics afterwards."""
    x = x.detach().requires_grad_()
    operands = {"input": x, "weight": p.weight, "bias": p.bias}
    operands = {name: operand for name, operand in operands.items() if operand is not None}
    y = function(x, p, *args)
    grads = torch.autograd.grad(y, list(operands.values()), grad.to(y.dtype))
    found = {"y": y.detach(), **{f"grad of {name}": g for name, g in zip(operands, grads, strict=True)}}
    if p.running_mean is not None:
        found |= {"running_mean": p.running_mean, "running_var": p.running_var}
    return found


def check_against_plain(
    backend: str, x: Tensor, activation: str, order: str, training: bool, *, affine=True, track=True,
    parameter_dtype: torch.dtype | None = None, grad: Tensor | None = None, momentum: float = 0.3, eps: float = 1e-3,
) -> None:  # fmt: skip
    grad = torch.randn(x.shape, dtype=torch.float64).to(x.dtype) if grad is None else grad
    dtype, args = parameter_dtype or x.dtype, (activation, order, training, momentum, eps)

    def parameters(wide: bool) -> Parameters:
        p = Parameters(x.shape[1], dtype, affine=affine, track=track)
        if wide:  # the same rounded numbers
            for name in ("weight", "bias", "running_mean", "running_var"):
                tensor = getattr(p, name)
                if tensor is not None:
                    setattr(p, name, tensor.detach().double().requires_grad_(tensor.requires_grad))
        return p

    values = results(ours, x, parameters(False), grad, *args, backend)
    plains = results(plain, x, parameters(False), grad, *args)
    exacts = results(plain, x.double(), parameters(True), grad.double(), *args)
    assert values.keys() == exacts.keys()
    for name, exact in exacts.items():
        assert values[name].dtype == plains[name].dtype, name
        if x.dtype == torch.float64 and exact.norm() > 0:
            # The judge is float64 itself: 1e-13 is some hundred of its units.
            assert relative_error(values[name], exact) < 1e-13, name
        else:
            assert_as_good(values[name], plains[name], exact)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("layout", ("nchw", "channels_last"))
def test_parity(implementation, dtype, activation, order, layout) -> None:
    x = laid_out(random(*SHAPE, dtype=dtype), layout)
    for training in (True, False):
        check_against_plain(implementation.backend, x, activation, order, training)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", ("nchw", "channels_last"))
@pytest.mark.parametrize("order", ORDERS)
def test_shapes(implementation, shape, layout, order) -> None:
    x = laid_out(random(*shape), layout)
    if x.shape[0] * math.prod(x.shape[2:]) > 1:
        check_against_plain(implementation.backend, x, "leaky_relu", order, True)
    check_against_plain(implementation.backend, x, "leaky_relu", order, False)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_input_and_gradient(implementation, layout) -> None:
    x = laid_out(random(*SHAPE), layout)
    for grad_layout in LAYOUTS:
        grad = laid_out(torch.randn(SHAPE), grad_layout)
        check_against_plain(implementation.backend, x, "relu", "norm_act", True, grad=grad)
    p = Parameters(SHAPE[1], x.dtype)
    y = ours(x, p, "relu", "norm_act", True, 0.1, 1e-5, implementation.backend)
    if layout in ("nchw", "channels_last"):
        assert y.stride() == x.stride()
    one_number = results(ours, x, p, torch.ones(()).expand(SHAPE), "relu", "norm_act", True, 0.1, 1e-5,
                         implementation.backend)  # fmt: skip
    all_numbers = results(ours, x, p, torch.ones(SHAPE), "relu", "norm_act", True, 0.1, 1e-5, implementation.backend)
    for name in ("y", "grad of input", "grad of weight"):
        torch.testing.assert_close(one_number[name], all_numbers[name])


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("track", [True, False])
def test_absent_parameters(implementation, affine, track) -> None:
    for training in (True, False) if track else (True,):
        check_against_plain(implementation.backend, random(*SHAPE), "elu", "norm_act", training, affine=affine,
                            track=track)  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_input_with_float32_parameters(implementation, dtype) -> None:
    for training in (True, False):
        check_against_plain(implementation.backend, random(*SHAPE, dtype=dtype), "relu", "norm_act", training,
                            parameter_dtype=torch.float32)  # fmt: skip


def test_each_gradient_alone(implementation) -> None:
    for training in (True, False):
        args = ("tanh", "norm_act", training, 0.1, 1e-5)
        x, grad = random(*SHAPE), torch.randn(SHAPE)
        exact = results(plain, x.double(), Parameters(21, torch.float64), grad.double(), *args)
        for name in ("input", "weight", "bias"):
            p = Parameters(21, torch.float32)
            operands = {"input": x.clone(), "weight": p.weight, "bias": p.bias}
            for other, operand in operands.items():
                operand.requires_grad_(other == name)
            y = ours(operands["input"], p, *args, implementation.backend)
            (value,) = torch.autograd.grad(y, operands[name], grad)
            torch.testing.assert_close(value.double(), exact[f"grad of {name}"], rtol=1e-5, atol=1e-5)


def test_running_statistics_follow_the_module(implementation) -> None:
    for momentum in (0.1, 1.0, 0.0):
        module, p = nn.BatchNorm2d(5, momentum=momentum), Parameters(5, torch.float32)
        module.running_mean.copy_(p.running_mean), module.running_var.copy_(p.running_var)
        for _ in range(3):
            x = random(4, 5, 9, 11)
            module(x)
            ours(x, p, "relu", "norm_act", True, momentum, 1e-5, implementation.backend)
            # One unit in the last place, of means below 1 that may cancel: the batch's own statistics round either way.
            torch.testing.assert_close(p.running_mean, module.running_mean, rtol=2.0**-22, atol=2.0**-24)
            torch.testing.assert_close(p.running_var, module.running_var, rtol=2.0**-22, atol=0)
        before = p.running_mean.clone(), p.running_var.clone()
        ours(x, p, "relu", "norm_act", False, momentum, 1e-5, implementation.backend)
        assert torch.equal(before[0], p.running_mean) and torch.equal(before[1], p.running_var)


@pytest.mark.parametrize("layout", ("nchw", "channels_last"))
@pytest.mark.parametrize("std", [1.0, 1e-2])
def test_a_large_offset_costs_no_accuracy(implementation, layout, std) -> None:
    only_compiled(implementation, "rounds the mean to float32, 1e-3 at 1e4, before it subtracts")
    x = laid_out((torch.randn(4, 5, 33, 65) * std + 1e4), layout)
    p = Parameters(5, torch.float32)
    y = ours(x, p, "none", "norm_act", True, 1.0, 1e-5, implementation.backend)
    wide = x.double()
    mean, var = wide.mean((0, 2, 3)), wide.var((0, 2, 3), unbiased=False)
    torch.testing.assert_close(p.running_mean.double(), mean, rtol=1e-7, atol=0)
    torch.testing.assert_close(p.running_var.double(), wide.var((0, 2, 3)), rtol=1e-6, atol=0)
    column = (slice(None), None, None)
    exact = (wide - mean[column]) / (var[column] + 1e-5).sqrt()
    exact = exact * p.weight.detach().double()[column] + p.bias.detach().double()[column]
    torch.testing.assert_close(y.detach().double(), exact, rtol=1e-5, atol=1e-6)


def test_values_that_lie_apart_cost_no_accuracy(implementation) -> None:
    """A first value, a sample or a whole part far from all others, about which differences would cancel."""
    only_compiled(implementation, "adds up in float32")
    for layout in ("nchw", "channels_last"):
        for far in ((0, slice(None), 0, 0), (0,), (slice(None), slice(None), slice(0, 16))):
            x = torch.randn(6, 3, 80, 70)
            x[far] = 1e4
            p = Parameters(3, torch.float32)
            ours(laid_out(x, layout), p, "none", "norm_act", True, 1.0, 1e-5, implementation.backend)
            torch.testing.assert_close(p.running_mean.double(), x.double().mean((0, 2, 3)), rtol=3e-7, atol=1e-7)
            torch.testing.assert_close(p.running_var.double(), x.double().var((0, 2, 3)), rtol=3e-7, atol=0)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 3, 0, 4), (0, 3)], ids=str)
def test_empty(implementation, shape) -> None:
    for training in (True, False):
        x = torch.zeros(shape)
        args = ("relu", "norm_act", training, 0.1, 1e-5)
        values = results(ours, x, Parameters(3, torch.float32), x, *args, implementation.backend)
        plains = results(plain, x, Parameters(3, torch.float32), x, *args)
        for name, expected in plains.items():
            assert torch.equal(values[name], expected), name


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("order", ORDERS)
def test_nan_and_inf_as_in_torch(implementation, activation, order) -> None:
    for bad in (math.nan, math.inf, -math.inf):
        for place in (0, 37):
            x = random(2, 3, 5, 9)
            x[0, 1].view(-1)[place] = bad
            for layout in ("nchw", "channels_last"):
                for training in (True, False):
                    args = (activation, order, training, 0.1, 1e-5)
                    x = laid_out(x, layout)
                    grad = torch.randn(x.shape)
                    values = results(ours, x, Parameters(3, x.dtype), grad, *args, implementation.backend)
                    plains = results(plain, x, Parameters(3, x.dtype), grad, *args)
                    for name, expected in plains.items():
                        if activation == "elu" and plains["y"].isnan().any() and "grad" in name:
                            continue  # PyTorch's slope of elu at NaN is NaN or 1, by the element's place in memory
                        torch.testing.assert_close(values[name], expected, rtol=1e-4, atol=1e-5, equal_nan=True)


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


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("order", ORDERS)
def test_gradcheck(implementation, activation, order) -> None:
    p = Parameters(2, torch.float64, track=True)
    for training in (True, False):

        def function(x: Tensor, weight: Tensor, bias: Tensor, training=training) -> Tensor:
            return ipf.norm_act(
                x, p.running_mean.clone(), p.running_var.clone(), weight, bias, training=training, eps=1e-2,
                activation=activation, slope=SLOPES.get(activation), order=order, backend=implementation.backend,
            )  # fmt: skip

        operands = (random(2, 2, 2, 3, dtype=torch.float64).requires_grad_(), p.weight, p.bias)
        assert torch.autograd.gradcheck(function, operands, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, operands, fast_mode=True)


def test_second_derivatives_where_the_weight_comes_from_the_input(implementation) -> None:
    """A weight computed from the input: its part of the gradient must be counted once."""

    def penalty(function) -> Tensor:
        torch.manual_seed(3)
        x = random(3, 4, 5, 5, dtype=torch.float64).requires_grad_()
        p = Parameters(4, torch.float64)
        p.weight = x.mean((0, 2, 3)) + 1
        args = ("tanh", "norm_act", True, 0.1, 1e-5)
        y = function(x, p, *args)
        (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x)[0]

    value = penalty(lambda *args: ours(*args, implementation.backend))
    torch.testing.assert_close(value, penalty(plain), rtol=1e-9, atol=1e-9)


def test_bitwise_deterministic_for_any_number_of_threads(implementation) -> None:
    only_compiled(implementation, "may add up in an order that depends on the number of threads")
    threads = torch.get_num_threads()
    try:
        for shape, layout in (((3, 37, 65, 67), "nchw"), ((3, 37, 65, 67), "channels_last"), ((4, 2, 129, 131), "nchw"),
                              ((2, 300, 17, 19), "channels_last"), ((70, 5, 6, 6), "nchw")):  # fmt: skip
            x, grad = laid_out(random(*shape), layout), torch.randn(shape)
            found = []
            for count in (1, 2, 4, 1):
                torch.set_num_threads(count)
                args = ("elu", "norm_act", True, 0.1, 1e-5)
                found.append(results(ours, x, Parameters(shape[1], x.dtype), grad, *args, implementation.backend))
            for other in found[1:]:
                assert all(torch.equal(other[name], value) for name, value in found[0].items())
    finally:
        torch.set_num_threads(threads)


def test_results_past_the_caches(implementation) -> None:
    """More than 4 MB: kept memory, and writes that go past the caches."""
    for layout in ("nchw", "channels_last"):
        check_against_plain(implementation.backend, laid_out(random(2, 16, 193, 191), layout), "relu", "norm_act", True)


# ---- PyTorch around the operator ----


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("training", [True, False])
def test_opcheck(implementation, layout, training) -> None:
    only_compiled(implementation, "is no registered operator")
    x, p = laid_out(random(2, 5, 4, 3), layout), Parameters(5, torch.float32)
    forward, backward = torch.ops.inpaint_fast.norm_act.default, torch.ops.inpaint_fast.norm_act_backward.default
    settings = (training, 0.1, 1e-5, ACTIVATIONS.index("elu"), 1.0, False)
    torch.library.opcheck(forward, (x.clone().requires_grad_(), *p.tensors(), *settings))
    torch.library.opcheck(forward, (x, p.running_mean, p.running_var, None, None, *settings))
    statistics = torch.zeros(5, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
    weight, bias = p.weight.detach(), p.bias.detach()
    for want_input, want_parameters in ((True, True), (False, True), (True, False)):
        torch.library.opcheck(
            backward,
            (laid_out(random(2, 5, 4, 3), "nchw"), x, weight, bias, *statistics, training, 3, 1.0, False,
             want_input, want_parameters),
        )  # fmt: skip


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compile_without_graph_breaks(compiler) -> None:
    torch._dynamo.reset()

    def step(x: Tensor, p: Parameters) -> Tensor:
        y = ipf.norm_act(torch.sin(x), *p.tensors(), training=True, activation="relu")
        return y * 2 + ipf.norm_act(x, *p.tensors(), training=False, activation="tanh", order="act_norm")

    compiled = torch.compile(step, fullgraph=True, backend=compiler)
    for shape, layout in (((2, 3, 8, 8), "nchw"), ((3, 3, 8, 10), "channels_last")):
        x, grad = laid_out(random(*shape), layout), torch.randn(shape)
        values = results(compiled, x, Parameters(3, torch.float32), grad)
        for name, expected in results(step, x, Parameters(3, torch.float32), grad).items():
            torch.testing.assert_close(values[name], expected)


def test_func_and_forward_mode_take_the_reference_or_refuse() -> None:
    from torch.autograd import forward_ad

    x, p = random(4, 3, 5, 5), Parameters(3, torch.float32)

    def loss(x: Tensor, backend: str | None = None) -> Tensor:
        return ours(x, p, "tanh", "norm_act", False, 0.1, 1e-5, backend).square().sum()

    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf), leaf)
    torch.testing.assert_close(torch.func.grad(loss)(x), expected)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(loss(forward_ad.make_dual(x, torch.ones_like(x)))).tangent
        torch.testing.assert_close(tangent, expected.sum())
        with pytest.raises(ipf.BackendError, match="forward-mode"):
            loss(forward_ad.make_dual(x, torch.ones_like(x)), "cpp")


def test_activation_checkpointing(implementation) -> None:
    from torch.utils.checkpoint import checkpoint

    x, grad, args = random(*SHAPE), torch.randn(SHAPE), ("relu", "norm_act", False, 0.1, 1e-5)

    def saved(x: Tensor, p: Parameters) -> Tensor:
        return checkpoint(lambda x: ours(2 * x, p, *args, implementation.backend), x, use_reentrant=False)

    values = results(saved, x, Parameters(21, x.dtype), grad)
    expected = results(lambda x, p: ours(2 * x, p, *args, implementation.backend), x, Parameters(21, x.dtype), grad)
    for name, value in expected.items():
        torch.testing.assert_close(values[name], value)


def test_autocast_changes_nothing(implementation) -> None:
    p, expected = (Parameters(3, torch.float32) for _ in range(2))
    convolved = random(2, 3, 8, 8, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = ours(convolved, p, "relu", "norm_act", True, 0.1, 1e-5, implementation.backend)
        want = plain(convolved, expected, "relu", "norm_act", True, 0.1, 1e-5)
    assert y.dtype == want.dtype == torch.bfloat16
    assert p.running_mean.dtype == torch.float32
    torch.testing.assert_close(y, want)
    torch.testing.assert_close(p.running_var, expected.running_var)


# ---- bad input ----

X, C3 = torch.zeros(2, 3, 4, 4), torch.ones(3)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((None, C3, C3), {}, TypeError, ["input", "NoneType"]),
        ((X.long(), C3, C3), {}, TypeError, ["input", "int64"]),
        ((X.to_sparse(), C3, C3), {}, TypeError, ["input", "sparse"]),
        ((torch.zeros(3), C3, C3), {}, ValueError, ["input", "(3,)"]),
        ((X, torch.ones(4), C3), {}, ValueError, ["running_mean", "(3,)", "(4,)"]),
        ((X, C3, C3, torch.ones(1, 3)), {}, ValueError, ["weight", "(3,)", "(1, 3)"]),
        ((X, C3, C3, C3, 0.0), {}, TypeError, ["bias", "float"]),
        ((X, C3, C3.double()), {}, TypeError, ["running_var", "float32", "float64"]),
        ((X.bfloat16(), C3, C3, C3.bfloat16()), {}, TypeError, ["weight", "running_mean", "float32", "bfloat16"]),
        ((X.half(), C3.bfloat16(), C3), {}, TypeError, ["running_mean", "float16", "bfloat16"]),
        ((X, C3, C3.to("meta")), {}, TypeError, ["running_var", "meta", "cpu"]),
        ((X, None, None), {}, ValueError, ["running_mean", "None"]),
        ((X, C3, None), {"training": True}, ValueError, ["running_var", "both"]),
        ((X, C3, C3), {"training": 1}, TypeError, ["training", "1"]),
        ((X, C3, C3), {"momentum": None}, TypeError, ["momentum", "NoneType"]),
        ((X, C3, C3), {"eps": "0"}, TypeError, ["eps", "str"]),
        ((X, C3, C3), {"eps": -1.0}, ValueError, ["eps", "-1.0"]),
        ((X, C3, C3), {"eps": 0.0, "training": True}, ValueError, ["eps", "0.0"]),
        ((X, C3, C3), {"activation": "gelu"}, ValueError, ["activation", "'gelu'", "'relu'"]),
        ((X, C3, C3), {"order": "norm"}, ValueError, ["order", "'norm'"]),
        ((X, C3, C3), {"activation": "relu", "slope": 0.1}, TypeError, ["slope", "'relu'"]),
        ((X, C3, C3), {"activation": "elu", "slope": "1"}, TypeError, ["slope", "str"]),
        ((X, C3, C3), {"backend": "gpu"}, ValueError, ["backend", "'gpu'"]),
        ((X, C3, C3), {"backend": "triton"}, ipf.BackendError, ["no Triton kernel for norm_act yet"]),
        ((X, C3, C3), {"backend": "cuda"}, ipf.BackendError, ["no CUDA kernel for norm_act yet"]),
    ],
)
def test_bad_input_is_named(arguments, options, error, words) -> None:
    with pytest.raises(error) as caught:
        ipf.norm_act(*arguments, **options)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1)])
def test_one_value_a_channel_is_the_error_of_batch_norm(implementation, shape) -> None:
    with pytest.raises(ValueError) as expected:
        F.batch_norm(torch.zeros(shape), C3, C3, training=True)
    with pytest.raises(ValueError) as caught:
        ipf.norm_act(torch.zeros(shape), C3, C3, training=True, backend=implementation.backend)
    assert str(caught.value) == str(expected.value)


@pytest.mark.skipif(ipf._extension.module is None, reason="the extension is not built")
def test_a_direct_call_of_the_registered_operator_never_crashes() -> None:
    settings = (True, 0.1, 1e-5, 1, 0.0, False)
    for arguments in (
        (torch.zeros(3), C3, C3, None, None, *settings),
        (X.long(), C3, C3, None, None, *settings),
        (X, torch.zeros(2), C3, None, None, *settings),
        (X, C3, None, None, None, *settings),
        (X, C3, C3, C3.long(), None, *settings),
        (X, C3, C3, None, torch.zeros(()), *settings),
        (X[:1, :, :1, :1], C3, C3, None, None, *settings),
        (X, None, None, None, None, False, *settings[1:]),
        (X, C3, C3, None, None, True, 0.1, 1e-5, 6, 0.0, False),
    ):
        with pytest.raises(RuntimeError):
            torch.ops.inpaint_fast.norm_act(*arguments)
    wide, rest = torch.ones(3, dtype=torch.float64), (True, 1, 0.0, False, True, True)
    for arguments in (
        (X[:1], X, None, None, wide, wide),
        (X.double(), X, None, None, wide, wide),
        (X, X, None, None, torch.ones(2), wide),
        (X, X, C3[:1], None, wide, wide),
    ):
        with pytest.raises(RuntimeError):
            torch.ops.inpaint_fast.norm_act_backward(*arguments, *rest)


def test_what_is_not_written_is_not_there() -> None:
    assert why_not(STEM, "triton", "cuda") == "there is no Triton kernel for norm_act yet"
    assert why_not(STEM, "cuda", "cuda") == "there is no CUDA kernel for norm_act yet"
    assert OPERATORS[STEM].choose(torch.device("cuda"), None) == "reference"
    assert not hasattr(torch.ops.inpaint_fast, "norm_act_triton")
    assert set(DEFAULT_SLOPE) == set(SLOPES)
