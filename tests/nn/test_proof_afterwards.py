"""What is changed after accelerate(): the network is what the plain one is after the same change."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable

import numpy as np
import pytest
import torch
from nn.forwards import GATE, Base, X, once
from nn.twins import assert_equal_calls, fused_modules, randomised, swapped
from torch import Tensor, nn

import inpaint_fast as ipf
from inpaint_fast.nn import acceleration_report


class Conditional(Base):
    """Its chain may be fused: the conditions are on the owner's own plain settings."""

    def forward(self, x: Tensor) -> Tensor:
        if self.count is None:
            x = x * 2
        h = self.conv(x)
        if self.flag:
            h = self.norm(h)
        return self.act(h) * torch.as_tensor(self.p) if self.mode != "tail" else self.tail(h)


class Straight(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x))) * torch.as_tensor(self.p)


class Upwards(Straight):
    """A transposed convolution, and the activation before the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(3, 4, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.act(self.conv(x))) * torch.as_tensor(self.p)


class InSequential(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        parts = Straight()
        self.conv, self.norm, self.act, self.p = parts.conv, parts.norm, parts.act, 0.5
        self.body = nn.Sequential(self.conv, self.norm, self.act)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) * torch.as_tensor(self.p)


Change = Callable[[nn.Module], object]
CHANGES: dict[str, Change] = {}


def listed(change: Change) -> Change:
    return CHANGES.setdefault(change.__name__, change)


def put(path: str, value: object) -> Change:
    """Set an attribute to (a copy of) a value."""

    def change(net: nn.Module) -> None:
        owner, _, name = path.rpartition(".")
        setattr(net.get_submodule(owner), name, copy.deepcopy(value))

    return change


ones = torch.ones(4, dtype=torch.float64)
CHANGES |= {
    f"{path} = {type(value).__name__} {value if isinstance(value, (int, str)) else ''}": put(path, value)
    for path, value in (
        # of the owner
        ("flag", False), ("flag", None), ("flag", "x"), ("flag", 0.0), ("flag", np.bool_(False)), ("flag", [1]),
        ("count", None), ("count", 3), ("count", np.int64(3)), ("mode", "tail"), ("mode", None), ("nothing", GATE),
        ("p", GATE), ("p", np.full((1, 1, 1, 1), 2.0)), ("p", 2), ("p", True), ("list", np.array([1, 2])),
        ("cfg", GATE), ("calls", 7), ("of_the_class", None), ("new", 1),
        # of the modules
        ("norm.training", True), ("norm.training", False), ("norm.momentum", 0.7), ("norm.momentum", None),
        ("norm.eps", 0.3), ("norm.weight", None), ("norm.bias", None), ("norm.weight", nn.Parameter(3 * ones)),
        ("norm.running_mean", 2 * ones), ("norm.track_running_stats", False), ("norm.num_batches_tracked", None),
        ("act.alpha", 0.3), ("act.inplace", True), ("conv.bias", None), ("conv.bias", nn.Parameter(3 * ones)),
        # modules
        ("norm", nn.GroupNorm(2, 4).double()), ("norm", nn.Identity()), ("norm", nn.InstanceNorm2d(4)),
        ("act", nn.GELU()), ("act", nn.ReLU(inplace=True)), ("act", nn.LeakyReLU(0.3)), ("act", nn.PReLU().double()),
        ("conv", nn.Conv2d(3, 4, 1).double()),
    )
}  # fmt: skip


@listed
def statistics_dropped(net):
    net.norm.running_mean = net.norm.running_var = None


@listed
def padded_otherwise(net):
    if isinstance(net.conv, nn.Conv2d):
        net.conv.padding_mode, net.conv._reversed_padding_repeated_twice = "reflect", [1, 1, 1, 1]


@listed
def other_geometry(net):
    net.conv.stride, net.conv.padding = (1, 1), (2, 2)


@listed
def grouped(net):
    net.conv.groups = 1
    net.conv.dilation = (2, 1)


@listed
def attribute_deleted(net):
    del net.p
    net.p = 3.0


@listed
def frozen(net):
    net.requires_grad_(False)


@listed
def convolution_frozen(net):
    net.conv.requires_grad_(False)


@listed
def norm_frozen(net):
    net.norm.requires_grad_(False).eval()


@listed
def bias_thawed(net):
    net.requires_grad_(False).conv.bias.requires_grad_()


def _hooked(name: str, register: str, hook: Callable, **options) -> Change:
    return lambda net: getattr(getattr(net, name), register)(hook, **options)


for _name in ("conv", "norm", "act"):
    CHANGES |= {
        f"{_name}.{register}": _hooked(_name, register, hook, **options)
        for register, hook, options in (
            ("register_forward_hook", lambda m, x, y: y * 2, {}),
            ("register_forward_hook", lambda m, x, k, y: y + 1, {"with_kwargs": True, "always_call": True}),
            ("register_forward_pre_hook", lambda m, x: (x[0] * 2,), {}),
            ("register_full_backward_hook", lambda m, given, got: (None if given[0] is None else given[0] * 2,), {}),
            ("register_full_backward_pre_hook", lambda m, got: (got[0] * 2,), {}),
        )
    }


@listed
def hook_removed(net):
    handles = [module.register_forward_hook(lambda m, x, y: y * 2) for module in (net.conv, net.norm, net.act)]
    once(net)
    for handle in handles:
        handle.remove()


@listed
def parameters_hooked(net):
    for p in net.parameters():
        p.register_hook(lambda g: g * 2)


@listed
def forward_of_the_norm(net):
    net.norm.forward = lambda x: x * 2


@listed
def forward_of_the_convolution(net):
    plain = nn.ConvTranspose2d if isinstance(net.conv, nn.ConvTranspose2d) else nn.Conv2d
    net.conv.forward = types.MethodType(lambda self, x: plain.forward(self, x) * 2, net.conv)


@listed
def forward_of_the_activation(net):
    net.act.forward = torch.sin


@listed
def forward_of_the_owner(net):
    net.forward = types.MethodType(lambda self, x: self.act(self.conv(x)), net)


@listed
def forward_of_the_owner_twice(net):
    net.forward = types.MethodType(lambda self, x: (y := self.conv(x)) + self.act(self.norm(y)), net)


@listed
def class_of_the_owner(net):
    net.__class__ = type("Other", (type(net),), {"forward": lambda self, x: self.act(self.conv(x))})


@listed
def class_of_the_activation(net):
    net.act.__class__ = type("Twice", (nn.ELU,), {"forward": lambda self, x: nn.ELU.forward(self, x) * 2})


@listed
def shared_with_another_owner(net):
    net.also = nn.Sequential(net.norm, net.act)
    net.also(net.conv(X) + 1)


@listed
def called_directly(net):
    """The modules by themselves, outside the owner."""
    net.seen = [net.conv(X).detach(), net.norm(net.conv(X)).detach(), net.act(X).detach()]


@listed
def used_by_a_new_owner(net):
    class Other(nn.Module):
        def __init__(self, conv, act):
            super().__init__()
            self.conv, self.act = conv, act

        def forward(self, x):
            return self.act(self.conv(x))

    net.seen = [Other(net.conv, net.act)(X).detach()]


@listed
def moved_into_a_sequential(net):
    net.seen = [nn.Sequential(net.conv, net.act)(X).detach(), nn.Sequential(net.norm)(net.conv(X)).detach()]


@listed
def norm_fixed(net):
    for name in ("weight", "bias"):
        net.norm.register_parameter(name, None)
    net.norm.affine = False


@listed
def activation_removed(net):
    net.act = nn.Identity()


def seen(net: nn.Module) -> list[Tensor]:
    return vars(net).get("seen", [])


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize(
    ("make", "inference"), [(Conditional, False), (Straight, True), (Upwards, False), (InSequential, True)]
)
def test_after_a_change_it_is_the_plain_network(make: type, change: Change, inference: bool) -> None:
    """Used before, changed in one mode, compared in both, changed back and forth between them."""
    for train in (True, False):
        plain = randomised(make().double()).train(train)
        ours = copy.deepcopy(plain)
        ipf.accelerate(ours.eval() if inference else ours, inference=inference).train(train)
        assert_equal_calls(ours, plain, once)
        torch.manual_seed(0), change(plain)
        torch.manual_seed(0), change(ours)
        for a, b in zip(seen(ours), seen(plain), strict=True):
            torch.testing.assert_close(a, b)
        assert_equal_calls(ours, plain, once)
        with torch.no_grad():
            torch.testing.assert_close(ours(X), plain(X))
        for net in (plain, ours):
            net.train(not train)
        assert_equal_calls(ours, plain, once)


@pytest.mark.parametrize("name", ["norm", "act"])
def test_a_module_set_to_none_is_an_error_as_ever(name: str) -> None:
    plain = Straight().double()
    ours = ipf.accelerate(copy.deepcopy(plain))
    for net in (plain, ours):
        setattr(net, name, None)
        with pytest.raises(TypeError, match="NoneType"):
            net(X)


def test_a_deleted_attribute_is_an_error_as_ever() -> None:
    ours = ipf.accelerate(Straight().double())
    del ours.p
    with pytest.raises(AttributeError, match="'p'"):
        ours(X)


# Whether the owner's forward calls its nn.Sequential as a whole, and not the modules one by one, nobody knows.
OF_THE_OWNER = ("forward_of_the_owner", "forward_of_the_owner_twice", "class_of_the_owner", "conv = Conv2d ")


@pytest.mark.parametrize(
    ("make", "name"),
    [(make, name) for make in (Conditional, Straight, InSequential) for name in CHANGES
     if make is not InSequential or name not in OF_THE_OWNER],
)  # fmt: skip
def test_after_a_change_the_report_says_what_runs(make: type, name: str) -> None:
    """What was fused, and is no longer, is not said to be."""
    ours = ipf.accelerate(randomised(make().double()).eval())
    assert len(fused(ours)) == sum(map(len, swapped(ours).values())) == 2
    CHANGES[name](ours)
    parts = len(fused(ours))
    (entry,) = acceleration_report(ours).swapped
    assert (len(entry.fused), "not fused any more" in entry.note) == (parts, parts < 2)


def fused(net: nn.Module) -> list[str]:
    """The norms and activations that a convolution computes in a call."""
    return [part for activation, _, norm in fused_modules(net, X) for part in (activation != "none", norm) if part]


def test_what_is_fused_since_is_said_too() -> None:
    """A hook that was there when accelerate looked, and is removed."""
    net = InSequential().double().eval()
    handle = net.act.register_forward_hook(lambda m, x, y: None)
    ours = ipf.accelerate(net)
    assert len(fused(ours)) == len(acceleration_report(ours).swapped[0].fused) == 1
    handle.remove()
    (entry,) = acceleration_report(ours).swapped
    assert len(fused(ours)) == len(entry.fused) == 2 and entry.note == ""
