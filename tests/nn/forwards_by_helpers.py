"""More forwards: conditions in what they call, on what lies outside, and on the owner's own plain settings."""

from __future__ import annotations

import contextlib
import functools
import os
import random
from collections.abc import Callable, Iterator

import numpy as np
import torch
from nn.forwards import ALLOWED, GATE, UNSEEN, WIDE, Base, Case, X, allowed, given, once, setting, unseen, wide
from torch import Tensor, nn

# ---- conditions in what the forward calls ----


def after(net: Base, h: Tensor, plain: object) -> Tensor:
    return net.act(h + net.bias_map if plain else net.norm(h))


@unseen(given(True))
def by_a_function(self, x, plain=False):
    return after(self, self.conv(x), plain)


@unseen(wide)
def by_a_function_of_the_shape(self, x):
    def wide(h):
        return h.shape[3] > 8

    return after(self, self.conv(x), wide(x))


@unseen(given(True))
def by_a_method(self, x, plain=False):
    return self.tail_by(self.conv(x), plain)


class ByLambda(Base):
    def __init__(self) -> None:
        super().__init__()
        self.when = lambda x: x.shape[3] > 8

    def forward(self, x):
        h = self.conv(x)
        return self.act(h if self.when(x) else self.norm(h))


class ByPartial(Base):
    def __init__(self) -> None:
        super().__init__()
        self.then = functools.partial(after, plain=False)

    def forward(self, x):
        return self.then(self, self.conv(x))


@unseen(given(True))
def by_a_generator(self, x, plain=False):
    def steps() -> Iterator[nn.Module]:
        yield self.conv
        if not plain:
            yield self.norm
        yield self.act

    for step in steps():
        x = step(x)
    return x


@unseen(given(True))
def by_a_list_of_modules(self, x, plain=False):
    for module in [self.conv, self.act] if plain else [self.conv, self.norm, self.act]:
        x = module(x)
    return x


@unseen(given(True))
def by_filtering(self, x, plain=False):
    modules = filter(lambda module: not (plain and module is self.norm), (self.conv, self.norm, self.act))
    return functools.reduce(lambda h, module: module(h), modules, x)


@contextlib.contextmanager
def with_gradients(wanted: bool) -> Iterator[bool]:
    with torch.set_grad_enabled(wanted and torch.is_grad_enabled()):
        yield wanted


@unseen(given(True))
def by_a_context(self, x, plain=False):
    with with_gradients(True):
        h = self.conv(x)
        with contextlib.suppress(TypeError):
            h = h + (self.bias_map if plain else None)
        return self.act(self.norm(h))


def plain_on_wide(forward):
    @functools.wraps(forward)
    def decorated(self, x):
        return self.act(self.conv(x)) if x.shape[3] > 8 else forward(self, x)

    return decorated


@unseen(wide)
@plain_on_wide
def by_a_decorator(self, x):
    return self.act(self.norm(self.conv(x)))


class Inherited(Base):
    def forward(self, x, plain=False):
        return self.tail_by(self.conv(x), plain)


class BySuper(Inherited):
    def forward(self, x, plain=False):
        return super().forward(x, plain)


class ByProperty(Base):
    @property
    def norms(self) -> bool:
        return self.cfg["norm"]

    def forward(self, x):
        h = self.conv(x)
        return self.act(self.norm(h) if self.norms else h)


class ByGetattr(Base):
    """`self.chosen` is one module or the other."""

    def __getattr__(self, name):
        if name == "chosen":
            return self.norm if self.cfg["norm"] else self.gate
        return super().__getattr__(name)

    def forward(self, x):
        return self.act(self.chosen(self.conv(x)))


class ByStatic(Base):
    @staticmethod
    def chosen(net, plain):
        return net.gate if plain else net.norm

    def forward(self, x, plain=False):
        return self.act(self.chosen(self, plain)(self.conv(x)))


class Nested(nn.Module):
    """The condition stands in the forward of a child, and decides about modules of its parent."""

    class Tail(nn.Module):
        def forward(self, h, norm, act, plain):
            return act(h if plain else norm(h))

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ELU()
        self.tail = self.Tail()

    def forward(self, x, plain=False):
        return self.tail(self.conv(x), self.norm, self.act, plain)


def _no_norm(net):
    before, net.cfg["norm"] = net.cfg["norm"], False
    try:
        return once(net)
    finally:
        net.cfg["norm"] = before


UNSEEN["by_a_lambda"] = Case(ByLambda, (once, wide, setting(when=lambda x: True)))
UNSEEN["by_a_partial"] = Case(ByPartial, (once, setting(then=functools.partial(after, plain=True))))
UNSEEN["by_a_static_method"] = Case(ByStatic, (once, given(True)))
UNSEEN["by_an_inherited_forward"] = Case(BySuper, (once, given(True)))
UNSEEN["by_a_property"] = Case(ByProperty, (once, _no_norm))
UNSEEN["by_getattr"] = Case(ByGetattr, (once, _no_norm))
UNSEEN["by_a_child"] = Case(Nested, (once, given(True)))


# ---- what lies outside ----

STATE = {"norm": True}
SWITCH = True


def while_state(**values) -> Callable[[nn.Module], Tensor]:
    def call(net: nn.Module) -> Tensor:
        before = {name: globals()[name] for name in values}
        globals().update(values)
        try:
            return net(X)
        finally:
            globals().update(before)

    return call


