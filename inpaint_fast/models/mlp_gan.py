"""The GAN of fully connected layers, on 28x28 digits.

Source: Goodfellow et al., "Generative adversarial networks" (2014), as J. Patel's GNR652 project builds it; its layer
names, so that state_dicts can be exchanged. The discriminator gives logits: its program's sigmoid belongs to the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inpaint_fast.models._common import FromNoise, at_least, check_shape

SIDE = 28


class MLPGenerator(FromNoise):
    """100 normal numbers -> (N, 1, 28, 28) in (-1, 1). 1,486,352 parameters at width 256.

    Dense 256, 512, 1024 with LeakyReLU 0.2, dense 784 with tanh; `width` is the first one's.
    """

    NOISE = 100

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        w = at_least("width", width)
        self.hidden0 = nn.Sequential(nn.Linear(self.NOISE, w), nn.LeakyReLU(0.2))
        self.hidden1 = nn.Sequential(nn.Linear(w, 2 * w), nn.LeakyReLU(0.2))
        self.hidden2 = nn.Sequential(nn.Linear(2 * w, 4 * w), nn.LeakyReLU(0.2))
        self.out = nn.Sequential(nn.Linear(4 * w, SIDE * SIDE), nn.Tanh())

    def noise(self, count: int, device: torch.device) -> Tensor:
        """Standard normal, (count, 100), from torch's default generator."""
        return torch.randn(count, self.NOISE, device=device)

    def forward(self, noise: Tensor) -> Tensor:
        check_shape(noise, (self.NOISE,), "MLPGenerator")
        return self.out(self.hidden2(self.hidden1(self.hidden0(noise)))).view(-1, 1, SIDE, SIDE)


class MLPCritic(nn.Module):
    """(N, 1, 28, 28) -> (N,), logits. 1,460,225 parameters at width 256.

    Dense 1024, 512, 256 with LeakyReLU 0.2 and dropout 0.3, dense 1; `width` is the last one's.
    """

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        w = at_least("width", width)

        def hidden(before: int, after: int) -> nn.Module:
            return nn.Sequential(nn.Linear(before, after), nn.LeakyReLU(0.2), nn.Dropout(0.3))

        self.hidden0, self.hidden1, self.hidden2 = hidden(SIDE * SIDE, 4 * w), hidden(4 * w, 2 * w), hidden(2 * w, w)
        self.out = nn.Sequential(nn.Linear(w, 1))

    def forward(self, picture: Tensor) -> Tensor:
        check_shape(picture, (1, SIDE, SIDE), "MLPCritic")
        return self.out(self.hidden2(self.hidden1(self.hidden0(picture.flatten(1))))).squeeze(1)
