"""A chain is fused where one call of one function makes all of its calls."""

from __future__ import annotations

import functools

import pytest
import torch
from nn.forwards import Base, Case, X, case, once
from nn.twins import assert_twins_equal, notes, swapped
from torch import Tensor

WHOLE: dict[str, Case] = {}  # fused
SPLIT: dict[str, Case] = {}  # over several functions, or several calls of one
whole, split = (functools.partial(case, into) for into in (WHOLE, SPLIT))


class Helped(Base):
    """Methods that a forward calls, and that anybody may call."""

    def features(self, x: Tensor) -> Tensor:
        return self.conv(x)

    def all_three(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))

    def twice_helped(self, x: Tensor) -> Tensor:
        return self.all_three(x)

    def with_norm(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    def without_gradients(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.conv(x)

    def step(self, x: Tensor, number: int) -> Tensor:
        if number == 0:
            return self.conv(x)
        return self.norm(x) if number == 1 else self.act(x)

    def deeper(self, x: Tensor, more: int) -> Tensor:
        return self.norm(self.deeper(x, more - 1)) if more else self.conv(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def features_of(net: Base, x: Tensor) -> Tensor:
    return net.conv(x)


def all_three_of(net: Base, x: Tensor) -> Tensor:
    return net.act(net.norm(net.conv(x)))


def by(name: str):
    return lambda net: getattr(net, name)(X)


def of_class(cls: type):
    return lambda net: cls.forward(net, X)


class BySuper(Helped):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(super().forward(x)))


class BySuperOfAnother(Helped):
    def features(self, x: Tensor) -> Tensor:
        return super().features(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.features(x)))


class ByHelper(Helped):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.features(x)))


class ByHelperForHalf(Helped):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.with_norm(x))


class ByHelperForTheRest(Helped):
    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.conv(x))


class ByFunction(Helped):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(features_of(self, x)))


class BySteps(Helped):
    def forward(self, x: Tensor) -> Tensor:
        for number in range(3):
            x = self.step(x, number)
        return x


class ByItself(Helped):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.deeper(x, 1))


class ReturnsOutOfNoGrad(Helped):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.without_gradients(x)))


class WholeByHelper(Helped):
    def forward(self, x: Tensor) -> Tensor:
        return self.all_three(x)


class WholeByTwoHelpers(Helped):
    def forward(self, x: Tensor) -> Tensor:
        return self.twice_helped(x) * 2


class WholeBySuper(WholeByHelper):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class WholeByFunction(Helped):
    def forward(self, x: Tensor) -> Tensor:
        return all_three_of(self, x)


SPLIT |= {
    "a helper": Case(ByHelper, (once, by("features"))),
    "the forward of its base": Case(BySuper, (once, of_class(Helped))),
    "a helper of its base": Case(BySuperOfAnother, (once, by("features"), lambda net: Helped.features(net, X))),
    "a function": Case(ByFunction, (once, lambda net: features_of(net, X))),
    "one call of it each": Case(BySteps, (once, lambda net: net.step(X, 0))),
    "calling itself": Case(ByItself, (once, lambda net: net.deeper(X, 0))),
    "a return out of no_grad": Case(ReturnsOutOfNoGrad, (once, by("without_gradients"))),
}
WHOLE |= {
    "a helper for the rest": Case(ByHelperForTheRest, (once,)),
    "a helper": Case(WholeByHelper, (once, by("all_three"))),
    "a helper of a helper": Case(WholeByTwoHelpers, (once, by("twice_helped"), by("all_three"))),
    "the forward of its base": Case(WholeBySuper, (once, of_class(WholeByHelper), of_class(Helped))),
    "a function": Case(WholeByFunction, (once, lambda net: all_three_of(net, X), by("features"))),
}


@whole()
def all_in_no_grad(self, x):
    with torch.no_grad():
        h = self.act(self.norm(self.conv(x)))
    return h * self.bias_map


@whole(by("conv"))
def one_by_one(self, x):
    h = self.conv(x)
    h = self.norm(h)
    return self.act(h)


@split()
def a_break_out_of_no_grad(self, x):
    for _ in range(1):
        with torch.no_grad():
            h = self.conv(x)
            break
    return self.act(self.norm(h))


@split()
def a_continue_out_of_no_grad(self, x):
    for _ in range(1):
        with torch.no_grad():
            h = self.conv(x)
            continue
    return self.act(self.norm(h))


@pytest.mark.parametrize("each", SPLIT.values(), ids=SPLIT)
def test_what_is_split_is_left(each: Case) -> None:
    ours = assert_twins_equal(each.make, *each.calls)
    assert swapped(ours)["conv"] == () and notes(ours)["conv"]


@pytest.mark.parametrize("each", WHOLE.values(), ids=WHOLE)
def test_what_is_one_is_fused(each: Case) -> None:
    assert swapped(assert_twins_equal(each.make, *each.calls))["conv"] == ("norm", "act")


def test_of_a_chain_in_two_functions_the_first_ones_part_is_fused() -> None:
    ours = assert_twins_equal(ByHelperForHalf, once, by("with_norm"), by("features"))
    assert swapped(ours)["conv"] == ("norm",)
