"""Lists and iterators that a forward changes: what is read is what a call finds, or the chain is left."""

from __future__ import annotations

import functools

import pytest
import torch
from nn.forwards import Base, Case, X, case, once
from nn.twins import assert_twins_equal, notes, swapped
from torch import Tensor, nn

CHANGED: dict[str, Case] = {}
changed = functools.partial(case, CHANGED)


def append_to(numbers: list) -> None:
    numbers.append(1)


@changed()
def popped(self, x):
    steps = [0]
    steps.pop()
    h = self.conv(x)
    for _ in steps:
        h = self.norm(h)
    return h


@changed()
def cleared(self, x):
    steps = [0]
    steps.clear()
    h = self.conv(x)
    return self.norm(h) if steps else h


@changed()
def extended(self, x):
    steps = []
    steps.extend([1])
    h = self.conv(x)
    return h if steps else self.norm(h)


@changed()
def an_item_is_counted(self, x):
    count = [0]
    count[0] += 1
    h = self.conv(x)
    return h if count[0] else self.norm(h)


@changed()
def an_item_is_written(self, x):
    layers = [self.norm, self.act]
    layers[0] = self.gate
    return layers[1](layers[0](self.conv(x)))


@changed()
def an_item_is_deleted(self, x):
    layers = [self.norm, self.act]
    del layers[0]
    h = self.conv(x)
    for layer in layers:
        h = layer(h)
    return h


@changed()
def by_another_name(self, x):
    steps = []
    same = steps
    steps += [1]
    h = self.conv(x)
    return h if same else self.norm(h)


@changed()
def by_a_function(self, x):
    steps = []
    append_to(steps)
    h = self.conv(x)
    return h if steps else self.norm(h)


@changed()
def an_iterator_at_its_end(self, x):
    steps = iter([1])
    for _ in steps:
        pass
    h = self.conv(x)
    for _ in steps:
        h = self.norm(h)
    return h


@changed()
def an_iterator_taken_from(self, x):
    layers = iter([self.norm, self.act])
    next(layers)
    h = self.conv(x)
    for layer in layers:
        h = layer(h)
    return h


@changed()
def appended_to_in_its_loop(self, x):
    steps = [1]
    for _ in steps:
        if len(steps) < 2:
            steps.append(2)
        h = self.conv(x)
    return self.norm(h)


@changed()
def appended_to_while_it_is_enumerated(self, x):
    steps = [1]
    for _, _ in enumerate(steps):
        if len(steps) < 2:
            steps.append(2)
        h = self.conv(x)
    return self.norm(h)


@changed()
def a_generator_that_runs_later(self, x):
    h = self.conv(x)
    later = (layer(h) for layer in [self.norm])
    h = self.other(x)
    for y in later:
        h = y
    return self.act(h)


@changed()
def a_generator_of_what_another_name_is_by_then(self, x):
    layer = self.norm
    later = (layer for _ in [1])
    layer = self.gate
    h = self.conv(x)
    for each in later:
        h = each(h)
    return self.act(h)


@changed()
def a_generator_that_nobody_goes_through(self, x):
    later = (layer for layer in [self.norm])
    h = self.conv(x)
    return self.act(h) if later is None else self.act(self.norm(h))


@changed()
def a_generator_left_early(self, x):
    any(layer(x) is not None for layer in [self.other, self.conv])
    return self.act(self.norm(self.conv(x)))


def published(net: Base) -> Tensor:
    return torch.cat([net(X), *net.seen], 1)


@changed(first=published)
def published_and_then_appended_to(self, x):
    self.seen = seen = []
    h = self.conv(x)
    seen.append(h)
    return self.act(self.norm(h))


@changed(first=published)
def appended_to_and_then_published(self, x):
    seen = []
    h = self.conv(x)
    seen.append(h)
    self.seen = seen
    return self.act(self.norm(h))


@changed(first=published)
def published_in_a_tuple(self, x):
    h = self.conv(x)
    self.seen = (h,)
    return self.act(self.norm(h))


@changed(first=lambda net: net(X, []))
def appended_to_an_argument(self, x, seen):
    h = self.conv(x)
    seen.append(h)
    return self.act(self.norm(h)) + seen[0]


@changed()
def a_walrus_in_a_comprehension(self, x):
    other, h = self.other(x), self.conv(x)
    [(h := each) for each in [other]]
    return self.act(self.norm(h))


@changed()
def a_walrus_in_a_condition_of_one(self, x):
    other, h = self.other(x), self.conv(x)
    _ = [1 for each in [other] if (h := each) is not None]
    return self.act(self.norm(h))


# ---- containers ----


class OutOfOrder(Base):
    """The second branch has the name 0."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList()
        self.branches.add_module("1", nn.BatchNorm2d(4))
        self.branches.add_module("0", nn.BatchNorm2d(4))
        nn.init.constant_(self.branches[0].bias, 3.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.branches[0](self.conv(x))


class OutOfOrderInALoop(OutOfOrder):
    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        for branch in self.branches[:1]:
            h = branch(h)
        return h


CHANGED["names out of order"] = Case(OutOfOrder, (once,))
CHANGED["names out of order, in a loop"] = Case(OutOfOrderInALoop, (once,))


@pytest.mark.parametrize("each", CHANGED.values(), ids=CHANGED)
def test_a_list_that_changes_is_no_ground_of_a_proof(each: Case) -> None:
    ours = assert_twins_equal(each.make, *each.calls)
    assert swapped(ours)["conv"] == () and notes(ours)["conv"]
