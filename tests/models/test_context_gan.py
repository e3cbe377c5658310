"""Larocque's discriminators, by version: counts, shapes, and the last one against its formula."""

from __future__ import annotations

import pytest
import torch
from support import output_shapes, parameters
from torch import nn
from torch.nn import functional as F

from inpaint_fast.models import ContextCritic, NoiseGenerator
from inpaint_fast.models.context_gan import CRITICS


def test_published_parameter_counts() -> None:
    assert parameters(ContextCritic(**CRITICS["v4"])) == 2_117_633
    assert parameters(ContextCritic(**CRITICS["v4_hole"])) == 2_114_561
    assert parameters(ContextCritic(**CRITICS["v4_deep"])) == 6_384_033


@pytest.mark.proves(
    "ContextCritic",
    "NoiseGenerator",
    equals="the table's layers, by their numbers of parameters",
    source="S. Larocque, IFT6266 project (2017)",
    within="exactly",
)
def test_counts_from_the_table() -> None:
    def convolutions(*widths: int, kernel: int = 3, norm: bool = True) -> int:
        pairs = zip(widths, widths[1:], strict=False)
        return sum(a * b * kernel**2 + b + 2 * b * norm for a, b in pairs)

    dense = 512 * 4 * 4 * 1024 + 1024 + 1024 + 1
    assert parameters(ContextCritic(**CRITICS["v1"])) == convolutions(3, 64, 128, 256, 512, norm=False) + dense
    assert parameters(ContextCritic(**CRITICS["v2"])) == convolutions(3, 64, 128, 256, 512) + dense
    assert parameters(ContextCritic(**CRITICS["v3"])) == convolutions(3, 32, 32) + 32 * 10 * 10 + 1
    assert parameters(ContextCritic(**CRITICS["v3_average"])) == convolutions(3, 32, 32, 64, 64) + 64 * 16 * 16 + 1
    assert parameters(NoiseGenerator()) == convolutions(512, 512, 256, 128, 64, 3, norm=False)


@pytest.mark.parametrize(
    ("version", "sides"),
    [
        ("v1", [32, 16, 8, 4]), ("v2", [32, 16, 8, 4]), ("v3", [17, 10]), ("v3_average", [32, 32, 16, 16]),
        ("v4_early", [33, 18]), ("v4", [64, 32, 16, 8]), ("v4_hole", [32, 16, 8, 4]),
        ("v4_deep", [64, 64, 32, 32, 16, 16, 8, 8]),
    ],
)  # fmt: skip
def test_convolution_sides_and_scores(version: str, sides: list[int]) -> None:
    critic = ContextCritic(**{**CRITICS[version], "filters": 2})
    shapes = output_shapes(critic, torch.rand(3, 3, critic.side, critic.side))
    assert [shape[-1] for kind, shape in shapes if kind is nn.Conv2d] == sides
    assert critic(torch.rand(3, 3, critic.side, critic.side)).shape == (3,)


@pytest.mark.proves(
    "ContextCritic",
    equals="the critic written in plain torch.nn.functional",
    source="S. Larocque, IFT6266 project (2017)",
    dtypes="float64",
)
def test_the_wasserstein_critic_equals_the_published_one() -> None:
    critic = ContextCritic(filters=2).double()
    x = picture = torch.rand(3, 3, 64, 64, dtype=torch.float64)
    weights = iter(critic.parameters())
    for _ in range(4):
        x = F.conv2d(x, next(weights), next(weights), padding=3)
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
        scale, shift = next(weights), next(weights)
        x = (x - mean) / torch.sqrt(var + 1e-4) * scale[:, None, None] + shift[:, None, None]
        x = F.max_pool2d(F.leaky_relu(x, 0.2), 2)
    torch.testing.assert_close(critic(picture), F.linear(x.flatten(1), next(weights), next(weights))[:, 0])


def test_noise_generator() -> None:
    generator = NoiseGenerator(16)
    noise = generator.noise(2, torch.device("cpu"))
    assert noise.shape == (2, 512, 4, 4) and noise.min() >= 0 and noise.max() < 1
    signed = NoiseGenerator(16, noise="signed").noise(2, torch.device("cpu"))
    assert signed.min() < -0.9 and signed.max() > 0.9
    shapes = output_shapes(generator, noise)
    assert [shape for kind, shape in shapes if kind is nn.Conv2d] == [
        (16, 4, 4), (8, 8, 8), (4, 16, 16), (2, 32, 32), (3, 32, 32),
    ]  # fmt: skip
    assert generator(noise).min() >= 0


def test_a_noise_generator_that_has_gone_black_learns_again_through_its_sigmoid_and_not_its_relu() -> None:
    for output, alive in (("relu", False), ("sigmoid", True)):
        generator = NoiseGenerator(8, output=output)
        last = next(module for module in reversed(generator.layers) if isinstance(module, nn.Conv2d))
        nn.init.constant_(last.bias, -10.0)
        pictures = generator(generator.noise(2, torch.device("cpu")))
        assert pictures.max() < 0.01
        pictures.sum().backward()
        assert (last.bias.grad.abs().max() > 0) == alive


def test_wrong_use_is_named() -> None:
    for options, words in (
        ({"blocks": ()}, "blocks"), ({"blocks": (1,) * 7}, "blocks.*fewer"), ({"kernel": 2}, "kernel.*2"),
        ({"reduce": "none"}, "reduce.*'none'"), ({"activation": "elu"}, "activation.*'elu'"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            ContextCritic(**options)
    with pytest.raises(ValueError, match="filters.*12"):
        NoiseGenerator(12)
    with pytest.raises(ValueError, match="output.*'tanh'"):
        NoiseGenerator(8, output="tanh")
    with pytest.raises(ValueError, match="noise.*'normal'"):
        NoiseGenerator(8, noise="normal")
    with pytest.raises(ValueError, match=r"ContextCritic.*\(1, 3, 32, 32\)"):
        ContextCritic(filters=2)(torch.rand(1, 3, 32, 32))
