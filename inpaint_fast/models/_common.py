"""What networks of several systems share: checks of arguments and shapes, and how layers start."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class FromNoise(nn.Module, ABC):
    """A generator whose pictures come from noise alone."""

    @abstractmethod
    def noise(self, count: int, device: torch.device) -> Tensor:
        """What it is called with, for so many pictures."""


def check_shape(x: Tensor, shape: tuple[int, ...], network: str) -> None:
    """Raise ValueError where x, less its batch dimension, has another shape."""
    if isinstance(x, torch.fx.Proxy):  # of a trace of the forward, which has no sizes
        return
    if tuple(x.shape[1:]) != shape or x.dim() != len(shape) + 1:
        raise ValueError(f"{network}: shape (N, {', '.join(map(str, shape))}) is expected, got {tuple(x.shape)}")


def hole_beside(picture: Tensor, mask: Tensor) -> Tensor:
    """The hole, bool (N, 1, H, W), of a mask (N|1, 1, H, W) beside pictures (N, 3, H, W), H and W multiples of 4.

    Raises:
        ValueError: picture or mask has another shape.
    """
    if picture.dim() != 4 or picture.shape[1] != 3 or picture.shape[2] % 4 or picture.shape[3] % 4:
        raise ValueError(
            f"picture: shape (N, 3, H, W) with H and W multiples of 4 is expected, got {tuple(picture.shape)}"
        )
    n, _, height, width = picture.shape
    if mask.dim() != 4 or mask.shape[0] not in (1, n) or mask.shape[1:] != (1, height, width):
        raise ValueError(f"mask: shape ({n}|1, 1, {height}, {width}) is expected, got {tuple(mask.shape)}")
    return (mask >= 0.5).expand(n, 1, height, width)


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


def odd(name: str, value: int) -> int:
    """The value. Raises ValueError where it is even or below 1."""
    if value < 1 or value % 2 == 0:
        raise ValueError(f"{name}: an odd number is expected, got {value}")
    return value


def norm_eps(lasagne: bool) -> float:
    """Epsilon of batch normalisation, Lasagne's or PyTorch's."""
    return 1e-4 if lasagne else 1e-5


def glorot_(network: nn.Module) -> nn.Module:
    """Glorot-uniform weights and zero biases in every convolution and linear layer, as Lasagne starts them."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network
