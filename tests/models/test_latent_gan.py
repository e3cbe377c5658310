"""Bernard's networks: counts, the shapes that trap, and the encoder against its formula."""

from __future__ import annotations

import pytest
import torch
from support import output_shapes, parameters
from torch import nn
from torch.nn import functional as F

from inpaint_fast.models import ConvAutoencoder, LatentCritic, LatentDecoder, LatentGenerator
from inpaint_fast.models.latent_gan import CodeGenerator, Dilate2, LatentEncoder


@pytest.mark.proves(
    "LatentGenerator",
    "LatentDecoder",
    "LatentCritic",
    "ConvAutoencoder",
    equals="the published numbers of parameters",
    source="G. Bernard, IFT6266 project (2017)",
    within="exactly",
)
def test_published_parameter_counts() -> None:
    assert parameters(LatentEncoder()) == 4_398_052
    assert parameters(LatentDecoder()) == 14_504_067
    assert parameters(CodeGenerator()) == 4_609_475
    assert parameters(LatentCritic()) == 19_538_817
    assert parameters(ConvAutoencoder()) == 1_442_755
    assert parameters(LatentGenerator()) == 4_398_052 + 4_609_475


def sides(network: nn.Module, kinds: tuple[type, ...], *inputs: torch.Tensor) -> list[int]:
    return [shape[-1] for kind, shape in output_shapes(network, *inputs) if kind in kinds]


@pytest.mark.proves(
    "LatentGenerator",
    "LatentDecoder",
    "LatentCritic",
    "ConvAutoencoder",
    equals="the published shapes, layer by layer",
    source="G. Bernard, IFT6266 project (2017)",
    within="exactly",
)
def test_shapes() -> None:
    up = (nn.ConvTranspose2d, nn.Conv2d)
    code = torch.rand(2, 100)
    assert sides(LatentEncoder(2), up, torch.rand(2, 3, 64, 64)) == [32, 16, 8, 4]
    assert sides(LatentDecoder(2), up, code) == [8, 16, 32, 64]  # 9x9 stride 1: 8 -> 16
    assert sides(CodeGenerator(2), up, code) == [8, 16, 16, 32, 64]
    assert sides(CodeGenerator(2, hole=True), up, code) == [8, 16, 16, 32]
    assert sides(LatentCritic(2), up, torch.rand(2, 3, 64, 64)) == [32, 16, 8, 4]
    assert sides(LatentCritic(2, hole=True), up, torch.rand(2, 3, 32, 32)) == [16, 8, 4]
    shapes = sides(ConvAutoencoder(2), (nn.Conv2d, Dilate2, nn.Upsample), torch.rand(2, 3, 64, 64))
    assert shapes == [62, 60, 29, 14, 4, 8, 12, 15, 30, 32, 32, 32]


def test_counts_of_the_early_variant() -> None:
    # one normalisation of 16384 numbers more; a transposed convolution to 64 channels less, the last from 128
    ends, end = (128 * 64 * 4 + 64) + (64 * 3 * 4 + 3), 128 * 3 * 4 + 3
    assert parameters(CodeGenerator(hole=True)) == 4_609_475 + 2 * 16384 - ends + end
    convolutions = sum(4 * a * b + b + 2 * b for a, b in ((3, 128), (128, 256), (256, 512)))
    assert parameters(LatentCritic(hole=True)) == convolutions + (512 * 16 + 1) * 512 + 2 * 512 + 513


@pytest.mark.proves(
    "LatentGenerator",
    equals="its encoder written in plain torch.nn.functional",
    source="G. Bernard, IFT6266 project (2017)",
    dtypes="float64",
)
def test_the_encoder_normalises_after_its_activation() -> None:
    encoder = LatentEncoder(2).double()
    x = picture = torch.rand(3, 3, 64, 64, dtype=torch.float64) * 2 - 1
    weights = iter(encoder.parameters())
    for i in range(4):
        x = F.relu(F.conv2d(x, next(weights), next(weights), stride=2))
        if i:
            mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
            scale, shift = next(weights), next(weights)
            x = (x - mean) / torch.sqrt(var + 1e-4) * scale[:, None, None] + shift[:, None, None]
    expected = torch.tanh(F.linear(x.flatten(1), next(weights), next(weights)))
    torch.testing.assert_close(encoder(picture), expected)


def test_dilate_keeps_values_at_the_top_left() -> None:
    x = torch.rand(2, 3, 4, 5)
    wide = Dilate2()(x)
    assert wide.shape == (2, 3, 8, 10) and torch.equal(wide[..., ::2, ::2], x)
    wide[..., ::2, ::2] = 0
    assert not wide.any()


def test_the_generator_gives_the_hole_in_zero_to_one() -> None:
    picture = torch.rand(2, 3, 64, 64)
    network = LatentGenerator(2).eval()
    whole = (network.decoder(network.encoder(2 * picture - 1)) + 1) / 2
    torch.testing.assert_close(network(picture), whole[..., 16:48, 16:48])
    assert LatentGenerator(2, hole=True)(picture).shape == (2, 3, 32, 32)


def test_batch_statistics_in_eval_mode() -> None:
    pictures = torch.rand(4, 3, 64, 64)
    for batch_statistics in (True, False):
        encoder = LatentEncoder(2, batch_statistics=batch_statistics)
        trained = encoder(pictures)
        assert torch.allclose(encoder.eval()(pictures), trained, atol=1e-5) == batch_statistics


def test_wrong_use_is_named() -> None:
    with pytest.raises(ValueError, match=r"LatentEncoder.*\(1, 3, 32, 32\)"):
        LatentEncoder(2)(torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match="output.*'sigmoid'"):
        LatentDecoder(2, output="sigmoid")
    with pytest.raises(ValueError, match="filters.*0"):
        ConvAutoencoder(0)
    with pytest.raises(ValueError, match="width.*0"):
        LatentGenerator(0)
