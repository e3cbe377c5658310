"""The convolution with its epilogue in Triton, its statistics, and its input's gradient.

A program owns TILE_H x TILE_W pixels of one picture and BLOCK_N output channels. For one tap its input is the same box
of pixels, shifted: the dilation changes an offset and nothing else, and what the box reads outside of the picture is
zero. A tap whose whole box lies outside is left out.

The input's gradient is the same product: channels swapped, taps in reverse, padding 2 * dilation - padding.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from inpaint_fast._layout import pictures_like
from inpaint_fast._words import ACTIVATIONS, ORDERS, triton_interpreted
from inpaint_fast.kernels._activations import ACT_NORM, NORM_ACT, activated
from inpaint_fast.kernels._walk import block_of, on_their_device
from inpaint_fast.kernels.conv_block.moments import combine, leave_moments
from inpaint_fast.kernels.conv_block.problem import (
    BLOCK,
    as_tf32,
    check_epilogue,
    check_pictures,
    dot,
    expect,
    is_wide,
    output_size,
    tap_offset,
)
from inpaint_fast.kernels.conv_block.tiles import MOST_WITH_STATISTICS, precision_of, tile_of

PLAIN = (ACTIVATIONS.index("none"), 0.0, ORDERS.index("norm_act"))  # activation, slope and order of no epilogue


# ---- kernels ----


@triton.jit
def pack_kernel(
    weight,  # T: float32, float16 or bfloat16
    packed,  # T, (rows, 9, columns), contiguous
    numel,
    columns,
    strides,  # of weight's row, column and of its taps' row and column, in elements
    TF32: tl.constexpr,  # rounded to it
    WIDE: tl.constexpr,  # indices of 64 bits
    BLOCK: tl.constexpr,
):
    at, there = block_of(numel, WIDE, BLOCK)
    column, tap, row = at % columns, at // columns % 9, at // columns // 9
    value = tl.load(weight + tap_offset(row, column, tap, strides), there, 0.0)
    tl.store(packed + at, as_tf32(value) if TF32 else value, there)


@triton.jit
def convolution_kernel(
    input,  # T: float32, float16 or bfloat16
    weight,  # T, (out_channels, 9, channels), contiguous
    bias,  # T, one for each output channel; not read without HAS_BIAS; and so on
    scale,
    shift,
    output,  # T
    moments,  # float32, (tiles, 2, out_channels); not written without STATISTICS
    channels,
    out_channels,
    height,  # of input
    width,
    out_height,
    out_width,
    dilation_h,
    dilation_w,
    padding_h,  # may be negative
    padding_w,
    input_strides,  # of picture, channel, row and column, in elements
    output_strides,
    slope,
    ACTIVATION: tl.constexpr,
    ORDER: tl.constexpr,  # NORM_ACT or ACT_NORM
    HAS_BIAS: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_SHIFT: tl.constexpr,
    STATISTICS: tl.constexpr,  # of the activation's results, while the output is without activation
    REVERSED: tl.constexpr,  # taps are taken from the last to the first
    UNROLLED: tl.constexpr,  # a loop for each tap; otherwise one loop over all
    PRECISION: tl.constexpr,  # "half", "tf32" or "ieee"
    WIDE: tl.constexpr,  # indices of 64 bits
    INTERPRETED: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
    BLOCK_N: tl.constexpr,  # output channels
    BLOCK_K: tl.constexpr,  # input channels of one step
):
    integer: tl.constexpr = tl.int64 if WIDE else tl.int32
    # Programs side by side share their input.
    blocks, tiles_h, tiles_w = tl.cdiv(out_channels, BLOCK_N), tl.cdiv(out_height, TILE_H), tl.cdiv(out_width, TILE_W)
    block, tile = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    row, column = tile // tiles_w % tiles_h * TILE_H, tile % tiles_w * TILE_W
    bottom, right = min(row + TILE_H, out_height), min(column + TILE_W, out_width)
    image = (tile // (tiles_h * tiles_w)).to(tl.int64)
    input += image * input_strides[0]
    output += image * output_strides[0]

    pixel = tl.arange(0, TILE_H * TILE_W)
    y, x = row + pixel // TILE_W, column + pixel % TILE_W
    n, k = block * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    at = y.to(integer) * input_strides[2] + x.to(integer) * input_strides[3]
    input_at = at[:, None] + k.to(integer)[None, :] * input_strides[1]
    weight_at = n.to(integer)[None, :] * (9 * channels) + k[:, None]
    zero = tl.zeros([], tl.int64)

    sums = tl.zeros([TILE_H * TILE_W, BLOCK_N], tl.float32)
    if UNROLLED:
        for tap in tl.static_range(9):
            down, across = tap // 3 * dilation_h - padding_h, tap % 3 * dilation_w - padding_w
            meets = (row + down < height) & (bottom + down > 0) & (column + across < width) & (right + across > 0)
            there = (y + down >= 0) & (y + down < height) & (x + across >= 0) & (x + across < width)
            input_from = input + (zero + down) * input_strides[2] + (zero + across) * input_strides[3]
            weight_from = weight + (8 - tap if REVERSED else tap) * channels
            for c in range(0, tl.where(meets, channels, 0), BLOCK_K):
                left = k < channels - c
                a = tl.load(input_from + input_at, there[:, None] & left[None, :], 0.0)
                b = tl.load(weight_from + weight_at, left[:, None] & (n < out_channels)[None, :], 0.0)
                sums = dot(a, b, sums, PRECISION, INTERPRETED)
                input_from += (zero + BLOCK_K) * input_strides[1]
                weight_from += BLOCK_K
    else:  # the taps that meet the picture are rows r0, r0 + 1 ... and columns s0, s0 + 1 ...
        r0, s0 = max(tl.cdiv(padding_h - bottom + 1, dilation_h), 0), max(tl.cdiv(padding_w - right + 1, dilation_w), 0)
        rows = max(min(tl.cdiv(height + padding_h - row, dilation_h), 3) - r0, 0)
        columns = max(min(tl.cdiv(width + padding_w - column, dilation_w), 3) - s0, 0)
        steps = tl.cdiv(channels, BLOCK_K)
        for i in range(0, rows * columns * steps):
            c, r, s = i % steps * BLOCK_K, r0 + i // steps // columns, s0 + i // steps % columns
            down, across = r * dilation_h - padding_h, s * dilation_w - padding_w
            there = (y + down >= 0) & (y + down < height) & (x + across >= 0) & (x + across < width)
            shift_by = (zero + down) * input_strides[2] + (zero + across) * input_strides[3]
            input_from = input + shift_by + (zero + c) * input_strides[1]
            weight_from = weight + ((8 - 3 * r - s if REVERSED else 3 * r + s) * channels + c)
            left = k < channels - c
            a = tl.load(input_from + input_at, there[:, None] & left[None, :], 0.0)
            b = tl.load(weight_from + weight_at, left[:, None] & (n < out_channels)[None, :], 0.0)
            sums = dot(a, b, sums, PRECISION, INTERPRETED)

    result = sums
    inside = n < out_channels
    if HAS_BIAS:
        result += tl.load(bias + n, inside, 0.0).to(tl.float32)[None, :]
    if ORDER == ACT_NORM:
        result = activated(result, slope, ACTIVATION)
    if HAS_SCALE:
        result *= tl.load(scale + n, inside, 0.0).to(tl.float32)[None, :]
    if HAS_SHIFT:
        result += tl.load(shift + n, inside, 0.0).to(tl.float32)[None, :]
    if ORDER == NORM_ACT and not STATISTICS:
        result = activated(result, slope, ACTIVATION)
    at = y.to(integer) * output_strides[2] + x.to(integer) * output_strides[3]
    output_at = output + at[:, None] + n.to(integer)[None, :] * output_strides[1]
    there = (y < out_height) & (x < out_width)
    rounded = result.to(output.dtype.element_ty)
    tl.store(output_at, rounded, there[:, None] & inside[None, :])
    if STATISTICS:
        values = activated(rounded.to(tl.float32), slope, ACTIVATION)
        leave_moments(values, there, (bottom - row) * (right - column), moments, tile, n, out_channels)


# ---- launches ----


def _packed(weight: Tensor, swapped: bool, tf32: bool) -> Tensor:
    """The weight as the kernel reads it, flat: (rows, 3, 3, columns), columns being the channels that are summed over.

    `swapped`: the input channels are the rows. `tf32`: rounded to it.
    """
    rows_first = weight.transpose(0, 1) if swapped else weight
    packed = torch.empty(weight.numel(), dtype=weight.dtype, device=weight.device)
    if weight.numel():
        pack_kernel[(triton.cdiv(weight.numel(), BLOCK),)](
            weight, packed, weight.numel(), rows_first.shape[1], rows_first.stride(),
            TF32=precision_of(weight, tf32) == "tf32", WIDE=is_wide(weight), BLOCK=BLOCK,
        )  # fmt: skip
    return packed


def _convolve(
    input: Tensor,
    packed: Tensor,
    rows: int,
    vectors: Sequence[Tensor | None],  # bias, scale, shift
    geometry: Sequence[int],
    activation: int,
    slope: float,
    order: int,
    channels_last: bool,
    tf32: bool,
    swapped: bool = False,
    statistics: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The convolution of stride 1 with its epilogue. `packed`: the weight; `rows`: output channels; `swapped`: taps in
    reverse; `statistics`: where mean and variance go, of the activation's results, while the output has none."""
    images, channels, *size = input.shape
    height, width = output_size(size, geometry)
    expect(min(height, width) >= 1, f"a result of at least one pixel is expected, got {height}x{width}")
    output = pictures_like(input, rows, height, width, channels_last)
    if not output.numel():
        return output
    most = MOST_WITH_STATISTICS if statistics is not None and activation else None
    constants, options = tile_of(input, tf32, images, height, width, rows, channels, most)
    tiles = triton.cdiv(height, constants["TILE_H"]) * triton.cdiv(width, constants["TILE_W"])
    moments = output  # not written
    if statistics is not None:
        moments = torch.empty((images * tiles, 2, rows), dtype=torch.float32, device=input.device)
    bias, scale, shift = (None if vector is None else vector.contiguous() for vector in vectors)
    convolution_kernel[(images * tiles * triton.cdiv(rows, constants["BLOCK_N"]),)](
        input,
        packed,
        *(packed if vector is None else vector for vector in (bias, scale, shift)),
        output,
        moments,
        channels,
        rows,
        *size,
        height,
        width,
        *geometry,
        input.stride(),
        output.stride(),
        slope,
        ACTIVATION=activation,
        ORDER=order,
        HAS_BIAS=bias is not None,
        HAS_SCALE=scale is not None,
        HAS_SHIFT=shift is not None,
        STATISTICS=statistics is not None,
        REVERSED=swapped,
        PRECISION=precision_of(input, tf32),
        WIDE=is_wide(packed, input, output),
        INTERPRETED=triton_interpreted(),
        **constants,
        **options,
    )
    if statistics is not None:
        combine(moments, output, (constants["TILE_H"], constants["TILE_W"]), *statistics)
    return output


