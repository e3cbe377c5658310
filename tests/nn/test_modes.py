"""Modes, transforms and tools of PyTorch that a network runs under, and what is left of them afterwards: nothing."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable

import pytest
import torch
from nn.twins import assert_near, assert_same, randomised
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, jacrev, jvp, stack_module_state, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import inpaint_fast as ipf

X = torch.randn(2, 24, 20, 20, generator=torch.Generator().manual_seed(0))


class OneByOne(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(24, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ELU()
        self.last = nn.ConvTranspose2d(24, 24, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act(self.norm(self.conv(x))))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "dilated": lambda: nn.Sequential(nn.Conv2d(24, 24, 3, padding=2, dilation=2), nn.BatchNorm2d(24), nn.Tanh()),
    "strided": lambda: nn.Sequential(nn.Conv2d(24, 32, 4, 2, 1), nn.LeakyReLU(0.2), nn.BatchNorm2d(32)),
    "transposed": lambda: nn.Sequential(nn.ConvTranspose2d(24, 24, 4, 2, 1), nn.Sigmoid()),
    "one by one": OneByOne,
}
NETWORKS["all"] = lambda: nn.Sequential(*NETWORKS["dilated"](), OneByOne(), *NETWORKS["strided"]())


def made(name: str) -> nn.Module:
    return randomised(NETWORKS[name]()).eval()


# ---- modes that a network passes through, and the ordinary calls before and after ----


class Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))


class Marked(Tensor):
    """A subclass of Tensor, as wrappers make them."""


class Marking(TorchFunctionMode):
    """Every result is of the user's subclass."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        return found.as_subclass(Marked) if type(found) is Tensor else found


def under(*modes: Callable) -> Callable[[nn.Module, Tensor], object]:
    def use(net: nn.Module, x: Tensor) -> object:
        with contextlib.ExitStack() as stack:
            for mode in modes:
                stack.enter_context(mode())
            return net(x)

    return use


def fake(net: nn.Module, x: Tensor) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert net(torch.randn(x.shape)).shape == net(torch.randn(x.shape)).shape


def fake_parameters(net: nn.Module, x: Tensor) -> None:
    mode = FakeTensorMode()
    state = {name: mode.from_tensor(tensor) for name, tensor in net.state_dict().items()}
    with mode:
        functional_call(net, state, mode.from_tensor(x))


def on_meta(net: nn.Module, x: Tensor) -> None:
    state = {name: tensor.to("meta") for name, tensor in net.state_dict().items()}
    assert functional_call(net, state, x.to("meta")).is_meta
    assert copy.deepcopy(net).to("meta")(x.to("meta")).is_meta


def traced(mode: str) -> Callable[[nn.Module, Tensor], None]:
    def use(net: nn.Module, x: Tensor) -> None:
        graph = make_fx(net, tracing_mode=mode, _allow_non_fake_inputs=True)(x)
        assert_near(graph(x), net(x))

    return use


def exported(net: nn.Module, x: Tensor) -> None:
    assert_near(torch.export.export(net, (x,)).module()(x), net(x))


def compiled(net: nn.Module, x: Tensor) -> None:
    torch._dynamo.reset()
    assert_near(torch.compile(net, backend="aot_eager", fullgraph=True)(x), net(x))


def mapped(net: nn.Module, x: Tensor) -> None:
    assert_near(vmap(net)(torch.stack([x, 2 * x])), torch.stack([net(x), net(2 * x)]))


def mapped_over_parameters(net: nn.Module, x: Tensor) -> None:
    others = [net, copy.deepcopy(net)]
    with torch.no_grad():
        for p in others[1].parameters():
            p.mul_(2)
    parameters, buffers = stack_module_state(others)
    found = vmap(lambda p, b: functional_call(net, (p, b), (x,)))(parameters, buffers)
    assert_near(found, torch.stack([other(x) for other in others]))


