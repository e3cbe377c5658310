"""Forwards that run a chain by conditions of every kind, for the tests of what may be fused.

`UNSEEN`: a condition that one trace of the forward does not see, or that is none of the owner's own settings. The chain
must be left, and the report name a line. `ALLOWED`: it may be fused, and has to be right. Each is a class and the calls
to compare, functions of a network.
"""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

X = torch.randn(2, 3, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
WIDE = torch.randn(2, 3, 9, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
GATE = torch.linspace(0.5, 2, 4, dtype=torch.float64).view(1, 4, 1, 1)


@dataclass
class Options:
    norm: bool = True


class Base(nn.Module):
    """What the forwards here find."""

    of_the_class = {"norm": True}

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ELU()
        self.bias_map = nn.Parameter(torch.linspace(-2, 2, 4).view(1, 4, 1, 1))
        self.other = nn.Conv2d(3, 4, 1)
        self.register_buffer("switch", torch.tensor(True))
        self.cfg, self.opt, self.data = {"norm": True}, SimpleNamespace(norm=True), Options()
        self.list, self.set, self.array, self.p = [True], {"norm"}, np.ones(1), 0.5
        self.gate = nn.Identity()
        self.gate.enabled = True
        self.branches = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.Identity()])
        self.choice = nn.ModuleDict({"norm": nn.BatchNorm2d(4), "none": nn.Identity()})
        # Settings of the kinds that a condition may ask.
        self.flag, self.count, self.mode, self.nothing, self.calls = True, 2, "norm", None, 0

    def tail(self, h: Tensor) -> Tensor:
        return self.act(self.norm(h))

    def tail_by(self, h: Tensor, plain: object) -> Tensor:
        return self.act(h + self.bias_map if plain else self.norm(h))


@dataclass
class Case:
    make: Callable[[], nn.Module]
    calls: tuple[Callable[[nn.Module], Tensor], ...]


UNSEEN: dict[str, Case] = {}
ALLOWED: dict[str, Case] = {}


def once(net: nn.Module) -> Tensor:
    return net(X)


def given(*args, **kwargs) -> Callable[[nn.Module], Tensor]:
    return lambda net: net(X, *args, **kwargs)


def wide(net: nn.Module) -> Tensor:
    return net(WIDE)


def setting(**values) -> Callable[[nn.Module], Tensor]:
    """A call after attributes, by their paths (__ for a dot), were set; and set back."""

    def call(net: nn.Module) -> Tensor:
        with contextlib.ExitStack() as stack:
            for path, value in values.items():
                owner, _, name = path.replace("__", ".").rpartition(".")
                owner = operator.attrgetter(owner)(net) if owner else net
                stack.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, value)
            return net(X)

    return call


def item(container: str, key: object, value: object) -> Callable[[nn.Module], Tensor]:
    """A call while an item of a list or dictionary is another one."""

    def call(net: nn.Module) -> Tensor:
        held = getattr(net, container)
        before, held[key] = held[key], value
        try:
            return net(X)
        finally:
            held[key] = before

    return call


def case(into: dict[str, Case], *calls: Callable[[nn.Module], Tensor], first: Callable = once) -> Callable:
    def register(forward: Callable) -> Callable:
        cls = type(forward.__name__, (Base,), {"forward": forward, "__module__": __name__})
        globals()[f"_{forward.__name__}"] = cls
        cls.__qualname__ = f"_{forward.__name__}"
        into[forward.__name__] = Case(cls, (first, *calls))
        return forward

    return register


unseen, allowed = functools.partial(case, UNSEEN), functools.partial(case, ALLOWED)

# ---- arguments ----


@unseen(given(GATE))
def none_default(self, x, noise=None):
    h = self.conv(x)
    if noise is None:
        h = h + self.bias_map
    return self.act(self.norm(h))


@unseen(given(GATE))
def ternary(self, x, mask=None):
    h = self.conv(x)
    h = h if mask is not None else h + self.bias_map
    return self.act(self.norm(h))


@unseen(given(True))
def early_return(self, x, want=None):
    h = self.conv(x)
    if want is None:
        return h
    return self.act(self.norm(h))


@unseen(given(scale=2.0))
def keyword_get(self, x, **options):
    h = self.conv(x)
    if options.get("scale") is None:
        h = h + self.bias_map
    return self.act(self.norm(h))


@unseen(given(plain=True))
def keyword_in(self, x, **options):
    h = self.conv(x)
    return self.act(h if "plain" in options else self.norm(h))


@unseen(given(GATE), given(GATE, GATE))
def arguments_counted(self, x, *more):
    h = self.conv(x)
    return self.act(h if len(more) == 1 else self.norm(h))


@unseen(given(GATE))
def is_tensor(self, x, gate=None):
    h = self.conv(x)
    if torch.is_tensor(gate):
        h = h * gate
    return self.act(self.norm(h))


@unseen(given((1, 2)), given([1]))
def is_instance(self, x, sizes=None):
    h = self.conv(x)
    return self.act(h if isinstance(sizes, (tuple, list)) else self.norm(h))


@unseen(given(SimpleNamespace(plain=1)))
def has_attribute(self, x, options=None):
    h = self.conv(x)
    return self.act(h if hasattr(options, "plain") else self.norm(h))


