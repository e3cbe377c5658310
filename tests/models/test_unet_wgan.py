"""The U-Net-like generator and its critic against the published architecture written in plain torch.nn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from inpaint_fast.models import UNetGenerator, WassersteinCritic


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameter_counts() -> None:
    assert parameters(UNetGenerator()) == 729_536
    assert parameters(WassersteinCritic()) == 330_368
    # conv5 128 -> 256 (2x2) and a linear layer in place of conv5 128 -> 1
    assert parameters(WassersteinCritic(variant="table")) == 330_368 - 128 * 4 + 128 * 256 * 4 + 256 + 1
    f = 64  # 4x4 kernels without bias, channels from the table; BatchNorm has two a channel
    assert parameters(UNetGenerator(f)) == 16 * (3 * f + (2 + 6 + 12 + 12 + 12) * f * f + 12 * f) + 2 * 15 * f


def test_state_dict_has_the_authors_names() -> None:
    def names(layers: list[str], norms: list[str]) -> set[str]:
        fields = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        return {f"{layer}.weight" for layer in layers} | {f"{norm}.{field}" for norm in norms for field in fields}

    convolutions = [f"conv{i}" for i in range(1, 5)]
    norms = [f"bn{i}" for i in range(1, 5)]
    generator = names(convolutions + [f"tconv{i}" for i in range(1, 4)], norms + ["tbn1", "tbn2"])
    assert set(UNetGenerator().state_dict()) == generator
    assert set(WassersteinCritic().state_dict()) == names([*convolutions, "conv5"], norms)


def published_generator(weights: dict[str, Tensor], picture: Tensor, *, train: bool) -> Tensor:
    """Subramanian's generator in functional form."""

    def block(x: Tensor, layer: str, norm: str, transposed: bool = False) -> Tensor:
        convolution = nn.functional.conv_transpose2d if transposed else nn.functional.conv2d
        x = convolution(x, weights[f"{layer}.weight"], stride=2, padding=1)
        statistics = [weights[f"{norm}.{name}"].clone() for name in ("running_mean", "running_var", "weight", "bias")]
        return nn.functional.relu(nn.functional.batch_norm(x, *statistics, training=train))

    first = block(picture, "conv1", "bn1")
    second = block(first, "conv2", "bn2")
    third = block(second, "conv3", "bn3")
    fourth = block(third, "conv4", "bn4")
    up1 = torch.cat([block(fourth, "tconv1", "tbn1", True), third], 1)
    up2 = torch.cat([block(up1, "tconv2", "tbn2", True), second], 1)
    return nn.functional.conv_transpose2d(up2, weights["tconv3.weight"], stride=2, padding=1).sigmoid()


@pytest.mark.proves(
    "UNetGenerator",
    equals="the generator written in plain torch.nn.functional",
    source="S. Subramanian, IFT6266 project (2017)",
)
@pytest.mark.parametrize("train", [True, False])
def test_generator_equals_the_published_one(train: bool) -> None:
    network = UNetGenerator(8).train(train)
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    picture = torch.rand(3, 3, 64, 64)
    torch.testing.assert_close(network(picture), published_generator(weights, picture, train=train))


@pytest.mark.parametrize(("variant", "sides"), [("code", [16, 8, 4, 3, 1]), ("table", [16, 8, 4, 2, 1])])
def test_critic_sides(variant: str, sides: list[int]) -> None:
    critic, seen = WassersteinCritic(variant=variant), []
    for i in range(1, 6):
        getattr(critic, f"conv{i}").register_forward_hook(lambda _m, _i, output: seen.append(output.shape[-1]))
    assert critic(torch.rand(2, 3, 32, 32)).shape == (2,)
    assert seen == sides


@pytest.mark.proves(
    "WassersteinCritic",
    equals="the critic written in plain torch.nn",
    source="S. Subramanian, IFT6266 project (2017)",
)
def test_critic_equals_the_published_one() -> None:
    critic = WassersteinCritic(8)
    layers: list[nn.Module] = []
    for i in range(1, 5):
        layers += [getattr(critic, f"conv{i}"), getattr(critic, f"bn{i}"), nn.LeakyReLU(0.01)]
    plain = nn.Sequential(*layers, critic.conv5)
    patch = torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(critic(patch), plain(patch).view(4))


@pytest.mark.parametrize("network, side", [(UNetGenerator(4), 64), (WassersteinCritic(4), 32)])
def test_torch_fx_traces_the_forward(network: nn.Module, side: int) -> None:
    picture = torch.rand(2, 3, side, side)
    assert torch.equal(torch.fx.symbolic_trace(network.eval())(picture), network(picture))


def test_wrong_use_is_named() -> None:
    with pytest.raises(ValueError, match=r"UNetGenerator.*64, 64.*\(1, 3, 32, 32\)"):
        UNetGenerator()(torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"WassersteinCritic.*32, 32.*\(1, 3, 64, 64\)"):
        WassersteinCritic()(torch.rand(1, 3, 64, 64))
    with pytest.raises(ValueError, match="filters.*0"):
        UNetGenerator(0)
    with pytest.raises(ValueError, match="variant.*'other'"):
        WassersteinCritic(variant="other")
