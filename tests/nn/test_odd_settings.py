"""Modules whose settings and tensors are of kinds that nobody expects; and forwards that end in an error."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import pytest
import torch
from nn.forwards import Base, X
from nn.twins import assert_equal_calls, assert_near, assert_twins_equal, twins
from torch import Tensor, nn

import inpaint_fast as ipf


def call(net: nn.Module) -> Tensor:
    return net(X)


def alone(**settings) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Conv2d(3, 4, 3, **settings), nn.BatchNorm2d(4))


class Computing(nn.Module):
    """An attribute by a name that a library may have, too."""

    computes = _inpaint_fast = ["a"]

    def forward(self, x: Tensor) -> Tensor:
        return x * 2


SETTINGS = {
    "a padding of NumPy's": alone(padding=np.int64(1)),
    "paddings of NumPy's": alone(padding=(np.int64(1), np.int32(2))),
    "a dilation of NumPy's": alone(dilation=np.int64(2)),
    "a stride of NumPy's": alone(stride=np.int64(2), padding=1),
    "a slope as a tensor": lambda: nn.Sequential(alone()(), nn.LeakyReLU(torch.tensor(0.2))),
    "a slope as a number of NumPy's": lambda: nn.Sequential(*alone()(), nn.LeakyReLU(np.float64(0.2))),
    "an alpha as a tensor": lambda: nn.Sequential(*alone()(), nn.ELU(torch.tensor(0.5))),
    "an alpha after the convolution": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ELU(torch.tensor(0.5))),
    "an eps of NumPy's": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=np.float64(1e-3))),
    "a momentum of NumPy's": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=np.float64(0.5))),
    "an attribute named computes": lambda: nn.Sequential(*alone()(), Computing()),
    "a child named precision": lambda: nn.Sequential(OrderedDict(precision=nn.Conv2d(3, 4, 3), b=nn.BatchNorm2d(4))),
}


@pytest.mark.parametrize("make", SETTINGS.values(), ids=SETTINGS)
def test_settings_of_other_kinds(make: Callable) -> None:
    assert_twins_equal(make, call)


@pytest.mark.parametrize("settings", [{"padding": True}, {"dilation": True}, {"padding": (1.0, 1.0)}], ids=str)
def test_settings_that_pytorch_refuses_are_refused_when_it_is_called(settings: dict) -> None:
    plain, ours = twins(alone(**settings)().double())
    with pytest.raises(TypeError):
        call(plain)
    with pytest.raises(TypeError):
        call(ours)


# ---- forwards ----


class WithoutArguments(Base):
    def forward():  # noqa: N805  (that is the case)
        pass


class StepsOfZero(Base):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(0, 3, 0):
            pass
        return self.norm(self.conv(x))


class OutOfRange(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.act([self.norm][self.count](self.conv(x)))


class NoNumber(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) if self.mode < self.count else x


class ManySteps(Base):
    def __init__(self) -> None:
        super().__init__()
        self.count = 2**70

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.count):
            return self.norm(self.conv(x))


@pytest.mark.parametrize("make", [WithoutArguments, StepsOfZero, OutOfRange, NoNumber])
def test_a_forward_that_raises_does_so_when_it_is_called(make: type) -> None:
    plain, ours = twins(make().double())
    with pytest.raises((TypeError, ValueError, IndexError)) as expected:
        call(plain)
    with pytest.raises(expected.type) as caught:
        call(ours)
    assert str(caught.value) == str(expected.value)


def test_more_steps_than_can_be_counted() -> None:
    assert_twins_equal(ManySteps, call)


# ---- inputs ----


class Forwarded(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


PLACES = {"forward": Forwarded, "sequential": lambda: nn.Sequential(*list(Forwarded().children())[:3])}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_an_input_in_the_layout_of_mkldnn(place: Callable) -> None:
    net = place()
    setattr(net, "2" if isinstance(net, nn.Sequential) else "act", nn.ReLU())  # there is no ELU of that layout
    plain, ours = twins(net.eval())
    x = X.float().to_mkldnn()
    with torch.no_grad():
        assert_near(ours(x).to_dense(), plain(x).to_dense())


# ---- tensors of the norm ----


def norm_of(net: nn.Module) -> nn.BatchNorm2d:
    return next(module for module in net.modules() if isinstance(module, nn.BatchNorm2d))


def weight_as_a_plain_tensor(norm: nn.BatchNorm2d) -> None:
    weight = norm.weight.detach()
    del norm.weight
    norm.weight = weight


def bias_as_a_buffer(norm: nn.BatchNorm2d) -> None:
    bias = norm.bias.detach()
    del norm.bias
    norm.register_buffer("bias", bias)


def mean_as_a_parameter(norm: nn.BatchNorm2d) -> None:
    mean = norm.running_mean
    del norm.running_mean
    norm.running_mean = nn.Parameter(mean, requires_grad=False)


def variance_as_a_plain_tensor(norm: nn.BatchNorm2d) -> None:
    var = norm.running_var
    del norm.running_var
    norm.running_var = var


def uncounted(norm: nn.BatchNorm2d) -> None:
    norm.num_batches_tracked = None


def without_bias(norm: nn.BatchNorm2d) -> None:
    norm.bias = None


TENSORS = [weight_as_a_plain_tensor, bias_as_a_buffer, mean_as_a_parameter, variance_as_a_plain_tensor, uncounted,
           without_bias]  # fmt: skip


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("change", TENSORS, ids=lambda change: change.__name__)
def test_tensors_in_other_places(change: Callable, inference: bool, place: Callable) -> None:
    plain, ours = twins(place().double().eval(), inference=inference)
    before = copy.deepcopy(plain)
    change(norm_of(before))
    changed = ipf.accelerate(copy.deepcopy(before), inference=inference)
    for net in (plain, ours):
        with torch.no_grad():
            call(net)
        change(norm_of(net))
    for theirs, mine in ((plain, ours), (before, changed)):
        for train in (False, True, False):
            theirs.train(train), mine.train(train)
            with torch.no_grad():
                assert_equal_calls(mine, theirs, call)
            assert_equal_calls(mine, theirs, call)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "running_var", "all"])
def test_a_norm_on_another_device_gives_no_numbers(name: str, train: bool, place: Callable) -> None:
    plain, ours = twins(place().double())
    ours.train(train)
    norm = norm_of(ours)
    for each in ("weight", "bias", "running_mean", "running_var") if name == "all" else (name,):
        tensor = getattr(norm, each).detach().to("meta")
        setattr(norm, each, nn.Parameter(tensor) if each in norm._parameters else tensor)
    try:
        with torch.no_grad():
            y = call(ours)
    except (TypeError, RuntimeError, NotImplementedError) as error:
        assert "meta" in str(error)  # noqa: PT017  (or the result is of that device)
    else:
        assert y.is_meta
