"""Chains that PyTorch's own operators run are not asked about at every call; whatever may change that is seen."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from nn.twins import assert_near, fused_modules, randomised
from support import always_winograd
from torch import Tensor, nn

import inpaint_fast as ipf

SMALL, LARGE = (torch.randn(1, 32, side, side, generator=torch.Generator().manual_seed(side)) for side in (4, 40))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


def sequential() -> nn.Sequential:
    return nn.Sequential(OrderedDict(Net().named_children()))


def twins(make: Callable[[], nn.Module] = Net, **options) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    plain = randomised(make()).eval()
    return plain, ipf.accelerate(copy.deepcopy(plain), **options)


def asked(net: nn.Module, x: Tensor) -> bool:
    return bool(fused_modules(net, x))


@pytest.mark.parametrize("inference", [False, True])
def test_asked_once_for_each_kind_of_input(inference: bool) -> None:
    plain, ours = twins(inference=inference)
    with torch.no_grad():
        assert asked(ours, SMALL) and not asked(ours, SMALL)
        assert_near(ours(SMALL), plain(SMALL))
        assert asked(ours, LARGE) and asked(ours, LARGE)  # ours is faster there
        assert asked(ours, SMALL) and not asked(ours, SMALL)
        assert_near(ours(SMALL), plain(SMALL))
    assert asked(ours, SMALL) and not asked(ours, SMALL)  # with gradients


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "stride": lambda net: setattr(net.conv, "stride", (2, 2)),
    "slope": lambda net: setattr(net.act, "negative_slope", 0.5),
    "eps": lambda net: setattr(net.bn, "eps", 0.3),
    "weight": lambda net: net.conv.weight.data.mul_(2),
    "another activation": lambda net: setattr(net, "act", nn.Tanh()),
    "training": lambda net: net.train(not net.training),
    "momentum": lambda net: setattr(net.bn, "momentum", None),
    "no running statistics": lambda net: (
        net.bn.register_buffer("running_mean", None) or net.bn.register_buffer("running_var", None)
    ),
    "a patch": lambda net: setattr(net.conv, "_conv_forward", lambda x, w, b: nn.functional.conv2d(2 * x, w, b, 1, 1)),
    "weight norm": lambda net: nn.utils.parametrizations.weight_norm(net.conv),
    "a bias": lambda net: net.conv.register_parameter("bias", None),
    "a hook": lambda net: net.conv.register_forward_hook(lambda _, __, y: 2 * y),
    "another forward": lambda net: setattr(net, "forward", lambda x: net.conv(x).sigmoid()),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("make", [Net, sequential])
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_computed_is_always_the_plain_network(
    change: str, make: Callable, gradients: bool, training: bool
) -> None:
    plain, ours = (net.train(training) for net in twins(make))
    with torch.set_grad_enabled(gradients):
        for net in (plain, ours):
            for _ in range(3):
                net(SMALL)
            CHANGES[change](net)
        for x in (SMALL, SMALL, LARGE, SMALL):
            assert_near(ours(x).detach(), plain(x).detach())
    for a, b in zip(ours.buffers(), plain.buffers(), strict=True):
        assert_near(a, b)


def test_sizes_that_take_turns_are_not_noted() -> None:
    _, ours = twins(sequential)
    other = SMALL[..., 1:]
    with torch.no_grad():
        for x in (SMALL, other, SMALL, other):
            assert asked(ours, x)
        assert asked(ours, other) and not asked(ours, other)


def test_a_backend_that_is_asked_for_runs() -> None:
    _, ours = twins()
    with torch.no_grad():
        ours(SMALL)
        with ipf.use_backend("cpp"):
            assert asked(ours, SMALL)
        with ipf.use_backend("cuda"), pytest.raises(ipf.BackendError):
            ours(SMALL)


def test_another_dtype_and_acceleration_anew_are_asked_about() -> None:
    _, ours = twins()
    with torch.no_grad():
        ours(SMALL)
        assert asked(ours.double(), SMALL.double())
        assert asked(ours.float(), SMALL)
        assert not asked(ours, SMALL)
        assert asked(copy.deepcopy(ours), SMALL)
        assert asked(ipf.accelerate(ours), SMALL)
    with always_winograd(), torch.no_grad():
        assert asked(ipf.accelerate(ours), SMALL) and asked(ours, SMALL)
