"""From what size on which way is taken: choice.py's rule on shapes whose times are known (docs: benchmarks/results)."""

from __future__ import annotations

import pytest
import torch

from inpaint_fast.ops.conv_block import choice
from inpaint_fast.ops.conv_block.geometry import HALVING, STRIDED


def way(channels: tuple[int, int], side: int, batch: int, *, training: bool = False, kept: bool = False) -> str:
    shapes = (batch, channels[0], side, side), (channels[1], channels[0], 3, 3)
    return choice.algorithm(STRIDED, HALVING, torch.float32, *shapes, training, kept)


@pytest.mark.parametrize(
    ("channels", "side", "batch", "state", "expected"),
    [
        ((64, 128), 256, 1, "kept", "winograd"),  # 1.2 times as fast so, where 128 channels were asked for
        ((64, 128), 256, 1, "training", "winograd"),  # 2.1
        ((64, 128), 28, 2, "kept", "direct"),  # 0.9: inside resnet18
        ((64, 128), 56, 1, "training", "direct"),  # 0.75
        ((64, 64), 112, 1, "unkept", "direct"),  # 0.9
        ((32, 64), 256, 1, "training", "direct"),  # 0.93
        ((128, 256), 56, 1, "kept", "winograd"),
        ((128, 256), 28, 1, "kept", "direct"),
    ],
)
def test_fewer_channels_need_more_tiles(channels, side, batch, state, expected):
    assert way(channels, side, batch, training=state == "training", kept=state == "kept") == expected
