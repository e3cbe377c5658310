"""Under torch.autocast an accelerated network has the dtypes of the plain one, at every layer, and its values."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from nn.networks import INPUTS, NETWORKS
from nn.twins import outputs, randomised, relative_errors_within
from torch import Tensor, nn

import inpaint_fast as ipf

HALVES = [torch.bfloat16, torch.float16]
CONVOLUTIONS = {
    "dilated": lambda: nn.Conv2d(24, 24, 3, padding=2, dilation=2),
    "strided": lambda: nn.Conv2d(24, 24, 4, 2, 1),
    "strided 3x3": lambda: nn.Conv2d(24, 24, 3, 2, 1, bias=False),
    "strided 5x5": lambda: nn.Conv2d(24, 24, 5, 2, 2),
    "transposed": lambda: nn.ConvTranspose2d(24, 24, 4, 2, 1),
    "transposed 3x3": lambda: nn.ConvTranspose2d(24, 24, 3, 2, 1, 1),
    "few channels": lambda: nn.Sequential(nn.Conv2d(24, 3, 3, padding=1), nn.Conv2d(3, 24, 3, padding=1)),
    "left": lambda: nn.Conv2d(24, 24, 5, padding=2),
}
CHAINS: dict[str, Callable[[], list[nn.Module]]] = {
    "alone": lambda: [],
    "norm": lambda: [nn.BatchNorm2d(24)],
    "act": lambda: [nn.ELU()],
    "norm act": lambda: [nn.BatchNorm2d(24), nn.LeakyReLU(0.2)],
    "act norm": lambda: [nn.Tanh(), nn.BatchNorm2d(24)],
    "norm act conv": lambda: [nn.BatchNorm2d(24), nn.Sigmoid(), nn.Conv2d(24, 24, 3, padding=1)],
}
X = torch.randn(2, 24, 20, 20, generator=torch.Generator().manual_seed(0))


class Called(nn.Module):
    """The modules one by one, by a forward that returns what each gave last."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.third = [*modules, nn.Identity(), nn.Identity()][:3]

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x)))


def chain(kind: str, rest: str, wrapper: type) -> nn.Module:
    return randomised(wrapper(CONVOLUTIONS[kind](), *CHAINS[rest]()))


def steps(net: nn.Module, x: Tensor, half: torch.dtype, grad: bool = True) -> dict[str, Tensor | None]:
    """The results, all gradients and the buffers of one step as people write it: forward alone under autocast."""
    x = x.clone().requires_grad_(grad)
    with torch.autocast("cpu", half), torch.set_grad_enabled(grad):
        made = outputs(net, x)
    found: dict[str, Tensor | None] = {f"output {i}": y.detach() for i, y in enumerate(made)}
    if grad:
        sum(y.float().square().mean() for y in made).backward()
        found |= {f"gradient of {name}": p.grad for name, p in net.named_parameters()} | {"gradient": x.grad}
        net.zero_grad()
    return found | {name: buffer.clone() for name, buffer in net.named_buffers()}


