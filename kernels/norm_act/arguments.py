"""The arguments of norm_act's operators, checked as in csrc/norm_act/arguments.h; those of one call before the first of
its tensors is copied."""

import math

import torch
from torch import Tensor

from inpaint_fast.kernels._checks import (
    check_activation,
    check_float,
    check_order,
    check_same_device,
    check_same_kind,
    check_same_sizes,
)


def _check_of_channels(tensor: Tensor | None, input: Tensor, name: str) -> None:
    if tensor is None:
        return
    if tensor.shape != input.shape[1:2]:
        raise RuntimeError(f"{name}: one number for each of {input.shape[1]} channels is expected")
    check_float(tensor, name)
    check_same_device(tensor, input, name, "input")


def _check_doubles(tensor: Tensor, input: Tensor, name: str) -> None:
    _check_of_channels(tensor, input, name)
    if tensor.dtype != torch.float64:
        raise RuntimeError(f"{name}: its dtype is not float64")


def _check_input(input: Tensor, activation: int, order: int) -> None:
    check_activation(activation)
    check_order(order)
    if input.dim() < 2:
        raise RuntimeError(f"input: at least 2 dimensions are expected, got {input.dim()}")
    check_float(input, "input")


def check_forward(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None, bias: Tensor | None,
    batch_mean: Tensor | None, batch_var: Tensor | None, training: bool, activation: int, order: int,
) -> None:  # fmt: skip
    _check_input(input, activation, order)
    _check_of_channels(running_mean, input, "running_mean")
    _check_of_channels(running_var, input, "running_var")
    _check_of_channels(weight, input, "weight")
    _check_of_channels(bias, input, "bias")
    if (running_mean is None) != (running_var is None):
        raise RuntimeError("running_mean, running_var: both or none")
    if not training and running_mean is None:
        raise RuntimeError("running_mean: it is needed outside training")
    if (batch_mean is None) != (batch_var is None):
        raise RuntimeError("batch_mean, batch_var: both or none")
    if batch_mean is not None and batch_var is not None:
        if not training:
            raise RuntimeError("batch_mean: none is expected outside training")
        _check_doubles(batch_mean, input, "batch_mean")
        _check_doubles(batch_var, input, "batch_var")
    if training and input.shape[0] * math.prod(input.shape[2:]) == 1:
        raise RuntimeError("input: more than 1 value per channel is expected in training")


def check_backward(
    grad: Tensor, input: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, invstd: Tensor,
    activation: int, order: int,
) -> None:  # fmt: skip
    _check_input(input, activation, order)
    check_same_sizes(grad, input, "grad", "input")
    check_same_kind(grad, input, "grad", "input")
    check_same_device(grad, input, "grad", "input")
    _check_of_channels(weight, input, "weight")
    _check_of_channels(bias, input, "bias")
    _check_doubles(mean, input, "mean")
    _check_doubles(invstd, input, "invstd")