def gradient(net: nn.Module, x: Tensor) -> None:
    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return functional_call(net, parameters, (x,)).square().mean()

    parameters = {name: p.detach() for name, p in net.named_parameters()}
    found = grad(loss)(parameters)
    with torch.enable_grad():
        expected = torch.autograd.grad(net(x).square().mean(), list(net.parameters()))
    for name, g in zip(found, expected, strict=True):
        torch.testing.assert_close(found[name], g, rtol=1e-3, atol=1e-5)


def gradients_of_samples(net: nn.Module, x: Tensor) -> None:
    parameters = {name: p.detach() for name, p in net.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(net, parameters, (x[None],)).square().mean()

    vmap(grad(loss), (None, 0))(parameters, x)


def forward_mode(net: nn.Module, x: Tensor) -> None:
    _, tangent = jvp(lambda scale: net(x * scale).mean(), (torch.ones(1),), (torch.ones(1),))
    with torch.enable_grad():
        scale = torch.ones(1, requires_grad=True)
        (expected,) = torch.autograd.grad(net(x * scale).mean(), scale)
    torch.testing.assert_close(tangent, expected.sum(), rtol=1e-3, atol=1e-4)
    with torch.autograd.forward_ad.dual_level():
        net(torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)))


def a_jacobian(net: nn.Module, x: Tensor) -> None:
    jacrev(lambda scale: net(x * scale).mean())(torch.ones(1))


def recomputed(net: nn.Module, x: Tensor) -> None:
    with torch.enable_grad():
        for reentrant in (False, True):
            checkpoint(net, x.clone().requires_grad_(), use_reentrant=reentrant).sum().backward()
    net.zero_grad()


def saved_elsewhere(net: nn.Module, x: Tensor) -> None:
    with torch.enable_grad(), torch.autograd.graph.save_on_cpu():
        net(x).sum().backward()
    net.zero_grad()


