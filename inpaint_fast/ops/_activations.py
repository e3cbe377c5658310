"""What each activation computes in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

_NEW: dict[str, Callable] = {
    "none": lambda x, slope: x,
    "relu": lambda x, slope: F.relu(x),
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "sigmoid": lambda x, slope: torch.sigmoid(x),
    "tanh": lambda x, slope: torch.tanh(x),
}
_IN_PLACE: dict[str, Callable] = {
    "none": lambda x, slope: x,
    "relu": lambda x, slope: torch.relu_(x),
    "leaky_relu": torch.nn.functional.leaky_relu_,
    "elu": torch.nn.functional.elu_,
    "sigmoid": lambda x, slope: torch.sigmoid_(x),
    "tanh": lambda x, slope: torch.tanh_(x),
}


def activate(x: Tensor, activation: str, slope: float) -> Tensor:
    """The activation, as a new tensor."""
    return _NEW[activation](x, slope)


def activate_(x: Tensor, activation: str, slope: float) -> Tensor:
    """The activation in place; for slopes that are not negative, whose gradient the result tells."""
    return _IN_PLACE[activation](x, slope)
