"""Whole accelerated networks, every block by the CUDA kernels (emulated), equal PyTorch's own operators."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from emulation.build import use_emulation
from nn.twins import randomised
from support import assert_as_good
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import inpaint_fast as ipf
from inpaint_fast.models.glcic import CompletionNetwork
from inpaint_fast.models.unet_wgan import UNetGenerator


def glcic() -> tuple[nn.Module, list[Tensor]]:
    mask = torch.zeros(1, 1, 16, 24)
    mask[:, :, 4:9, 7:15] = 1
    return CompletionNetwork(channels=4), [torch.rand(2, 3, 16, 24), mask]


def unet() -> tuple[nn.Module, list[Tensor]]:
    return UNetGenerator(filters=4), [torch.rand(2, 3, 64, 64)]


class Called(TorchDispatchMode):
    """Notes every operator."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func._schema.name)
        return func(*args, **(kwargs or {}))


def trained(network: nn.Module, inputs: list[Tensor]) -> dict[str, Tensor]:
    """What a training step returns, its gradients, and the statistics that it leaves."""
    dtype = next(network.parameters()).dtype
    leaves = [x.to(dtype) for x in inputs]
    leaves[0].requires_grad_()
    y = network.train()(*leaves)
    named = {"input": leaves[0], **dict(network.named_parameters())}
    seed = torch.linspace(-1, 2, y.numel(), dtype=dtype).view_as(y)
    gradients = dict(zip(named, torch.autograd.grad(y, list(named.values()), seed), strict=True))
    statistics = {name: b for name, b in network.named_buffers() if b.is_floating_point()}
    return {"output": y.detach(), **statistics, **{f"gradient of {name}": g for name, g in gradients.items()}}


@pytest.mark.parametrize("make", [pytest.param(glcic, marks=pytest.mark.long), unet])
@pytest.mark.parametrize("inference", [False, True])
def test_what_a_network_returns(make: Callable, inference: bool) -> None:
    torch.manual_seed(0)
    network, inputs = make()
    theirs = randomised(network).eval()
    ours = ipf.accelerate(copy.deepcopy(theirs), inference=inference)
    exact = copy.deepcopy(theirs).double()(*(x.double() for x in inputs))
    with torch.no_grad():
        plain = theirs(*inputs)
        for _ in range(2):  # and by what the first call has kept
            with use_emulation(), Called() as called:
                y = ours(*inputs)
            assert_as_good(y, plain, exact)
    convolutions = [m for m in theirs.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    blocks = [m for m in convolutions if m.kernel_size != (5, 5)]
    ran = [name for name in called.names if name.endswith("_block_forward_emulated")]
    assert len(ran) == len(blocks)
    assert len([name for name in called.names if "aten::convolution" in name]) == len(convolutions) - len(blocks)


@pytest.mark.parametrize("make", [glcic, unet])
def test_a_training_step(make: Callable) -> None:
    torch.manual_seed(0)
    network, inputs = make()
    theirs = randomised(network)
    ours = ipf.accelerate(copy.deepcopy(theirs))
    exact = trained(copy.deepcopy(theirs).double(), inputs)
    plain = trained(theirs, inputs)
    with use_emulation(), Called() as called:
        value = trained(ours, inputs)
    assert not [name for name in called.names if "_block" in name and not name.endswith("_emulated")]
    scale = max(each.norm() for name, each in exact.items() if name.startswith("gradient of"))
    for name, wanted in exact.items():  # a bias before a norm has no gradient but rounding errors
        of = max(wanted.norm(), scale / 100) if name.startswith("gradient of") else wanted.norm()
        error, of_plain = ((each[name].double() - wanted).norm() / of for each in (value, plain))
        assert error <= 2 * of_plain + 1e-6, name
