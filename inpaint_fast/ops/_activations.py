"""What each activation computes in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F


def activation_of(activation: str, slope: float, in_place: bool = False) -> Callable[[Tensor], Tensor]:
    """The function of one tensor; in place for slopes that are not negative, whose gradient the result tells."""
    if activation == "relu":
        return torch.relu_ if in_place else torch.relu
    if activation == "leaky_relu":
        return partial(F.leaky_relu_ if in_place else F.leaky_relu, negative_slope=slope)
    if activation == "elu":
        return partial(F.elu_ if in_place else F.elu, alpha=slope)
    if activation == "sigmoid":
        return torch.sigmoid_ if in_place else torch.sigmoid
    if activation == "tanh":
        return torch.tanh_ if in_place else torch.tanh
    return _nothing


def _nothing(x: Tensor) -> Tensor:
    return x


def activate(x: Tensor, activation: str, slope: float) -> Tensor:
    """The activation, as a new tensor."""
    return activation_of(activation, slope)(x)
