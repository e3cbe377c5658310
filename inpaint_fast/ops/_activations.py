"""The activations that operators fuse: their names, their one parameter, and what each computes in plain PyTorch."""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor
from torch.nn import functional as F

# The order is the number that the compiled kernels know each by (csrc/common/activation_kind.h).
ACTIVATIONS = ("none", "relu", "leaky_relu", "elu", "sigmoid", "tanh")
ORDERS = ("norm_act", "act_norm")
DEFAULT_SLOPE = {"leaky_relu": 0.01, "elu": 1.0}


def check_activation(activation: str, slope: float | None, order: str) -> float:
    """The activation's parameter: its negative slope (leaky_relu), its alpha (elu), 0 for those that have none.

    Raises:
        ValueError: activation or order has no such value.
        TypeError: slope is no number, or the activation takes none.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: one of {', '.join(map(repr, ACTIVATIONS))} is expected, got {activation!r}")
    if order not in ORDERS:
        raise ValueError(f"order: 'norm_act' or 'act_norm' is expected, got {order!r}")
    if slope is None:
        return DEFAULT_SLOPE.get(activation, 0.0)
    if not isinstance(slope, Real):
        raise TypeError(f"slope: a number is expected, got {type(slope).__name__}")
    if activation not in DEFAULT_SLOPE:
        raise TypeError(f"slope: {activation!r} takes none, got {slope!r}")
    return float(slope)


def activate(x: Tensor, activation: str, slope: float) -> Tensor:
    """The activation in plain PyTorch."""
    if activation == "relu":
        return F.relu(x)
    if activation == "leaky_relu":
        return F.leaky_relu(x, slope)
    if activation == "elu":
        return F.elu(x, slope)
    if activation == "sigmoid":
        return torch.sigmoid(x)
    if activation == "tanh":
        return torch.tanh(x)
    return x
