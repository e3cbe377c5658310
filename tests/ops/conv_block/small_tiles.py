"""Tiles of conv_block's Triton kernels for small pictures."""

from __future__ import annotations

import pytest

from inpaint_fast.kernels.conv_block import moments, tiles
from inpaint_fast.kernels.conv_block.tiles import Tile


def take_small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of 4x4 pixels, so small that little pictures need many, as many shares of the weight's gradient, and
    several rounds to put their statistics together."""
    tile = Tile(16, 16, 16, warps=4, stages=2)
    monkeypatch.setattr(tiles, "TILES", dict.fromkeys(tiles.TILES, (tile,)))
    monkeypatch.setattr(tiles, "WEIGHT_GRADIENT_TILES", dict.fromkeys(tiles.TILES, tile))
    monkeypatch.setattr(tiles, "LEAST_STEPS", 1)
    monkeypatch.setattr(tiles, "_device", lambda index: ("sm_90", 14))
    monkeypatch.setattr(tiles, "box_of", lambda pixels, height, width, columns=16: {"TILE_H": 4, "TILE_W": 4})
    monkeypatch.setattr(moments, "PARTS", 4)
