"""The operators of the three blocks; arguments as the schemas in ops/conv_block/definition.py say."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from inpaint_fast._words import ACTIVATIONS, ORDERS
from inpaint_fast.kernels._checks import check_memory
from inpaint_fast.kernels._walk import on_their_device
from inpaint_fast.kernels.conv_block.arguments import check_kind, check_tile, check_weight, convolution_of
from inpaint_fast.kernels.conv_block.convolution import convolve, packed
from inpaint_fast.kernels.conv_block.weight_gradient import sum_over_pixels

NORM_ACT = ORDERS.index("norm_act")
NO_EPILOGUE = (None, None, None), ACTIVATIONS.index("none"), 0.0, NORM_ACT
HALVING = (1, 1, 1, 1)  # the geometry of stride 2

# ---- of any block: first its stride, whether it is transposed, its geometry ----


def _weights(stride: int, transposed: bool, weight: Tensor, *settings: int) -> Tensor:
    """The weight as the kernel reads it: (C_out, taps, taps, C_in), flat. The settings are for CPUs alone."""
    check_kind(weight, "weight")
    check_memory(weight, "weight")
    check_weight(weight, stride)
    return packed(weight, transposed, tf32=False)


def _block(
    stride: int,
    transposed: bool,
    geometry: Sequence[int],
    input: Tensor,
    weight: Tensor,
    transformed: Tensor | None,  # of _weights
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    activation: int,
    slope: float,
    order: int,
    channels_last: bool,
    tf32: bool,
) -> Tensor:
    convolution, vectors = convolution_of(weight, stride, transposed, geometry), (bias, scale, shift)
    return convolve(convolution, input, weight, transformed, vectors, activation, slope, order, channels_last, tf32)


def _statistics(
    stride: int,
    transposed: bool,
    geometry: Sequence[int],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: int,
    slope: float,
    channels_last: bool,
    tf32: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The convolution without activation; mean and biased variance of what the activation makes of it."""
    convolution, vectors = convolution_of(weight, stride, transposed, geometry), (bias, None, None)
    mean, var = (input.new_zeros(convolution.channels(weight)[1], dtype=torch.float64) for _ in range(2))
    # In the order "norm_act" the kernel leaves out the activation that comes last.
    y = convolve(
        convolution, input, weight, None, vectors, activation, slope, NORM_ACT, channels_last, tf32, (mean, var)
    )
    return y, mean, var


def _weight_gradient(
    stride: int, transposed: bool, geometry: Sequence[int], grad: Tensor, input: Tensor, weight: Tensor, tf32: bool
) -> Tensor:
    return sum_over_pixels(convolution_of(weight, stride, transposed, geometry), grad, input, weight, tf32)


# ---- dilated_block ----


@on_their_device
def dilated_block_weights(weight: Tensor, tile: int, tf32: bool) -> Tensor:
    check_tile(tile)
    return _weights(1, False, weight)


@on_their_device
def dilated_block(
    input: Tensor,
    weight: Tensor,
    transformed: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    geometry: Sequence[int],
    *settings,
) -> Tensor:
    return _block(1, False, geometry, input, weight, transformed, bias, scale, shift, *settings)


@on_their_device
def dilated_block_statistics(
    input: Tensor, weight: Tensor, bias: Tensor | None, geometry: Sequence[int], *settings
) -> tuple[Tensor, Tensor, Tensor]:
    return _statistics(1, False, geometry, input, weight, bias, *settings)


@on_their_device
def dilated_block_input_gradient(
    grad: Tensor, weight: Tensor, geometry: Sequence[int], channels_last: bool, tf32: bool
) -> Tensor:
    convolution = convolution_of(weight, 1, True, geometry)
    return convolve(convolution, grad, weight, None, *NO_EPILOGUE, channels_last, tf32)


@on_their_device
def dilated_block_weight_gradient(
    grad: Tensor, input: Tensor, weight: Tensor, geometry: Sequence[int], tf32: bool
) -> Tensor:
    return _weight_gradient(1, False, geometry, grad, input, weight, tf32)


# ---- strided_block and transposed_block: each is the other's input gradient ----

strided_block = on_their_device(partial(_block, 2, False, HALVING))
strided_block_statistics = on_their_device(partial(_statistics, 2, False, HALVING))
strided_block_weights = on_their_device(partial(_weights, 2, False))
strided_block_weight_gradient = on_their_device(partial(_weight_gradient, 2, False, HALVING))

transposed_block = on_their_device(partial(_block, 2, True, HALVING))
transposed_block_statistics = on_their_device(partial(_statistics, 2, True, HALVING))
transposed_block_weights = on_their_device(partial(_weights, 2, True))
transposed_block_weight_gradient = on_their_device(partial(_weight_gradient, 2, True, HALVING))
