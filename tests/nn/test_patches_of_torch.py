"""What PyTorch's modules run, and what a proof rests on, is exchanged: for a time, for one module, or in a function."""

from __future__ import annotations

import copy
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from nn.twins import Chain, X, assert_equal_calls, fused_modules, twins
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import inpaint_fast as ipf

Y = X.double()


class Transposed(Chain):
    def __init__(self, activation: nn.Module | None = None) -> None:
        super().__init__(None, activation)
        self.conv = nn.ConvTranspose2d(3, 4, 4, 2, 1)


def in_a_sequential(net: nn.Module) -> nn.Module:
    return nn.Sequential(net.conv, net.bn, net.act)


def call(net: nn.Module) -> Tensor:
    return net(Y)


def assert_twins_equal_now(plain: nn.Module, ours: nn.Module) -> None:
    for train in (True, False):
        plain.train(train), ours.train(train)
        assert_equal_calls(ours, plain, call)


def doubled(function: Callable) -> Callable:
    return lambda *args, **kwargs: function(*args, **kwargs) * 2


PATCHES = {
    "Conv2d.forward": (nn.Conv2d, "forward", Chain),
    "Conv2d._conv_forward": (nn.Conv2d, "_conv_forward", Chain),
    "ConvTranspose2d.forward": (nn.ConvTranspose2d, "forward", Transposed),
    "BatchNorm2d.forward": (nn.BatchNorm2d, "forward", Chain),
    "_BatchNorm.forward": (nn.modules.batchnorm._BatchNorm, "forward", Chain),
    "ReLU.forward": (nn.ReLU, "forward", Chain),
    "LeakyReLU.forward": (nn.LeakyReLU, "forward", lambda: Chain(None, nn.LeakyReLU(0.2))),
    "ELU.forward": (nn.ELU, "forward", lambda: Chain(None, nn.ELU())),
    "Sigmoid.forward": (nn.Sigmoid, "forward", lambda: Chain(None, nn.Sigmoid())),
    "Tanh.forward": (nn.Tanh, "forward", lambda: Chain(None, nn.Tanh())),
    "F.conv2d": (F, "conv2d", Chain),
    "F.conv_transpose2d": (F, "conv_transpose2d", Transposed),
    "F.batch_norm": (F, "batch_norm", Chain),
    "F.relu": (F, "relu", Chain),
    "F.leaky_relu": (F, "leaky_relu", lambda: Chain(None, nn.LeakyReLU(0.2))),
    "F.elu": (F, "elu", lambda: Chain(None, nn.ELU())),
    "torch.sigmoid": (torch, "sigmoid", lambda: Chain(None, nn.Sigmoid())),
    "torch.tanh": (torch, "tanh", lambda: Chain(None, nn.Tanh())),
}


@pytest.mark.parametrize("place", [lambda net: net, in_a_sequential], ids=["forward", "sequential"])
@pytest.mark.parametrize(("of", "name", "make"), PATCHES.values(), ids=PATCHES)
def test_a_patch_is_seen_while_it_is_there(of: object, name: str, make: Callable, place: Callable) -> None:
    plain, ours = twins(place(make()).double())
    before = call(plain.eval()).detach()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of, name, doubled(getattr(of, name)))
        assert not torch.equal(call(plain), before)
        assert_twins_equal_now(plain, ours)
    assert_twins_equal_now(plain, ours)
    assert len(fused_modules(ours, Y)) == 1


class Double(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        y = function(*args, **(kwargs or {}))
        return y * 2 if function in (torch.conv2d, F.relu) else y


@pytest.mark.parametrize("place", [lambda net: net, in_a_sequential], ids=["forward", "sequential"])
def test_a_mode_sees_each_function(place: Callable) -> None:
    plain, ours = twins(place(Chain()).double())
    with Double():
        assert_twins_equal_now(plain, ours)
    with torch.device("cpu"):  # that is everybody's
        assert_twins_equal_now(plain, ours)
        assert len(fused_modules(ours, Y)) == 1


@pytest.mark.parametrize("place", [lambda net: net, in_a_sequential], ids=["forward", "sequential"])
def test_under_a_fake_mode_a_batch_is_counted_once(place: Callable) -> None:
    plain, ours = twins(place(Chain()).double())
    for net in (plain, ours):
        with FakeTensorMode(allow_non_fake_inputs=True):
            net(Y)
    assert [t.tolist() for t in plain.buffers()][-1:] == [t.tolist() for t in ours.buffers()][-1:]


# ---- of one module ----


def circular(self: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), weight, bias)


def conv_of(net: nn.Module) -> nn.Module:
    return net[0] if isinstance(net, nn.Sequential) else net.conv


def seamless(net: nn.Module) -> None:
    conv_of(net)._conv_forward = types.MethodType(circular, conv_of(net))


def seamless_by_its_forward(net: nn.Module) -> None:
    conv = conv_of(net)
    conv.forward = lambda x: circular(conv, x, conv.weight, conv.bias)


