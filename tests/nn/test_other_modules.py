"""Other people's modules, inside a network and as the model itself: accelerate() raises on none and changes none."""

from __future__ import annotations

import copy
import ctypes
import operator
import warnings
from collections.abc import Callable

import pytest
import torch
from nn.twins import assert_near, left, swapped
from torch import Tensor, fx, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import inpaint_fast as ipf
from inpaint_fast.nn import acceleration_report

X = torch.randn(2, 24, 20, 20, generator=torch.Generator().manual_seed(0))
pytestmark = pytest.mark.filterwarnings("ignore")


def block() -> nn.Sequential:
    """In eval mode: a fused convolution, norm and activation would be as good as a plain one."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(24, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ELU()).eval()


class OneByOne(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = block()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


def quietly(function: Callable, *args) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args)


def exported() -> nn.Module:
    return torch.export.export(OneByOne().eval(), (X,)).module()


# ---- modules of unusual making ----


class Slots(nn.Module):
    __slots__ = ("scale",)

    def __init__(self) -> None:
        super().__init__()
        self.body, self.scale = block(), 2.0

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) * self.scale


class Delegating(nn.Module):
    """As wrappers do: what it has not is asked of what it wraps."""

    def __init__(self) -> None:
        super().__init__()
        self.wrapped = OneByOne().eval()

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.wrapped, name)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class Locked(nn.Module):
    """It takes no new attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.body = block()
        vars(self)["locked"] = True

    def __setattr__(self, name: str, value: object) -> None:
        if vars(self).get("locked") and name != "training":
            raise AttributeError(f"{name}: this module is locked")
        super().__setattr__(name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class LockedConv(nn.Conv2d):
    def __setattr__(self, name: str, value: object) -> None:
        if name == "__class__" or (name == "precision"):
            raise AttributeError(name)
        super().__setattr__(name, value)


class Asking(nn.Module):
    """Its properties raise, and `__dir__`, `__len__` and `__bool__` are its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = block()

    @property
    def device(self) -> None:
        raise RuntimeError("no device yet")

    def __dir__(self) -> list[str]:
        raise RuntimeError("nothing to list")

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        raise RuntimeError("neither true nor false")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not to be compared")

    __hash__ = nn.Module.__hash__

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Quantised(nn.Conv2d):
    """Weights in 8 bits, as quantised subclasses keep them."""

    def __init__(self) -> None:
        super().__init__(24, 24, 3, padding=1)
        scale = self.weight.detach().abs().max() / 127
        self.register_buffer("packed", (self.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        del self.weight

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.packed.float() * self.scale, self.bias, padding=1)


class Parallel(nn.Module):
    """As DistributedDataParallel: a wrapper that calls what it wraps by a context and `*args`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs, **kwargs) -> Tensor:
        with torch.autograd.profiler.record_function("forward"):
            return self.module(*inputs, **kwargs) if self.training or inputs else self.module(**kwargs)


class Lambda(nn.Module):
    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.body, self.function = block(), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.body(x))


class NativeForward(nn.Module):
    """A forward without Python code."""

    forward = staticmethod(torch.relu)

    def __init__(self) -> None:
        super().__init__()
        self.body = block()


def without_source() -> nn.Module:
    space: dict = {"nn": nn, "OneByOne": OneByOne}
    exec("class Typed(OneByOne):\n    def forward(self, x):\n        return self.act(self.norm(self.conv(x)))\n", space)
    return space["Typed"]()


def by_getter() -> nn.Module:
    net = OneByOne()
    net.forward = lambda x: net.act(operator.attrgetter("norm")(net)(net.conv(x)))
    return net


def a_callable_object() -> nn.Module:
    class Call:
        def __init__(self, net: nn.Module) -> None:
            self.net = net

        def __call__(self, x: Tensor) -> Tensor:
            return self.net.act(self.net.norm(self.net.conv(x)))

    net = OneByOne()
    net.forward = Call(net)
    return net


MODULES: dict[str, Callable[[], nn.Module]] = {
    "traced": lambda: quietly(torch.jit.trace, block(), X),
    "scripted": lambda: quietly(torch.jit.script, OneByOne().eval()),
    "frozen": lambda: quietly(torch.jit.freeze, quietly(torch.jit.script, OneByOne().eval())),
    "symbolically traced": lambda: fx.symbolic_trace(OneByOne().eval()),
    "symbolically traced Sequential": lambda: fx.symbolic_trace(block()),
    "exported": exported,
    "compiled": lambda: torch.compile(OneByOne().eval(), backend="eager"),
    "compiled Sequential": lambda: torch.compile(block(), backend="eager"),
    "compiled in place": lambda: (net := OneByOne().eval()).compile(backend="eager") or net,
    "DataParallel": lambda: nn.DataParallel(OneByOne().eval()),
    "parallel wrapper": lambda: Parallel(block()),
    "averaged": lambda: torch.optim.swa_utils.AveragedModel(OneByOne().eval()),
    "weight_norm": lambda: nn.Sequential(parametrizations.weight_norm(block()[0]), *block()[1:]),
    "old weight_norm": lambda: nn.Sequential(quietly(weight_norm, block()[0]), *block()[1:]),
    "spectral_norm": lambda: nn.Sequential(parametrizations.spectral_norm(block()[0]), *block()[1:]),
    "old spectral_norm": lambda: nn.Sequential(spectral_norm(block()[0]), *block()[1:]),
    "pruned": lambda: nn.Sequential(prune.l1_unstructured(block()[0], "weight", 0.5), *block()[1:]),
    "lazy": lambda: nn.Sequential(nn.LazyConv2d(24, 3, padding=1), nn.LazyBatchNorm2d(), nn.ELU()),
    "quantised": lambda: nn.Sequential(Quantised(), nn.BatchNorm2d(24), nn.ReLU()),
    "fused by torch": lambda: torch.ao.quantization.fuse_modules(
        nn.Sequential(*block()[:2], nn.ReLU()).eval(), ["0", "1", "2"]
    ),
    "a locked convolution": lambda: nn.Sequential(LockedConv(24, 24, 3, padding=1), nn.ReLU()),
    "slots": Slots, "delegating": Delegating, "locked": Locked, "asking": Asking,
    "a function": lambda: Lambda(torch.sin), "a function of C": lambda: Lambda(ctypes.pythonapi.Py_GetVersion and abs),
    "a native forward": NativeForward, "without source": without_source, "by a getter": by_getter,
    "a callable object": a_callable_object, "None inside": lambda: nn.ModuleList([block()]).append(None)[0],
    "an empty Sequential": lambda: nn.Sequential(), "a list": lambda: nn.ModuleDict({"a": nn.Identity()})["a"],
}  # fmt: skip


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    torch._dynamo.reset()
    return in_eval_mode(MODULES[name]())


