"""DCGAN at 64x64.

Source: Radford, Metz and Chintala, "Unsupervised representation learning with deep convolutional generative adversarial
networks" (2016), with the layers and layer names of PyTorch's example, so that state_dicts can be exchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inpaint_fast.models._common import FromNoise, at_least, check_shape, one_of

SIDE = 64


class DCGANGenerator(FromNoise):
    """100 numbers -> (N, 3, 64, 64) in (-1, 1). 3,576,704 parameters at width 64.

    Args:
        width: channels of the last map but one.
        noise: "normal" as PyTorch's example, or "uniform" in [-1, 1) as the paper.

        transposed conv 4x4: 512 at 4 (stride 1, no padding), 256 at 8, 128 at 16, 64 at 32, 3 at 64 (stride 2, padding
        1); no bias; BatchNorm and ReLU after each, tanh after the last
    """

    NOISE = 100

    def __init__(self, width: int = 64, noise: str = "normal") -> None:
        super().__init__()
        w, self.kind = at_least("width", width), one_of("noise", noise, ("normal", "uniform"))
        layers: list[nn.Module] = []
        before = self.NOISE
        for i, channels in enumerate((8 * w, 4 * w, 2 * w, w)):
            layers += [
                nn.ConvTranspose2d(before, channels, 4, 2 if i else 1, 1 if i else 0, bias=False),
                nn.BatchNorm2d(channels), nn.ReLU(),
            ]  # fmt: skip
            before = channels
        self.main = nn.Sequential(*layers, nn.ConvTranspose2d(before, 3, 4, 2, 1, bias=False), nn.Tanh())
        self.apply(_initialise)

    def noise(self, count: int, device: torch.device) -> Tensor:
        """(count, 100, 1, 1), from torch's default generator."""
        shape = (count, self.NOISE, 1, 1)
        return torch.randn(shape, device=device) if self.kind == "normal" else 2 * torch.rand(shape, device=device) - 1

    def forward(self, noise: Tensor) -> Tensor:
        check_shape(noise, (self.NOISE, 1, 1), "DCGANGenerator")
        return self.main(noise)


class DCGANCritic(nn.Module):
    """(N, 3, 64, 64) in [-1, 1] -> (N,), logits. 2,765,568 parameters at width 64.

    Conv 4x4 stride 2 padding 1 to 64, 128, 256, 512 channels, LeakyReLU 0.2 after each, BatchNorm before it in all but
    the first; conv 4x4 to 1; no bias.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        w = at_least("width", width)
        layers: list[nn.Module] = [nn.Conv2d(3, w, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
        for before in (w, 2 * w, 4 * w):
            layers += [
                nn.Conv2d(before, 2 * before, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * before), nn.LeakyReLU(0.2),
            ]  # fmt: skip
        self.main = nn.Sequential(*layers, nn.Conv2d(8 * w, 1, 4, 1, 0, bias=False))
        self.apply(_initialise)

    def forward(self, picture: Tensor) -> Tensor:
        check_shape(picture, (3, SIDE, SIDE), "DCGANCritic")
        return self.main(picture).flatten()


def _initialise(module: nn.Module) -> None:
    """Convolutions from N(0, 0.02), BatchNorm's scales from N(1, 0.02)."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