class Subclass(torch.Tensor):
    pass


def weight_of_a_subclass(net: nn.Module) -> None:
    conv_of(net).weight = nn.Parameter(conv_of(net).weight.detach().as_subclass(Subclass))


def norm_of_a_subclass(net: nn.Module) -> None:
    norm = net[1] if isinstance(net, nn.Sequential) else net.bn
    norm.weight = nn.Parameter(norm.weight.detach().as_subclass(Subclass))


def statistics_of_a_subclass(net: nn.Module) -> None:
    norm = net[1] if isinstance(net, nn.Sequential) else net.bn
    norm.running_mean = norm.running_mean.as_subclass(Subclass)


@pytest.mark.parametrize("place", [lambda net: net, in_a_sequential], ids=["forward", "sequential"])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    "change",
    [seamless, seamless_by_its_forward, weight_of_a_subclass, norm_of_a_subclass, statistics_of_a_subclass],
    ids=lambda change: change.__name__,
)
def test_a_change_of_one_module(change: Callable, before: bool, place: Callable) -> None:
    plain, ours = twins(place(Chain()).double())
    if before:
        ours = copy.deepcopy(plain)
    change(plain), change(ours)
    if before:
        ipf.accelerate(ours)
    for train in (True, False, True):
        plain.train(train), ours.train(train)
        torch.testing.assert_close(call(ours), call(plain), rtol=1e-9, atol=1e-9)
        for (name, a), b in zip(ours.named_buffers(), plain.buffers(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=name)


# ---- of what a proof rests on ----

SOURCE = """
import torch
from torch import nn

def tail(net, x):
    return net.act(net.bn(net.conv(x)))

class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()
        self.bns = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4)])

    def step(self, x, last=False, *, half=False):
        x = self.conv(x)
        if last:
            return x
        return self.bn(x) if half else self.act(self.bn(x))

class ByStep(Base):
    def forward(self, x):
        return self.step(x)

class ByFunction(Base):
    def forward(self, x):
        return tail(self, x)

class BySuper(ByStep):
    def forward(self, x):
        return super().forward(x)

class ByRange(Base):
    def forward(self, x):
        x = self.conv(x)
        for i in range(1):
            x = self.bns[i](x)
        return self.act(x)
"""


@pytest.fixture
def module(tmp_path: Path) -> Iterator[types.ModuleType]:
    """A user's module, whose functions a test may spoil."""
    (tmp_path / "of_a_user.py").write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("of_a_user", tmp_path / "of_a_user.py")
    found = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "of_a_user", found)
        spec.loader.exec_module(found)
        yield found


def other(self, x, *args, **kwargs):
    return self.conv(x) * 2


def spoil_code(module, cls):
    cls.forward.__code__ = other.__code__  # as IPython's %autoreload 2 does


def spoil_code_of_a_helper(module, cls):
    module.Base.step.__code__ = (lambda self, x, last=False, *, half=False: self.conv(x) * 2).__code__


def spoil_code_of_a_function(module, cls):
    module.tail.__code__ = (lambda net, x: net.bn(net.act(net.conv(x)))).__code__


def spoil_code_above(module, cls):
    module.ByStep.forward.__code__ = other.__code__


def spoil_defaults(module, cls):
    module.Base.step.__defaults__ = (True,)


def spoil_keyword_defaults(module, cls):
    module.Base.step.__kwdefaults__ = {"half": True}


def spoil_keyword_defaults_in_place(module, cls):
    module.Base.step.__kwdefaults__["half"] = True


def spoil_function(module, cls):
    module.tail = lambda net, x: net.bn(net.conv(x))


def spoil_method(module, cls):
    cls.step = lambda self, x: self.bn(self.conv(x))


def spoil_range(module, cls):
    module.range = lambda count: [count]


SPOILT = [
    ("ByStep", spoil_code_of_a_helper), ("ByStep", spoil_defaults), ("ByStep", spoil_keyword_defaults),
    ("ByStep", spoil_keyword_defaults_in_place), ("ByStep", spoil_method), ("ByFunction", spoil_function),
    ("ByFunction", spoil_code_of_a_function), ("BySuper", spoil_code_above), ("BySuper", spoil_defaults),
    ("ByRange", spoil_range), ("ByRange", spoil_code),
]  # fmt: skip


@pytest.mark.parametrize(("name", "spoil"), SPOILT, ids=[f"{name} {spoil.__name__}" for name, spoil in SPOILT])
def test_what_a_proof_rests_on_is_asked_at_each_call(module: types.ModuleType, name: str, spoil: Callable) -> None:
    cls = getattr(module, name)
    plain, ours = twins(cls().double())
    assert_twins_equal_now(plain, ours)
    assert [(activation, norm) for activation, _, norm in fused_modules(ours, Y)] == [("relu", True)]
    spoil(module, cls)
    assert_twins_equal_now(plain, ours)
