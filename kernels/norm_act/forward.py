"""Forward: moments of the parts, statistics of the batch, then one pass over the elements."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from inpaint_fast._words import ORDERS
from inpaint_fast.kernels._activations import ACT_NORM, NONE, NORM_ACT, activated
from inpaint_fast.kernels._walk import number, on_their_device
from inpaint_fast.kernels.norm_act.arguments import check_forward
from inpaint_fast.kernels.norm_act.walk import (
    COMBINED,
    Walk,
    dense,
    normalisation,
    offset_of,
    present,
    share_of,
    store_number,
    tile_at,
)


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
    part, begin, end, c = share_of(count, length, parts, WIDE, CHANNELS)
    parameter = number(slope, compute)
    # About the first value: differences leave no large numbers to cancel. An infinite one would make them all NaN.
    first = tl.load(input + offset_of(begin, c, channels, pixels, ROWS, WIDE), c < channels, 0.0).to(compute)
    first = activated(first, parameter, ACTIVATION).to(tl.float64)
    first = tl.where(first - first == 0, first, 0.0)
    total = tl.zeros([VALUES, CHANNELS], tl.float64)
    squares = tl.zeros([VALUES, CHANNELS], tl.float64)
    for start in range(begin, end, VALUES):
        at, there = tile_at(start, end, c, channels, pixels, ROWS, WIDE, VALUES)
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
        store_number(new_mean, c, updated, has)
        updated = share * (squares / (n - 1.0)) + rest * tl.load(running_var + c, has, 0.0).to(tl.float64)
        store_number(new_var, c, updated, has)


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
    if TRAINING:
        average, inverse = tl.load(mean + c, has, 0.0), tl.load(invstd + c, has, 0.0)
    else:
        average = tl.load(running_mean + c, has, 0.0).to(tl.float64)
        inverse = 1.0 / tl.sqrt(tl.load(running_var + c, has, 1.0).to(tl.float64) + number(eps, tl.float64))
        mine = tl.where(part == 0, has, False)
        tl.store(mean + c, average, mine)
        tl.store(invstd + c, inverse, mine)
    shift, factor, offset = normalisation(average, inverse, weight, bias, c, has, compute, HAS_WEIGHT, HAS_BIAS)
    scale = factor.to(compute)
    for start in range(begin, end, VALUES):
        at, there = tile_at(start, end, c, channels, pixels, ROWS, WIDE, VALUES)
        x = tl.load(input + at, there, 0.0).to(compute)
        if ORDER == ACT_NORM:
            x = activated(x, parameter, ACTIVATION)
        y = (x - shift[None, :]) * scale[None, :] + offset[None, :]
        if ORDER == NORM_ACT:
            y = activated(y, parameter, ACTIVATION)
        tl.store(output + at, y.to(output.dtype.element_ty), there)


@on_their_device
def norm_act(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None, bias: Tensor | None,
    batch_mean: Tensor | None, batch_var: Tensor | None, training: bool, momentum: float, eps: float, activation: int,
    slope: float, order: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """(y, mean, 1 / std, running_mean and running_var after the update); without an update the last two are empty."""
    check_forward(
        input, running_mean, running_var, weight, bias, batch_mean, batch_var, training, activation, order
    )  # fmt: skip
    input = dense(input)
    output = torch.empty_like(input)
    mean, invstd = (input.new_zeros(input.shape[1], dtype=torch.float64) for _ in range(2))
    update = training and running_mean is not None
    new_mean, new_var = ((r.clone() if update else input.new_empty(0)) for r in (running_mean, running_var))
    if not input.numel():
        return output, mean, invstd, new_mean, new_var
    walk = Walk(input)
    means, variances, weights, biases = present(running_mean, running_var, weight, bias, otherwise=mean)
    if training:
        count, channels, _, length, parts = walk.sizes
        if batch_mean is None:
            partials = walk.partials(input)
            first = activation if ORDERS[order] == "act_norm" else NONE
            moments_kernel[walk.grid](input, partials, *walk.sizes, slope, ACTIVATION=first, **walk.constants)
            moments, unit = (partials, partials[parts * channels :]), 1.0
        else:
            moments, unit, length, parts = present(batch_mean, batch_var, otherwise=mean), float(count), count, 1
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
