"""A module of a chain is called once more by a name that tells nothing, or something is written between its calls."""

from __future__ import annotations

import functools

import pytest
import torch
from nn.forwards import Base, Case, X, case, once
from nn.twins import assert_twins_equal, notes, swapped
from torch import nn

ANEW: dict[str, Case] = {}
BETWEEN: dict[str, Case] = {}  # the calls are those of a chain, but for what happens between them
anew, between = (functools.partial(case, into) for into in (ANEW, BETWEEN))


class Kept(Base):
    """Its modules can be had in other ways."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.of, self.by_name = [self.conv], (self.conv, self.norm), {"conv": self.conv, "act": self.act}
        self.bound_forward, self.bound_call, self.partial = (
            self.conv.forward,
            self.conv.__call__,
            functools.partial(self.conv),
        )


def once_more(name: str, again) -> None:
    """A chain, and what the forward adds to it."""
    ANEW[name] = Case(type(name, (Kept,), {"forward": again}), (once,))


def through_a_list(self, x):
    return self.act(self.norm(self.conv(x))) + self.layers[0](x)


def through_a_tuple(self, x):
    return self.act(self.norm(self.conv(x))) + self.of[1](self.of[0](x))


def through_a_dict(self, x):
    return self.act(self.norm(self.conv(x))) + self.by_name["conv"](x)


def the_activation_through_a_dict(self, x):
    return self.by_name["act"](self.act(self.norm(self.conv(x))))


def through_a_partial(self, x):
    return self.act(self.norm(self.conv(x))) + self.partial(x)


def its_bound_call(self, x):
    return self.act(self.norm(self.conv(x))) + self.bound_call(x)


def its_forward_alone(self, x):
    return self.act(self.norm(self.conv(x))) + self.conv.forward(x)


def its_bound_forward(self, x):
    return self.act(self.norm(self.conv(x))) + self.bound_forward(x)


def through_get_submodule(self, x):
    return self.act(self.norm(self.conv(x))) + self.get_submodule("conv")(x)


def through_modules(self, x):
    return self.act(self.norm(self.conv(x))) + next(self.children())(x)


def by_checkpointing(self, x):
    return self.act(self.norm(self.conv(x))) + torch.utils.checkpoint.checkpoint(self.conv, x, use_reentrant=False)


for _again in (
    through_a_list, through_a_tuple, through_a_dict, the_activation_through_a_dict, through_a_partial, its_bound_call,
    its_forward_alone, its_bound_forward, through_get_submodule, through_modules, by_checkpointing,
):  # fmt: skip
    once_more(_again.__name__, _again)


@anew(first=lambda net: net(X, net.conv))
def as_an_argument(self, x, layer):
    return self.act(self.norm(self.conv(x))) + layer(x)


@anew(first=lambda net: net(X, layer=net.norm))
def the_norm_by_keyword(self, x, *, layer):
    return layer(self.act(self.norm(self.conv(x))))


# ---- in between ----


@between()
def the_weight_is_written(self, x):
    h = self.conv(x)
    self.norm.weight.data[:] = 2.0
    return self.act(self.norm(h))


@between()
def the_mean_by_another_name(self, x):
    mean = self.norm.running_mean
    h = self.conv(x)
    mean -= 1
    return self.act(self.norm(h))


@between()
def the_mean_by_a_method(self, x):
    h = self.conv(x)
    self.norm.running_mean.add_(0.25)
    return self.act(self.norm(h))


@between()
def the_bias_by_a_function(self, x):
    h = self.conv(x)
    nn.init.constant_(self.norm.bias, 0.75)
    return self.act(self.norm(h))


@between()
def a_setting_of_the_norm(self, x):
    h = self.conv(x)
    self.norm.eps = 0.5
    return self.act(self.norm(h))


@between()
def what_passes_by_another_name(self, x):
    h = self.conv(x)
    same = h.detach()
    same.mul_(2)
    return self.act(self.norm(h))


@between()
def what_passes_in_place(self, x):
    h = self.conv(x)
    h += 1
    return self.act(self.norm(h * 2))


@between()
def what_passes_by_an_index(self, x):
    h = self.conv(x)
    h[:, 0] = 0.0
    return self.act(self.norm(h))


@pytest.mark.parametrize("each", [*ANEW.values(), *BETWEEN.values()], ids=[*ANEW, *BETWEEN])
def test_it_is_left_and_the_report_says_why(each: Case) -> None:
    ours = assert_twins_equal(each.make, *each.calls)
    assert swapped(ours)["conv"] == () and notes(ours)["conv"]
