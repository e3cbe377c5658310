"""Batch normalisation and activation in Triton: Ioffe and Szegedy, Batch Normalization (2015).

    u = input, or act(input) where the activation comes first
    z = scale * (u - shift) + offset,  scale = weight / std,  shift = the mean as the elements' type has it
    y = act(z), or z where the activation came first

and with g = d loss / d z

    d loss / d u = scale * (g - mean(g) - (u - mean) / var * mean(g * (u - mean)))    the last two in training alone

In training three launches a direction, for nothing waits for a whole grid inside one: every part of the tensor leaves
two numbers a channel, one kernel puts these together, one goes over the elements. In eval mode one launch, and two more
for the gradients of weight and bias. Elements are computed in float32 (float64 for float64) and summed in float64, the
variance from each part's own mean and the squares about it (Chan, Golub, LeVeque, Updating formulae and a pairwise
algorithm for computing sample variances, 1979). Deterministic: the parts follow from the shape alone and are added in a
fixed order. Nothing waits for the device.

The functions take what the schemas in ops/norm_act.py say.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from inpaint_fast._words import ORDERS
from inpaint_fast.kernels._activations import ACT_NORM, NONE, NORM_ACT, activated, times_activation_slope
from inpaint_fast.kernels._walk import is_wide, number, on_their_device

TILE = 1024  # elements that a program has before it at a time
CHANNELS = 128  # most of them are side by side in a tile, in rows
MAX_PARTS = 512  # of a channel's values
PROGRAMS = 2048  # fill any GPU; more would only leave more to put together
COMBINED = 32  # parts that are put together at a time; channels of a program that does so


# ---- what the kernels share ----


@triton.jit
def _share(count, length, parts, WIDE: tl.constexpr, CHANNELS: tl.constexpr):
    """(part, its first value, the one behind its last, channels): what this program has of everything."""
    part = tl.program_id(0) % parts
    begin = part.to(tl.int64 if WIDE else tl.int32) * length
    c = (tl.program_id(0) // parts) * CHANNELS + tl.arange(0, CHANNELS)
    return part, begin, tl.minimum(begin + length, count), c


@triton.jit
def _at(i, c, channels, pixels, ROWS: tl.constexpr, WIDE: tl.constexpr):
    """Where value i of channel c lies: rows are (pixels, channels), planes are (samples, channels, pixels)."""
    c = c.to(tl.int64 if WIDE else tl.int32)
    return i * channels + c if ROWS else (i // pixels * channels + c) * pixels + i % pixels


@triton.jit
def _tile(start, end, c, channels, pixels, ROWS: tl.constexpr, WIDE: tl.constexpr, VALUES: tl.constexpr):
    """(where the values from start on lie, which of them exist)."""
    i = start + tl.arange(0, VALUES)[:, None]
    return _at(i, c[None, :], channels, pixels, ROWS, WIDE), (i < end) & (c < channels)[None, :]


@triton.jit
def _of_channels(pointer, c, there, otherwise: tl.constexpr, HAS: tl.constexpr):
    """A number of each channel, in float64."""
    found = tl.full(c.shape, otherwise, tl.float64)
    if HAS:
        found = tl.load(pointer + c, there, otherwise).to(tl.float64)
    return found


@triton.jit
def _store_number(pointer, c, x, there):
    """x, float64, as pointer's type has it; by way of float32 to the short ones, which interpreted Triton needs."""
    element: tl.constexpr = pointer.dtype.element_ty
    tl.store(pointer + c, x if element == tl.float64 else x.to(tl.float32).to(element), there)


@triton.jit
def _normalisation(
    mean, invstd, weight, bias, c, has, compute: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr
):
    """(shift, scale in float64, offset). u - shift is exact where u is near it, and offset takes the rest."""
    shift = mean.to(compute)
    scale = invstd * _of_channels(weight, c, has, 1.0, HAS_WEIGHT)
    offset = _of_channels(bias, c, has, 0.0, HAS_BIAS) - (mean - shift.to(tl.float64)) * scale
    return shift, scale, offset.to(compute)


# ---- the kernels over elements: a program has the values [begin, end) of some channels ----


