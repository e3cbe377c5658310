"""The weight's gradient in Triton: a product over pixels, of which every program takes a share; the shares' sums are
added in a fixed order."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from inpaint_fast._words import triton_interpreted
from inpaint_fast.kernels._walk import block_of
from inpaint_fast.kernels.conv_block.arguments import check_weight_gradient
from inpaint_fast.kernels.conv_block.problem import (
    BLOCK,
    Convolution,
    as_tf32,
    dot,
    is_wide,
    tap_offset,
)
from inpaint_fast.kernels.conv_block.tiles import precision_of, weight_gradient_tile_of


@triton.jit
def weight_gradient_kernel(
    grad,  # T: float32, float16 or bfloat16; of a transposed convolution its input
    input,  # T; of a transposed convolution its grad
    partials,  # float32, (shares, TAPS * TAPS, out_channels, channels), contiguous
    images,
    channels,
    out_channels,
    height,  # of input
    width,
    out_height,  # of grad
    out_width,
    dilation_h,
    dilation_w,
    padding_h,
    padding_w,
    grad_strides,  # of picture, channel, row and column, in elements
    input_strides,
    TAPS: tl.constexpr,  # along a side
    STRIDE: tl.constexpr,  # 1 or 2
    PRECISION: tl.constexpr,  # "half", "tf32" or "ieee"
    WIDE: tl.constexpr,  # indices of 64 bits
    INTERPRETED: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
    BLOCK_M: tl.constexpr,  # output channels
    BLOCK_N: tl.constexpr,  # input channels
):
    integer: tl.constexpr = tl.int64 if WIDE else tl.int32
    blocks_m, blocks_n = tl.cdiv(out_channels, BLOCK_M), tl.cdiv(channels, BLOCK_N)
    program, share, shares = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    tap = program // (blocks_m * blocks_n)
    m = program // blocks_n % blocks_m * BLOCK_M + tl.arange(0, BLOCK_M)
    n = program % blocks_n * BLOCK_N + tl.arange(0, BLOCK_N)

    # The pixels of grad whose tap lies in the picture, and the tiles of this program's share of them.
    down, across = tap // TAPS * dilation_h - padding_h, tap % TAPS * dilation_w - padding_w
    top, bottom = tl.cdiv(max(0, -down), STRIDE), min(out_height, tl.cdiv(max(0, height - down), STRIDE))
    left, right = tl.cdiv(max(0, -across), STRIDE), min(out_width, tl.cdiv(max(0, width - across), STRIDE))
    tiles_h, tiles_w = tl.cdiv(max(bottom - top, 0), TILE_H), tl.cdiv(max(right - left, 0), TILE_W)
    tiles = images * tiles_h * tiles_w
    length = tl.cdiv(tiles, shares)

    pixel = tl.arange(0, TILE_H * TILE_W)
    grad_at = grad + m.to(integer)[:, None] * grad_strides[1]
    input_at = input + n.to(integer)[None, :] * input_strides[1]
    sums = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for tile in range(share * length, min((share + 1) * length, tiles)):
        y = top + tile // tiles_w % tiles_h * TILE_H + pixel // TILE_W
        x = left + tile % tiles_w * TILE_W + pixel % TILE_W
        image = (tile // (tiles_h * tiles_w)).to(tl.int64)
        there = (y < bottom) & (x < right)
        at = y.to(integer) * grad_strides[2] + x.to(integer) * grad_strides[3]
        a = tl.load(grad_at + image * grad_strides[0] + at[None, :], there[None, :] & (m < out_channels)[:, None], 0.0)
        y, x = y * STRIDE + down, x * STRIDE + across
        at = y.to(integer) * input_strides[2] + x.to(integer) * input_strides[3]
        b = tl.load(input_at + image * input_strides[0] + at[:, None], there[:, None] & (n < channels)[None, :], 0.0)
        if PRECISION == "tf32":  # one of the two, which halves the error; the other would not fit registers so well
            a = as_tf32(a)
        sums = dot(a, b, sums, PRECISION, INTERPRETED)

    partials += (share * (TAPS * TAPS) + tap).to(tl.int64) * out_channels * channels
    at = m.to(integer)[:, None] * channels + n[None, :]
    tl.store(partials + at, sums, (m < out_channels)[:, None] & (n < channels)[None, :])


@triton.jit
def add_kernel(
    partials,  # float32, (shares, TAPS * TAPS, out_channels, channels), contiguous
    result,  # T: the weight's gradient
    shares,
    numel,  # of result
    channels,
    out_channels,
    strides,  # of result's output channel, input channel, row and column of taps, in elements
    TAPS: tl.constexpr,  # along a side
    WIDE: tl.constexpr,  # indices of 64 bits
    BLOCK: tl.constexpr,
):
    at, there = block_of(numel, WIDE, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for _ in range(shares):
        total += tl.load(partials + at, there, 0.0)
        partials += numel
    channel, out, tap = at % channels, at // channels % out_channels, at // channels // out_channels
    tl.store(result + tap_offset(out, channel, tap, strides, TAPS), total.to(result.dtype.element_ty), there)


def sum_over_pixels(convolution: Convolution, grad: Tensor, input: Tensor, weight: Tensor, tf32: bool) -> Tensor:
    """The weight's gradient, in its layout."""
    check_weight_gradient(convolution, grad, input, weight)
    result = torch.empty_like(weight)
    if not result.numel():
        return result
    if convolution.transposed:  # it is that of the convolution the other way, whose two pictures have changed places
        grad, input = input, grad
    (images, rows, *out_size), (channels, *size) = grad.shape, input.shape[1:]
    taps, numel = convolution.taps, weight.numel()
    constants, options, shares = weight_gradient_tile_of(input, tf32, images, *out_size, taps, rows, channels)
    partials = torch.empty((shares, numel), dtype=torch.float32, device=input.device)
    programs = taps**2 * triton.cdiv(rows, constants["BLOCK_M"]) * triton.cdiv(channels, constants["BLOCK_N"])
    weight_gradient_kernel[(programs, shares)](
        grad,
        input,
        partials,
        images,
        channels,
        rows,
        *size,
        *out_size,
        *convolution.geometry,
        grad.stride(),
        input.stride(),
        TAPS=taps,
        STRIDE=convolution.stride,
        PRECISION=precision_of(input, tf32),
        WIDE=is_wide(weight, input, grad),
        INTERPRETED=triton_interpreted(),
        **constants,
        **options,
    )
    add_kernel[(triton.cdiv(numel, BLOCK),)](
        partials, result, shares, numel, channels, rows, result.stride(), TAPS=taps, WIDE=is_wide(weight), BLOCK=BLOCK
    )
    return result
