"""Convolutional encoder, dense code, upscaling decoder: "contour to centre", with or without captions.

Source: S. Larocque, "IFT6266 project: inpainting" (2017): posts of April 15th, 20th, 26th and 28th, and her program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inpaint_fast.models._common import at_least, check_shape, glorot_, norm_eps, odd, one_of
from inpaint_fast.models.caption_encoders import caption_encoder
from inpaint_fast.models.centre import PICTURE, CentreGenerator, Output


class ContextCNN(CentreGenerator):
    """Fills the central 32x32 hole of a 64x64 picture from what surrounds it.

    Args:
        blocks: convolutions of each encoder block before its pooling; published: (2, 2, 2), (2, 2), (1, 1, 1, 1).
        filters: channels of the first block, doubled in each.
        code: size of the dense code; 500, also 750.
        kernel: side of the convolutions, odd.
        dense: False leaves the code out; a grey square then appears, says the author.
        output: last activation: "clip" to [0, 1] as the final program, "relu" as the first, "tanh", "sigmoid", "none".
        captions: None, "bow1", "bow5", "lstm" or "gru" (`inpaint_fast.models.caption_encoders`).
        vocabulary: number of word ids, where there are captions.
        caption_code: size of the captions' code.
        fusion: "concat", the captions' code beside the picture's, or "bias", added to the last encoder convolution
            before its normalisation (proposed on April 26th), through a dense layer that starts at 0; "bias_map": a
            number for each of its pixels.
        bow: "mean" or "sum" of the captions' bags of words.
        lasagne: normalisation with eps 1e-4 and Glorot's starting weights, as published; False: PyTorch's own.
        residual: the output is added to what the hole held before.
        prefill: as `CentreGenerator`.

    Shapes:
        input (N, 3, 64, 64), RGB in [0, 1], and word ids (N, captions, words) where it reads captions;
        output (N, 3, 32, 32).

        blocks (2, 2, 2), filters 32, code 500: 8,894,615 parameters
        conv3 32 (twice), pool  64 -> 32        dense 8192 -> 500, ReLU; dense 500 -> 8192, ReLU: 128 x 8 x 8
        conv3 64 (twice), pool     -> 16        nearest x2, conv3 128 (twice)   8 -> 16
        conv3 128 (twice), pool    -> 8         nearest x2, conv3 64 (twice)      -> 32;  conv 1x1 -> 3

    Every 3x3 convolution has no bias and is followed by batch normalisation and ReLU.
    """

    def __init__(
        self,
        blocks: Sequence[int] = (2, 2, 2),
        filters: int = 32,
        code: int = 500,
        *,
        kernel: int = 3,
        dense: bool = True,
        output: str = "clip",
        captions: str | None = None,
        vocabulary: int = 0,
        caption_code: int = 100,
        fusion: str = "concat",
        bow: str = "mean",
        lasagne: bool = True,
        residual: bool = False,
        prefill: str = "zero",
    ) -> None:
        super().__init__(prefill)
        if not 2 <= len(blocks) <= 5 or min(blocks) < 1:
            raise ValueError(
                f"blocks: two to five numbers of convolutions, each at least 1, are expected, got {blocks}"
            )
        odd("kernel", kernel)
        one_of("fusion", fusion, ("concat", "bias", "bias_map"))
        if captions and fusion == "concat" and not dense:
            raise ValueError("dense: True is expected where captions join the dense code (fusion 'concat')")
        channels = [at_least("filters", filters) * 2**i for i in range(len(blocks))]
        self.side, self.width = PICTURE // 2 ** len(blocks), channels[-1]
        flat = self.width * self.side**2
        eps = norm_eps(lasagne)

        encoder, before = [], 3
        for count, width in zip(blocks, channels, strict=True):
            encoder.append(nn.Sequential(*_convolutions(before, width, count, kernel, eps)))
            before = width
        self.encoder = nn.ModuleList(encoder)
        self.pool = nn.MaxPool2d(2)

        self.captions = caption_encoder(captions, vocabulary, caption_code, bow) if captions else None
        self.reads_captions = captions is not None
        concat = self.reads_captions and fusion == "concat"
        self.code = nn.Sequential(nn.Linear(flat, at_least("code", code)), nn.ReLU()) if dense else nn.Identity()
        self.expand = (
            nn.Sequential(nn.Linear(code + caption_code * concat, flat), nn.ReLU()) if dense else nn.Identity()
        )
        last_map = (2 * self.side) ** 2 if fusion == "bias_map" else 1
        biased = self.reads_captions and not concat
        self.caption_bias = nn.Linear(caption_code, self.width * last_map) if biased else None

        decoder = []
        for width in reversed(channels[1:]):
            decoder += [nn.Upsample(scale_factor=2), *_convolutions(before, width, blocks[-1], kernel, eps)]
            before = width
        self.decoder = nn.Sequential(*decoder, nn.Conv2d(before, 3, 1))
        self.output = Output(output, residual=residual)
        if lasagne:
            for part in (self.encoder, self.code, self.expand, self.decoder):
                glorot_(part)
            if isinstance(self.captions, nn.Module) and hasattr(self.captions, "dense"):
                glorot_(self.captions)
        if self.caption_bias is not None:
            nn.init.zeros_(self.caption_bias.weight)
            nn.init.zeros_(self.caption_bias.bias)
        if residual:
            last: Any = self.decoder[-1]
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(
        self, picture: Tensor, captions: Tensor | None = None, *, unclipped: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The hole's content; with `unclipped` also what it was before the clip, for `losses.clip_penalty`."""
        check_shape(picture, (3, PICTURE, PICTURE), "ContextCNN")
        if self.reads_captions and captions is None:
            raise ValueError("ContextCNN: captions are expected, got none")
        words = self.captions(captions) if self.reads_captions else None
        x = picture
        for block in self.encoder[:-1]:
            x = self.pool(block(x))
        x = self.pool(self._last_block(x, words))
        x = self.code(x.flatten(1) if isinstance(self.code, nn.Sequential) else x)
        if words is not None and self.caption_bias is None:
            x = torch.cat([x, words], dim=1)
        x = self.decoder(self.expand(x).view(-1, self.width, self.side, self.side))
        result = self.output(x, picture)
        return (result, self.output.unclipped(x, picture)) if unclipped else result

    def _last_block(self, x: Tensor, words: Tensor | None) -> Tensor:
        block: Any = self.encoder[-1]
        if self.caption_bias is None or words is None:
            return block(x)
        x = block[:-2](x)  # all but the last normalisation and ReLU
        bias = self.caption_bias(words)
        bias = bias.view(len(x), self.width, *((1, 1) if bias.shape[1] == self.width else x.shape[2:]))
        return block[-2:](x + bias)


def _convolutions(before: int, width: int, count: int, kernel: int, eps: float) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(count):
        layers += [
            nn.Conv2d(before, width, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(width, eps), nn.ReLU(),
        ]  # fmt: skip
        before = width
    return layers
