"""Chains that PyTorch's own operators run are not asked about at every call; whatever may change that is seen."""

from __future__ import annotations

import copy
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


def twins(**options) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    plain = randomised(Net()).eval()
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
    "training": lambda net: net.train(),
    "a hook": lambda net: net.conv.register_forward_hook(lambda _, __, y: 2 * y),
    "another forward": lambda net: setattr(net, "forward", lambda x: net.conv(x).sigmoid()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_computed_is_always_the_plain_network(change: str) -> None:
    plain, ours = twins()
    ours(SMALL)
    for net in (plain, ours):
        CHANGES[change](net)
    for x in (SMALL, LARGE, SMALL):
        assert_near(ours(x).detach(), plain(x).detach())
    for a, b in zip(ours.buffers(), plain.buffers(), strict=True):
        assert_near(a, b)


def test_a_backend_that_is_asked_for_runs() -> None:
    _, ours = twins()
    with torch.no_grad():
        ours(SMALL)
        with ipf.use_backend("cpp"):
            assert asked(ours, SMALL)
        with ipf.use_backend("cuda"), pytest.raises(ipf.BackendError):
            ours(SMALL)


def test_dtypes_autocast_and_acceleration_anew_are_other_kinds() -> None:
    _, ours = twins()
    with torch.no_grad():
        ours(SMALL)
        with torch.autocast("cpu", torch.bfloat16):
            assert asked(ours, SMALL)
        assert asked(ours.double(), SMALL.double())
        assert asked(ours.float(), SMALL)
        assert not asked(ours, SMALL)
        assert asked(copy.deepcopy(ours), SMALL)
        assert asked(ipf.accelerate(ours), SMALL)
    with always_winograd(), torch.no_grad():
        assert asked(ipf.accelerate(ours), SMALL) and asked(ours, SMALL)
