"""Modules over the operators."""

from __future__ import annotations

from torch import nn


class DilatedConvBlock(nn.Sequential):
    """A 3x3 convolution of stride 1, batch normalisation and activation, in the order asked for.

    Args:
        in_channels, out_channels, dilation, bias: the convolution's.
        padding: None: the dilation, so that height and width stay.
        norm: "batch" or None.
        activation: "none", "relu", "leaky_relu", "elu", "sigmoid" or "tanh".
        slope: of leaky_relu or elu.
        order: "norm_act" or "act_norm".
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dilation: int = 1,
        *,
        padding: int | None = None,
        bias: bool = True,
        norm: str | None = "batch",
        activation: str = "relu",
        slope: float | None = None,
        order: str = "norm_act",
    ) -> None:
        padding = dilation if padding is None else padding
        layers = [nn.Conv2d(in_channels, out_channels, 3, padding=padding, dilation=dilation, bias=bias)]
        kinds = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}
        after = [nn.BatchNorm2d(out_channels)] if norm else []
        if activation != "none":
            after.append(kinds[activation](*(() if slope is None else (slope,))))
        super().__init__(*layers, *(after if order == "norm_act" else reversed(after)))
