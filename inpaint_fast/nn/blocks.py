"""`DilatedConvBlock`: convolution, batch normalisation and activation as one module."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from inpaint_fast._words import check_activation, check_number, check_precision
from inpaint_fast.nn.fuse.chain import ACTIVATIONS
from inpaint_fast.nn.fuse.sequential import FusedSequential


class DilatedConvBlock(FusedSequential):
    """A dilated 3x3 convolution, batch normalisation and activation in one pass (two in training).

    Equivalent to, and with the state_dict of, `nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=dilation,
    dilation=dilation), nn.BatchNorm2d(out_channels), nn.ReLU())`; these are its children, and may be replaced.

    Args:
        in_channels, out_channels: 1 or more.
        dilation: 1 or more; one number or (vertical, horizontal).
        padding: zeros round the input, 0 or more; one number or (vertical, horizontal). None: the dilation, so that the
            result has the input's height and width.
        bias: give the convolution a bias.
        norm: "batch", or None for no normalisation.
        activation: "none", "relu", "leaky_relu", "elu", "sigmoid" or "tanh".
        slope: the negative slope of leaky_relu (default 0.01), the alpha of elu (1.0).
        order: "norm_act", or "act_norm" for the activation first.
        eps, momentum: those of nn.BatchNorm2d; momentum None is the cumulative average.
        precision: "fast" (Winograd) or "exact".
        device, dtype: of the parameters.

    Shapes:
        input (N, in_channels, H, W); output (N, out_channels, H, W) where the padding is the dilation, in each
        direction 2 * (padding - dilation) more or less otherwise.

    Raises:
        ValueError, TypeError: an argument has no such value or is of another type; the message names it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dilation: int | tuple[int, int] = 1,
        *,
        padding: int | tuple[int, int] | None = None,
        bias: bool = True,
        norm: str | None = "batch",
        activation: str = "relu",
        slope: float | None = None,
        order: str = "norm_act",
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        precision: str = "fast",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _at_least(1, in_channels=in_channels, out_channels=out_channels)
        dilation = _pair("dilation", dilation, 1)
        padding = dilation if padding is None else _pair("padding", padding, 0)
        slope = check_activation(activation, slope, order)
        if norm not in ("batch", None):
            raise ValueError(f"norm: 'batch' or None is expected, got {norm!r}")
        if not check_number("eps", eps) > 0:
            raise ValueError(f"eps: a number above 0 is expected, got {eps!r}")
        if momentum is not None and not 0 <= check_number("momentum", momentum) <= 1:
            raise ValueError(f"momentum: a number from 0 to 1 or None is expected, got {momentum!r}")
        self.precision = check_precision(precision)

        placed: dict[str, Any] = {"device": device, "dtype": dtype}
        convolution = nn.Conv2d(in_channels, out_channels, 3, padding=padding, dilation=dilation, bias=bias, **placed)
        rest: list[nn.Module] = []
        if norm == "batch":
            rest.append(nn.BatchNorm2d(out_channels, eps=eps, momentum=momentum, **placed))
        if activation != "none":
            cls = next(cls for cls, name in ACTIVATIONS.items() if name == activation)
            rest.append(cls(slope) if activation in ("leaky_relu", "elu") else cls())
        for i, module in enumerate([convolution, *(rest if order == "norm_act" else reversed(rest))]):
            self.add_module(str(i), module)


def _at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name}: an int is expected, got {type(value).__name__}")
        if value < least:
            raise ValueError(f"{name}: at least {least} is expected, got {value}")


def _pair(name: str, value: int | tuple[int, int], least: int) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{name}: one number or (vertical, horizontal) is expected, got {value!r}")
    for number in pair:
        _at_least(least, **{name: number})
    return pair
