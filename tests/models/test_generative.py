"""The MLP GAN, DCGAN and the captioned U-Net: counts, names, shapes, formulas."""

from __future__ import annotations

import pytest
import torch
from support import output_shapes, parameters
from torch import nn
from torch.nn import functional as F

from inpaint_fast.models import CaptionUNetGenerator, DCGANCritic, DCGANGenerator, MLPCritic, MLPGenerator


@pytest.mark.proves(
    "MLPGenerator",
    "MLPCritic",
    "DCGANGenerator",
    "DCGANCritic",
    equals="the published numbers of parameters",
    source="J. Patel, GNR652 project (2020); Radford, Metz, Chintala (2016)",
    within="exactly",
)
def test_published_parameter_counts() -> None:
    assert parameters(MLPGenerator()) == 1_486_352
    assert parameters(MLPCritic()) == 1_460_225
    assert parameters(DCGANGenerator()) == 3_576_704
    assert parameters(DCGANCritic()) == 2_765_568


@pytest.mark.proves(
    "MLPGenerator",
    "MLPCritic",
    equals="the layers written in plain torch.nn.functional",
    source="J. Patel, GNR652 project (2020)",
)
def test_mlp_names_and_formula() -> None:
    names = {f"{layer}.0.{kind}" for layer in ("hidden0", "hidden1", "hidden2", "out") for kind in ("weight", "bias")}
    assert set(MLPGenerator().state_dict()) == set(MLPCritic().state_dict()) == names
    generator, critic = MLPGenerator(8), MLPCritic(8).eval()
    noise = torch.randn(3, 100)
    x, weights = noise, list(generator.parameters())
    for i in range(0, 6, 2):
        x = F.leaky_relu(F.linear(x, weights[i], weights[i + 1]), 0.2)
    pictures = torch.tanh(F.linear(x, weights[6], weights[7])).view(3, 1, 28, 28)
    torch.testing.assert_close(generator(noise), pictures)
    x, weights = pictures.flatten(1), list(critic.parameters())
    for i in range(0, 6, 2):
        x = F.leaky_relu(F.linear(x, weights[i], weights[i + 1]), 0.2)
    torch.testing.assert_close(critic(pictures), F.linear(x, weights[6], weights[7])[:, 0])
    assert not torch.equal(critic.train()(pictures), critic(pictures))  # dropout


@pytest.mark.proves(
    "DCGANGenerator",
    "DCGANCritic",
    equals="the published shapes and initial weights",
    source="Radford, Metz, Chintala (2016)",
    within="exactly; deviations of the initial weights to 5e-3",
)
def test_dcgan_shapes_and_start() -> None:
    torch.manual_seed(0)
    noise = torch.randn(2, 100, 1, 1)
    shapes = output_shapes(DCGANGenerator(4), noise)
    assert [shape for kind, shape in shapes if kind is nn.ConvTranspose2d] == [
        (32, 4, 4), (16, 8, 8), (8, 16, 16), (4, 32, 32), (3, 64, 64),
    ]  # fmt: skip
    shapes = output_shapes(DCGANCritic(4), torch.rand(2, 3, 64, 64))
    assert [shape for kind, shape in shapes if kind is nn.Conv2d] == [
        (4, 32, 32), (8, 16, 16), (16, 8, 8), (32, 4, 4), (1, 1, 1),
    ]  # fmt: skip
    generator = DCGANGenerator()
    weights = torch.cat([m.weight.flatten() for m in generator.modules() if isinstance(m, nn.ConvTranspose2d)])
    assert abs(weights.std() - 0.02) < 1e-3 and abs(weights.mean()) < 1e-3
    scales = torch.cat([m.weight for m in generator.modules() if isinstance(m, nn.BatchNorm2d)])
    assert abs(scales.mean() - 1) < 5e-3 and 0.01 < scales.std() < 0.03
    assert "main.0.weight" in generator.state_dict() and "main.13.weight" not in DCGANCritic().state_dict()
    uniform = DCGANGenerator(2, noise="uniform").noise(50, torch.device("cpu"))
    assert -1 <= uniform.min() < -0.9 and 0.9 < uniform.max() < 1


@pytest.mark.proves(
    "CaptionUNetGenerator",
    equals="the table's layers: parameters and shapes",
    source="S. Subramanian, IFT6266 project (2017)",
    within="exactly",
)
def test_captioned_unet_counts_and_shapes() -> None:
    ins, outs = (556, 384, 224, 160), (128, 96, 64, 32)
    down = 16 * (3 * 32 + 32 * 64 + 64 * 96 + 96 * 128 + 128 * 256) + 4 * 256 * 256
    up = 16 * (sum(a * b for a, b in zip(ins, outs, strict=True)) + 96 * 3)
    norms = 2 * (32 + 64 + 96 + 128 + 256 + 256 + 128 + 96 + 64 + 32)
    assert parameters(CaptionUNetGenerator()) == down + up + norms
    network = CaptionUNetGenerator(2, 7)
    shapes = output_shapes(network, torch.rand(2, 3, 64, 64), torch.rand(2, 5, 7))
    sides = [shape[-1] for kind, shape in shapes if kind in (nn.Conv2d, nn.ConvTranspose2d)]
    assert sides == [32, 16, 8, 4, 2, 1, 2, 4, 8, 16, 32]


def test_captioned_unet_reads_one_caption() -> None:
    network = CaptionUNetGenerator(2, 7).eval()
    picture, captions = torch.rand(1, 3, 64, 64).expand(8, -1, -1, -1), torch.rand(8, 5, 7) * 9
    other = captions.clone()
    other[:, 1:] = 0
    assert torch.equal(network(picture, captions), network(picture, other))  # the first, in eval mode
    assert not torch.allclose(network(picture, captions)[0], network(picture, captions)[1])


def test_wrong_use_is_named() -> None:
    for call, words in (
        (lambda: MLPGenerator()(torch.rand(2, 99)), r"MLPGenerator.*\(2, 99\)"),
        (lambda: MLPCritic()(torch.rand(2, 3, 28, 28)), r"MLPCritic.*3, 28"),
        (lambda: DCGANGenerator(noise="pink"), "noise.*'pink'"),
        (lambda: DCGANCritic()(torch.rand(2, 3, 32, 32)), "DCGANCritic.*32"),
        (lambda: CaptionUNetGenerator(2, 7)(torch.rand(2, 3, 64, 64), torch.rand(2, 5, 8)), "CaptionUNet.*8"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
