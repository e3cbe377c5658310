"""Words that several floors use: activations, orders, reductions, rules, precisions, dtypes, and the one error.

Kernels know each word of a tuple by its place in it (csrc/common/words.h, csrc/masked_l2, csrc/weight_clip).
"""

from __future__ import annotations

import os
from numbers import Real

import torch

ACTIVATIONS = ("none", "relu", "leaky_relu", "elu", "sigmoid", "tanh")
DEFAULT_SLOPE = {"leaky_relu": 0.01, "elu": 1.0}
# What comes first after a convolution: the normalisation or the activation.
ORDERS = ("norm_act", "act_norm")
REDUCTIONS = ("sum", "mean", "mask_mean")
# What a step of an optimizer computes before it clips; "clip": nothing.
RULES = ("clip", "adam", "rmsprop", "sgd", "adadelta")
PRECISIONS = ("fast", "exact")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class BackendError(RuntimeError):
    """The backend that was asked for cannot run here; the message says why and how to get it."""


def triton_interpreted() -> bool:
    """True when Triton kernels run in Triton's interpreter (TRITON_INTERPRET=1), on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET") == "1"


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


def check_precision(precision: str) -> str:
    """precision, if it is one.

    Raises:
        ValueError: it is none.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: 'fast' or 'exact' is expected, got {precision!r}")
    return precision
