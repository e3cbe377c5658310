"""Mean and variance of a convolution's result: each program of its kernel leaves two numbers a channel of its tile,
in float32, and one kernel puts these together in float64, in a fixed order (Chan, Golub, LeVeque, Updating
formulae and a pairwise algorithm for computing sample variances, 1979)."""

import triton
import triton.language as tl
from torch import Tensor

from inpaint_fast.kernels._walk import number

PARTS, CHANNELS = 512, 4  # that a program puts together at a time


@triton.jit
def leave_moments(values, there, count, moments, tile, n, channels):
    """The mean of values[there] over the tile's pixels, and the sum of squares about it, of each channel n."""
    mean = tl.sum(tl.where(there[:, None], values, 0.0), 0) / count
    difference = tl.where(there[:, None], values - mean[None, :], 0.0)
    at = moments + tile.to(tl.int64) * 2 * channels + n
    tl.store(at, mean, n < channels)
    tl.store(at + channels, tl.sum(difference * difference, 0), n < channels)


@triton.jit
def combine_kernel(
    moments,  # float32, (parts, 2, channels): of each tile, those of a picture or of a phase of it row by row
    mean,  # float64 a channel
    var,  # float64 a channel, biased
    parts,
    pixels: tl.float64,  # of all parts
    channels,
    height,  # of a picture or phase
    width,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
    PARTS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    c = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    has = c < channels
    tiles_h, tiles_w = tl.cdiv(height, TILE_H), tl.cdiv(width, TILE_W)
    # About the first mean: differences leave no large numbers to cancel. An infinite one would make them all NaN.
    first = tl.load(moments + c, has, 0.0).to(tl.float64)
    first = tl.where(first - first == 0, first, 0.0)
    total = tl.zeros([PARTS, CHANNELS], tl.float64)
    squares = tl.zeros([PARTS, CHANNELS], tl.float64)
    for start in range(0, parts, PARTS):
        part = start + tl.arange(0, PARTS)
        there = (part < parts)[:, None] & has[None, :]
        rows = tl.minimum(height - part // tiles_w % tiles_h * TILE_H, TILE_H)
        columns = tl.minimum(width - part % tiles_w * TILE_W, TILE_W)
        count = (rows * columns).to(tl.float64)[:, None]
        at = moments + part.to(tl.int64)[:, None] * 2 * channels + c[None, :]
        difference = tl.load(at, there, 0.0).to(tl.float64) - first[None, :]
        about_mean = tl.load(at + channels, there, 0.0).to(tl.float64)
        total += tl.where(there, count * difference, 0.0)
        squares += tl.where(there, about_mean + count * difference * difference, 0.0)
    n = number(pixels, tl.float64)
    sum = tl.sum(total, 0)
    about_mean = tl.sum(squares, 0) - sum * sum / n
    tl.store(mean + c, first + sum / n, has)
    tl.store(var + c, tl.where(about_mean < 0, 0.0, about_mean) / n, has)


def combine(moments: Tensor, output: Tensor, phases: int, box: tuple[int, int], mean: Tensor, var: Tensor) -> None:
    """The moments of output's tiles of that height and width, as mean and var of each channel.

    `phases`: along a side, of which the tiles are; all of one size.
    """
    images, channels, height, width = output.shape
    combine_kernel[(triton.cdiv(channels, CHANNELS),)](
        moments, mean, var, moments.shape[0], float(images * height * width), channels, height // phases,
        width // phases, TILE_H=box[0], TILE_W=box[1], PARTS=PARTS, CHANNELS=CHANNELS,
    )  # fmt: skip
