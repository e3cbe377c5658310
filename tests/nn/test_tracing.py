"""accelerate() looks at forwards and leaves nothing behind: in objects, counters or anybody's random numbers."""

from __future__ import annotations

import collections
import copy
import random
import threading
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nn.twins import assert_near
from torch import Tensor, fx, nn

import inpaint_fast as ipf

X = torch.randn(2, 3, 8, 9, generator=torch.Generator().manual_seed(0))


class Touchy:
    """It lets nobody compare it, ask its truth, hash it, copy it or print it."""

    def _refuse(self, *_: object) -> None:
        raise AssertionError("an object of the user's was asked")

    __eq__ = __ne__ = __bool__ = __hash__ = __len__ = __iter__ = __lt__ = __contains__ = __float__ = __int__ = _refuse
    __copy__ = __deepcopy__ = __reduce_ex__ = __repr__ = __str__ = _refuse


class TouchyInt(int):
    """A subclass of a plain type is not that type."""

    __eq__ = __ne__ = __bool__ = Touchy._refuse
    __hash__ = None


class TouchyStr(str):
    __eq__ = __ne__ = __bool__ = Touchy._refuse
    __hash__ = None


class TouchyList(list):
    __eq__ = __ne__ = __bool__ = __iter__ = __len__ = Touchy._refuse
    __hash__ = None


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ELU()
        self.gate = nn.Identity()
        self.gate.calls, self.gate.seen = 0, []
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("held", ["itself", "in a list", "in a dict", "in a tuple", "in a namespace"])
@pytest.mark.parametrize("value", [Touchy, TouchyInt, TouchyStr, TouchyList, lambda: np.ones(3), lambda: torch.ones(3)])
def test_no_value_of_the_users_is_compared(value: Callable, held: str, inference: bool) -> None:
    plain = Base().eval()
    ours = copy.deepcopy(plain)
    value = value()
    wrapped = {
        "itself": value, "in a list": [value], "in a dict": {"a": value}, "in a tuple": (value,),
        "in a namespace": SimpleNamespace(a=value),
    }[held]  # fmt: skip
    ours.setting = wrapped
    ours.conv.setting = ours.act.setting = wrapped
    assert ipf.accelerate(ours, inference=inference) is ours
    assert_near(ours(X), plain(X))
    ours.setting = plain.setting = SimpleNamespace(other=wrapped)
    assert_near(ours(X), plain(X))
    assert_near(ours.train()(X), plain.train()(X))


# ---- forwards that write ----

GLOBAL: list = []
GLOBAL_COUNTS: dict = {"calls": 0}


class Record:
    def __init__(self) -> None:
        self.calls, self.last, self.inner = 0, None, {"list": []}

    def add(self, value: object) -> None:
        self.calls, self.last = self.calls + 1, value
        self.inner["list"].append(value)


class Writer(Base):
    """A forward that writes `how` before its chain runs."""

    of_the_class: list = []

    def __init__(self, how: Callable) -> None:
        super().__init__()
        self.how = how
        self.seen, self.cache, self.set = [], {}, set()
        self.history, self.counts = collections.deque(maxlen=3), collections.Counter()
        self.nested, self.record, self.space = {"a": {"b": []}}, Record(), SimpleNamespace(calls=0)
        self.array, self.tensor, self.calls, self.best = np.zeros(2), torch.zeros(2), 0, None
        self.lock = threading.local()
        self.lock.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.how(self, x)
        h = self.conv(x)
        self.how(self, h)
        return self.act(self.norm(h))


def to_the_closure() -> tuple[Callable, list]:
    kept: list = []
    return lambda net, x: kept.append(x), kept


_by_closure, _closed = to_the_closure()


def with_default(net: Writer, x: Tensor, kept: list = []) -> None:  # noqa: B006  (that is the case)
    kept.append(x)


WRITES: dict[str, Callable[[Writer, Tensor], object]] = {
    "a list": lambda net, x: net.seen.append(x),
    "a dict": lambda net, x: net.cache.update(last=x),
    "a set": lambda net, x: net.set.add(len(net.set)),
    "a deque": lambda net, x: net.history.append(x),
    "a counter": lambda net, x: net.counts.update(["calls"]),
    "a nested list": lambda net, x: net.nested["a"]["b"].append(x),
    "an object": lambda net, x: net.record.add(x),
    "a namespace": lambda net, x: setattr(net.space, "calls", net.space.calls + 1),
    "a thread's local": lambda net, x: setattr(net.lock, "calls", net.lock.calls + 1),
    "an array": lambda net, x: net.array.__iadd__(1),
    "a tensor": lambda net, x: net.tensor.add_(1),
    "a buffer": lambda net, x: net.steps.add_(1),
    "an attribute": lambda net, x: setattr(net, "calls", net.calls + 1),
    "an attribute, kept": lambda net, x: setattr(net, "best", x),
    "a new attribute": lambda net, x: setattr(net, "fresh", x),
    "another module": lambda net, x: setattr(net.gate, "calls", net.gate.calls + 1),
    "a list of another module": lambda net, x: net.gate.seen.append(x),
    "the class": lambda net, x: net.of_the_class.append(x),
    "a global list": lambda net, x: GLOBAL.append(x),
    "a global dict": lambda net, x: GLOBAL_COUNTS.update(calls=GLOBAL_COUNTS["calls"] + 1),
    "a closure": lambda net, x: _by_closure(net, x),
    "a default argument": lambda net, x: with_default(net, x),
}


