"""A 100-number code of the noise-filled picture, and a GAN that makes pictures from it; and the first network before.

Source: G. Bernard, IFT6266 project "Conditional Image Generation" (2017): the final program of his repository, and for
`ConvAutoencoder` its first (25 March 2017). Every normalisation comes after the activation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from inpaint_fast.models._common import at_least, check_shape, glorot_, norm_eps, one_of
from inpaint_fast.models.centre import CENTRE, HOLE, PICTURE, CentreGenerator

CODE = 100


class LatentEncoder(nn.Module):
    """Picture to code: (N, 3, 64, 64) in [-1, 1] -> (N, code) in (-1, 1). 4,398,052 parameters.

    Args:
        width: channels of the first convolution.
        code: numbers of the code.
        batch_statistics: normalise by the batch in eval mode too, as the original does when it completes.
        lasagne: eps 1e-4 and Glorot's starting weights; False: PyTorch's own.

        conv 2x2 stride 2, ReLU, four times: 128 at 32, 256 at 16, 512 at 8, 1024 at 4, BatchNorm after all but the
        first; dense 16384 -> 100, tanh
    """

    def __init__(
        self, width: int = 128, code: int = CODE, *, batch_statistics: bool = False, lasagne: bool = True
    ) -> None:
        super().__init__()
        norm = {"eps": norm_eps(lasagne), "track_running_stats": not batch_statistics}
        layers, channels = _halvings(width, 4, nn.ReLU, first_norm=False, norm=norm)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 16, at_least("code", code)), nn.Tanh())
        if lasagne:
            glorot_(self)

    def forward(self, picture: Tensor) -> Tensor:
        check_shape(picture, (3, PICTURE, PICTURE), "LatentEncoder")
        return self.layers(picture)


class LatentDecoder(nn.Module):
    """Code back to picture: (N, code) -> (N, 3, 64, 64). 14,504,067 parameters.

    Args:
        width: an eighth of the first map's channels.
        code: numbers of the code.
        output: "relu", Lasagne's default and a slip, since pictures are in [-1, 1]; "tanh"; or "none", logits for
            binary cross entropy.
        lasagne: as `LatentEncoder`.

        dense 100 -> 1024 x 4 x 4, tanh; then transposed, ReLU, BatchNorm: 2x2 stride 2 to 512 at 8, 9x9 to 256 at 16,
        2x2 stride 2 to 128 at 32; 2x2 stride 2 to 3 at 64
    """

    def __init__(self, width: int = 128, code: int = CODE, *, output: str = "tanh", lasagne: bool = True) -> None:
        super().__init__()
        one_of("output", output, ("relu", "tanh", "none"))
        eps = norm_eps(lasagne)
        last = {"relu": nn.ReLU(), "tanh": nn.Tanh(), "none": nn.Identity()}[output]
        self.layers = nn.Sequential(
            nn.Linear(code, 8 * width * 16), nn.Tanh(), nn.Unflatten(1, (8 * width, 4, 4)),
            nn.ConvTranspose2d(8 * width, 4 * width, 2, 2), nn.ReLU(), nn.BatchNorm2d(4 * width, eps),
            nn.ConvTranspose2d(4 * width, 2 * width, 9, 1), nn.ReLU(), nn.BatchNorm2d(2 * width, eps),
            nn.ConvTranspose2d(2 * width, width, 2, 2), nn.ReLU(), nn.BatchNorm2d(width, eps),
            nn.ConvTranspose2d(width, 3, 2, 2), last,
        )  # fmt: skip
        if lasagne:
            glorot_(self)

    def forward(self, code: Tensor) -> Tensor:
        return self.layers(code)


class CodeGenerator(nn.Module):
    """Code to picture: (N, code) -> (N, 3, 64, 64) in (-1, 1), or the hole's (N, 3, 32, 32). 4,609,475 parameters.

    Args:
        width: an eighth of the first map's channels.
        code: numbers of the code.
        hole: True makes the hole alone, as the early program does; it normalises after the dense layer once more.
        lasagne: as `LatentEncoder`.

        dense 100 -> 1024 x 4 x 4, ReLU, BatchNorm; then ReLU and BatchNorm after each: transposed 2x2 stride 2 to 512
        at 8 and to 256 at 16, conv 3x3 to 128; then tanh after each: transposed 2x2 stride 2 to 64 at 32 and to 3 at 64
        (hole: to 3 at 32)
    """

    def __init__(self, width: int = 128, code: int = CODE, *, hole: bool = False, lasagne: bool = True) -> None:
        super().__init__()
        eps = norm_eps(lasagne)
        ends = [nn.ConvTranspose2d(width, 3, 2, 2), nn.Tanh()]
        if not hole:
            half = max(width // 2, 1)
            ends = [nn.ConvTranspose2d(width, half, 2, 2), nn.Tanh(), nn.ConvTranspose2d(half, 3, 2, 2), nn.Tanh()]
        self.layers = nn.Sequential(
            nn.Linear(code, 8 * width * 16), nn.ReLU(), *([nn.BatchNorm1d(8 * width * 16, eps)] if hole else []),
            nn.Unflatten(1, (8 * width, 4, 4)), nn.BatchNorm2d(8 * width, eps),
            nn.ConvTranspose2d(8 * width, 4 * width, 2, 2), nn.ReLU(), nn.BatchNorm2d(4 * width, eps),
            nn.ConvTranspose2d(4 * width, 2 * width, 2, 2), nn.ReLU(), nn.BatchNorm2d(2 * width, eps),
            nn.Conv2d(2 * width, width, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(width, eps),
            *ends,
        )  # fmt: skip
        if lasagne:
            glorot_(self)

    def forward(self, code: Tensor) -> Tensor:
        return self.layers(code)


class LatentGenerator(CentreGenerator):
    """Encoder and code generator in a row: fills the central hole of a noise-filled picture.

    Args:
        width: of both; see there.
        code: numbers of the code.
        hole, batch_statistics, lasagne: as `CodeGenerator` and `LatentEncoder`.
        prefill: as `CentreGenerator`; "noise" as published.

    Shapes: (N, 3, 64, 64) in [0, 1] -> (N, 3, 32, 32) in [0, 1].
    """

    def __init__(
        self,
        width: int = 128,
        code: int = CODE,
        *,
        hole: bool = False,
        batch_statistics: bool = False,
        lasagne: bool = True,
        prefill: str = "noise",
    ) -> None:
        super().__init__(prefill)
        self.hole = hole
        self.encoder = LatentEncoder(at_least("width", width), code, batch_statistics=batch_statistics, lasagne=lasagne)
        self.decoder = CodeGenerator(width, code, hole=hole, lasagne=lasagne)

    def forward(self, picture: Tensor) -> Tensor:
        made = (self.decoder(self.encoder(2 * picture - 1)) + 1) / 2
        return made if self.hole else made[..., CENTRE, CENTRE]


class LatentCritic(nn.Module):
    """Tells pictures from generated ones: (N, 3, 64, 64) in [-1, 1] -> (N,), logits. 19,538,817 parameters.

    Args:
        width: channels of the first convolution.
        hole: True looks at the hole alone, (N, 3, 32, 32), as the early program does: three convolutions, all
            normalised, and a normalised dense layer of 512.
        lasagne: as `LatentEncoder`.

        conv 2x2 stride 2, LeakyReLU 0.2, four times: 128 at 32, 256 at 16, 512 at 8, 1024 at 4, BatchNorm after all but
        the first; dense 16384 -> 1024, LeakyReLU; dense -> 1
    """

    def __init__(self, width: int = 128, *, hole: bool = False, lasagne: bool = True) -> None:
        super().__init__()
        self.side = HOLE if hole else PICTURE

        def leaky() -> nn.Module:
            return nn.LeakyReLU(0.2)

        norm: dict[str, Any] = {"eps": norm_eps(lasagne)}
        layers, channels = _halvings(at_least("width", width), 3 if hole else 4, leaky, first_norm=hole, norm=norm)
        dense = 4 * width if hole else 8 * width
        normalised = [nn.BatchNorm1d(dense, **norm)] if hole else []
        self.layers = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(channels * 16, dense), leaky(), *normalised, nn.Linear(dense, 1)
        )
        if lasagne:
            glorot_(self)

    def forward(self, picture: Tensor) -> Tensor:
        check_shape(picture, (3, self.side, self.side), "LatentCritic")
        return self.layers(picture).squeeze(1)


def _halvings(
    width: int, count: int, activation: Callable[[], nn.Module], *, first_norm: bool, norm: dict[str, Any]
) -> tuple[list[nn.Module], int]:
    """2x2 convolutions with stride 2, each with activation and then normalisation; the layers and the last width."""
    layers: list[nn.Module] = []
    before = 3
    for i in range(count):
        layers += [nn.Conv2d(before, width, 2, 2), activation()]
        if i or first_norm:
            layers.append(nn.BatchNorm2d(width, **norm))
        before, width = width, 2 * width
    return layers, before


class ConvAutoencoder(CentreGenerator):
    """Fills the central hole: the author's first network, 1,442,755 parameters, without normalisation.

    Args:
        filters: channels of every convolution.
        lasagne: Glorot's starting weights; False: PyTorch's own.
        prefill: as `CentreGenerator`.

    Shapes:
        input (N, 3, 64, 64) in [0, 1]; output (N, 3, 32, 32) in [0, 1].

        conv3 tanh         64 -> 62       each pixel to the top left of a 2x2 of zeros      4 -> 8
        conv3 ReLU            -> 60       conv5 padding 4, tanh                               -> 12
        conv3 stride 2, ReLU  -> 29       conv4 padding 3, ReLU                               -> 15
        conv3 stride 2, ReLU  -> 14       nearest x2; conv3 padding 2, ReLU                   -> 30 -> 32
        conv3 stride 3, tanh  -> 4        conv3 padding 1, ReLU; conv3 padding 1 to 3, sigmoid
        dense 1024 -> 1024, tanh
    """

    def __init__(self, filters: int = 64, lasagne: bool = True, prefill: str = "zero") -> None:
        super().__init__(prefill)
        f = at_least("filters", filters)
        self.encoder = nn.Sequential(
            nn.Conv2d(3, f, 3), nn.Tanh(), nn.Conv2d(f, f, 3), nn.ReLU(), nn.Conv2d(f, f, 3, 2), nn.ReLU(),
            nn.Conv2d(f, f, 3, 2), nn.ReLU(), nn.Conv2d(f, f, 3, 3), nn.Tanh(),
            nn.Flatten(), nn.Linear(16 * f, 16 * f), nn.Tanh(), nn.Unflatten(1, (f, 4, 4)),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            Dilate2(), nn.Conv2d(f, f, 5, padding=4), nn.Tanh(), nn.Conv2d(f, f, 4, padding=3), nn.ReLU(),
            nn.Upsample(scale_factor=2), nn.Conv2d(f, f, 3, padding=2), nn.ReLU(),
            nn.Conv2d(f, f, 3, padding=1), nn.ReLU(), nn.Conv2d(f, 3, 3, padding=1), nn.Sigmoid(),
        )  # fmt: skip
        if lasagne:
            glorot_(self)

    def forward(self, picture: Tensor) -> Tensor:
        check_shape(picture, (3, PICTURE, PICTURE), "ConvAutoencoder")
        return self.decoder(self.encoder(picture))


class Dilate2(nn.Module):
    """(N, C, H, W) -> (N, C, 2H, 2W): each value at the top left of a 2x2 of zeros (Lasagne's upscaling "dilate")."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        wide = torch.stack([x, torch.zeros_like(x)], dim=-1).view(n, c, h, 2 * w)
        return torch.stack([wide, torch.zeros_like(wide)], dim=-2).view(n, c, 2 * h, 2 * w)