def in_eval_mode(net: nn.Module) -> nn.Module:
    """Without eval(), which exported modules refuse."""
    for module in net.modules():
        if getattr(module, "training", False):  # a frozen ScriptModule has no mode
            module.training = False
    return net


def inside(module: nn.Module) -> nn.Module:
    """Between two convolutions of ours."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(24, 24, 3, padding=1), module, nn.ELU(), nn.Conv2d(24, 24, 3, padding=1))


class Held(nn.Module):
    """Called by a forward, after a convolution of ours and before an activation."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.module, self.act = nn.Conv2d(24, 24, 3, padding=1), module, nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.module(self.conv(x)))


@pytest.mark.parametrize(
    ("place", "inference"),
    [(lambda module: module, False), (inside, True), (Held, False)],
    ids=["itself", "inside", "held"],
)
@pytest.mark.parametrize("name", MODULES)
def test_it_computes_what_it_did(name: str, place: Callable, inference: bool) -> None:
    plain, ours = in_eval_mode(place(made(name))), in_eval_mode(place(made(name)))
    try:
        state = list(plain.state_dict())
    except Exception:  # of a frozen ScriptModule
        state = None
    assert ipf.accelerate(ours, inference=inference) is ours
    assert isinstance(str(acceleration_report(ours)), str)
    if name != "lazy":
        assert state is None or list(ours.state_dict()) == state
    for _ in range(2):
        with torch.no_grad():
            torch.manual_seed(2)
            expected = plain(X)
            torch.manual_seed(2)
            assert_near(ours(X), expected)
    x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
    if expected.shape == plain(x).shape and plain(x).requires_grad:
        plain(x).square().mean().backward(), ours(y).square().mean().backward()
        torch.testing.assert_close(y.grad, x.grad, rtol=1e-3, atol=1e-6)
    assert ipf.accelerate(ours) is ours  # and once more, used


@pytest.mark.parametrize("name", ["traced", "scripted", "compiled", "weight_norm", "quantised", "lazy", "exported"])
def test_what_surrounds_it_is_accelerated(name: str) -> None:
    ours = ipf.accelerate(in_eval_mode(inside(made(name))))
    assert {"0", "3"} <= set(swapped(ours))
    assert all(reason for reason in left(ours).values())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("scripted", "ScriptModule"), ("traced", "ScriptModule"), ("lazy", "LazyConv2d"), ("quantised", "Quantised"),
        ("weight_norm", "Parametrized"), ("old weight_norm", "weight"), ("pruned", "weight"),
        ("a locked convolution", "LockedConv"),
    ],
)  # fmt: skip
def test_the_report_names_why_a_convolution_is_left(name: str, reason: str) -> None:
    ours = ipf.accelerate(in_eval_mode(inside(made(name))))
    reasons = [why for module, why in left(ours).items() if module.startswith("1")]
    assert reasons and all(reason in why for why in reasons), reasons


@pytest.mark.parametrize("name", ["without source", "by a getter", "a callable object"])
def test_a_forward_that_cannot_be_read_is_fused_or_the_report_says_why_not(name: str) -> None:
    ours = ipf.accelerate(made(name))
    [entry] = acceleration_report(ours).swapped
    assert entry.fused == ("norm", "act") or entry.note


def test_a_lazy_network_is_accelerated_when_it_is_whole() -> None:
    net, plain = made("lazy"), made("lazy")
    ipf.accelerate(net)
    with torch.no_grad():
        net(X), plain(X)
        plain.load_state_dict(net.state_dict())
        ipf.accelerate(net)
        assert swapped(net) == {"0": ("1", "2")}
        assert_near(net(X), plain(X))


def test_a_network_accelerated_inside_an_accelerated_one() -> None:
    inner, plain = OneByOne().eval(), copy.deepcopy(OneByOne().eval())
    ipf.accelerate(inner, inference=True)
    outer, plain_outer = Held(inner).eval(), Held(plain).eval()
    ipf.accelerate(outer)
    with torch.no_grad():
        assert_near(outer(X), plain_outer(X))
        for net in (inner, plain):
            net.conv.weight.data.mul_(2)  # accelerate(outer) took the inner promise back
        assert_near(outer(X), plain_outer(X))


def test_compile_after_accelerate_and_data_parallel() -> None:
    plain = OneByOne().eval()
    ours = ipf.accelerate(copy.deepcopy(plain))
    torch._dynamo.reset()
    with torch.no_grad():
        assert_near(nn.DataParallel(ours)(X), plain(X))
        assert_near(torch.compile(ours, backend="eager")(X), plain(X))
        assert_near(torch.optim.swa_utils.AveragedModel(ours)(X), plain(X))
