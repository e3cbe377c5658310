"""Convolutions that pad by reflecting, repeating or wrapping round: accelerated they are what they were."""

from __future__ import annotations

import copy

import pytest
import torch
from nn.twins import (
    assert_same,
    assert_twins_equal,
    everything,
    fused_modules,
    left,
    randomised,
    relative_errors_within,
    swapped,
    twins,
)
from support import always_winograd
from torch import Tensor, nn

import inpaint_fast as ipf
from inpaint_fast.nn import acceleration_report
from inpaint_fast.ops._plans import forget_plans
from inpaint_fast.ops.conv_block import rows

MODES = ("reflect", "replicate", "circular")
X = torch.randn(2, 3, 9, 12, generator=torch.Generator().manual_seed(0))


def network(mode: str, **settings) -> nn.Module:
    settings = {"padding": 1} | settings
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding_mode=mode, **settings), nn.BatchNorm2d(4), nn.ReLU())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "settings",
    [{}, {"padding": (2, 0)}, {"dilation": 2, "padding": 3}, {"dilation": (1, 3), "padding": "same"}],
    ids=str,
)
def test_outputs_gradients_and_statistics(mode: str, settings: dict) -> None:
    ours = assert_twins_equal(lambda: network(mode, **settings), lambda net: net(X.double()))
    assert swapped(ours) == {"0": ("1", "2")}
    assert fused_modules(ours, X.double()) == [("relu", "norm_act", True)]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_by_winograd(mode: str, train: bool) -> None:
    plain = randomised(network(mode)).train(train)
    exact, ours = copy.deepcopy(plain).double(), copy.deepcopy(plain)
    with always_winograd():
        got = everything(ipf.accelerate(ours), lambda net: net(X))
    expected, wanted = everything(plain, lambda net: net(X)), everything(exact, lambda net: net(X.double()))
    relative_errors_within(got, expected, wanted, 1e-6)  # Winograd's own rounding


@pytest.mark.parametrize("mode", MODES)
def test_under_the_promise_of_inference(mode: str) -> None:
    plain, ours = twins(network(mode).eval(), inference=True)
    exact = copy.deepcopy(plain).double()
    with torch.no_grad(), always_winograd():
        for x in (X, X[:, :, 1:], X):
            relative_errors_within({"": ours(x)}, {"": plain(x)}, {"": exact(x.double())}, 1e-6)


def test_in_a_forward_of_somebodys() -> None:
    class Owner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.act = network("reflect")

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.norm(self.conv(x)))

    theirs, ours = twins(Owner().double())
    assert swapped(ours) == {"conv": ("norm", "act")}
    assert_same(ours, theirs, X.double())


def test_changed_afterwards() -> None:
    theirs, ours = twins(network("reflect").double().eval())
    for net in (theirs, ours):
        net(X.double())
        net[0].padding_mode = "circular"
    assert torch.allclose(ours(X.double()), theirs(X.double()), rtol=1e-9)
    for net in (theirs, ours):
        net[0]._reversed_padding_repeated_twice = [2, 1, 1, 1]
    assert theirs(X.double()).shape[3] == 13
    assert torch.allclose(ours(X.double()), theirs(X.double()), rtol=1e-9)
    for net in (theirs, ours):
        net[0].padding_mode, net[0].padding = "zeros", (2, 2)
    assert torch.allclose(ours(X.double()), theirs(X.double()), rtol=1e-9)


def test_a_picture_that_is_too_small_for_its_reflection() -> None:
    theirs, ours = twins(network("reflect", padding=3))
    messages = []
    for net in (theirs, ours):
        with pytest.raises(RuntimeError) as caught:
            net(X[:, :, :3])
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_with_stride_2_it_stays_pytorchs() -> None:
    _, ours = twins(nn.Sequential(nn.Conv2d(3, 4, 3, 2, padding=1, padding_mode="reflect"), nn.ReLU()))
    assert left(ours) == {"0": "padding_mode 'reflect', with stride 2"}
    assert str(acceleration_report(ours)).startswith("0 of 1")


@pytest.mark.parametrize("padding", [3, "same"])
@pytest.mark.parametrize("mode", ["zeros", *MODES])
def test_a_wide_convolution_to_few_channels(mode: str, padding: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one of many generators, 7x7 to RGB: by rows of taps."""
    plain = nn.Sequential(nn.Conv2d(6, 3, 7, padding=padding, padding_mode=mode), nn.Sigmoid()).eval()
    x = torch.randn(2, 6, 9, 12, generator=torch.Generator().manual_seed(0))
    exact = copy.deepcopy(plain).double()
    monkeypatch.setattr(rows, "LEAST_PRODUCTS", 0)
    forget_plans()
    for inference in (False, True):
        ours = ipf.accelerate(copy.deepcopy(plain), inference=inference)
        assert swapped(ours) == {"0": ("1",)}
        with torch.no_grad():
            got, expected, wanted = ours(x), plain(x), exact(x.double())
        relative_errors_within({"": got}, {"": expected}, {"": wanted}, torch.finfo(torch.float32).eps)
    forget_plans()
    assert_same(ipf.accelerate(copy.deepcopy(exact)), exact, x.double())