USES = {
    "FakeTensorMode": fake, "fake parameters": fake_parameters, "meta": on_meta, "make_fx real": traced("real"),
    "make_fx fake": traced("fake"), "make_fx symbolic": traced("symbolic"), "export": exported, "compile": compiled,
    "vmap": mapped, "vmap over parameters": mapped_over_parameters, "grad": gradient,
    "gradients of samples": gradients_of_samples, "jvp": forward_mode, "jacrev": a_jacobian,
    "checkpoint": recomputed, "saved tensors": saved_elsewhere, "dispatch mode": under(Counting),
    "function mode": under(Marking), "FLOPs": under(lambda: FlopCounterMode(display=False)),
    "inference_mode": under(torch.inference_mode), "autocast": under(lambda: torch.autocast("cpu", torch.bfloat16)),
    "inference_mode and autocast": under(torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)),
    "default device meta": under(lambda: torch.device("meta")),
    "anomalies": under(torch.autograd.detect_anomaly), "deterministic": under(lambda: deterministic()),
}  # fmt: skip


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("context", [torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.pairs("use", "inference", "context")
def test_afterwards_nothing_is_left(use: Callable, inference: bool, context: Callable) -> None:
    """The use comes before the first call, or between two."""
    plain = made("all")
    for used_before in (False, True):
        ours = ipf.accelerate(copy.deepcopy(plain), inference=inference)
        with context():
            if used_before:
                ours(X)
            use(ours, X)
            for _ in range(2):
                y = ours(X)
                assert type(y) is Tensor
                assert_near(y, plain(X))
        assert_same(ours, plain, X)
        with torch.no_grad():
            for net in (ours, plain):
                for p in net.parameters():
                    p.mul_(1.25)
            assert_near(ours(X), plain(X))
            for p in plain.parameters():
                p.mul_(0.8)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_prepared_within_a_mode(name: str, inference: bool) -> None:
    """accelerate() itself runs under a mode."""
    plain = made(name)
    for mode in (FakeTensorMode, Counting, Marking, torch.inference_mode, lambda: torch.device("meta")):
        ours = copy.deepcopy(plain)
        with mode():
            ipf.accelerate(ours, inference=inference)
        for context in (torch.no_grad, torch.inference_mode, torch.enable_grad):
            with context():
                y = ours(X)
                assert type(y) is Tensor
                assert_near(y, plain(X))
        assert_same(ours, plain, X)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_inference_tensors(name: str) -> None:
    with torch.inference_mode():
        plain = made(name)
        ours = ipf.accelerate(copy.deepcopy(plain), inference=True)
        for _ in range(2):
            assert_near(ours(X), plain(X))
            for net in (ours, plain):
                next(net.parameters()).mul_(2)
    with torch.no_grad():
        assert_near(ours(X), plain(X))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_built_on_meta(name: str) -> None:
    plain = made(name)
    with torch.device("meta"):
        ours = NETWORKS[name]()
    ipf.accelerate(ours.eval(), inference=True)
    assert ours(X.to("meta")).is_meta
    ours.to_empty(device="cpu").load_state_dict(plain.state_dict())
    assert_same(ours, plain, X)
    with torch.no_grad():
        assert_near(ours(X), plain(X))


def test_a_users_mode_sees_the_operators_and_its_subclass_comes_out() -> None:
    ours = ipf.accelerate(made("one by one"), inference=True)
    with torch.no_grad():
        with Counting() as mode:
            ours(X)
        assert mode.calls > 0
        with Marking():
            assert type(ours(X)) is Marked
        assert type(ours(X.as_subclass(Marked))) is Marked
        assert type(ours(X)) is Tensor


# ---- FLOPs ----


def flops(run: Callable[[], Tensor], backward: bool) -> int:
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        y = run()
        if backward:
            y.sum().backward()
    return counter.get_total_flops()


CHAINS = [[], [nn.BatchNorm2d], [nn.ELU], [nn.BatchNorm2d, nn.ReLU], [nn.Sigmoid, nn.BatchNorm2d]]


@pytest.mark.parametrize("frozen", ["", "weight", "input"])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: " ".join(cls.__name__ for cls in chain) or "alone")
def test_flops_are_those_of_the_plain_network(chain: list, train: bool, frozen: str) -> None:
    convolutions = nn.Conv2d(24, 24, 3, padding=2, dilation=2), nn.Conv2d(24, 32, 3, 2, 1), nn.Conv2d(32, 24, 4, 2, 1)
    convolutions += nn.ConvTranspose2d(24, 32, 4, 2, 1), nn.ConvTranspose2d(32, 24, 3, 2, 1, 1), nn.Conv2d(24, 6, 3)
    layers: list[nn.Module] = []
    for conv in convolutions:
        layers += [conv, *(cls(conv.out_channels) if cls is nn.BatchNorm2d else cls() for cls in chain)]
    plain = nn.Sequential(*layers).train(train)
    if frozen == "weight":
        plain[0].weight.requires_grad_(False)
    ours = ipf.accelerate(copy.deepcopy(plain))
    x = X.clone().requires_grad_(frozen != "input")
    for backward in (False, True):
        assert flops(lambda: ours(x), backward) == flops(lambda: plain(x), backward) > 0, f"backward: {backward}"


BLOCKS = {
    "dilated": (ipf.dilated_block, F.conv2d, (24, 24, 3, 3), {}, {"padding": 1}),
    "strided": (ipf.strided_block, F.conv2d, (24, 24, 4, 4), {}, {"stride": 2, "padding": 1}),
    "transposed": (ipf.transposed_block, F.conv_transpose2d, (24, 24, 4, 4), {}, {"stride": 2, "padding": 1}),
}


@pytest.mark.parametrize("epilogue", [{}, {"activation": "relu"}, {"activation": "tanh", "scale": torch.ones(24)}])
@pytest.mark.parametrize("name", BLOCKS)
def test_flops_of_the_operators(name: str, epilogue: dict) -> None:
    """Without the hooks of the counter, that stop chains of modules from being fused."""
    block, convolve, shape, own, other = BLOCKS[name]
    weight = torch.randn(shape, requires_grad=True)
    for leaf in (False, True):
        x = torch.randn(4, 24, 32, 32, requires_grad=leaf)  # enough for Winograd's algorithm with a gradient, too
        for backward in (False, True):
            got = flops(lambda x=x: block(x, weight, **own, **epilogue), backward)
            assert got == flops(lambda x=x: convolve(x, weight, **other), backward) > 0
