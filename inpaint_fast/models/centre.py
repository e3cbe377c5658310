"""What the generators that fill the central 32x32 hole of a 64x64 picture have in common."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inpaint_fast.models._common import one_of

PICTURE = 64  # side of the input in pixels
HOLE = 32  # side of the central hole that the generator fills
CENTRE = slice((PICTURE - HOLE) // 2, (PICTURE + HOLE) // 2)  # its rows and columns

OUTPUTS = ("none", "relu", "sigmoid", "tanh", "clip")
PREFILLS = ("zero", "mean", "noise", "gaussian_noise", "harmonic")


class CentreGenerator(nn.Module):
    """Base of generators (N, 3, 64, 64) in [0, 1], the hole prefilled -> (N, 3, 32, 32), the hole's content.

    Args:
        prefill: what the hole must hold when the generator sees the picture; a fact about the trained weights that is
            kept with them. Whoever calls the generator fills it in (`inpaint_fast.completion.fills.prefilled`).
    """

    reads_captions = False
    """True: called with encoded captions (N, captions, ...) as a second argument."""

    def __init__(self, prefill: str = "zero") -> None:
        super().__init__()
        self.prefill = one_of("prefill", prefill, PREFILLS)


class Output(nn.Module):
    """The last activation of a generator, and its residual form.

    Args:
        kind: "none", "relu", "sigmoid", "tanh" (pictures stay in [0, 1], as published) or "clip" to [0, 1].
        residual: the result is added to what the hole held before; then "none", "tanh" or "clip" is expected, which 0
            passes unchanged ("clip": of the sum).

    Shapes: (N, 3, 32, 32), and with `residual` the prefilled picture (N, 3, 64, 64); output (N, 3, 32, 32).
    """

    def __init__(self, kind: str = "none", *, residual: bool = False) -> None:
        super().__init__()
        self.kind = one_of("output", kind, OUTPUTS)
        self.residual = residual
        if residual and kind in ("relu", "sigmoid"):
            raise ValueError(f"output: 'none', 'tanh' or 'clip' is expected of a residual generator, got {kind!r}")

    def unclipped(self, x: Tensor, picture: Tensor) -> Tensor:
        """What the clip, where that is the kind, has yet to clip."""
        if self.kind == "tanh":
            x = torch.tanh(x)
        return x + picture[..., CENTRE, CENTRE] if self.residual else x

    def forward(self, x: Tensor, picture: Tensor) -> Tensor:
        x = self.unclipped(x, picture)
        if self.kind == "clip":
            return x.clamp(0, 1)
        return {"relu": torch.relu, "sigmoid": torch.sigmoid}.get(self.kind, nn.Identity())(x)
