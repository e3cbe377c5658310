"""tune=True: what is faster here runs, nothing is left behind, and the report says what was measured."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Iterator

import pytest
import torch
import torch.utils.checkpoint
from nn.twins import assert_near, randomised
from torch import Tensor, nn

import inpaint_fast as ipf
from inpaint_fast.nn import acceleration_report
from inpaint_fast.ops.conv_block import blocking, choice, tuning

X = torch.randn(2, 32, 16, 16, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
    return randomised(nn.Sequential(first, nn.Conv2d(32, 32, 3, 2, 1), nn.BatchNorm2d(32)))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, float]]:
    """A clock by which each of our runs and each of PyTorch's takes so many seconds."""
    takes = {"ours": 1.0, "plain": 1.0, "amx": 1e3}
    now = 0.0

    def ticks() -> Iterator[float]:
        nonlocal now
        for way in itertools.cycle(choice.ways()):
            yield now  # a run starts
            now += takes[way]
            yield now  # and ends

    tick = ticks()
    monkeypatch.setattr(tuning, "clock", lambda: next(tick))
    monkeypatch.setattr(blocking, "fit", lambda: None)  # which is measured by the same clock
    return takes


def measured(net: nn.Module) -> list[tuning.Measured]:
    return list(itertools.chain(*acceleration_report(net).measured.values()))


def call(net: nn.Module, x: Tensor = X) -> Tensor:
    with torch.no_grad():
        return net(x)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize(("ours", "plain", "is_ours"), [(1, 2, True), (2, 1, False), (98, 100, False)])
def test_the_faster_one_runs(
    clock: dict[str, float], ours: float, plain: float, is_ours: bool, inference: bool
) -> None:
    """Ours not for a gain that is within the noise."""
    clock.update(ours=ours, plain=plain)
    theirs = network().eval()
    net = ipf.accelerate(copy.deepcopy(theirs), inference=inference, tune=True)
    wanted, found = call(theirs), call(net)
    assert [entry.ours_runs for entry in measured(net)] == [is_ours] * 2
    assert [(entry.ours, entry.plain) for entry in measured(net)] == [(1e3 * ours, 1e3 * plain)] * 2
    assert_near(found, wanted)
    with torch.profiler.profile() as profile:
        assert torch.equal(call(net), found)
    ran = {event.key for event in profile.key_averages()}
    for name in ("dilated_block", "strided_block"):
        assert (f"inpaint_fast::{name}_forward" in ran) == is_ours
    assert f"2x32x16x16: ours {1e3 * ours:.3g} ms" in str(acceleration_report(net))


def test_each_kind_of_call_is_measured_once(clock: dict[str, float]) -> None:
    net = ipf.accelerate(network().eval(), tune=True)
    assert measured(net) == []
    for _ in range(2):
        for x in (X, X[:1], X.to(memory_format=torch.channels_last)):
            call(net, x)
    assert len(measured(net)) == 6
    net[1].stride, net[1].padding = (1, 1), (2, 2)  # another convolution of the same tensors
    net[1].dilation = (2, 2)
    call(net)
    assert len(measured(net)) == 7


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("ours", [0.5, 2.0])
def test_measuring_leaves_nothing_behind(clock: dict[str, float], ours: float, train: bool) -> None:
    clock["ours"] = ours
    theirs = network().train(train)
    net = ipf.accelerate(copy.deepcopy(theirs), tune=True)
    inputs = [X.clone().requires_grad_() for _ in range(2)]
    before = torch.get_rng_state()
    for each, x in zip((theirs, net), inputs, strict=True):
        each(x).square().sum().backward()
    assert torch.equal(torch.get_rng_state(), before)
    assert [entry.ours_runs for entry in measured(net)] == [ours < 1] * 2
    for (name, tensor), other in zip(theirs.state_dict().items(), net.state_dict().values(), strict=True):
        assert_near(other, tensor, name)
    gradients = [[x.grad, *(p.grad for p in each.parameters())] for x, each in zip(inputs, (theirs, net), strict=True)]
    largest = max(gradient.norm().item() for gradient in gradients[0])
    for wanted, found in zip(*gradients, strict=True):
        assert (found - wanted).norm() <= 1e-3 * largest


def test_under_activation_checkpointing(clock: dict[str, float]) -> None:
    clock["ours"] = 0.5
    theirs = network().train()
    net = ipf.accelerate(copy.deepcopy(theirs), tune=True)
    found = []
    for each in (theirs, net):
        x = X.clone().requires_grad_()
        y = torch.utils.checkpoint.checkpoint(each, x, use_reentrant=False)
        y.backward(torch.linspace(-1, 1, y.numel()).view_as(y))
        found.append(each[1].weight.grad)
    assert (found[1] - found[0]).norm() <= 1e-3 * found[0].norm() and len(measured(net)) == 2


def test_under_autocast(clock: dict[str, float]) -> None:
    theirs = network().train()
    net = ipf.accelerate(copy.deepcopy(theirs), tune=True)
    with torch.autocast("cpu", torch.bfloat16):
        wanted, found = theirs(X), net(X)
    assert found.dtype == wanted.dtype
    torch.testing.assert_close(found.float(), wanted.float(), rtol=0.05, atol=0.05)
    assert len(measured(net)) == 2


def test_in_a_forward_that_was_proved(clock: dict[str, float]) -> None:
    clock["ours"] = 0.1
    theirs = randomised(Wide()).eval()
    net = ipf.accelerate(copy.deepcopy(theirs), tune=True)
    assert_near(call(net), call(theirs))
    assert len(measured(net)) == 1 and acceleration_report(net).swapped[0].fused == ("bn", "act")


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


def test_nothing_is_measured_where_there_is_no_choice(clock: dict[str, float]) -> None:
    for options, x in (({"precision": "exact"}, X), ({}, X.double())):
        net = ipf.accelerate(network().to(x.dtype).eval(), tune=True, **options)
        call(net, x)
        assert measured(net) == []
    net = ipf.accelerate(network().eval(), tune=True)
    with ipf.use_backend("reference"):
        call(net)
    with torch.no_grad():
        torch.func.vmap(net, in_dims=0)(X[None])
        torch.jit.trace(net, X, check_trace=False)  # which calls it
        torch.compile(net, backend="eager")(X)
    assert measured(net) == []


def test_what_was_measured_is_of_this_network_alone(clock: dict[str, float]) -> None:
    net = ipf.accelerate(network().eval(), tune=True)
    call(net)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert_near(call(other), call(net))
        assert len(measured(other)) == 2
    ipf.accelerate(net)
    call(net)
    assert measured(net) == []


def test_by_the_real_clock() -> None:
    net = ipf.accelerate(network().eval(), inference=True, tune=True)
    assert_near(call(net), call(network().eval()))
    assert all(entry.ours > 0 and entry.plain > 0 for entry in measured(net)) and len(measured(net)) == 2
