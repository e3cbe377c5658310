"""The dilated-convolution block in Triton: one implicit matrix product with its epilogue, and both gradients.

    y[n, o, i, j] = sum over r, s, c of weight[o, c, r, s] * input[n, c, i + r * d - p, j + s * d - p]

A program owns TILE_H x TILE_W pixels of one picture and BLOCK_N output channels. For one tap its input is the same box
of pixels, shifted: the dilation changes an offset and nothing else, and what the box reads outside of the picture is
zero. A tap whose whole box lies outside is left out. Sums are float32; bias, scale, shift and activation follow in
float32 before the one rounding to the result's dtype.

The input's gradient is the same product: channels swapped, taps in reverse, padding 2 * dilation - padding. The
weight's is a product over pixels, of which every program takes a share; their sums are added in a fixed order.
No atomics: results are equal bit by bit from run to run.

A loop that takes its index apart by division has been miscompiled on 8 warps, never on 4 (pytorch/pytorch#177823,
triton-lang/triton#1254): tiles of 8 warps have a loop for each tap instead, and the weight's gradient runs on 4.

The functions take what the schemas in ops/dilated_block.py say.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from inpaint_fast._layout import pictures_like
from inpaint_fast._words import ACTIVATIONS, triton_interpreted
from inpaint_fast.kernels.activations import activated
from inpaint_fast.kernels.dilated_block_moments import combine, leave_moments
from inpaint_fast.kernels.dilated_block_tiles import (
    MOST_WITH_STATISTICS,
    precision_of,
    tile_of,
    weight_gradient_tile_of,
)

INDEX_LIMIT = 2**31 - 1  # pictures and weights with offsets beyond it take indices of 64 bits
BLOCK = 256  # of the kernels that run along the weight


# ---- kernels ----


@triton.jit
def _as_tf32(x):
    """float32 rounded to the 11 bits of TF32, half away from zero: tensor cores cut the others off."""
    bits = (x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000
    return tl.where(x - x == 0, bits.to(tl.float32, bitcast=True), x)  # infinities and NaN as they are


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
    at = tl.program_id(0).to(tl.int64 if WIDE else tl.int32) * BLOCK + tl.arange(0, BLOCK)
    column, tap, row = at % columns, at // columns % 9, at // columns // 9
    offset = row * strides[0] + column * strides[1] + tap // 3 * strides[2] + tap % 3 * strides[3]
    value = tl.load(weight + offset, at < numel, 0.0)
    tl.store(packed + at, _as_tf32(value) if TF32 else value, at < numel)


@triton.jit
def _dot(a, b, sums, PRECISION: tl.constexpr, INTERPRETED: tl.constexpr):
    if INTERPRETED:  # the interpreter multiplies float16 as such and takes bfloat16 for whole numbers
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, sums, input_precision="tf32" if PRECISION == "tf32" else "ieee")


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
    NORM_FIRST: tl.constexpr,
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
                sums = _dot(a, b, sums, PRECISION, INTERPRETED)
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
            sums = _dot(a, b, sums, PRECISION, INTERPRETED)

    result = sums
    inside = n < out_channels
    if HAS_BIAS:
        result += tl.load(bias + n, inside, 0.0).to(tl.float32)[None, :]
    if not NORM_FIRST:
        result = activated(result, slope, ACTIVATION)
    if HAS_SCALE:
        result *= tl.load(scale + n, inside, 0.0).to(tl.float32)[None, :]
    if HAS_SHIFT:
        result += tl.load(shift + n, inside, 0.0).to(tl.float32)[None, :]
    if NORM_FIRST and not STATISTICS:
        result = activated(result, slope, ACTIVATION)
    at = y.to(integer) * output_strides[2] + x.to(integer) * output_strides[3]
    output_at = output + at[:, None] + n.to(integer)[None, :] * output_strides[1]
    there = (y < out_height) & (x < out_width)
    rounded = result.to(output.dtype.element_ty)
    tl.store(output_at, rounded, there[:, None] & inside[None, :])
    if STATISTICS:
        values = activated(rounded.to(tl.float32), slope, ACTIVATION)
        leave_moments(values, there, (bottom - row) * (right - column), moments, tile, n, out_channels)


@triton.jit
def weight_gradient_kernel(
    grad,  # T: float32, float16 or bfloat16
    input,  # T
    partials,  # float32, (shares, 9, out_channels, channels), contiguous
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
    down, across = tap // 3 * dilation_h - padding_h, tap % 3 * dilation_w - padding_w
    top, bottom = max(0, -down), min(out_height, height - down)
    left, right = max(0, -across), min(out_width, width - across)
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
        at = (y + down).to(integer) * input_strides[2] + (x + across).to(integer) * input_strides[3]
        b = tl.load(input_at + image * input_strides[0] + at[:, None], there[:, None] & (n < channels)[None, :], 0.0)
        if PRECISION == "tf32":  # one of the two, which halves the error; the other would not fit registers so well
            a = _as_tf32(a)
        sums = _dot(a, b, sums, PRECISION, INTERPRETED)

    partials += (share * 9 + tap).to(tl.int64) * out_channels * channels
    at = m.to(integer)[:, None] * channels + n[None, :]
    tl.store(partials + at, sums, (m < out_channels)[:, None] & (n < channels)[None, :])


@triton.jit
def add_kernel(
    partials,  # float32, (shares, 9, out_channels, channels), contiguous
    result,  # T: the weight's gradient
    shares,
    numel,  # of result
    channels,
    out_channels,
    strides,  # of result's output channel, input channel, row and column of taps, in elements
    WIDE: tl.constexpr,  # indices of 64 bits
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64 if WIDE else tl.int32) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for _ in range(shares):
        total += tl.load(partials + at, at < numel, 0.0)
        partials += numel
    channel, out, tap = at % channels, at // channels % out_channels, at // channels // out_channels
    offset = out * strides[0] + channel * strides[1] + tap // 3 * strides[2] + tap % 3 * strides[3]
    tl.store(result + offset, total.to(result.dtype.element_ty), at < numel)


# ---- launches ----


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise RuntimeError(f"dilated_block: {message}")


def _check(pictures: Tensor, weight: Tensor, channels: int, *dilation: int) -> None:
    """What a launch relies on; the public function has named every wrong argument already."""
    _expect(pictures.dim() == 4 and weight.dim() == 4, "pictures and a weight of 4 dimensions are expected")
    _expect(weight.shape[2:] == (3, 3), f"taps of 3x3 are expected, got {tuple(weight.shape[2:])}")
    _expect(pictures.shape[1] == channels, f"{channels} channels are expected, got {pictures.shape[1]}")
    _expect(pictures.dtype == weight.dtype, f"one dtype is expected, got {pictures.dtype} and {weight.dtype}")
    _expect(pictures.dtype in (torch.float32, torch.float16, torch.bfloat16), f"no kernel for {pictures.dtype}")
    _expect(min(dilation) >= 1, f"a dilation of at least 1 is expected, got {dilation}")


def is_wide(weight: Tensor, *pictures: Tensor) -> bool:
    """Whether offsets in the weight or within one of the pictures need 64 bits."""

    def last(tensor: Tensor, dims: slice) -> int:
        return sum((n - 1) * s for n, s in zip(tensor.shape[dims], tensor.stride()[dims], strict=True))

    furthest = [last(tensor, slice(1, None)) for tensor in pictures]
    return max(weight.numel() + BLOCK, last(weight, slice(None)), *furthest) > INDEX_LIMIT


def _packed(weight: Tensor, swapped: bool, tf32: bool) -> Tensor:
    """The weight as the kernel reads it, flat: (rows, 3, 3, columns), columns being the channels that are summed over.

    `swapped`: the input channels are the rows. `tf32`: rounded to it.
    """
    rows_first = weight.transpose(0, 1) if swapped else weight
    packed = torch.empty(weight.numel(), dtype=weight.dtype, device=weight.device)
    if weight.numel():
        with torch.cuda.device_of(weight):  # or the launch would go to the current device
            pack_kernel[(triton.cdiv(weight.numel(), BLOCK),)](
                weight, packed, weight.numel(), rows_first.shape[1], rows_first.stride(),
                TF32=precision_of(weight, tf32) == "tf32", WIDE=is_wide(weight), BLOCK=BLOCK,
            )  # fmt: skip
    return packed


def _convolve(
    input: Tensor,
    weight: Tensor,
    rows: int,
    vectors: Sequence[Tensor | None],  # bias, scale, shift
    dilation: tuple[int, int],
    padding: tuple[int, int],
    activation: int,
    slope: float,
    norm_first: bool,
    channels_last: bool,
    tf32: bool,
    swapped: bool,
    statistics: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The convolution of stride 1 with its epilogue. `weight` is packed; `rows`: output channels; `swapped`: taps in
    reverse; `statistics`: where mean and variance go, of the activation's results, while the output has none."""
    images, channels, *size = input.shape
    height, width = (side + 2 * (p - d) for side, d, p in zip(size, dilation, padding, strict=True))
    _expect(min(height, width) >= 1, f"a result of at least one pixel is expected, got {height}x{width}")
    output = pictures_like(input, rows, height, width, channels_last)
    if not output.numel():
        return output
    most = MOST_WITH_STATISTICS if statistics is not None and activation else None
    constants, options = tile_of(input, tf32, images, height, width, rows, channels, most)
    tiles = triton.cdiv(height, constants["TILE_H"]) * triton.cdiv(width, constants["TILE_W"])
    moments = output  # not written
    if statistics is not None:
        moments = torch.empty((images * tiles, 2, rows), dtype=torch.float32, device=input.device)
    with torch.cuda.device_of(input):  # or the launches would go to the current device
        convolution_kernel[(images * tiles * triton.cdiv(rows, constants["BLOCK_N"]),)](
            input,
            weight,
            *(weight if vector is None else vector for vector in vectors),
            output,
            moments,
            channels,
            rows,
            *size,
            height,
            width,
            *dilation,
            *padding,
            input.stride(),
            output.stride(),
            slope,
            ACTIVATION=activation,
            NORM_FIRST=norm_first,
            HAS_BIAS=vectors[0] is not None,
            HAS_SCALE=vectors[1] is not None,
            HAS_SHIFT=vectors[2] is not None,
            STATISTICS=statistics is not None,
            REVERSED=swapped,
            PRECISION=precision_of(input, tf32),
            WIDE=is_wide(weight, input, output),
            INTERPRETED=triton_interpreted(),
            **constants,
            **options,
        )
        if statistics is not None:
            combine(moments, output, (constants["TILE_H"], constants["TILE_W"]), *statistics)
    return output


