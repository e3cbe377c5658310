"""A convolution, or a transposed one, with its epilogue in Triton, and its statistics.

A program owns TILE_H x TILE_W pixels of one picture and BLOCK_N output channels. For one tap its input is the same box
of pixels, shifted: the dilation changes an offset, the stride the distance of pixels, and what the box reads outside of
the picture is zero. With stride 1 a tap whose whole box lies outside is left out.

A transposed convolution's output is taken in phases, with stride 2 four of them, of even or odd rows and columns: each
is a convolution of stride 1 by those taps that meet it, the last one first.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from inpaint_fast._layout import pictures_like
from inpaint_fast._words import triton_interpreted
from inpaint_fast.kernels._activations import ACT_NORM, NORM_ACT, activated
from inpaint_fast.kernels._walk import block_of
from inpaint_fast.kernels.conv_block.arguments import check_convolution, check_epilogue, check_transformed
from inpaint_fast.kernels.conv_block.moments import combine, leave_moments
from inpaint_fast.kernels.conv_block.problem import (
    BLOCK,
    Convolution,
    as_tf32,
    dot,
    is_wide,
    tap_offset,
)
from inpaint_fast.kernels.conv_block.tiles import MOST_WITH_STATISTICS, precision_of, tile_of

# ---- kernels ----


@triton.jit
def pack_kernel(
    weight,  # T: float32, float16 or bfloat16
    packed,  # T, (rows, TAPS * TAPS, columns), contiguous
    numel,
    columns,
    strides,  # of weight's row, column and of its taps' row and column, in elements
    TAPS: tl.constexpr,  # along a side
    TF32: tl.constexpr,  # rounded to it
    WIDE: tl.constexpr,  # indices of 64 bits
    BLOCK: tl.constexpr,
):
    at, there = block_of(numel, WIDE, BLOCK)
    column, tap, row = at % columns, at // columns % (TAPS * TAPS), at // columns // (TAPS * TAPS)
    value = tl.load(weight + tap_offset(row, column, tap, strides, TAPS), there, 0.0)
    tl.store(packed + at, as_tf32(value) if TF32 else value, there)


@triton.jit
def taps_of(phase, dilation, padding, TAPS: tl.constexpr, STRIDE: tl.constexpr, TRANSPOSED: tl.constexpr):
    """(how many taps of a side meet a phase's pixels, the first, where that lies for pixel 0)."""
    if TRANSPOSED:  # output pixel STRIDE * i + tap * dilation - padding is given input pixel i
        lowest = (phase + padding) % STRIDE
        count = TAPS // STRIDE if TAPS % STRIDE == 0 else (TAPS - 1 - lowest) // STRIDE + 1
        first = lowest + (count - 1) * STRIDE
        at = (phase + padding - first * dilation) // STRIDE
    else:
        count, first, at = TAPS, 0, -padding
    return count, first, at


@triton.jit
def convolution_kernel(
    input,  # T: float32, float16 or bfloat16
    weight,  # T, (out_channels, TAPS * TAPS, channels), contiguous
    bias,  # T, one for each output channel; not read without HAS_BIAS; and so on
    scale,
    shift,
    output,  # T
    moments,  # float32, (tiles, 2, out_channels); not written without STATISTICS
    channels,
    out_channels,
    height,  # of input
    width,
    out_height,  # transposed with stride 2, even
    out_width,
    dilation_h,
    dilation_w,
    padding_h,
    padding_w,
    input_strides,  # of picture, channel, row and column, in elements
    output_strides,
    slope,
    TAPS: tl.constexpr,  # along a side
    STRIDE: tl.constexpr,  # 1 or 2
    TRANSPOSED: tl.constexpr,
    ACTIVATION: tl.constexpr,
    ORDER: tl.constexpr,  # NORM_ACT or ACT_NORM
    HAS_BIAS: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_SHIFT: tl.constexpr,
    STATISTICS: tl.constexpr,  # of the activation's results, while the output is without activation
    PRECISION: tl.constexpr,  # "half", "tf32" or "ieee"
    WIDE: tl.constexpr,  # indices of 64 bits
    INTERPRETED: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
    BLOCK_N: tl.constexpr,  # output channels
    BLOCK_K: tl.constexpr,  # input channels of one step
):
    integer: tl.constexpr = tl.int64 if WIDE else tl.int32
    # Along a side: phases of the output; from one pixel of a phase to the next, pixels of the input; taps to the next.
    PHASES: tl.constexpr = STRIDE if TRANSPOSED else 1
    STEP: tl.constexpr = 1 if TRANSPOSED else STRIDE
    NEXT: tl.constexpr = -STRIDE if TRANSPOSED else 1
    # Programs side by side share their input.
    blocks = tl.cdiv(out_channels, BLOCK_N)
    phase_height, phase_width = out_height // PHASES, out_width // PHASES
    tiles_h, tiles_w = tl.cdiv(phase_height, TILE_H), tl.cdiv(phase_width, TILE_W)
    block, tile = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    row, column = tile // tiles_w % tiles_h * TILE_H, tile % tiles_w * TILE_W
    image = tile // (tiles_h * tiles_w)
    phase_h, phase_w = image % (PHASES * PHASES) // PHASES, image % PHASES
    bottom, right = min(row + TILE_H, phase_height), min(column + TILE_W, phase_width)
    image = (image // (PHASES * PHASES)).to(tl.int64)
    input += image * input_strides[0]
    output += image * output_strides[0] + phase_h * output_strides[2] + phase_w * output_strides[3]

    rows, first_h, top = taps_of(phase_h, dilation_h, padding_h, TAPS, STRIDE, TRANSPOSED)
    columns, first_w, left = taps_of(phase_w, dilation_w, padding_w, TAPS, STRIDE, TRANSPOSED)
    r0, s0 = 0, 0
    if STRIDE == 1:  # those that meet the picture are rows r0, r0 + 1 ... and columns s0, s0 + 1 ...
        r0, s0 = max(tl.cdiv(1 - top - bottom, dilation_h), 0), max(tl.cdiv(1 - left - right, dilation_w), 0)
        rows = max(min(tl.cdiv(height - top - row, dilation_h), rows) - r0, 0)
        columns = max(min(tl.cdiv(width - left - column, dilation_w), columns) - s0, 0)
    first = first_h * TAPS + first_w

    pixel = tl.arange(0, TILE_H * TILE_W)
    y, x = row + pixel // TILE_W, column + pixel % TILE_W
    n, k = block * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    in_y, in_x = y * STEP + top, x * STEP + left  # what the first tap reads
    at = in_y.to(integer) * input_strides[2] + in_x.to(integer) * input_strides[3]
    input_at = at[:, None] + k.to(integer)[None, :] * input_strides[1]
    weight_at = n.to(integer)[None, :] * (TAPS * TAPS * channels) + k[:, None]
    zero = tl.zeros([], tl.int64)

    sums = tl.zeros([TILE_H * TILE_W, BLOCK_N], tl.float32)
    steps = tl.cdiv(channels, BLOCK_K)
    for i in range(0, rows * columns * steps):
        c, r, s = i % steps * BLOCK_K, r0 + i // steps // columns, s0 + i // steps % columns
        down, across = r * dilation_h, s * dilation_w
        there = (in_y + down >= 0) & (in_y + down < height) & (in_x + across >= 0) & (in_x + across < width)
        shift_by = (zero + down) * input_strides[2] + (zero + across) * input_strides[3]
        input_from = input + shift_by + (zero + c) * input_strides[1]
        weight_from = weight + ((first + (r * TAPS + s) * NEXT) * channels + c)
        some = k < channels - c
        a = tl.load(input_from + input_at, there[:, None] & some[None, :], 0.0)
        b = tl.load(weight_from + weight_at, some[:, None] & (n < out_channels)[None, :], 0.0)
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
    at = y.to(integer) * (PHASES * output_strides[2]) + x.to(integer) * (PHASES * output_strides[3])
    output_at = output + at[:, None] + n.to(integer)[None, :] * output_strides[1]
    there = (y < phase_height) & (x < phase_width)
    rounded = result.to(output.dtype.element_ty)
    tl.store(output_at, rounded, there[:, None] & inside[None, :])
    if STATISTICS:
        values = activated(rounded.to(tl.float32), slope, ACTIVATION)
        leave_moments(values, there, (bottom - row) * (right - column), moments, tile, n, out_channels)


# ---- launches ----


def packed(weight: Tensor, transposed: bool, tf32: bool) -> Tensor:
    """The weight as the kernel reads it, flat: (rows, taps, taps, columns), columns being the channels that are summed
    over: its second dimension, or for a transposed convolution its first.

    `tf32`: rounded to it.
    """
    rows_first = weight.transpose(0, 1) if transposed else weight
    result = torch.empty(weight.numel(), dtype=weight.dtype, device=weight.device)
    if weight.numel():
        pack_kernel[(triton.cdiv(weight.numel(), BLOCK),)](
            weight, result, weight.numel(), rows_first.shape[1], rows_first.stride(), TAPS=weight.shape[2],
            TF32=precision_of(weight, tf32) == "tf32", WIDE=is_wide(weight), BLOCK=BLOCK,
        )  # fmt: skip
    return result


def convolve(
    convolution: Convolution,
    input: Tensor,
    weight: Tensor,
    transformed: Tensor | None,
    vectors: Sequence[Tensor | None],
    activation: int,
    slope: float,
    order: int,
    channels_last: bool,
    tf32: bool,
    statistics: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The convolution with its epilogue.

    `transformed`: the weight, packed; `vectors`: bias, scale, shift; `statistics`: where mean and variance go, of the
    activation's results, while the output has none.
    """
    height, width = check_convolution(convolution, input, weight)
    channels, rows = convolution.channels(weight)
    check_epilogue(input, rows, vectors, activation, order)
    if transformed is not None:
        check_transformed(transformed, input, weight.numel())
    output = pictures_like(input, rows, height, width, channels_last)
    if not output.numel():
        return output
    if transformed is None:
        transformed = packed(weight, convolution.transposed, tf32)
    most = MOST_WITH_STATISTICS if statistics is not None and activation else None
    phases = convolution.phases
    of_phases = input.shape[0] * phases**2, height // phases, width // phases
    constants, options = tile_of(input, tf32, *of_phases, rows, channels, most)
    box = constants["TILE_H"], constants["TILE_W"]
    tiles = of_phases[0] * triton.cdiv(of_phases[1], box[0]) * triton.cdiv(of_phases[2], box[1])
    moments = output  # not written
    if statistics is not None:
        moments = torch.empty((tiles, 2, rows), dtype=torch.float32, device=input.device)
    bias, scale, shift = (None if vector is None else vector.contiguous() for vector in vectors)
    convolution_kernel[(tiles * triton.cdiv(rows, constants["BLOCK_N"]),)](
        input,
        transformed,
        *(transformed if vector is None else vector for vector in (bias, scale, shift)),
        output,
        moments,
        channels,
        rows,
        *input.shape[2:],
        height,
        width,
        *convolution.geometry,
        input.stride(),
        output.stride(),
        slope,
        TAPS=convolution.taps,
        STRIDE=convolution.stride,
        TRANSPOSED=convolution.transposed,
        ACTIVATION=activation,
        ORDER=order,
        HAS_BIAS=bias is not None,
        HAS_SCALE=scale is not None,
        HAS_SHIFT=shift is not None,
        STATISTICS=statistics is not None,
        PRECISION=precision_of(input, tf32),
        WIDE=is_wide(transformed, input, output),
        INTERPRETED=triton_interpreted(),
        **constants,
        **options,
    )
    if statistics is not None:
        combine(moments, output, phases, box, *statistics)
    return output
