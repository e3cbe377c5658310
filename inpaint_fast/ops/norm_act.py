"""Batch normalisation and activation in one operator, for training."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from inpaint_fast.ops._activations import activate, check_activation


def reference(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str = "none",
    slope: float | None = None,
    order: str = "norm_act",
) -> Tensor:
    """`norm_act` in plain PyTorch."""
    slope = check_activation(activation, slope, order)
    if order == "act_norm":
        input = activate(input, activation, slope)
    y = F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return y if order == "act_norm" else activate(y, activation, slope)


def norm_act(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str = "none",
    slope: float | None = None,
    order: str = "norm_act",
    backend: str | None = None,
) -> Tensor:
    """Batch normalisation and activation: `F.batch_norm` with the activation after it ("norm_act") or before it.

    In training mode the running statistics are updated in place, as F.batch_norm does.
    """
    return reference(
        input, running_mean, running_var, weight, bias, training=training, momentum=momentum, eps=eps,
        activation=activation, slope=slope, order=order,
    )  # fmt: skip