# ---- the operators ----


def dilated_block_weights(weight: Tensor) -> Tensor:
    """The weight as the kernel reads it: (C_out, 3, 3, C_in), flat."""
    _expect(weight.dim() == 4 and weight.shape[2:] == (3, 3), "a weight of 3x3 taps is expected")
    return _packed(weight, swapped=False, tf32=False)


def dilated_block(
    input: Tensor,
    weight: Tensor,
    transformed: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    dilation_h: int,
    dilation_w: int,
    padding_h: int,
    padding_w: int,
    activation: int,
    slope: float,
    norm_first: bool,
    channels_last: bool,
    tf32: bool,
) -> Tensor:
    """The block's result; `transformed`: of dilated_block_weights."""
    _check(input, weight, weight.shape[1], dilation_h, dilation_w)
    rows, vectors = (
        weight.shape[0],
        [None if vector is None else vector.contiguous() for vector in (bias, scale, shift)],
    )
    _expect(all(vector is None or vector.shape == (rows,) for vector in vectors), f"vectors of {rows} are expected")
    _expect(0 <= activation < len(ACTIVATIONS), f"there is no activation {activation}")
    if transformed is None:
        transformed = _packed(weight, swapped=False, tf32=tf32)
    _expect(transformed.numel() == weight.numel() and transformed.dtype == weight.dtype, "these are not its weights")
    return _convolve(
        input, transformed, rows, vectors, (dilation_h, dilation_w), (padding_h, padding_w), activation, slope,
        norm_first, channels_last, tf32, swapped=False,
    )  # fmt: skip


