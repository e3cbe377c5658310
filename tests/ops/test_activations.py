"""The activations of the C++ kernels, csrc/common/activation.h, on every instruction set: how near they come.

Seen through norm_act: with mean 0 and variance 1 - eps its activation gets the input itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import inpaint_fast as ipf
from inpaint_fast._words import ACTIVATIONS

extension = ipf._extension.module


@pytest.fixture(params=extension.cpu_capabilities() if extension else [])
def capability(request: pytest.FixtureRequest) -> Iterator[str]:
    before = extension.cpu_capability()
    extension.set_cpu_capability(request.param)
    yield request.param
    extension.set_cpu_capability(before)


def sweep(count: int) -> Tensor:
    """Floats of every exponent and sign, both infinities, zeros, the smallest and largest, a dense range round 0."""
    bits = torch.linspace(0, 2**32 - 1, count, dtype=torch.float64).long()
    bits = torch.where(bits >= 2**31, bits - 2**32, bits).to(torch.int32)
    edges = [0.0, -0.0, 1e-45, -1e-45, 3.4028235e38, -3.4028235e38, math.inf, -math.inf, 88.72283, 88.72284, -87.33655]
    edges += [-103.97208, -103.97209, 17.328680, -17.328680, math.nan]
    return torch.cat([bits.view(torch.float32), torch.linspace(-25, 25, count), torch.tensor(edges)])


def activation_error(activation: str, count: int) -> tuple[float, float]:
    """The largest errors of the value and of the derivative over the sweep, in units in the last place of float32."""
    x = sweep(count)
    eps = 2.0**-24  # 1 - eps is a float32, and 1 - eps + eps is 1
    x = x.reshape(1, 1, -1).requires_grad_()
    y = ipf.norm_act(x, torch.zeros(1), torch.full((1,), 1 - eps), eps=eps, activation=activation, backend="cpp")
    (slope,) = torch.autograd.grad(y, x, torch.ones_like(y))
    wide = x.detach().double()
    e = torch.exp(-wide.abs())
    exact = {
        "relu": (wide.clamp(min=0), (wide > 0).double()),
        "leaky_relu": (torch.where(wide > 0, wide, wide * 0.01), torch.where(wide > 0, 1.0, 0.01).double()),
        "elu": (torch.where(wide > 0, wide, wide.clamp(max=0).expm1()), wide.clamp(max=0).exp()),
        "sigmoid": (torch.where(wide < 0, e, 1) / (1 + e), e / (1 + e) ** 2),
        "tanh": (wide.tanh(), 4 * e**2 / (1 + e**2) ** 2),
    }[activation]
    errors = []
    for value, want in zip((y.detach(), slope), exact, strict=True):
        rounded = want.float()
        known = ~wide.isnan()
        if value is not slope:
            assert value.isnan().logical_not().equal(known)
        infinite = rounded.isinf() & known
        assert torch.equal(value[infinite], rounded[infinite])
        judged = known & ~infinite
        unit = torch.exp2(torch.frexp(want[judged]).exponent.clamp(min=-125).double() - 24)
        errors.append(((value[judged].double() - want[judged]).abs() / unit).max().item())
    return errors[0], errors[1]


@pytest.mark.parametrize("activation", ACTIVATIONS[1:])
def test_accuracy(capability, activation) -> None:
    value, slope = activation_error(activation, 200_003)
    assert value < 3 and slope < 4.5, f"{value} and {slope} units in the last place"


@pytest.mark.long
@pytest.mark.parametrize("activation", ACTIVATIONS[1:])
def test_accuracy_densely(capability, activation) -> None:
    value, slope = activation_error(activation, 4_000_003)
    assert value < 3 and slope < 4.5, f"{value} and {slope} units in the last place"
