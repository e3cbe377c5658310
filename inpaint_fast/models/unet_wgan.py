"""U-Net-like generator and DCGAN-like critic of the L2 + Wasserstein inpainting system.

Source: S. Subramanian, "Conditional Image Generation - Inpainting with MSCOCO" (course project, 2017), with the values
of the author's code where the printed table differs: the last transposed convolution gives 3 channels (printed: 1),
the critic's fourth convolution has stride 1 (printed: 2). Layer names are the author's: state_dicts can be exchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inpaint_fast.models._common import at_least, check_shape, one_of
from inpaint_fast.models.centre import HOLE, PICTURE, CentreGenerator


class UNetGenerator(CentreGenerator):
    """Fills the central 32x32 hole of a 64x64 picture.

    Seven 4x4 stride-2 convolutions without bias, each followed by batch normalisation and ReLU (the last by a sigmoid
    alone); the second and third encoder maps skip to the decoder (decoder features first in the concatenation).

    Args:
        filters: channels of the first convolution, f in the table below. 32 in the adversarial runs (729,536
            parameters), 64 in the author's L2-only notebook.
        prefill: as `CentreGenerator`; published: "zero".

    Shapes:
        input (N, 3, 64, 64), RGB in [0, 1] with the hole, rows and columns 16 to 47, prefilled;
        output (N, 3, 32, 32), the hole's RGB in [0, 1].

        conv1  3 -> f   64 -> 32        tconv1 4f -> 3f   4 -> 8
        conv2  f -> 2f     -> 16        tconv2 6f -> 2f     -> 16   (tconv1 and conv3)
        conv3 2f -> 3f     -> 8         tconv3 4f -> 3      -> 32   (tconv2 and conv2)
        conv4 3f -> 4f     -> 4
    """

    def __init__(self, filters: int = 32, prefill: str = "zero") -> None:
        super().__init__(prefill)
        f = at_least("filters", filters)
        self.conv1, self.bn1, self.relu1 = _conv(3, f), nn.BatchNorm2d(f), nn.ReLU()
        self.conv2, self.bn2, self.relu2 = _conv(f, 2 * f), nn.BatchNorm2d(2 * f), nn.ReLU()
        self.conv3, self.bn3, self.relu3 = _conv(2 * f, 3 * f), nn.BatchNorm2d(3 * f), nn.ReLU()
        self.conv4, self.bn4, self.relu4 = _conv(3 * f, 4 * f), nn.BatchNorm2d(4 * f), nn.ReLU()
        self.tconv1, self.tbn1, self.trelu1 = _transposed_conv(4 * f, 3 * f), nn.BatchNorm2d(3 * f), nn.ReLU()
        self.tconv2, self.tbn2, self.trelu2 = _transposed_conv(6 * f, 2 * f), nn.BatchNorm2d(2 * f), nn.ReLU()
        self.tconv3, self.sigmoid = _transposed_conv(4 * f, 3), nn.Sigmoid()

    def forward(self, picture: Tensor) -> Tensor:
        check_shape(picture, (3, PICTURE, PICTURE), "UNetGenerator")
        skip1 = self.relu1(self.bn1(self.conv1(picture)))
        skip2 = self.relu2(self.bn2(self.conv2(skip1)))
        skip3 = self.relu3(self.bn3(self.conv3(skip2)))
        x = self.relu4(self.bn4(self.conv4(skip3)))
        x = self.trelu1(self.tbn1(self.tconv1(x)))
        x = self.trelu2(self.tbn2(self.tconv2(torch.cat([x, skip3], dim=1))))
        return self.sigmoid(self.tconv3(torch.cat([x, skip2], dim=1)))


class WassersteinCritic(nn.Module):
    """Scores 32x32 hole contents; a real number, higher for what it takes for real.

    Convolutions without bias, batch normalisation after each but the last (the first included), LeakyReLU (slope 0.01).

    Args:
        filters: channels of the first convolution; 32 gives 330,368 parameters (`variant="code"`).
        variant: "code", as the author's program: conv4 4x4 with stride 1, then 2x2 to one channel. "table", as the
            printed table: conv4 with stride 2, then 2x2 to 8f channels, and a linear layer to the scalar that the table
            leaves out.

    Shapes:
        input (N, 3, 32, 32), RGB in [0, 1]; output (N,), unbounded.

        conv1  3 -> f   32 -> 16        conv4 3f -> 4f   4 -> 3  (table: -> 2)
        conv2  f -> 2f     -> 8         conv5 4f -> 1      -> 1  (table: 4f -> 8f, then linear 8f -> 1)
        conv3 2f -> 3f     -> 4
    """

    def __init__(self, filters: int = 32, variant: str = "code") -> None:
        super().__init__()
        f = at_least("filters", filters)
        one_of("variant", variant, ("code", "table"))
        self.conv1, self.bn1, self.relu1 = _conv(3, f), nn.BatchNorm2d(f), nn.LeakyReLU()
        self.conv2, self.bn2, self.relu2 = _conv(f, 2 * f), nn.BatchNorm2d(2 * f), nn.LeakyReLU()
        self.conv3, self.bn3, self.relu3 = _conv(2 * f, 3 * f), nn.BatchNorm2d(3 * f), nn.LeakyReLU()
        self.conv4 = _conv(3 * f, 4 * f, stride=1 if variant == "code" else 2)
        self.bn4, self.relu4 = nn.BatchNorm2d(4 * f), nn.LeakyReLU()
        if variant == "code":
            self.conv5 = nn.Conv2d(4 * f, 1, kernel_size=2, stride=2, bias=False)
            self.linear = nn.Identity()
        else:
            self.conv5 = nn.Conv2d(4 * f, 8 * f, kernel_size=2, bias=False)
            self.linear = nn.Linear(8 * f, 1)

    def forward(self, patch: Tensor) -> Tensor:
        check_shape(patch, (3, HOLE, HOLE), "WassersteinCritic")
        x = self.relu1(self.bn1(self.conv1(patch)))
        x = self.relu2(self.bn2(self.conv2(x)))
        x = self.relu3(self.bn3(self.conv3(x)))
        x = self.relu4(self.bn4(self.conv4(x)))
        return self.linear(self.conv5(x).flatten(1)).squeeze(1)


def _conv(channels: int, out: int, stride: int = 2) -> nn.Conv2d:
    return nn.Conv2d(channels, out, kernel_size=4, stride=stride, padding=1, bias=False)


def _transposed_conv(channels: int, out: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels, out, kernel_size=4, stride=2, padding=1, bias=False)
