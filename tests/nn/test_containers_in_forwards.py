"""Containers of modules that a forward goes through, and what it asked and then changed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from nn.forwards import Base, Case, X, once, setting
from nn.twins import assert_twins_equal, swapped
from torch import Tensor, nn


class Listed(nn.Module):
    """Its modules are in containers alone."""

    def __init__(self, forward: Callable) -> None:
        super().__init__()
        self.__class__ = type(forward.__name__, (Listed,), {"forward": forward})
        self.layers = nn.ModuleList([nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ELU()])
        self.unused = nn.ModuleList([nn.Identity()] * 3)


def by_a_loop(self, x):
    for layer in self.layers:
        x = layer(x)
    return x


def by_enumerate(self, x):
    for i, layer in enumerate(self.layers):
        if i < 3:
            x = layer(x)
    return x


def by_zip(self, x):
    for layer, _ in zip(self.layers, self.unused, strict=False):
        x = layer(x)
    return x


def by_plain_zip(self, x):
    for layer, _ in zip(self.layers, self.unused):  # noqa: B905  (that is the case)
        x = layer(x)
    return x


def by_range_and_len(self, x):
    for i in range(len(self.layers)):
        x = self.layers[i](x)
    return x


def by_indices_and_slices(self, x):
    x = self.layers[0](x)
    for layer in self.layers[1:]:
        x = layer(x)
    return x


def by_reversed(self, x):
    for layer in reversed([self.layers[-1], self.layers[-2], self.layers[-3]]):
        x = layer(x)
    return x


def by_a_comprehension(self, x):
    for layer in [layer for layer in self.layers]:  # noqa: C416  (that is the case)
        x = layer(x)
    return x


def by_a_list_of_its_own(self, x):
    layers = []
    for layer in self.layers:
        layers.append(layer)  # noqa: PERF402  (that is the case)
    for layer in layers:
        x = layer(x)
    return x


def by_the_last_of_results(self, x):
    results = []
    results.append(self.layers[2](self.layers[1](self.layers[0](x))))
    return results[-1]


def by_a_tuple_of_a_generator(self, x):
    for layer in tuple(layer for layer in self.layers):  # noqa: C400  (that is the case)
        x = layer(x)
    return x


def by_a_sum(self, x):
    return self.layers[2](self.layers[1](self.layers[0](x))) + sum(layer(x) for layer in self.unused).sum()


def by_unpacking(self, x):
    first, second, third = self.layers
    return third(second(first(x)))


STRAIGHT = [
    by_a_loop, by_enumerate, by_plain_zip, by_range_and_len, by_indices_and_slices, by_reversed, by_a_comprehension,
    by_a_list_of_its_own, by_the_last_of_results, by_a_tuple_of_a_generator, by_a_sum,
]  # fmt: skip


@pytest.mark.parametrize("forward", STRAIGHT, ids=lambda forward: forward.__name__)
def test_what_does_not_change_is_read(forward: Callable) -> None:
    ours = assert_twins_equal(lambda: Listed(forward), once)
    assert swapped(ours)["layers.0"] == ("layers.1", "layers.2")


@pytest.mark.parametrize("forward", [by_zip, by_unpacking], ids=lambda forward: forward.__name__)
def test_what_is_not_read_is_right(forward: Callable) -> None:
    assert_twins_equal(lambda: Listed(forward), once)


# ---- after a change ----


def renamed(net: Base) -> Tensor:
    found = net.choice.pop("norm")
    net.choice["other"] = found
    try:
        return net(X)
    finally:
        net.choice["norm"] = net.choice.pop("other")
        net.choice["none"] = net.choice.pop("none")


class ByNames(Base):
    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        for name in self.choice.keys():  # noqa: SIM118  (that is the case)
            if name == "norm":
                h = self.norm(h)
        return self.act(h)


class ByItems(ByNames):
    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        for name, module in self.choice.items():
            if name == "norm":
                h = module(h)
        return self.act(h)


class SettingThenCall(Base):
    """What it asked is changed by what it calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls_back = [lambda: None]

    def forward(self, x: Tensor) -> Tensor:
        flag = self.flag
        self.calls_back[0]()
        h = self.conv(x)
        return self.norm(h) if flag else h


def flag_comes_back(net: SettingThenCall) -> Tensor:
    net.calls_back = [lambda: setattr(net, "flag", True)]
    return setting(flag=False, calls_back=net.calls_back)(net)


class SettingThenMethod(SettingThenCall):
    def toggle(self) -> None:
        self.flag = not self.flag

    def forward(self, x: Tensor) -> Tensor:
        flag = self.flag
        self.toggle()
        h = self.conv(x)
        return self.norm(h) if flag else h


AFTER = {
    "a key is renamed": Case(ByNames, (once, renamed, once)),
    "an item is renamed": Case(ByItems, (once, renamed, once)),
    "a setting is changed by a call": Case(SettingThenCall, (once, flag_comes_back)),
    "a setting is changed by a method": Case(SettingThenMethod, (once, once)),
}


@pytest.mark.parametrize("each", AFTER.values(), ids=AFTER)
def test_after_a_change_it_is_the_plain_network(each: Case) -> None:
    assert_twins_equal(each.make, *each.calls)