def assert_same_steps(ours: nn.Module, plain: nn.Module, x: Tensor, half: torch.dtype, grad: bool = True) -> None:
    exact = steps(copy.deepcopy(plain).double(), x.double(), half, grad)  # float64 is left by autocast
    got, expected = steps(ours, x, half, grad), steps(plain, x, half, grad)
    for name, tensor in expected.items():
        assert (got[name] is None) == (tensor is None), name
        if tensor is not None:
            assert got[name].dtype == tensor.dtype, f"{name}: {got[name].dtype}, plain {tensor.dtype}"
            assert got[name].shape == tensor.shape
    relative_errors_within(got, expected, exact, torch.finfo(half).eps)


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("rest", CHAINS)
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_dtypes_and_values_of_a_chain(kind: str, rest: str, train: bool, half: torch.dtype) -> None:
    for wrapper in (nn.Sequential, Called):
        plain = chain(kind, rest, wrapper).train(train)
        ours = ipf.accelerate(copy.deepcopy(plain))
        assert_same_steps(ours, plain, X, half)
        assert_same_steps(ours, plain, X, half, grad=False)
        if not train:
            ipf.accelerate(ours, inference=True)
            for x in (X, X.to(half)):
                assert_same_steps(ours, plain, x, half, grad=False)


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_the_dtype_after_every_layer(kind: str, train: bool, half: torch.dtype) -> None:
    plain = randomised(nn.Sequential(CONVOLUTIONS[kind](), *CHAINS["norm act"](), CONVOLUTIONS[kind](), nn.Tanh()))
    ours = ipf.accelerate(copy.deepcopy(plain).train(train))
    with torch.autocast("cpu", half):
        for end in range(1, 6):
            assert ours[:end](X).dtype == plain.train(train)[:end](X).dtype, end
        x = y = X
        for mine, other in zip(ours, plain, strict=True):
            x, y = mine(x), other(y)
            assert x.dtype == y.dtype, type(other)


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_dtypes_of_published_networks(name: str, train: bool, half: torch.dtype) -> None:
    plain = randomised(NETWORKS[name]()).train(train)
    ours = ipf.accelerate(copy.deepcopy(plain))
    got, expected = (steps(net, torch.randn(INPUTS[name]), half) for net in (ours, plain))
    assert [(name, t.dtype) for name, t in got.items()] == [(name, t.dtype) for name, t in expected.items()]


class Composite(nn.Module):
    """One branch is written into the other, which wants one dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.around = nn.Conv2d(24, 24, 3, padding=1), nn.Conv2d(24, 24, 1)

    def forward(self, x: Tensor) -> Tensor:
        inside, out = self.inside(x), self.around(x).clone()
        out[..., 4:8, 4:8] = inside[..., 4:8, 4:8]
        return out


class PartlyInFloat(nn.Module):
    """As losses and attention do: a part of the network without autocast, or with another dtype."""

    def __init__(self) -> None:
        super().__init__()
        layers = [chain("dilated", "norm act", nn.Sequential) for _ in range(4)]
        self.first, self.second, self.third, self.fourth = layers
        self.seen: list[torch.dtype] = []

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        with torch.autocast("cpu", enabled=False):
            y = self.second(x.float())
            with torch.autocast("cpu", torch.float16):
                z = self.third(y)
        out = self.fourth(z)
        self.seen = [t.dtype for t in (x, y, z, out)]
        return out


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("make", [Composite, PartlyInFloat])
def test_parts_of_other_dtypes(make: type, train: bool, half: torch.dtype) -> None:
    plain = make().train(train)
    ours = ipf.accelerate(copy.deepcopy(plain))
    got, expected = steps(ours, X, half), steps(plain, X, half)
    assert {name: t.dtype for name, t in got.items()} == {name: t.dtype for name, t in expected.items()}
    assert getattr(ours, "seen", 0) == getattr(plain, "seen", 0)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_float64_and_whole_networks_of_half_precision(kind: str, train: bool) -> None:
    for dtype, half in ((torch.float64, torch.bfloat16), (torch.bfloat16, torch.bfloat16)):
        plain = chain(kind, "norm act", nn.Sequential).to(dtype).train(train)
        ours = ipf.accelerate(copy.deepcopy(plain))
        got, expected = steps(ours, X.to(dtype), half), steps(plain, X.to(dtype), half)
        assert [t.dtype for t in got.values()] == [t.dtype for t in expected.values()]


def test_weights_changed_between_two_autocasts() -> None:
    plain = chain("dilated", "norm act", nn.Sequential).eval()
    for inference in (False, True):
        ours = ipf.accelerate(copy.deepcopy(plain), inference=inference)
        for _ in range(2):
            for half in (*HALVES, None):
                with torch.no_grad(), torch.autocast("cpu", half or torch.bfloat16, enabled=half is not None):
                    got, expected = ours(X), plain(X)
                    assert got.dtype == expected.dtype
                torch.testing.assert_close(got, expected, rtol=0.05, atol=0.05)
            for net in (ours, plain):
                with torch.no_grad():
                    net[0].weight.mul_(2)
        with torch.no_grad():
            plain[0].weight.mul_(0.25)
