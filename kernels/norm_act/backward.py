"""Backward: sums of the parts, totals a channel, then one pass over the elements."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from inpaint_fast.kernels._activations import ACT_NORM, NORM_ACT, activated, times_activation_slope
from inpaint_fast.kernels._walk import number, on_their_device
from inpaint_fast.kernels.norm_act.arguments import check_backward
from inpaint_fast.kernels.norm_act.walk import (
    COMBINED,
    Walk,
    dense,
    dense_like,
    normalisation,
    present,
    share_of,
    store_number,
    tile_at,
)


@triton.jit
def sums_kernel(
    grad,  # T: d loss / d y
    input,  # T
    weight,
    bias,
    mean,
    invstd,
    partials,  # float64: the sum of g for each (part, channel), then that of g * (u - shift)
    count,
    channels,
    pixels,
    length,
    parts,
    slope: tl.float64,
    ACTIVATION: tl.constexpr,
    ORDER: tl.constexpr,  # NORM_ACT or ACT_NORM
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    WIDE: tl.constexpr,
    VALUES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    compute: tl.constexpr = tl.float64 if input.dtype.element_ty == tl.float64 else tl.float32
    part, begin, end, c = share_of(count, length, parts, WIDE, CHANNELS)
    parameter = number(slope, compute)
    has = c < channels
    average, inverse = tl.load(mean + c, has, 0.0), tl.load(invstd + c, has, 0.0)
    shift, factor, offset = normalisation(average, inverse, weight, bias, c, has, compute, HAS_WEIGHT, HAS_BIAS)
    scale = factor.to(compute)
    total = tl.zeros([VALUES, CHANNELS], tl.float64)
    products = tl.zeros([VALUES, CHANNELS], tl.float64)
    for start in range(begin, end, VALUES):
        at, there = tile_at(start, end, c, channels, pixels, ROWS, WIDE, VALUES)
        x = tl.load(input + at, there, 0.0).to(compute)
        g = tl.load(grad + at, there, 0.0).to(compute)
        if ORDER == ACT_NORM:
            x = activated(x, parameter, ACTIVATION)
        difference = x - shift[None, :]
        if ORDER == NORM_ACT:
            g = times_activation_slope(g, difference * scale[None, :] + offset[None, :], parameter, ACTIVATION)
        g = tl.where(there, g, 0.0).to(tl.float64)
        total += g
        products += g * tl.where(there, difference, 0.0).to(tl.float64)
    at = partials + part * channels + c
    tl.store(at, tl.sum(total, 0), has)
    tl.store(at + parts * channels, tl.sum(products, 0), has)


@triton.jit
def totals_kernel(
    partials,  # of sums_kernel
    mean,
    invstd,
    totals,  # float64, of g and of g * (u - mean) / std, a number a channel each
    grad_weight,  # P; not written without WANT_WEIGHT
    grad_bias,  # P; not written without WANT_BIAS
    channels,
    parts,
    SHIFT: tl.constexpr,  # the type that shift is in: "fp32" or "fp64"
    WANT_WEIGHT: tl.constexpr,
    WANT_BIAS: tl.constexpr,
    COMBINED: tl.constexpr,
):
    c = tl.program_id(0) * COMBINED + tl.arange(0, COMBINED)
    has = c < channels
    total = tl.zeros([COMBINED, COMBINED], tl.float64)
    products = tl.zeros([COMBINED, COMBINED], tl.float64)
    for start in range(0, parts, COMBINED):
        part = start + tl.arange(0, COMBINED)[:, None]
        there = (part < parts) & has[None, :]
        at = partials + part * channels + c[None, :]
        total += tl.load(at, there, 0.0)
        products += tl.load(at + parts * channels, there, 0.0)
    average = tl.load(mean + c, has, 0.0)
    rest = average - (average.to(tl.float32).to(tl.float64) if SHIFT == "fp32" else average)
    by_bias = tl.sum(total, 0)
    by_weight = tl.load(invstd + c, has, 0.0) * (tl.sum(products, 0) - rest * by_bias)
    tl.store(totals + c, by_bias, has)
    tl.store(totals + channels + c, by_weight, has)
    if WANT_WEIGHT:
        store_number(grad_weight, c, by_weight, has)
    if WANT_BIAS:
        store_number(grad_bias, c, by_bias, has)


@triton.jit
def backward_kernel(
    grad,  # T
    input,  # T
    output,  # T: d loss / d input
    weight,
    bias,
    mean,
    invstd,
    totals,  # float64, of g and of g * (u - mean) / std, a number a channel each; read with TRAINING
    count,
    channels,
    pixels,
    length,
    parts,
    slope: tl.float64,
    ACTIVATION: tl.constexpr,
    ORDER: tl.constexpr,  # NORM_ACT or ACT_NORM
    TRAINING: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    WIDE: tl.constexpr,
    VALUES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    compute: tl.constexpr = tl.float64 if input.dtype.element_ty == tl.float64 else tl.float32
    part, begin, end, c = share_of(count, length, parts, WIDE, CHANNELS)
    parameter = number(slope, compute)
    has = c < channels
    average, inverse = tl.load(mean + c, has, 0.0), tl.load(invstd + c, has, 0.0)
    shift, factor, offset = normalisation(average, inverse, weight, bias, c, has, compute, HAS_WEIGHT, HAS_BIAS)
    scale = factor.to(compute)
    if TRAINING:
        share = -factor / number(count, tl.float64)
        by_value = share * inverse * tl.load(totals + channels + c, has, 0.0)
        constant = share * tl.load(totals + c, has, 0.0) - by_value * (average - shift.to(tl.float64))
        by_value, constant = by_value.to(compute)[None, :], constant.to(compute)[None, :]
    for start in range(begin, end, VALUES):
        at, there = tile_at(start, end, c, channels, pixels, ROWS, WIDE, VALUES)
        x = tl.load(input + at, there, 0.0).to(compute)
        g = tl.load(grad + at, there, 0.0).to(compute)
        difference = (activated(x, parameter, ACTIVATION) if ORDER == ACT_NORM else x) - shift[None, :]
        if ORDER == NORM_ACT:
            g = times_activation_slope(g, difference * scale[None, :] + offset[None, :], parameter, ACTIVATION)
        result = scale[None, :] * g
        if TRAINING:
            result += by_value * difference + constant
        if ORDER == ACT_NORM:
            result = times_activation_slope(result, x, parameter, ACTIVATION)
        tl.store(output + at, result.to(output.dtype.element_ty), there)


@on_their_device
def norm_act_backward(
    grad: Tensor, input: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, invstd: Tensor,
    training: bool, activation: int, slope: float, order: int, want_input: bool, want_parameters: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of input, weight and bias; empty where they are not wanted or there is no such parameter."""
    check_backward(grad, input, weight, bias, mean, invstd, activation, order)
    input = dense(input)
    grad = dense_like(grad, input)
    grad_input = torch.empty_like(input) if want_input else input.new_empty(0)
    wanted = [want_parameters and parameter is not None for parameter in (weight, bias)]
    grads = [
        p.new_zeros(p.shape) if want else input.new_empty(0) for p, want in zip((weight, bias), wanted, strict=True)
    ]
    if not input.numel():
        return grad_input, *grads
    walk = Walk(input)
    totals = input.new_empty(2 * walk.channels, dtype=torch.float64)
    of_channels = present(weight, bias, mean, invstd, otherwise=totals)
    constants = {"ACTIVATION": activation, "ORDER": order, "HAS_WEIGHT": weight is not None,
                 "HAS_BIAS": bias is not None, **walk.constants}  # fmt: skip
    if any(wanted) or (training and want_input):
        partials = walk.partials(input)
        sums_kernel[walk.grid](grad, input, *of_channels, partials, *walk.sizes, slope, **constants)
        totals_kernel[walk.combine_grid](
            partials, *of_channels[2:], totals, *grads, walk.channels, walk.parts,
            SHIFT="fp64" if input.dtype == torch.float64 else "fp32", WANT_WEIGHT=wanted[0], WANT_BIAS=wanted[1],
            COMBINED=COMBINED,
        )  # fmt: skip
    if want_input:
        backward_kernel[walk.grid](
            grad, input, grad_input, *of_channels, totals, *walk.sizes, slope, TRAINING=training, **constants
        )
    return grad_input, *grads
