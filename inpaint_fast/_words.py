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
    check_word("activation", activation, ACTIVATIONS)
    check_word("order", order, ORDERS)
    if slope is None:
        return DEFAULT_SLOPE.get(activation, 0.0)
    number = check_number("slope", slope)
    if activation not in DEFAULT_SLOPE:
        raise TypeError(f"slope: {activation!r} takes none, got {slope!r}")
    return number


def check_word(name: str, value: object, words: tuple[str, ...]) -> str:
    """The argument `name`, if it is one of these words.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str) or value not in words:  # an array would be compared number by number
        quoted = [repr(word) for word in words]
        expected = " or ".join(quoted) if len(words) == 2 else f"one of {', '.join(quoted)}"
        raise ValueError(f"{name}: {expected} is expected, got {value!r}")
    return value


def check_number(name: str, value: object) -> float:
    """The argument `name` as a float, if it is a real number.

    Raises:
        TypeError: it is none.
        ValueError: it is a whole number larger than any float.
    """
    if type(value) is float:
        return value
    if not isinstance(value, Real):
        raise TypeError(f"{name}: a number is expected, got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name}: a number that a float can hold is expected, got a larger one") from None


def check_precision(precision: str) -> str:
    """precision, if it is one.

    Raises:
        ValueError: it is none.
    """
    return check_word("precision", precision, PRECISIONS)
