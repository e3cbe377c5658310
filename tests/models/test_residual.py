"""ResidualCompletionNetwork: the fill at the start, the layers of its table, any size."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import inpaint_fast
from inpaint_fast.models import ResidualCompletionNetwork


def trained(channels: int = 4) -> ResidualCompletionNetwork:
    """Not at its start: the last layer's weights are drawn."""
    torch.manual_seed(0)
    network = ResidualCompletionNetwork(channels, hole=8)
    nn.init.normal_(network.last.weight, std=0.1)
    return network.eval()


def inputs(height: int, width: int, n: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    picture = torch.rand(n, 3, height, width, generator=generator)
    return picture, torch.rand(n, 1, height, width, generator=generator) < 0.3


def written_out(network: ResidualCompletionNetwork, picture: Tensor, mask: Tensor) -> Tensor:
    """The table of the docstring, layer by layer."""
    state = network.state_dict()

    def conv(x: Tensor, name: str, **how: int) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **how)

    def up(x: Tensor, name: str) -> Tensor:
        return F.conv_transpose2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride=2, padding=1)

    hole = mask.to(picture.dtype)
    full = conv(torch.cat([picture - 0.5, hole], 1), "down1.0", padding=1).relu()
    half = conv(full, "down2.0.0", stride=2, padding=1).relu()
    half = conv(half, "down2.1.0", padding=1).relu()
    x = conv(half, "down4.0", stride=2, padding=1).relu()
    for i, (first, second) in enumerate(((1, 2), (4, 8), (4, 2), (1, 1))):
        y = conv(x, f"middle.{i}.first.0", padding=first, dilation=first).relu()
        x = x + conv(y, f"middle.{i}.second.0", padding=second, dilation=second)
    x = conv((up(x, "up2") + half).relu(), "join2.1", padding=1).relu()
    x = conv((up(x, "up1") + full).relu(), "join1.1", padding=1).relu()
    return (picture + conv(x, "last", padding=1) * hole).clamp(0, 1)


def test_untrained_it_is_the_fill() -> None:
    picture, mask = inputs(16, 20)
    assert torch.equal(ResidualCompletionNetwork(4)(picture, mask), picture)


@pytest.mark.proves(
    "ResidualCompletionNetwork",
    equals="its table written out in torch.nn.functional",
    source="the docstring; layers after Iizuka, Simo-Serra, Ishikawa (SIGGRAPH 2017)",
    within="10 times the error of that in float32, against float64",
)
@pytest.mark.parametrize("size", [(16, 16), (20, 36), (64, 4)])
def test_its_layers_are_those_of_the_table(size) -> None:
    network, (picture, mask) = trained(), inputs(*size)
    expected = written_out(copy.deepcopy(network).double(), picture.double(), mask)
    error = (network(picture, mask).double() - expected).norm() / expected.norm()
    plain = (written_out(network, picture, mask).double() - expected).norm() / expected.norm()
    assert error < 10 * plain + 1e-7


def test_accelerated_it_gives_the_same() -> None:
    network, (picture, mask) = trained(32), inputs(64, 64)
    with torch.no_grad():
        expected = copy.deepcopy(network).double()(picture.double(), mask)
        fast = inpaint_fast.accelerate(copy.deepcopy(network), inference=True)(picture, mask)
    assert (fast.double() - expected).abs().max() < 1e-5


def test_nothing_is_corrected_outside_the_hole() -> None:
    picture, mask = inputs(16, 16)
    completed = trained()(picture, mask)
    known = ~mask.expand_as(picture)
    assert torch.equal(completed[known], picture[known])
    assert not torch.equal(completed, picture)


def test_gradients_reach_every_parameter() -> None:
    network, (picture, mask) = trained(), inputs(16, 16)
    network.correction(picture, mask).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_a_mask_for_all_pictures() -> None:
    network, (picture, mask) = trained(), inputs(16, 16)
    one = mask[:1]
    assert torch.equal(network(picture, one), network(picture, one.expand_as(mask)))


@pytest.mark.parametrize(
    ("picture", "mask", "named"),
    [
        ((1, 3, 18, 16), (1, 1, 18, 16), "picture"),
        ((1, 4, 16, 16), (1, 1, 16, 16), "picture"),
        ((2, 3, 16, 16), (3, 1, 16, 16), "mask"),
        ((1, 3, 16, 16), (1, 3, 16, 16), "mask"),
    ],
)
def test_shapes_that_do_not_fit_are_named(picture, mask, named) -> None:
    with pytest.raises(ValueError, match=f"^{named}: "):
        trained()(torch.zeros(picture), torch.zeros(mask))


@pytest.mark.parametrize("arguments", [{"channels": 0}, {"hole": 0}])
def test_bad_arguments_are_named(arguments) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        ResidualCompletionNetwork(**arguments)
