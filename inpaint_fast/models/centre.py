"""What the generators that fill the central 32x32 hole of a 64x64 picture have in common."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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


def check_shape(x: Tensor, shape: tuple[int, ...], network: str) -> None:
    """Raise ValueError where x, less its batch dimension, has another shape."""
    if isinstance(x, torch.fx.Proxy):  # of a trace of the forward, which has no sizes
        return
    if tuple(x.shape[1:]) != shape or x.dim() != len(shape) + 1:
        raise ValueError(f"{network}: shape (N, {', '.join(map(str, shape))}) is expected, got {tuple(x.shape)}")


def at_least(name: str, value: int, least: int = 1) -> int:
    """The value. Raises ValueError below `least`."""
    if value < least:
        raise ValueError(f"{name}: at least {least} is expected, got {value}")
    return value


def one_of(name: str, value: str, names: tuple[str, ...]) -> str:
    """The value. Raises ValueError where it is none of the names."""
    if value not in names:
        raise ValueError(f"{name}: one of {', '.join(map(repr, names))} is expected, got {value!r}")
    return value


def glorot_(network: nn.Module) -> nn.Module:
    """Glorot-uniform weights and zero biases in every convolution and linear layer, as Lasagne starts them."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network