@unseen(given(SimpleNamespace(sample=GATE)))
def tried(self, x, options=None):
    h = self.conv(x)
    try:
        h = h * options.sample
    except AttributeError:
        h = h + self.bias_map
    return self.act(self.norm(h))


@unseen(given((GATE, GATE)))
def looped(self, x, gates=()):
    h = self.conv(x)
    for gate in gates:
        h = h * gate
    return self.act(self.norm(h))


@unseen(given(3))
def while_loop(self, x, times=0):
    h = self.conv(x)
    while times > 0:
        h, times = h * 1.5, times - 1
    return self.act(self.norm(h))


@unseen(given((GATE, None, GATE)))
def comprehension(self, x, gates=()):
    h = self.conv(x)
    return self.act(self.norm(sum([gate for gate in gates if gate is not None], h)))


@unseen(given(GATE))
def short_circuit_or(self, x, gate=None):
    h = self.conv(x)
    scale = gate is None or gate
    return self.act(self.norm(h * scale))


@unseen(given(plain=True))
def short_circuit(self, x, plain=False):
    h = self.conv(x)
    done = plain or self.norm
    return self.act(h if done is True else done(h))


@unseen(given("twice"), given({"scale": 3.0}))
def matched(self, x, how=None):
    h = self.conv(x)
    match how:
        case "twice":
            h = h * 2
        case {"scale": scale}:
            h = h * scale
    return self.act(self.norm(h))


@unseen(given(1), given(2))
def module_by_argument(self, x, i=0):
    return self.act(self.branches[i](self.conv(x)))


@unseen(given("none"))
def module_by_key(self, x, name="norm"):
    return self.act(self.choice[name](self.conv(x)))


@unseen(given(nn.Identity()))
def module_as_argument(self, x, norm=None):
    return self.act((norm or self.norm)(self.conv(x)))


@unseen(given("other"))
def attribute_by_name(self, x, name="conv"):
    return self.act(self.norm(getattr(self, name)(x)))


# ---- tensors ----


@unseen(wide)
def by_shape(self, x):
    h = self.conv(x)
    return self.act(h if x.shape[3] > 8 else self.norm(h))


@unseen(lambda net: net(X[0]) if not net.training else net(X))
def by_dimensions(self, x):
    if x.dim() == 3:
        return self.act(self.conv(x))
    return self.act(self.norm(self.conv(x)))


@unseen(wide)
def by_sizes_of_the_result(self, x):
    h = self.conv(x)
    if h.numel() > 600:
        h = h[..., :8] * 2
    return self.act(self.norm(h))


@unseen(lambda net: net(-X.abs()))
def by_values(self, x):
    h = self.conv(x)
    return self.act(h if (x < 0).all() else self.norm(h))


@unseen(lambda net: net(X.clone().requires_grad_()))
def by_requires_grad(self, x):
    h = self.conv(x)
    return self.act(h * 2 if x.requires_grad else self.norm(h))


@unseen(lambda net: torch.no_grad()(net)(X))
def by_grad_mode(self, x):
    h = self.conv(x)
    return self.act(self.norm(h) if torch.is_grad_enabled() else h)


@unseen(setting(switch=torch.tensor(False)))
def by_a_buffer(self, x):
    h = self.conv(x)
    return self.act(self.norm(h) if self.switch else h)


@unseen(setting(other__weight=nn.Parameter(torch.zeros(4, 3, 1, 1))))
def by_a_parameter(self, x):
    h = self.conv(x)
    return self.act(self.norm(h) if float(self.other.weight.detach().abs().sum()) > 0 else h)


# ---- settings that are none of the owner's own plain ones ----


@unseen(item("cfg", "norm", False))
def by_a_dictionary(self, x):
    h = self.conv(x)
    return self.act(self.norm(h) if self.cfg["norm"] else h)


@unseen(item("list", 0, False))
def by_a_list(self, x):
    h = self.conv(x)
    return self.act(self.norm(h) if self.list[0] else h)


@unseen(setting(set=set()))
def by_a_set(self, x):
    h = self.conv(x)
    return self.act(self.norm(h) if "norm" in self.set else h)


@unseen(setting(opt__norm=False))
def by_a_namespace(self, x):
    h = self.conv(x)
    return self.act(self.norm(h) if self.opt.norm else h)


@unseen(setting(data__norm=False))
def by_a_dataclass(self, x):
    h = self.conv(x)
    return self.act(self.norm(h) if self.data.norm else h)


@unseen(item("array", 0, 0.0))
def by_an_array(self, x):
    h = self.conv(x)
    return self.act(self.norm(h) if self.array[0] else h)


@unseen(setting(norm__training=True), setting(norm__training=False))
def by_the_norms_mode(self, x):
    h = self.conv(x)
    if self.norm.training:
        h = h + self.bias_map
    return self.act(self.norm(h))


@unseen(setting(gate__enabled=False))
def by_another_module(self, x):
    h = self.conv(x)
    return self.act(self.norm(h) if self.gate.enabled else h)


@unseen(item("of_the_class", "norm", False))
def by_an_attribute_of_the_class(self, x):
    h = self.conv(x)
    return self.act(self.norm(h) if self.of_the_class["norm"] else h)
