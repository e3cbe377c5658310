"""Which algorithm runs a convolution on the CPU, and from which size on a kernel of ours is faster than PyTorch's.

The numbers were measured on AMD EPYCs (Zen 4 and 5, AVX-512), one and two threads: both ways in turn, among layers of
other sizes or with cold caches. They are such that PyTorch's is kept where the two are near each other: other
processors differ, and `accelerate(net, tune=True)` measures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from inpaint_fast import _extension, _processor
from inpaint_fast.ops.conv_block.geometry import Block, Geometry

LEAST_CHANNELS = 24  # of input and output: fewer leave the vectors of a tile's transforms without work to share
COLUMNS = 32  # output channels are multiplied so many together, with zeros in the place of those that are not there


class Least(NamedTuple):
    """From what size on a kernel of ours is the faster one, in a network, where its weights are in no cache.

    Attributes:
        kept: tiles (of 4x4 pixels, in all pictures) where transformed weights are kept: each task reads all of them.
        unkept: where they are transformed at every call.
        training: where they are transformed twice, and a gradient is transformed back.
        many: the same for more than MANY_PAIRS pairs of channels, whose transformed weights no cache holds; 0: no more.
        gain: multiplications of the definition for one of ours: at best 4 and (for 5 taps) 3.3.
        work: tiles times channels.
        channels: of input and output.
        trained: the same in training.
        start: channels where weights are kept and PyTorch's convolution has to start oneDNN, which takes longer than
            to start ours.
        lone: numbers in the input where weights are kept and PyTorch's convolution need not start it.
    """

    kept: int
    unkept: int
    training: int
    channels: int = LEAST_CHANNELS
    trained: int = LEAST_CHANNELS
    start: int = LEAST_CHANNELS
    lone: int = 0
    many: int = 0
    gain: float = 1.35
    work: int = 0


# By operator and taps.
LEAST = {
    ("dilated_block", 3): Least(4, 32, 48, start=16, lone=12_500, gain=1.4),
    ("strided_block", 3): Least(49, 128, 256, channels=64, trained=64, start=16),  # 1.8 multiplications for one at best
    ("strided_block", 4): Least(9, 64, 96, channels=32, trained=32),
    ("strided_block", 5): Least(9, 36, 48, many=96),
    ("transposed_block", 3): Least(9, 64, 256, channels=32, trained=32),
    ("transposed_block", 4): Least(9, 36, 64, trained=32),
    ("transposed_block", 5): Least(9, 36, 48),
}
# Of bfloat16 tensors where PyTorch's convolution multiplies pairs of them by AVX512-BF16, twice as many a cycle as ours
# does, which is of float32. What is not here is never the faster one.
LEAST_OF_PAIRS = {
    ("dilated_block", 3): Least(48, 128, 192, channels=128, trained=128, start=128, gain=3.5, work=12_500),
}
# A strided convolution of no more pixels, and pairs of channels, takes less time than starting oneDNN does; so do the
# few tiles of one of stride 1. With more pairs transformed weights, 4 times as many, push those of other layers out.
MOST_PIXELS, MOST_PAIRS = 512, {1: 8192, 2: 2048}
MANY_PAIRS = 65_536
LONE = 20_480  # numbers of one picture for which PyTorch runs 3x3 taps without oneDNN (ATen/native/Convolution.cpp)


def _is_supported(half: str) -> bool:
    """oneDNN has a convolution of such tensors for this processor."""
    name = f"_is_mkldnn_{half}_supported"
    return hasattr(torch.ops.mkldnn, name) and bool(getattr(torch.ops.mkldnn, name)())


# Found once: a compiler could not ask.
IN_TORCH = {torch.bfloat16: _is_supported("bf16"), torch.float16: _is_supported("fp16")}
INSTRUCTIONS = _processor.instructions()


def algorithm(
    block: Block,
    geometry: Geometry,
    dtype: torch.dtype,
    input: Sequence[int],
    weight: Sequence[int],
    training: bool,
    kept: bool,
    unasked: bool = False,
) -> str:
    """What precision="fast" runs on the CPU: "winograd", or "direct", PyTorch's own convolution.

    Args:
        dtype: of the input, or autocast's.
        input, weight: their shapes.
        training: a gradient is wanted.
        kept: the weight is kept transformed from call to call; not in training.
        unasked: of half precision PyTorch's convolution is the other way as it is, not in float32.
    """
    least = (least_of(dtype) if unasked else LEAST).get((block.stem, weight[2]))
    if least is None:
        return "direct"
    channels = min(weight[:2])
    sizes_known = kept and not torch.compiler.is_compiling()
    lone = sizes_known and input[0] == 1 and weight[2] == 3 and math.prod(input) <= LONE
    starts = sizes_known and not lone
    enough_channels = least.trained if training else least.channels
    if dtype == torch.float64 or channels < (least.start if starts else enough_channels):
        return "direct"
    if torch.compiler.is_exporting():  # for sizes that are not known yet, and runtimes that have no kernel of ours
        return "direct"
    if lone and math.prod(input) < least.lone:
        return "direct"
    images, taps = input[0], weight[2]
    smaller = input[2:] if block.transposed else block.size(input, weight, geometry)
    if block.stride == 1:
        products = images
        for side, out, d, p in zip(input[2:], smaller, geometry.dilation, geometry.padding, strict=True):
            # Pairs of a result and a tap on it that is no padding: PyTorch skips the others.
            products *= sum(max(0, min(out, side + p - k * d) - max(0, p - k * d)) for k in range(3))
    else:
        products = images * taps**2 * smaller[0] * smaller[1]
    tiles, ours = winograd_cost(block, images, smaller, geometry.dilation, taps)
    fewest = least.training if training else least.kept if kept else least.unkept
    if training and math.prod(weight[:2]) > MANY_PAIRS:
        fewest = max(fewest, least.many)
    few = starts and math.prod(weight[:2]) <= MOST_PAIRS[block.stride]
    if starts and block.stride == 1:
        enough = few or tiles >= fewest
    elif channels < enough_channels:
        enough = few and images * math.prod(smaller) <= MOST_PIXELS
    else:
        enough = tiles >= fewest
    out = block.channels(weight)[1]
    multiplied = out if kept else -(-out // COLUMNS) * COLUMNS
    pays = products * out >= least.gain * ours * multiplied
    return "winograd" if enough and pays and tiles * channels >= least.work else "direct"


def is_in_torch(dtype: torch.dtype) -> bool:
    """PyTorch's convolution takes this half precision as it is: conversions to float32 and back would not pay."""
    return IN_TORCH.get(dtype, False)