def dilated_block_statistics(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dilation_h: int,
    dilation_w: int,
    padding_h: int,
    padding_w: int,
    activation: int,
    slope: float,
    channels_last: bool,
    tf32: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The convolution without activation; mean and biased variance of what the activation makes of it."""
    _check(input, weight, weight.shape[1], dilation_h, dilation_w)
    rows = weight.shape[0]
    _expect(bias is None or bias.shape == (rows,), f"vectors of {rows} are expected")
    _expect(0 <= activation < len(ACTIVATIONS), f"there is no activation {activation}")
    vectors = (None if bias is None else bias.contiguous(), None, None)
    mean, var = (input.new_zeros(rows, dtype=torch.float64) for _ in range(2))
    packed = _packed(weight, swapped=False, tf32=tf32)
    y = _convolve(
        input, packed, rows, vectors, (dilation_h, dilation_w), (padding_h, padding_w), activation, slope, True,
        channels_last, tf32, swapped=False, statistics=(mean, var),
    )  # fmt: skip
    return y, mean, var


def dilated_block_input_gradient(
    grad: Tensor,
    weight: Tensor,
    dilation_h: int,
    dilation_w: int,
    padding_h: int,
    padding_w: int,
    channels_last: bool,
    tf32: bool,
) -> Tensor:
    """A convolution with the reversed weights, padded by what the forward pass was not."""
    _check(grad, weight, weight.shape[0], dilation_h, dilation_w)
    packed = _packed(weight, swapped=True, tf32=tf32)
    padding = (2 * dilation_h - padding_h, 2 * dilation_w - padding_w)
    return _convolve(
        grad, packed, weight.shape[1], (None, None, None), (dilation_h, dilation_w), padding, 0, 0.0, True,
        channels_last, tf32, swapped=True,
    )  # fmt: skip


def dilated_block_weight_gradient(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    dilation_h: int,
    dilation_w: int,
    padding_h: int,
    padding_w: int,
    tf32: bool,
) -> Tensor:
    """The sum over all pixels, in weight's layout."""
    _check(input, weight, weight.shape[1], dilation_h, dilation_w)
    _check(grad, weight, weight.shape[0], dilation_h, dilation_w)
    images, channels, height, width = input.shape
    size = (height + 2 * (padding_h - dilation_h), width + 2 * (padding_w - dilation_w))
    _expect(grad.shape[0] == images and grad.shape[2:] == size, "grad is not of that input's output")
    result = torch.empty_like(weight)
    if not result.numel():
        return result
    rows, numel = weight.shape[0], weight.numel()
    constants, options, shares = weight_gradient_tile_of(input, tf32, images, *size, rows, channels)
    partials = torch.empty((shares, numel), dtype=torch.float32, device=input.device)
    programs = 9 * triton.cdiv(rows, constants["BLOCK_M"]) * triton.cdiv(channels, constants["BLOCK_N"])
    with torch.cuda.device_of(input):  # or the launches would go to the current device
        weight_gradient_kernel[(programs, shares)](
            grad,
            input,
            partials,
            images,
            channels,
            rows,
            height,
            width,
            *size,
            dilation_h,
            dilation_w,
            padding_h,
            padding_w,
            grad.stride(),
            input.stride(),
            PRECISION=precision_of(input, tf32),
            WIDE=is_wide(weight, input, grad),
            INTERPRETED=triton_interpreted(),
            **constants,
            **options,
        )
        add_kernel[(triton.cdiv(numel, BLOCK),)](
            partials, result, shares, numel, channels, rows, result.stride(), WIDE=is_wide(weight), BLOCK=BLOCK
        )
    return result