@triton.jit
def moments_kernel(
    input,  # T: float32, float64, float16 or bfloat16
    partials,  # float64: a mean for each (part, channel), then the sum of squares about it
    count,  # values of a channel
    channels,
    pixels,
    length,  # values of a part
    parts,
    slope: tl.float64,
    ACTIVATION: tl.constexpr,  # that comes first; NONE otherwise
    ROWS: tl.constexpr,
    WIDE: tl.constexpr,  # indices of 64 bits
    VALUES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    compute: tl.constexpr = tl.float64 if input.dtype.element_ty == tl.float64 else tl.float32
    part, begin, end, c = _share(count, length, parts, WIDE, CHANNELS)
    parameter = number(slope, compute)
    # About the first value: differences leave no large numbers to cancel. An infinite one would make them all NaN.
    first = tl.load(input + _at(begin, c, channels, pixels, ROWS, WIDE), c < channels, 0.0).to(compute)
    first = activated(first, parameter, ACTIVATION).to(tl.float64)
    first = tl.where(first - first == 0, first, 0.0)
    total = tl.zeros([VALUES, CHANNELS], tl.float64)
    squares = tl.zeros([VALUES, CHANNELS], tl.float64)
    for start in range(begin, end, VALUES):
        at, there = _tile(start, end, c, channels, pixels, ROWS, WIDE, VALUES)
        x = tl.load(input + at, there, 0.0).to(compute)
        difference = activated(x, parameter, ACTIVATION).to(tl.float64) - first[None, :]
        difference = tl.where(there, difference, 0.0)
        total += difference
        squares += difference * difference
    n = (end - begin).to(tl.float64)
    sum = tl.sum(total, 0)
    about_mean = tl.sum(squares, 0) - sum * sum / n
    at = partials + part * channels + c
    tl.store(at, first + sum / n, c < channels)
    tl.store(at + parts * channels, tl.where(about_mean < 0, 0.0, about_mean), c < channels)


@triton.jit
def forward_kernel(
    input,  # T
    output,  # T
    weight,  # P; not read without HAS_WEIGHT
    bias,  # P; not read without HAS_BIAS
    running_mean,  # P; read without TRAINING
    running_var,  # P; read without TRAINING
    mean,  # float64 a channel; written without TRAINING
    invstd,  # float64 a channel; written without TRAINING
    eps: tl.float64,
    count,
    channels,
    pixels,
    length,
    parts,
    slope: tl.float64,
    ACTIVATION: tl.constexpr,
    ORDER: tl.constexpr,
    TRAINING: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    WIDE: tl.constexpr,
    VALUES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    compute: tl.constexpr = tl.float64 if input.dtype.element_ty == tl.float64 else tl.float32
    part, begin, end, c = _share(count, length, parts, WIDE, CHANNELS)
    parameter = number(slope, compute)
    has = c < channels
    if TRAINING:
        average, inverse = tl.load(mean + c, has, 0.0), tl.load(invstd + c, has, 0.0)
    else:
        average = tl.load(running_mean + c, has, 0.0).to(tl.float64)
        inverse = 1.0 / tl.sqrt(tl.load(running_var + c, has, 1.0).to(tl.float64) + number(eps, tl.float64))
        mine = tl.where(part == 0, has, False)
        tl.store(mean + c, average, mine)
        tl.store(invstd + c, inverse, mine)
    shift, factor, offset = _normalisation(average, inverse, weight, bias, c, has, compute, HAS_WEIGHT, HAS_BIAS)
    scale = factor.to(compute)
    for start in range(begin, end, VALUES):
        at, there = _tile(start, end, c, channels, pixels, ROWS, WIDE, VALUES)
        x = tl.load(input + at, there, 0.0).to(compute)
        if ORDER == ACT_NORM:
            x = activated(x, parameter, ACTIVATION)
        y = (x - shift[None, :]) * scale[None, :] + offset[None, :]
        if ORDER == NORM_ACT:
            y = activated(y, parameter, ACTIVATION)
        tl.store(output + at, y.to(output.dtype.element_ty), there)


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
    ORDER: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    WIDE: tl.constexpr,
    VALUES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    compute: tl.constexpr = tl.float64 if input.dtype.element_ty == tl.float64 else tl.float32
    part, begin, end, c = _share(count, length, parts, WIDE, CHANNELS)
    parameter = number(slope, compute)
    has = c < channels
    average, inverse = tl.load(mean + c, has, 0.0), tl.load(invstd + c, has, 0.0)
    shift, factor, offset = _normalisation(average, inverse, weight, bias, c, has, compute, HAS_WEIGHT, HAS_BIAS)
    scale = factor.to(compute)
    total = tl.zeros([VALUES, CHANNELS], tl.float64)
    products = tl.zeros([VALUES, CHANNELS], tl.float64)
    for start in range(begin, end, VALUES):
        at, there = _tile(start, end, c, channels, pixels, ROWS, WIDE, VALUES)
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
    ORDER: tl.constexpr,
    TRAINING: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    WIDE: tl.constexpr,
    VALUES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    compute: tl.constexpr = tl.float64 if input.dtype.element_ty == tl.float64 else tl.float32
    part, begin, end, c = _share(count, length, parts, WIDE, CHANNELS)
    parameter = number(slope, compute)
    has = c < channels
    average, inverse = tl.load(mean + c, has, 0.0), tl.load(invstd + c, has, 0.0)
    shift, factor, offset = _normalisation(average, inverse, weight, bias, c, has, compute, HAS_WEIGHT, HAS_BIAS)
    scale = factor.to(compute)
    if TRAINING:
        share = -factor / number(count, tl.float64)
        by_value = share * inverse * tl.load(totals + channels + c, has, 0.0)
        constant = share * tl.load(totals + c, has, 0.0) - by_value * (average - shift.to(tl.float64))
        by_value, constant = by_value.to(compute)[None, :], constant.to(compute)[None, :]
    for start in range(begin, end, VALUES):
        at, there = _tile(start, end, c, channels, pixels, ROWS, WIDE, VALUES)
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


# ---- the kernels that put parts together ----


@triton.jit
def statistics_kernel(
    means,  # float64, for each (part, channel)
    deviations,  # float64, for each (part, channel): the sum of squares about its mean, in units of `unit`
    running_mean,  # P; not read without HAS_RUNNING
    running_var,
    mean,  # float64 a channel
    invstd,  # float64 a channel
    new_mean,  # P; not written without HAS_RUNNING
    new_var,
    momentum: tl.float64,
    eps: tl.float64,
    unit: tl.float64,
    count,
    channels,
    length,
    parts,
    HAS_RUNNING: tl.constexpr,
    COMBINED: tl.constexpr,
):
    c = tl.program_id(0) * COMBINED + tl.arange(0, COMBINED)
    has = c < channels
    n = number(count, tl.float64)
    first = tl.load(means + c, has, 0.0)
    first = tl.where(first - first == 0, first, 0.0)[None, :]
    total = tl.zeros([COMBINED, COMBINED], tl.float64)
    for start in range(0, parts, COMBINED):
        part = start + tl.arange(0, COMBINED)[:, None]
        there = (part < parts) & has[None, :]
        values = tl.minimum(count - part * length, length).to(tl.float64)
        average = tl.load(means + part * channels + c[None, :], there, 0.0)
        total += tl.where(there, values * (average - first), 0.0)
    whole = first + tl.sum(total, 0)[None, :] / n
    total = tl.zeros([COMBINED, COMBINED], tl.float64)
    for start in range(0, parts, COMBINED):
        part = start + tl.arange(0, COMBINED)[:, None]
        there = (part < parts) & has[None, :]
        values = tl.minimum(count - part * length, length).to(tl.float64)
        at = part * channels + c[None, :]
        difference = tl.load(means + at, there, 0.0) - whole
        squares = tl.load(deviations + at, there, 0.0) * number(unit, tl.float64) + values * difference * difference
        total += tl.where(there, squares, 0.0)
    squares = tl.sum(total, 0)
    average = tl.sum(whole, 0)
    tl.store(mean + c, average, has)
    tl.store(invstd + c, 1.0 / tl.sqrt(squares / n + number(eps, tl.float64)), has)
    if HAS_RUNNING:
        share = number(momentum, tl.float64)
        rest = 1.0 - share
        updated = share * average + rest * tl.load(running_mean + c, has, 0.0).to(tl.float64)
        _store_number(new_mean, c, updated, has)
        updated = share * (squares / (n - 1.0)) + rest * tl.load(running_var + c, has, 0.0).to(tl.float64)
        _store_number(new_var, c, updated, has)


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
        _store_number(grad_weight, c, by_weight, has)
    if WANT_BIAS:
        _store_number(grad_bias, c, by_bias, has)


# ---- launches ----


class Walk:
    """How the kernels walk a tensor: its memory order, and the parts and tiles that follow from its shape."""

    def __init__(self, input: Tensor) -> None:
        pixels = math.prod(input.shape[2:])
        self.channels = input.shape[1]
        self.count = input.shape[0] * pixels
        rows = not (input.is_contiguous() and pixels > 1)
        channels = min(triton.next_power_of_2(self.channels), CHANNELS) if rows else 1
        values = TILE // channels
        self.groups = triton.cdiv(self.channels, channels)
        parts = min(triton.cdiv(self.count, 4 * values), triton.cdiv(PROGRAMS, self.groups), MAX_PARTS)
        length = triton.cdiv(triton.cdiv(self.count, parts), values) * values
        self.parts = triton.cdiv(self.count, length)  # none of them is empty
        self.grid = (self.parts * self.groups,)
        self.combine_grid = (triton.cdiv(self.channels, COMBINED),)
        self.sizes = (self.count, self.channels, pixels, length, self.parts)
        wide = is_wide(input.numel() + MAX_PARTS * TILE)  # parts end at whole tiles, past the last value
        self.constants = {"ROWS": rows, "WIDE": wide, "VALUES": values, "CHANNELS": channels}

    def partials(self, input: Tensor) -> Tensor:
        return input.new_empty(2 * self.parts * self.channels, dtype=torch.float64)


def _dense(tensor: Tensor) -> Tensor:
    """The tensor itself where its elements lie in planes or rows, otherwise a contiguous copy."""
    return tensor if tensor.movedim(1, -1).is_contiguous() else tensor.contiguous()


def _dense_like(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor itself where it has the strides of `like`, otherwise a copy that has."""
    strides = zip(tensor.stride(), like.stride(), like.shape, strict=True)
    return tensor if all(a == b or size == 1 for a, b, size in strides) else torch.empty_like(like).copy_(tensor)


def _present(*tensors: Tensor | None, otherwise: Tensor) -> list[Tensor]:
    """Each of a number a channel, side by side; something that is never read for what is not there."""
    return [otherwise if tensor is None else tensor.contiguous() for tensor in tensors]


# ---- the operators ----


@on_their_device
def norm_act(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None, bias: Tensor | None,
    batch_mean: Tensor | None, batch_var: Tensor | None, training: bool, momentum: float, eps: float, activation: int,
    slope: float, order: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """(y, mean, 1 / std, running_mean and running_var after the update); without an update the last two are empty."""
    input = _dense(input)
    output = torch.empty_like(input)
    mean, invstd = (input.new_zeros(input.shape[1], dtype=torch.float64) for _ in range(2))
    update = training and running_mean is not None
    new_mean, new_var = ((r.clone() if update else input.new_empty(0)) for r in (running_mean, running_var))
    if not input.numel():
        return output, mean, invstd, new_mean, new_var
    walk = Walk(input)
    means, variances, weights, biases = _present(running_mean, running_var, weight, bias, otherwise=mean)
    if training:
        count, channels, _, length, parts = walk.sizes
        if batch_mean is None:
            partials = walk.partials(input)
            first = activation if ORDERS[order] == "act_norm" else NONE
            moments_kernel[walk.grid](input, partials, *walk.sizes, slope, ACTIVATION=first, **walk.constants)
            moments, unit = (partials, partials[parts * channels :]), 1.0
        else:
            moments, unit, length, parts = _present(batch_mean, batch_var, otherwise=mean), float(count), count, 1
        statistics_kernel[walk.combine_grid](
            *moments, means, variances, mean, invstd, new_mean, new_var, momentum, eps, unit, count, channels, length,
            parts, HAS_RUNNING=update, COMBINED=COMBINED,
        )  # fmt: skip
    forward_kernel[walk.grid](
        input, output, weights, biases, means, variances, mean, invstd, eps, *walk.sizes, slope,
        ACTIVATION=activation, ORDER=order, TRAINING=training, HAS_WEIGHT=weight is not None,
        HAS_BIAS=bias is not None, **walk.constants,
    )  # fmt: skip
    return output, mean, invstd, new_mean, new_var


@on_their_device
def norm_act_backward(
    grad: Tensor, input: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, invstd: Tensor,
    training: bool, activation: int, slope: float, order: int, want_input: bool, want_parameters: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of input, weight and bias; empty where they are not wanted or there is no such parameter."""
    input = _dense(input)
    grad = _dense_like(grad, input)
    grad_input = torch.empty_like(input) if want_input else input.new_empty(0)
    wanted = [want_parameters and parameter is not None for parameter in (weight, bias)]
    grads = [
        p.new_zeros(p.shape) if want else input.new_empty(0) for p, want in zip((weight, bias), wanted, strict=True)
    ]
    if not input.numel():
        return grad_input, *grads
    walk = Walk(input)
    totals = input.new_empty(2 * walk.channels, dtype=torch.float64)
    of_channels = _present(weight, bias, mean, invstd, otherwise=totals)
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
