"""Chains of other convolutions than DilatedConvBlock's: transposed ones, and those that stay PyTorch's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import inpaint_fast as ipf
from inpaint_fast.nn import FusedSequential, acceleration_report


def steps(network: nn.Module, input: Tensor) -> list[Tensor]:
    """Output, gradients and buffers after a forward and a backward pass."""
    input = input.clone().requires_grad_()
    output = network(input)
    weight = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view_as(output)
    gradients = torch.autograd.grad((output * weight).sum(), [input, *network.parameters()])
    return [output.detach(), *gradients, *(buffer.clone() for buffer in network.buffers())]


def assert_same(ours: nn.Module, theirs: nn.Module, input: Tensor, tolerance: float) -> None:
    wanted = steps(theirs, input)
    least = 1e-2 * max(b.double().abs().max().item() for b in wanted)  # a bias before a norm has rounding errors only
    for a, b in zip(steps(ours, input), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * max(b.double().abs().max().item(), least))


def layers(kind: str, order: str, norm: bool = True) -> list[nn.Module]:
    convolution = {
        "transposed": lambda: nn.ConvTranspose2d(24, 20, 4, stride=2, padding=1),
        "transposed 3x3": lambda: nn.ConvTranspose2d(24, 20, 3, stride=2, padding=1, output_padding=1),
        "transposed 5x5": lambda: nn.ConvTranspose2d(24, 20, 5, stride=2, padding=2, output_padding=1),
        "transposed 2x2": lambda: nn.ConvTranspose2d(24, 20, 2, stride=2),
        "strided": lambda: nn.Conv2d(24, 20, 3, stride=2, padding=1),
        "strided 4x4": lambda: nn.Conv2d(24, 20, 4, stride=2, padding=1),
        "strided 5x5": lambda: nn.Conv2d(24, 20, 5, stride=2, padding=2),
        "5x5": lambda: nn.Conv2d(24, 20, 5, padding=2, bias=False),
    }[kind]()
    after = [nn.BatchNorm2d(20), nn.LeakyReLU(0.2)] if norm else [nn.LeakyReLU(0.2)]
    return [convolution, *(after if order == "norm_act" else after[::-1])]


@pytest.mark.parametrize("dtype", (torch.float64, torch.float32), ids=str)
@pytest.mark.parametrize("train", (True, False))
@pytest.mark.parametrize("norm", (True, False), ids=("norm", "plain"))
@pytest.mark.parametrize("order", ("norm_act", "act_norm"))
@pytest.mark.parametrize(
    "kind",
    (
        "transposed", "transposed 3x3", "transposed 5x5", "transposed 2x2",
        "strided", "strided 4x4", "strided 5x5", "5x5",
    ),
)  # fmt: skip
def test_equals_the_sequential(kind, order, norm, train, dtype) -> None:
    torch.manual_seed(0)
    theirs = nn.Sequential(*layers(kind, order, norm)).to(dtype)
    for module in theirs:
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    ours = FusedSequential(*copy.deepcopy(list(theirs)))
    input = torch.randn(2, 24, 18, 14, dtype=dtype)
    assert_same(ours.train(train), theirs.train(train), input, 1e-9 if dtype == torch.float64 else 1e-4)
    if not norm:  # which wants a batch
        torch.testing.assert_close(ours(input[0]), theirs(input[0]), rtol=0, atol=1e-4)


class Generator(nn.Module):
    """Radford et al. (2016): transposed convolutions from a code, in a forward and in an nn.Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ConvTranspose2d(8, 64, 4, bias=False)  # of a bias before a norm the gradient is noise
        self.body = nn.Sequential(
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
        )
        self.last = nn.ConvTranspose2d(32, 24, 4, 2, 1, bias=False)
        self.norm, self.act = nn.BatchNorm2d(24), nn.Tanh()

    def forward(self, code: Tensor) -> Tensor:
        return self.act(self.norm(self.last(self.body(self.first(code)))))


@pytest.mark.parametrize("train", (True, False))
def test_accelerate_swaps_transposed_convolutions(train) -> None:
    torch.manual_seed(0)
    theirs = Generator().train(train)
    ours = ipf.accelerate(copy.deepcopy(theirs), inference=not train)
    report = acceleration_report(ours)
    assert [(entry.name, entry.fused) for entry in report.swapped] == [
        ("body.2", ("body.3", "body.4")),
        ("last", ("norm", "act")),
    ]
    assert [(entry.name, entry.reason) for entry in report.left] == [("first", "stride (1, 1)")]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    code = torch.randn(6, 8, 1, 1)
    assert_same(ours, theirs, code, 1e-4)
    with torch.no_grad():
        torch.testing.assert_close(ours(code), theirs(code), rtol=0, atol=1e-4)
        size = [6, 24, 17, 17]  # another size than the operator's: PyTorch's own
        y = torch.randn(6, 32, 8, 8)
        torch.testing.assert_close(ours.last(y, output_size=size), theirs.last(y, output_size=size))