def state_of(net: Writer) -> dict[str, object]:
    """All that the writes above may have changed, as plain values; a Tensor or Proxy by its type."""

    def plain(value: object) -> object:
        if isinstance(value, fx.Proxy):
            return "Proxy"
        if isinstance(value, Tensor) and value.numel() > 2:
            return "Tensor"
        if isinstance(value, (Tensor, np.ndarray)):
            return value.tolist()
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple, collections.deque)):
            return [plain(item) for item in value]
        if isinstance(value, (Record, SimpleNamespace, threading.local)):
            return plain(vars(value))
        return value if isinstance(value, (int, float, str, set, type(None))) else type(value).__name__

    own = {name: plain(value) for name, value in vars(net).items() if not name.startswith("_")}
    return own | {
        "gate": [net.gate.calls, plain(net.gate.seen)],
        "buffers": [plain(net.steps), int(net.norm.num_batches_tracked), net.norm.running_mean.tolist()],
        "outside": [plain(GLOBAL), plain(GLOBAL_COUNTS), plain(_closed), plain(with_default.__defaults__)],
        "class": plain(net.of_the_class),
    }


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("how", WRITES.values(), ids=WRITES)
def test_what_a_forward_writes_is_not_written(how: Callable, train: bool) -> None:
    net = Writer(how).train(train)
    before = state_of(net)
    ipf.accelerate(net)
    assert state_of(net) == before
    ipf.accelerate(net)
    assert state_of(net) == before


@pytest.mark.parametrize("how", WRITES.values(), ids=WRITES)
def test_what_a_forward_writes_is_written_when_it_is_called(how: Callable) -> None:
    """By the accelerated network as by the plain one, and with the same values."""
    states = []
    for wrapped in (lambda net: net, ipf.accelerate):
        GLOBAL.clear(), _closed.clear(), with_default.__defaults__[0].clear(), Writer.of_the_class.clear()
        GLOBAL_COUNTS["calls"] = 0
        torch.manual_seed(0)
        net = wrapped(Writer(how))
        net(X), net(X)
        kept = [*net.seen, *net.gate.seen, *net.history, *GLOBAL, *Writer.of_the_class, *net.record.inner["list"]]
        kept += net.cache.values()
        states.append((state_of(net), [*kept, *net.nested["a"]["b"]]))
    (expected, values), (found, ours) = states
    assert found["buffers"].pop() == pytest.approx(expected["buffers"].pop(), abs=1e-5)
    assert found == expected
    for a, b in zip(ours, values, strict=True):
        assert_near(a.detach(), b.detach())


# ---- random numbers ----


class Random(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = x + torch.randn(1) + random.random() + np.random.rand() + torch.rand_like(x) * 0
        return self.act(self.norm(self.conv(nn.functional.dropout(x, 0.5, self.training))))


@pytest.mark.parametrize("train", [True, False])
def test_random_numbers_are_left_to_the_user(train: bool) -> None:
    net = Random().train(train)
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    expected = torch.rand(3).tolist(), random.random(), np.random.rand()
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    ipf.accelerate(net)
    assert (torch.rand(3).tolist(), random.random(), np.random.rand()) == expected


@pytest.mark.parametrize("train", [True, False])
def test_a_random_forward_draws_what_the_plain_one_draws(train: bool) -> None:
    torch.manual_seed(0)
    plain = Random().train(train)
    ours = ipf.accelerate(copy.deepcopy(plain))
    results = []
    for net in (ours, plain):
        torch.manual_seed(1), random.seed(1), np.random.seed(1)
        results.append(net(X))
    assert_near(*results)


# ---- forwards that act ----


@pytest.mark.parametrize("error", [ValueError("no"), StopIteration(), SystemExit("stop")], ids=repr)
def test_a_forward_that_raises(error: BaseException) -> None:
    class Raising(Base):
        def forward(self, x: Tensor) -> Tensor:
            raise error

    net = ipf.accelerate(Raising())
    with pytest.raises(type(error)):
        net(X)


def test_the_mode_of_each_module_stays() -> None:
    class Switch(Base):
        def forward(self, x: Tensor) -> Tensor:
            self.norm.eval()
            self.gate.train(False)
            self.requires_grad_(False)
            return super().forward(x)

    net = Switch()
    ipf.accelerate(net)
    assert net.norm.training and net.gate.training and all(p.requires_grad for p in net.parameters())


def test_grad_mode_default_dtype_and_threads_stay() -> None:
    class Global(Base):
        def forward(self, x: Tensor) -> Tensor:
            torch.set_grad_enabled(False)
            torch.set_default_dtype(torch.float64)
            return super().forward(x)

    try:
        ipf.accelerate(Global())
        assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32
    finally:
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)