def least_of(dtype: torch.dtype) -> dict[tuple[str, int], Least]:
    """By operator and taps, from what size on a kernel of ours beats PyTorch's convolution of such tensors as it is."""
    if not is_in_torch(dtype):
        return LEAST
    if dtype == torch.float16 or "avx512f" not in INSTRUCTIONS or "amx_bf16" in INSTRUCTIONS:
        return {}
    # With AVX-512 alone oneDNN takes bfloat16, and needs 3 to 8 times as long as for float32.
    return LEAST_OF_PAIRS if "avx512_bf16" in INSTRUCTIONS else LEAST


def tile(
    block: Block, geometry: Geometry, input: Sequence[int], weight: Sequence[int], channels_last: bool, kept: bool
) -> int:
    """The side of the tiles that Winograd's algorithm takes: 4, or where 6 is faster (csrc/conv_block/cpu/tilings.h).

    Args:
        channels_last: input and result are.
        kept: as for `algorithm`.
    """
    module = _extension.module
    if block.stride != 1 or torch.compiler.is_compiling() or module is None:
        return 4
    channels, size = block.channels(weight), block.size(input, weight, geometry)
    return module.winograd_tile(input[0], *channels, *size, *geometry.dilation, channels_last, kept)


def takes_amx(way: str | None) -> bool:
    """Whether a kernel of ours for the CPU multiplies float32 on AMX; way: of `plan.Circumstances`.

    Nobody has measured yet from which size on it is the faster one: only who asks for it gets it, or who measures.
    """
    return _extension.amx_wish == "1" or way == "amx"


def ways() -> tuple[str, ...]:
    """Those between which `accelerate(net, tune=True)` measures: of `plan.Circumstances`."""
    measures_amx = _extension.amx_wish == "" and _extension.has_amx()
    return ("ours", "plain", "amx") if measures_amx else ("ours", "plain")


def winograd_cost(
    block: Block, images: int, sides: Sequence[int], dilation: Sequence[int], taps: int
) -> tuple[int, int]:
    """(tiles, products for a pair of channels) of pictures of these sides: the input's or output's, if smaller."""
    if torch.compiler.is_compiling():  # sizes may be symbols, and each question about one compiles for its answer
        tiles = images
        for side, d in zip(sides, dilation, strict=True):
            tiles *= side // (4 * d) * d + min(side % (4 * d), d)
        return tiles, tiles * (6 if block.stride == 1 else 6 + taps) ** 2
    kind = 0 if block.stride == 1 else 1
    module = _extension.module
    assert module is not None  # whose kernel is thought of
    return module.winograd_cost(kind, images, *sides, *dilation, taps)
