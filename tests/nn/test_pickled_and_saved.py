"""Accelerated networks through pickle, torch.save and copies, whatever happened to their forwards."""

from __future__ import annotations

import copy
import io
import pickle
import sys
from collections.abc import Callable

import pytest
import torch
import torch.fx
from nn.forwards import Base, X
from nn.twins import assert_equal_calls, fused_modules, twins
from torch import Tensor, nn


def call(net: nn.Module) -> Tensor:
    return net(X)


def pickled(net: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(net))


def saved(net: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def twice(net: nn.Module) -> nn.Module:
    return pickled(copy.deepcopy(pickled(net)))


class Plain(Base):
    def forward(self, x):  # torch.fx writes annotations that are text into what it pickles
        return self.act(self.norm(self.conv(x)))


class ByHelper(Base):
    def all_three(self, x, *, scale=2):
        return self.act(self.norm(self.conv(x))) * scale

    def forward(self, x):
        return self.all_three(x)


# A class that a pickle finds by its name, in a module that it can import.
for _cls in (Plain, ByHelper):
    _cls.__module__ = Base.__module__
    setattr(sys.modules[Base.__module__], _cls.__qualname__, _cls)


def assert_twins_equal_now(plain: nn.Module, ours: nn.Module) -> None:
    for train in (True, False):
        plain.train(train), ours.train(train)
        assert_equal_calls(ours, plain, call)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("way", [pickled, saved, copy.deepcopy, twice], ids=lambda way: way.__name__)
@pytest.mark.parametrize("make", [Plain, ByHelper, lambda: nn.Sequential(Plain(), nn.Tanh())])
def test_it_stays_fused(make: Callable, way: Callable, inference: bool) -> None:
    plain, ours = twins(make().double().eval(), inference=inference)
    if inference:
        call(ours.eval())
    other = way(ours)
    assert len(fused_modules(other, X)) == len(fused_modules(ours, X)) == 1
    assert all(norm for _, _, norm in fused_modules(other, X))
    assert_twins_equal_now(plain, other)
    theirs = {id(tensor) for tensor in ours.state_dict(keep_vars=True).values()}
    assert not any(id(tensor) in theirs for tensor in other.state_dict(keep_vars=True).values())


@pytest.mark.parametrize("way", [pickled, saved, copy.deepcopy], ids=lambda way: way.__name__)
@pytest.mark.parametrize("patched", ["before", "after", "afterwards mended"])
@pytest.mark.parametrize(("make", "name"), [(Plain, "forward"), (ByHelper, "all_three"), (ByHelper, "forward")])
def test_a_patched_forward_goes_through(make: type, name: str, patched: str, way: Callable) -> None:
    with pytest.MonkeyPatch.context() as patch:
        old = getattr(make, name)
        if patched == "before":
            patch.setattr(make, name, lambda self, x: old(self, x) * 2)
        plain, ours = twins(make().double())
        if patched != "before":
            patch.setattr(make, name, lambda self, x: old(self, x) * 2)
        other = way(ours)
        if patched == "afterwards mended":
            patch.undo()
        assert_twins_equal_now(plain, other)


@pytest.mark.parametrize("way", [pickled, saved, copy.deepcopy], ids=lambda way: way.__name__)
@pytest.mark.parametrize("make", [Plain, lambda: nn.Sequential(Plain(), nn.Tanh()), ByHelper])
def test_a_graph_module_goes_through(make: Callable, way: Callable) -> None:
    plain, ours = twins(torch.fx.symbolic_trace(make().double()))
    assert_twins_equal_now(plain, way(ours))


@pytest.mark.parametrize("way", [saved, copy.deepcopy], ids=lambda way: way.__name__)
def test_a_convolution_alone_is_in_no_fusion(way: Callable) -> None:
    plain, ours = twins(Plain().double())
    conv = way(ours.conv)
    assert_equal_calls(conv, plain.conv, lambda net: net(X))
    # In the place of the one it is a copy of: the chain is no longer the one that was proved.
    ours.conv = conv
    assert_twins_equal_now(plain, ours)