# ---- the operators ----


@on_their_device
def dilated_block_weights(weight: Tensor) -> Tensor:
    """The weight as the kernel reads it: (C_out, 3, 3, C_in), flat."""
    expect(weight.dim() == 4 and weight.shape[2:] == (3, 3), "a weight of 3x3 taps is expected")
    return _packed(weight, swapped=False, tf32=False)


@on_their_device
def dilated_block(
    input: Tensor,
    weight: Tensor,
    transformed: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    geometry: Sequence[int],
    activation: int,
    slope: float,
    order: int,
    channels_last: bool,
    tf32: bool,
) -> Tensor:
    """The block's result; `transformed`: of dilated_block_weights."""
    check_pictures(input, weight, weight.shape[1], geometry)
    check_epilogue(weight.shape[0], (bias, scale, shift), activation, order)
    if transformed is None:
        transformed = _packed(weight, swapped=False, tf32=tf32)
    expect(transformed.numel() == weight.numel() and transformed.dtype == weight.dtype, "these are not its weights")
    return _convolve(
        input, transformed, weight.shape[0], (bias, scale, shift), geometry, activation, slope, order, channels_last,
        tf32,
    )  # fmt: skip


@on_their_device
def dilated_block_statistics(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Sequence[int],
    activation: int,
    slope: float,
    channels_last: bool,
    tf32: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The convolution without activation; mean and biased variance of what the activation makes of it."""
    order = ORDERS.index("norm_act")  # the kernel leaves out the activation that comes last
    check_pictures(input, weight, weight.shape[1], geometry)
    check_epilogue(weight.shape[0], (bias,), activation, order)
    packed = _packed(weight, swapped=False, tf32=tf32)
    mean, var = (input.new_zeros(weight.shape[0], dtype=torch.float64) for _ in range(2))
    y = _convolve(
        input, packed, weight.shape[0], (bias, None, None), geometry, activation, slope, order, channels_last, tf32,
        statistics=(mean, var),
    )  # fmt: skip
    return y, mean, var


@on_their_device
def dilated_block_input_gradient(
    grad: Tensor, weight: Tensor, geometry: Sequence[int], channels_last: bool, tf32: bool
) -> Tensor:
    """A convolution with the reversed weights, padded by what the forward pass was not."""
    check_pictures(grad, weight, weight.shape[0], geometry)
    dilation_h, dilation_w, padding_h, padding_w = geometry
    geometry = (dilation_h, dilation_w, 2 * dilation_h - padding_h, 2 * dilation_w - padding_w)
    packed = _packed(weight, swapped=True, tf32=tf32)
    return _convolve(
        grad, packed, weight.shape[1], (None, None, None), geometry, *PLAIN, channels_last, tf32, swapped=True
    )
