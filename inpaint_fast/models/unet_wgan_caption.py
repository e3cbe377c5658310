"""The U-Net-like generator with a caption's sentence vector in its middle.

Source: S. Subramanian, the fuller description of "Conditional Image Generation - Inpainting with MSCOCO" (2017); no
program was published. Its table gives the last layer 1 channel, as that of the plain generator does: 3 is meant. That
normalisation, ReLU and sigmoid are those of the plain generator is taken for granted.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inpaint_fast.models._common import at_least, check_shape
from inpaint_fast.models.caption_encoders import one_caption
from inpaint_fast.models.centre import PICTURE, CentreGenerator


class CaptionUNetGenerator(CentreGenerator):
    """Fills the central 32x32 hole of a 64x64 picture that has captions: one of them, a random one in training and the
    first in eval mode. Training needs batches of at least two, since a map of one pixel is normalised.

    Args:
        filters: channels of the first convolution, f below; 32 as published.
        vector: size of a sentence vector; 300.
        prefill: as `CentreGenerator`.

    Shapes:
        input (N, 3, 64, 64) in [0, 1] and (N, captions, vector); output (N, 3, 32, 32) in [0, 1].

        conv1..4  3 -> f, 2f, 3f, 4f    64 -> 4     tconv1 8f + vector -> 4f       1 -> 2
        conv5     4f -> 8f                 -> 2     tconv2 4f + 8f (conv5) -> 3f     -> 4
        conv6     8f -> 8f, 2x2            -> 1     tconv3 3f + 4f (conv4) -> 2f     -> 8
                                                    tconv4 2f + 3f (conv3) -> f      -> 16
                                                    tconv5 f + 2f (conv2) -> 3       -> 32

    4x4, stride 2, padding 1 but for conv6; no bias; BatchNorm and ReLU after each, a sigmoid after the last.
    """

    reads_captions = True

    def __init__(self, filters: int = 32, vector: int = 300, prefill: str = "zero") -> None:
        super().__init__(prefill)
        f, self.vector = at_least("filters", filters), at_least("vector", vector)
        widths = [3, f, 2 * f, 3 * f, 4 * f, 8 * f]
        self.down = nn.ModuleList(
            _block(nn.Conv2d(before, after, 4, 2, 1, bias=False))
            for before, after in zip(widths, widths[1:], strict=False)
        )
        self.last = _block(nn.Conv2d(8 * f, 8 * f, 2, bias=False))
        ins, outs = (8 * f + vector, 12 * f, 7 * f, 5 * f), (4 * f, 3 * f, 2 * f, f)
        self.up = nn.ModuleList(
            _block(nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False))
            for before, after in zip(ins, outs, strict=True)
        )
        self.out = nn.ConvTranspose2d(3 * f, 3, 4, 2, 1, bias=False)

    def forward(self, picture: Tensor, captions: Tensor) -> Tensor:
        check_shape(picture, (3, PICTURE, PICTURE), "CaptionUNetGenerator")
        check_shape(captions, (captions.shape[1], self.vector), "CaptionUNetGenerator")
        caption = one_caption(captions, any_of_them=self.training)
        maps = []
        x = picture
        for block in self.down:
            x = block(x)
            maps.append(x)
        x = torch.cat([self.last(x), caption[:, :, None, None]], dim=1)
        for block, skip in zip(self.up, reversed(maps[1:]), strict=True):
            x = torch.cat([block(x), skip], dim=1)
        return torch.sigmoid(self.out(x))


def _block(convolution: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU())
