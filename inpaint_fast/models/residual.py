"""A small completion network that corrects the harmonic fill, for pictures of any size: what the package ships.

Layers after Iizuka, Simo-Serra, Ishikawa, "Globally and Locally Consistent Image Completion" (SIGGRAPH 2017): to a
quarter of the size by two strides, dilated convolutions there, and back by two transposed convolutions. What differs:
the hole holds the harmonic fill, to which the output is added, the last layer starts at zero, so that the untrained
network is that fill, and sums round the middle layers and across (He et al., 2016; Ronneberger et al., 2015) stand in
place of batch normalisation, whose statistics a picture of another size would not have.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inpaint_fast.models._common import at_least, hole_beside
from inpaint_fast.nn import DilatedConvBlock, FusedSequential

DILATIONS = ((1, 2), (4, 8), (4, 2), (1, 1))  # of the pairs of convolutions at a quarter of the size


class ResidualCompletionNetwork(nn.Module):
    """Fills the holes of a picture of any size by correcting the harmonic fill.

    Args:
        channels: of the first convolution, c in the table below; 1 or more. 24 is what the package ships (0.86 M
            parameters).
        hole: longest side, in pixels, of the holes that it was trained on. `inpaint_fast.complete` brings thicker ones
            to this size before it asks the network.

    Shapes:
        picture (N, 3, H, W), RGB in [0, 1], its hole filled harmonically (`inpaint_fast.completion.fills.harmonic`);
        mask (N|1, 1, H, W), true or at least 0.5 in the hole; H and W multiples of 4. Output (N, 3, H, W) in [0, 1]:
        the picture plus the correction, which is 0 outside the hole.

        down1     3x3       4 -> c    (RGB and mask)    up2    4x4 transposed   4c -> 2c, plus down2's output
        down2     3x3, 1/2  c -> 2c, 3x3  2c -> 2c             3x3              2c -> 2c
        down4     3x3, 1/2 2c -> 4c                     up1    4x4 transposed   2c -> c, plus down1's output
        middle    four times 3x3, 3x3  4c -> 4c                3x3               c -> c
                  dilated, plus what goes in            last   3x3               c -> 3

    Raises:
        ValueError: an argument is not one of these; in the call, a shape that does not fit.
    """

    reads_captions = False
    prefill = "harmonic"

    def __init__(self, channels: int = 24, hole: int = 38) -> None:
        at_least("channels", channels)
        at_least("hole", hole)
        super().__init__()
        c, self.hole = channels, hole
        self.down1 = _block(4, c)
        self.down2 = nn.Sequential(_strided(c, 2 * c), _block(2 * c, 2 * c))
        self.down4 = _strided(2 * c, 4 * c)
        self.middle = nn.Sequential(*(_Residual(4 * c, dilations) for dilations in DILATIONS))
        self.up2 = nn.ConvTranspose2d(4 * c, 2 * c, 4, stride=2, padding=1)
        self.join2 = FusedSequential(nn.ReLU(), nn.Conv2d(2 * c, 2 * c, 3, padding=1), nn.ReLU())
        self.up1 = nn.ConvTranspose2d(2 * c, c, 4, stride=2, padding=1)
        self.join1 = FusedSequential(nn.ReLU(), nn.Conv2d(c, c, 3, padding=1), nn.ReLU())
        self.last = nn.Conv2d(c, 3, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, picture: Tensor, mask: Tensor) -> Tensor:
        return (picture + self.correction(picture, mask)).clamp(0, 1)

    def correction(self, picture: Tensor, mask: Tensor) -> Tensor:
        """(N, 3, H, W), what is added to the picture, before the sum is clipped; 0 outside the hole."""
        hole = hole_beside(picture, mask).to(picture.dtype)
        x = torch.cat([picture - 0.5, hole], dim=1)
        # Channels last is the faster layout, on CPUs and on GPUs, whatever the picture has; every layer keeps it.
        full = self.down1(x.contiguous(memory_format=torch.channels_last))
        half = self.down2(full)
        x = self.middle(self.down4(half))
        x = self.join2(self.up2(x) + half)
        x = self.join1(self.up1(x) + full)
        return self.last(x).to(picture.dtype) * hole


class _Residual(nn.Module):
    """Two dilated convolutions whose result is added to what goes in."""

    def __init__(self, channels: int, dilations: tuple[int, int]) -> None:
        super().__init__()
        first, second = dilations
        self.first = DilatedConvBlock(channels, channels, first, norm=None)
        self.second = DilatedConvBlock(channels, channels, second, norm=None, activation="none")

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


def _block(before: int, after: int) -> DilatedConvBlock:
    return DilatedConvBlock(before, after, norm=None)


def _strided(before: int, after: int) -> FusedSequential:
    return FusedSequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU())