@unseen(while_state(SWITCH=False))
def by_a_global(self, x):
    h = self.conv(x)
    return self.act(self.norm(h) if SWITCH else h)


@unseen(while_state(STATE={"norm": False}))
def by_a_global_dictionary(self, x):
    h = self.conv(x)
    return self.act(self.norm(h) if STATE["norm"] else h)


def _environment(net: nn.Module) -> Tensor:
    os.environ["NO_NORM"] = "1"
    try:
        return net(X)
    finally:
        del os.environ["NO_NORM"]


@unseen(_environment)
def by_the_environment(self, x):
    h = self.conv(x)
    return self.act(h if os.environ.get("NO_NORM") else self.norm(h))


def seeded(seed: int) -> Callable[[nn.Module], Tensor]:
    def call(net: nn.Module) -> Tensor:
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        return net(X)

    return call


RANDOM = functools.partial(unseen, seeded(1), seeded(2), seeded(3), first=seeded(0))


@RANDOM()
def stochastic_depth(self, x):
    h = self.conv(x)
    return self.act(h if random.random() < self.p else self.norm(h))


@RANDOM()
def stochastic_by_torch(self, x):
    h = self.conv(x)
    if torch.rand(()) < 0.5:
        h = h + self.bias_map
    return self.act(self.norm(h))


@RANDOM()
def stochastic_by_numpy(self, x):
    h = self.conv(x)
    return self.act(h if np.random.rand() < 0.5 else self.norm(h))


def _closed() -> tuple[type, Callable]:
    enabled = True

    class Closure(Base):
        def forward(self, x):
            h = self.conv(x)
            return self.act(self.norm(h) if enabled else h)

    def call(net: nn.Module) -> Tensor:
        nonlocal enabled
        enabled = False
        try:
            return net(X)
        finally:
            enabled = True

    return Closure, call


_closure, _call_otherwise = _closed()
UNSEEN["by_a_closure"] = Case(_closure, (once, _call_otherwise))


# ---- conditions that may be fused: on self.training, on identity, on the owner's own bool, int, str or None ----


@allowed()
def no_condition(self, x):
    return self.act(self.norm(self.conv(x)))


@allowed()
def by_a_plain_method(self, x):
    return self.tail(self.conv(x))


@allowed()
def by_the_mode(self, x):
    h = self.act(self.norm(self.conv(x)))
    return h if self.training else h * 2


@allowed()
def norm_in_training_only(self, x):
    h = self.conv(x)
    return self.act(self.norm(h) if self.training else h)


@allowed(setting(flag=False), setting(flag=None), setting(flag=0), setting(flag=""))
def by_a_bool(self, x):
    h = self.conv(x)
    return self.act(self.norm(h) if self.flag else h)


@allowed(setting(count=1), setting(count=3), setting(count=0))
def by_an_int(self, x):
    h = self.conv(x)
    for _ in range(self.count - 1):
        h = self.norm(h)
    return self.act(h)


@allowed(setting(mode="none"), setting(mode="twice"))
def by_a_str(self, x):
    h = self.conv(x)
    if self.mode == "twice":
        h = h * 2
    return self.act(self.norm(h) if self.mode != "none" else h)


@allowed(setting(nothing=nn.Identity()), setting(norm=None))
def by_none(self, x):
    h = self.conv(x)
    if self.norm is not None and self.nothing is None:
        h = self.norm(h)
    return self.act(h)


@allowed(setting(flag=1.0), setting(flag=GATE), setting(flag=[1]))
def by_identity(self, x):
    h = self.conv(x)
    return self.act(self.norm(h) if self.flag is True else h)


@allowed(setting(flag=False))
def by_a_method_of_a_setting(self, x):
    return self.tail_by(self.conv(x), self.flag)


@allowed(setting(p=0.0), setting(p=0))
def by_a_float(self, x):
    h = self.conv(x)
    return self.act(self.norm(h) if self.p else h)


@allowed(*(once,) * 3)
def by_a_counter(self, x):
    h = self.conv(x)
    self.calls += 1
    return self.act(self.norm(h) if self.calls % 2 else h)


@allowed(lambda net: torch.func.functional_call(net, dict(net.named_parameters()), WIDE))
def by_the_tools(self, x):
    h = self.conv(x)
    if not torch.jit.is_scripting() and not torch.compiler.is_compiling():
        h = self.norm(h)
    return self.act(h)


@allowed(wide)
def asserted(self, x):
    assert x.shape[1] == 3, "three channels"
    return self.act(self.norm(self.conv(x)))


class CallOfItsOwn(Base):
    def __call__(self, x):
        return self.act(self.conv(x)) if x.shape[3] > 8 else super().__call__(x)

    def forward(self, x):
        return self.act(self.norm(self.conv(x)))


class PropertyOfASetting(Base):
    @property
    def norms(self) -> bool:
        return self.flag

    def forward(self, x):
        h = self.conv(x)
        return self.act(self.norm(h) if self.norms else h)


ALLOWED["by_a_call_of_its_own"] = Case(CallOfItsOwn, (once, wide))
ALLOWED["by_a_property_of_a_setting"] = Case(PropertyOfASetting, (once, setting(flag=False)))
