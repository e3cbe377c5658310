"""norm_act among PyTorch's own: opcheck, compile, func, checkpointing, autocast; and what bad input is told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from ops.norm_act.norm_acts import SMALL, Parameters, laid_out, ours, plain, random, results
from torch import Tensor
from torch.nn import functional as F

import inpaint_fast as ipf
from inpaint_fast._words import ACTIVATIONS
from inpaint_fast.ops._dispatch import OPERATORS

STEM = "norm_act"


@pytest.mark.proves(
    "norm_act",
    equals="what torch.library promises: schema, shapes, gradients, compilers",
    within="opcheck's",
)
@pytest.mark.once_a_backend
@pytest.mark.parametrize(("layout", "training"), [("nchw", True), ("channels_last", False), ("sliced", True)])
def test_opcheck(kernel, layout, training) -> None:
    device, suffix = kernel.device, OPERATORS[STEM].suffixes[kernel.backend]
    x, p = laid_out(random(2, 5, 4, 3, device=device), layout), Parameters(5, torch.float32, device=device)
    forward, backward = (getattr(torch.ops.inpaint_fast, name + suffix).default for name in (STEM, f"{STEM}_backward"))
    settings = (training, 0.1, 1e-5, ACTIVATIONS.index("elu"), 1.0, 0)
    statistics = [make(5, dtype=torch.float64, device=device) for make in (torch.zeros, torch.ones)]
    given = statistics if training else (None, None)
    torch.library.opcheck(forward, (x.clone().requires_grad_(), *p.tensors(), *given, *settings))
    torch.library.opcheck(forward, (x, p.running_mean, p.running_var, None, None, None, None, *settings))
    weight, bias = p.weight.detach(), p.bias.detach()
    for want_input, want_parameters in ((True, True), (False, True), (True, False)):
        torch.library.opcheck(
            backward,
            (random(2, 5, 4, 3, device=device), x, weight, bias, *statistics, training, 3, 1.0, 0,
             want_input, want_parameters),
        )  # fmt: skip


def test_the_registered_gradient_is_that_of_eager_calls() -> None:
    x, grad = random(2, 5, 4, 3), random(2, 5, 4, 3)
    settings = (None, None, None, None, None, None, True, 0.1, 1e-5, ACTIVATIONS.index("elu"), 1.0, 0)

    def gradient(call) -> Tensor:
        given = x.clone().requires_grad_()
        return torch.autograd.grad(call(given, *settings)[0], given, grad)[0]

    eager = gradient(lambda *args: OPERATORS[STEM].call("cpp", STEM, *args))
    assert torch.equal(eager, gradient(torch.ops.inpaint_fast.norm_act)) and eager.abs().max() > 0


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

    device, args = implementation.device, ("relu", "norm_act", False, 0.1, 1e-5)
    x, grad = random(*SMALL, device=device), torch.randn(SMALL, device=device)

    def saved(x: Tensor, p: Parameters) -> Tensor:
        return checkpoint(lambda x: ours(2 * x, p, *args, implementation.backend), x, use_reentrant=False)

    def direct(x: Tensor, p: Parameters) -> Tensor:
        return ours(2 * x, p, *args, implementation.backend)

    values, expected = (results(f, x, Parameters(SMALL[1], x.dtype, device=device), grad) for f in (saved, direct))
    for name, value in expected.items():
        torch.testing.assert_close(values[name], value)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_what_is_saved_may_come_back_rounded(implementation, dtype, training) -> None:
    torch.manual_seed(0)
    device, args = implementation.device, ("relu", "norm_act", training, 0.1, 1e-5)
    x, grad = random(*SMALL, device=device), torch.randn(SMALL, device=device)

    def errors(function: Callable, hooks: AbstractContextManager) -> dict[str, float]:
        """How far each value is from that of PyTorch where nothing is rounded."""

        def hooked(x: Tensor, p: Parameters) -> Tensor:
            with hooks:
                return function(x, p)

        exact = results(lambda x, p: plain(x, p, *args), x, Parameters(SMALL[1], x.dtype, device=device), grad)
        values = results(hooked, x, Parameters(SMALL[1], x.dtype, device=device), grad)
        assert [value.dtype for value in values.values()] == [value.dtype for value in exact.values()]
        return {name: ((values[name] - value).norm() / value.norm()).item() for name, value in exact.items()}

    def mine(x: Tensor, p: Parameters) -> Tensor:
        return ours(x, p, *args, implementation.backend)

    def rounding() -> AbstractContextManager:
        return torch.autograd.graph.saved_tensors_hooks(lambda t: t.to(dtype), lambda t: t.float())

    theirs = errors(lambda x, p: plain(x, p, *args), rounding())
    for name, error in errors(mine, rounding()).items():
        # A value that is rounded to zero or past it changes the sign that the activation sees: few do.
        assert error <= 2 * theirs[name] + 8 * torch.finfo(dtype).eps + 1e-5, f"{name}: {error:.3g}, {theirs[name]:.3g}"
    assert max(errors(mine, torch.autograd.graph.save_on_cpu()).values()) <= 1e-5


def test_autocast_changes_nothing(implementation) -> None:
    device = implementation.device
    p, expected = (Parameters(3, torch.float32, device=device) for _ in range(2))
    convolved = random(2, 3, 8, 8, dtype=torch.bfloat16, device=device)
    with torch.autocast(device, dtype=torch.bfloat16):
        y = ours(convolved, p, "relu", "norm_act", True, 0.1, 1e-5, implementation.backend)
        want = plain(convolved, expected, "relu", "norm_act", True, 0.1, 1e-5)
    assert y.dtype == want.dtype == torch.bfloat16
    assert p.running_mean.dtype == torch.float32
    torch.testing.assert_close(y, want)
    torch.testing.assert_close(p.running_var, expected.running_var)


# ---- bad input ----

X, C3, C64 = torch.zeros(2, 3, 4, 4), torch.ones(3), torch.ones(3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((None, C3, C3), {}, TypeError, ["input", "NoneType"]),
        ((X.long(), C3, C3), {}, TypeError, ["input", "int64"]),
        ((X.to_sparse(), C3, C3), {}, TypeError, ["input", "sparse"]),
        ((X, C3.to_sparse(), C3), {}, TypeError, ["running_mean", "sparse"]),
        ((torch.zeros(3), C3, C3), {}, ValueError, ["input", "(3,)"]),
        ((X, torch.ones(4), C3), {}, ValueError, ["running_mean", "(3,)", "(4,)"]),
        ((X, C3, C3, torch.ones(1, 3)), {}, ValueError, ["weight", "(3,)", "(1, 3)"]),
        ((X, C3, C3, C3, 0.0), {}, TypeError, ["bias", "float"]),
        ((X, C3, C3.double()), {}, TypeError, ["running_var", "float32", "float64"]),
        ((X.bfloat16(), C3, C3, C3.bfloat16()), {}, TypeError, ["weight", "running_mean", "float32", "bfloat16"]),
        ((X.half(), C3.bfloat16(), C3), {}, TypeError, ["running_mean", "float16", "bfloat16"]),
        ((X, C3, C3.to("meta")), {}, TypeError, ["running_var", "meta", "cpu"]),
        ((X, C3, C3.to("meta")), {"training": True}, TypeError, ["running_var", "meta", "cpu"]),
        ((X, C3, C3, C3.to("meta"), C3), {"training": True, "backend": "cpp"}, TypeError, ["weight", "meta", "cpu"]),
        ((X, C3, C3, None, C3.to("meta")), {"backend": "reference"}, TypeError, ["bias", "meta", "cpu"]),
        ((X.to("meta"), C3, C3.to("meta")), {}, TypeError, ["running_mean", "cpu", "meta"]),
        ((X, C3.to("meta"), C3.to("meta")), {"activation": "relu"}, TypeError, ["running_mean", "meta", "cpu"]),
        ((X, None, None), {}, ValueError, ["running_mean", "None"]),
        ((X, C3, None), {"training": True}, ValueError, ["running_var", "both"]),
        ((X, C3, C3), {"training": 1}, TypeError, ["training", "1"]),
        ((X, C3, C3), {"momentum": None}, TypeError, ["momentum", "NoneType"]),
        ((X, C3, C3), {"eps": "0"}, TypeError, ["eps", "str"]),
        ((X, C3, C3), {"eps": -1.0}, ValueError, ["eps", "-1.0"]),
        ((X, C3, C3), {"eps": 0.0, "training": True}, ValueError, ["eps", "0.0"]),
        ((X, C3, C3), {"statistics": (C64, C64)}, ValueError, ["statistics", "training"]),
        ((X, C3, C3), {"training": True, "statistics": C64}, TypeError, ["statistics", "Tensor"]),
        ((X, C3, C3), {"training": True, "statistics": (C64, C3)}, TypeError, ["statistics", "variance", "float32"]),
        ((X, C3, C3), {"training": True, "statistics": (C64[:2], C64)}, ValueError, ["statistics", "mean", "(2,)"]),
        ((X, C3, C3), {"activation": "gelu"}, ValueError, ["activation", "'gelu'", "'relu'"]),
        ((X, C3, C3), {"order": "norm"}, ValueError, ["order", "'norm'"]),
        ((X, C3, C3), {"activation": "relu", "slope": 0.1}, TypeError, ["slope", "'relu'"]),
        ((X, C3, C3), {"activation": "elu", "slope": "1"}, TypeError, ["slope", "str"]),
        ((X, C3, C3), {"backend": "gpu"}, ValueError, ["backend", "'gpu'"]),
        ((X, C3, C3), {"backend": "cuda"}, ipf.BackendError, ["'cuda' cannot run on cpu tensors"]),
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
        ipf.norm_act(*(t.to(implementation.device) for t in (torch.zeros(shape), C3, C3)), training=True,
                     backend=implementation.backend)  # fmt: skip
    assert str(caught.value) == str(expected.value)


@pytest.mark.skipif(ipf._extension.module is None, reason="the extension is not built")
def test_one_norm_by_us_and_by_pytorch_in_one_graph(kernel) -> None:
    """F.batch_norm saves the running statistics for its backward pass and counts no version of them; neither do we."""
    x = random(4, 3, 5, 5, device=kernel.device).requires_grad_()
    p = Parameters(3, torch.float32, device=kernel.device)
    calls = [
        lambda: F.batch_norm(x, *p.tensors(), training=True),
        lambda: ipf.norm_act(x, *p.tensors(), training=True, backend=kernel.backend),
    ]
    expected = torch.autograd.grad((calls[0]() + calls[0]()).square().sum(), x)[0]
    for first, second in (calls, reversed(calls)):
        found = torch.autograd.grad((first() + second()).square().sum(), x)[0]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_running_statistics_that_cannot_be_updated_are_named() -> None:
    mean, wrong = torch.zeros(3), torch.ones(1).expand(3)
    with pytest.raises(ValueError, match="running_var: its elements share memory"):
        ipf.norm_act(torch.randn(4, 3, 5, 5), mean, wrong, training=True, backend="cpp")
    assert (mean == 0).all()
