"""The blocks' Triton kernels compile for real GPUs, for which there need be none, and spill nothing."""

from __future__ import annotations

import pytest
from emulation.ahead_of_time import Kernel, compile_all

from inpaint_fast._words import ORDERS
from inpaint_fast.kernels.conv_block import tiles
from inpaint_fast.kernels.conv_block.tiles import Tile

NORM_ACT = ORDERS.index("norm_act")
MOST_SHARED = {"sm_80": 99 << 10, "sm_90": 227 << 10}  # bytes a program
ELEMENTS = {"half": ("bf16", "fp16"), "tf32": ("fp32",), "ieee": ("fp32",)}
GEOMETRY = ("dilation_h", "dilation_w", "padding_h", "padding_w")
NUMBERS = ("height", "width", "out_height", "out_width", *GEOMETRY)
# Taps along a side, stride, transposed; input gradients go the other way.
DILATED, STRIDED, TRANSPOSED = (3, 1, False), (4, 2, False), (4, 2, True)
BLOCKS = (DILATED, STRIDED, TRANSPOSED, (3, 2, False), (3, 2, True))
LAST, FIRST = ("i32:16", 1, "i32:16", "i32:16"), ("i32:16", "i32:16", "i32:16", 1)  # NHWC, NCHW


def compiled_for(architecture: str, precision: str, name: str, types: dict, constants: dict, tile: Tile) -> Kernel:
    types |= dict.fromkeys(NUMBERS, "i32") | dict.fromkeys(("channels", "out_channels"), "i32:16")
    if constants["STRIDE"] == 2:
        types |= dict.fromkeys(GEOMETRY, 1)
    constants |= {"PRECISION": precision, "INTERPRETED": False} | {"WIDE": constants.get("WIDE", False)}
    place = (f"inpaint_fast.kernels.conv_block.{name.removesuffix('_kernel')}", name)
    return Kernel(*place, types, constants, int(architecture[3:]), tile.warps, tile.stages)


def convolution(
    architecture, precision, tile: Tile, element: str, block=DILATED, gradient=False, strides=LAST, wide=False,
    moments=None,
) -> Kernel:  # fmt: skip
    """`block`: one of BLOCKS; `moments`: the number of the activation whose results' statistics are left."""
    types = dict.fromkeys(("input", "weight", "bias", "scale", "shift", "output"), f"*{element}")
    types |= {"moments": "*fp32", "input_strides": strides, "output_strides": strides, "slope": "fp32"}
    statistics, (taps, stride, transposed) = moments is not None, block
    constants = {"HAS_BIAS": not gradient, "STATISTICS": statistics, "ORDER": NORM_ACT}
    constants |= {name: not gradient and not statistics for name in ("HAS_SCALE", "HAS_SHIFT")}
    constants |= {
        "ACTIVATION": moments if statistics else 0 if gradient else 3,
        "TAPS": taps,
        "STRIDE": stride,
        "TRANSPOSED": transposed != gradient,
        "WIDE": wide,
    }
    constants |= tiles.box_of(tile.pixels, 64, 64) | {"BLOCK_N": tile.rows, "BLOCK_K": tile.channels}
    return compiled_for(architecture, precision, "convolution_kernel", types, constants, tile)


def weight_gradient(architecture, precision, element: str, block=DILATED) -> Kernel:
    tile = tiles.WEIGHT_GRADIENT_TILES[architecture, precision]
    types = {"grad": f"*{element}", "input": f"*{element}", "partials": "*fp32", "images": "i32"}
    types |= {"grad_strides": LAST, "input_strides": LAST}
    constants = {"TAPS": block[0], "STRIDE": block[1], "BLOCK_M": tile.rows, "BLOCK_N": tile.channels}
    constants |= tiles.box_of(tile.pixels, 64, 64, columns=8)
    return compiled_for(architecture, precision, "weight_gradient_kernel", types, constants, tile)


def with_statistics(shipped: tuple[Tile, ...]) -> list[Tile]:
    """The tiles for those of an activation's results."""
    return [tile for tile in shipped if tile.pixels * tile.rows <= tiles.MOST_WITH_STATISTICS]


def check_compiled(todo: list[Kernel]) -> None:
    for kernel, compiled in zip(todo, compile_all(todo), strict=True):
        assert compiled.stack_bytes == 0, kernel
        assert compiled.shared_bytes <= MOST_SHARED[f"sm_{kernel.capability}"], kernel
        assert compiled.wide, kernel


def test_shipped_tiles_spill_nothing() -> None:
    """Forward in every tile; statistics and the gradients of input and weight in the largest; 16 bytes at a time."""
    todo = []
    for where, shipped in tiles.TILES.items():
        element = ELEMENTS[where[1]][0]
        todo += [convolution(*where, tile, element) for tile in shipped]
        todo.append(convolution(*where, shipped[0], element, gradient=True))
        todo.append(convolution(*where, shipped[0], element, moments=0))
        todo.append(convolution(*where, with_statistics(shipped)[0], element, moments=3))
        todo.append(weight_gradient(*where, element))
    check_compiled(todo)


@pytest.mark.long
def test_stride_2_spills_nothing() -> None:
    """Both ways forward in the largest tiles, which input gradients are without epilogue; the weight's gradient."""
    todo = []
    for where, shipped in tiles.TILES.items():
        element = ELEMENTS[where[1]][0]
        todo += [convolution(*where, shipped[0], element, block) for block in (STRIDED, TRANSPOSED)]
        todo.append(weight_gradient(*where, element, STRIDED))
    check_compiled(todo)


@pytest.mark.long
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_variant_of_the_tiles_spills_nothing(block) -> None:
    todo = []
    for where, shipped in tiles.TILES.items():
        elements = ELEMENTS[where[1]]
        todo += [convolution(*where, tile, element, block, gradient=True) for tile in shipped for element in elements]
        todo += [convolution(*where, tile, elements[-1], block) for tile in shipped]
        todo += [convolution(*where, tile, element, block, moments=0) for tile in shipped for element in elements]
        todo += [convolution(*where, tile, elements[-1], block, moments=3) for tile in with_statistics(shipped)]
        todo += [weight_gradient(*where, elements[-1], block)]
    check_compiled(todo)


@pytest.mark.long
def test_planes_of_channels_compile_too() -> None:
    """NCHW, whose loads are not wide, and 64-bit indices."""
    tile = tiles.TILES["sm_90", "half"][-1]
    todo = [
        convolution("sm_90", "half", tile, "bf16", strides=FIRST),
        convolution("sm_90", "half", tile, "bf16", strides=("i64:16", 1, "i64:16", "i64:16"), wide=True),
    ]
    assert all(compiled.stack_bytes == 0 for compiled in compile_all(todo))
