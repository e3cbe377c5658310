"""Discriminators and critics of the context CNN, and the generator that she began with, from noise alone.

Source: S. Larocque, "IFT6266 project: inpainting" (2017): posts of March 15th to April 28th, and her programs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inpaint_fast.models._common import FromNoise, at_least, check_shape, glorot_, norm_eps, odd, one_of
from inpaint_fast.models.centre import HOLE, PICTURE


class ContextCritic(nn.Module):
    """Scores holes, or whole pictures; a real number each: a logit for a GAN, Wasserstein's score as it is.

    Args:
        blocks: convolutions of each block.
        filters: channels of the first block, doubled in each.
        kernel: side of the convolutions, odd.
        reduce: how maps shrink: "max" or "average" (the padding not counted) pooling after a block, or "stride": every
            convolution has stride 2 and padding 2.
        reduce_last: False leaves the last block's pooling out.
        norm: batch normalisation before each activation.
        activation: "relu", "tanh" or "leaky_relu" with this `slope`.
        dense: size of a dense layer with ReLU before the score; 0: none.
        whole: it sees 64x64 pictures; False: the 32x32 hole.
        lasagne: eps 1e-4 and Glorot's starting weights; False: PyTorch's own.

    The published ones are in `CRITICS`, by name.

    Shapes: (N, 3, 64, 64) or (N, 3, 32, 32) -> (N,), unbounded.
    """

    def __init__(
        self,
        blocks: Sequence[int] = (1, 1, 1, 1),
        filters: int = 32,
        kernel: int = 7,
        *,
        reduce: str = "max",
        reduce_last: bool = True,
        norm: bool = True,
        activation: str = "leaky_relu",
        slope: float = 0.2,
        dense: int = 0,
        whole: bool = True,
        lasagne: bool = True,
    ) -> None:
        super().__init__()
        one_of("reduce", reduce, ("max", "average", "stride"))
        one_of("activation", activation, ("relu", "tanh", "leaky_relu"))
        if not blocks or min(blocks) < 1:
            raise ValueError(f"blocks: numbers of convolutions, each at least 1, are expected, got {blocks}")
        odd("kernel", kernel)
        self.side = side = PICTURE if whole else HOLE
        stride, padding = (2, 2) if reduce == "stride" else (1, kernel // 2)
        layers: list[nn.Module] = []
        before, width = 3, at_least("filters", filters)
        for i, count in enumerate(blocks):
            for _ in range(count):
                layers.append(nn.Conv2d(before, width, kernel, stride, padding))
                layers += [nn.BatchNorm2d(width, norm_eps(lasagne))] if norm else []
                layers.append({"relu": nn.ReLU(), "tanh": nn.Tanh(), "leaky_relu": nn.LeakyReLU(slope)}[activation])
                side = (side + 2 * padding - kernel) // stride + 1
                before = width
            if reduce != "stride" and (reduce_last or i < len(blocks) - 1):
                layers.append(nn.MaxPool2d(2) if reduce == "max" else nn.AvgPool2d(2, count_include_pad=False))
                side //= 2
            width *= 2
        if side < 1:
            raise ValueError(f"blocks: fewer are expected for pictures of {self.side} pixels, got {blocks}")
        flat = before * side * side
        self.body = nn.Sequential(*layers)
        self.head = (
            nn.Sequential(nn.Linear(flat, dense), nn.ReLU(), nn.Linear(dense, 1)) if dense else nn.Linear(flat, 1)
        )
        if lasagne:
            glorot_(self)

    def forward(self, picture: Tensor) -> Tensor:
        check_shape(picture, (3, self.side, self.side), "ContextCritic")
        return self.head(self.body(picture).flatten(1)).squeeze(1)


_FIRST = {
    "blocks": (1, 1, 1, 1), "filters": 64, "kernel": 3, "reduce_last": False, "dense": 1024, "whole": False,
}  # fmt: skip
CRITICS: dict[str, dict[str, object]] = {
    "v1": {**_FIRST, "norm": False, "activation": "relu"},
    "v2": {**_FIRST, "activation": "tanh"},
    "v3": {"blocks": (2,), "kernel": 3, "reduce": "stride", "slope": 0.8, "whole": False},
    "v3_average": {
        "blocks": (2, 2), "kernel": 3, "reduce": "average", "reduce_last": False, "slope": 0.8, "whole": False,
    },
    "v4_early": {"blocks": (2,), "kernel": 3, "reduce": "stride", "slope": 0.2, "whole": True},
    "v4": {"whole": True},
    "v4_hole": {"whole": False},
    "v4_deep": {"blocks": (2, 2, 2, 2), "whole": True},
}  # fmt: skip
"""Arguments of the published discriminators, in the order of their dates, March to April 2017. v3: 32 -> 17 -> 10
pixels. "v4" is the Wasserstein critic, "v4_deep" that of the RMSprop run."""


class NoiseGenerator(FromNoise):
    """32x32 pictures from noise alone: the first GAN, of March 2017.

    Args:
        filters: channels of the first convolution, a multiple of 8.
        lasagne: Glorot's starting weights; False: PyTorch's own.
        output: last activation: "relu" as published, or "sigmoid".
        noise: what pictures are made from: "unsigned", uniform in [0, 1) as published, or "signed", in [-1, 1).

    Shapes: noise (N, 512, 4, 4) -> (N, 3, 32, 32), at least 0.

        conv3 512  4        nearest x2, conv3 128   16        nearest x2, conv3 64   32
        nearest x2, conv3 256  8        conv3 3     32        ReLU after all but the last, no normalisation
    """

    NOISE = (512, 4, 4)

    def __init__(self, filters: int = 512, lasagne: bool = True, output: str = "relu", noise: str = "unsigned") -> None:
        super().__init__()
        self.signed = one_of("noise", noise, ("unsigned", "signed")) == "signed"
        if filters < 8 or filters % 8:
            raise ValueError(f"filters: a multiple of 8 is expected, got {filters}")
        last = nn.ReLU() if one_of("output", output, ("relu", "sigmoid")) == "relu" else nn.Sigmoid()
        layers: list[nn.Module] = []
        before, width = self.NOISE[0], filters
        for i in range(4):
            layers += [nn.Upsample(scale_factor=2)] if i else []
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before, width = width, width // 2
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 3, 3, padding=1), last)
        if lasagne:
            glorot_(self)

    def noise(self, count: int, device: torch.device) -> Tensor:
        """From torch's default generator."""
        noise = torch.rand(count, *self.NOISE, device=device)
        return 2 * noise - 1 if self.signed else noise

    def forward(self, noise: Tensor) -> Tensor:
        check_shape(noise, self.NOISE, "NoiseGenerator")
        return self.layers(noise)
