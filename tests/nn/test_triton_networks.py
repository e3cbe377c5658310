"""Whole networks by Triton alone, as `use_backend("triton")` has them: every block and norm has a kernel."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nn.twins import everything, randomised, relative_errors_within
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import inpaint_fast as ipf
from inpaint_fast.models import CompletionNetwork, DCGANGenerator, UNetGenerator, WassersteinCritic

EPS = torch.finfo(torch.float32).eps


def some(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def complete(net: nn.Module) -> Tensor:
    hole = torch.zeros(1, 1, 12, 16)
    hole[..., 3:9, 5:11] = 1
    dtype = next(net.parameters()).dtype
    return net(some(2, 3, 12, 16).to(dtype), hole.to(dtype))


def of(*shape: int) -> Callable[[nn.Module], Tensor]:
    return lambda net: net(some(*shape).to(next(net.parameters()).dtype))


# name -> (network, a call of it, the blocks that run)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], Tensor], set[str]]] = {
    "glcic": (lambda: CompletionNetwork(channels=4), complete, {"dilated_block", "strided_block", "transposed_block"}),
    "unet": (lambda: UNetGenerator(filters=2), of(1, 3, 64, 64), {"strided_block", "transposed_block"}),
    "critic": (lambda: WassersteinCritic(filters=3), of(2, 3, 32, 32), {"strided_block"}),
    "dcgan": (lambda: DCGANGenerator(width=1), of(1, 100, 1, 1), {"transposed_block"}),
}


class Recorder(TorchDispatchMode):
    """Notes the operators of ours that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func.namespace == "inpaint_fast":
            self.names.add(func._schema.name.partition("::")[2])
        return func(*args, **(kwargs or {}))


def of_three(make: Callable[[], nn.Module], train: bool, call: Callable[[nn.Module], Tensor]) -> list[dict]:
    """What Triton, plain PyTorch and plain PyTorch in float64 find: the result, and in training all gradients."""
    torch.manual_seed(0)
    plain = randomised(make()).train(train)
    ours, exact = copy.deepcopy(plain), copy.deepcopy(plain).double()
    ours = ipf.accelerate(ours, inference=not train)
    with torch.set_grad_enabled(train):
        with ipf.use_backend("triton"):
            found = everything(ours, call)
        return [found, everything(plain, call), everything(exact, call)]


LONG = (pytest.param(name, marks=pytest.mark.long) for name in ("glcic", "unet"))


@pytest.mark.parametrize("name", ("critic", *LONG))
def test_a_training_step(name: str) -> None:
    make, call, _ = NETWORKS[name]
    relative_errors_within(*of_three(make, True, call), EPS)


@pytest.mark.parametrize("name", NETWORKS)
def test_inference(name: str) -> None:
    make, call, blocks = NETWORKS[name]
    with Recorder() as seen:
        relative_errors_within(*of_three(make, False, call), EPS)
    ran = {operator.removesuffix("_forward_triton") for operator in seen.names if operator.endswith("_forward_triton")}
    assert {block for block in ran if block.endswith("_block")} == blocks
    assert all(operator.endswith("_triton") for operator in seen.names)
