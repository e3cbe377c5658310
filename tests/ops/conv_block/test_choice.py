"""From what size on which way is taken: choice.py's rule on shapes whose times are known (docs: benchmarks/results)."""

from __future__ import annotations

import pytest
import torch

from inpaint_fast.ops._plans import forget_plans
from inpaint_fast.ops.conv_block import choice
from inpaint_fast.ops.conv_block import plan as plan_for_users
from inpaint_fast.ops.conv_block.call import plan_of
from inpaint_fast.ops.conv_block.geometry import DILATED, HALVING, STRIDED, Geometry
from inpaint_fast.ops.conv_block.plan import Epilogue


def way(
    channels: tuple[int, int], side: int, batch: int, *, stride: int = 2, taps: int = 3, training: bool = False,
    kept: bool = False, dilation: int = 1, dtype: torch.dtype = torch.float32, unasked: bool = False,
) -> str:  # fmt: skip
    shapes = (batch, channels[0], side, side), (channels[1], channels[0], taps, taps)
    block, geometry = (STRIDED, HALVING) if stride == 2 else (DILATED, Geometry.of(dilation, None))
    return choice.algorithm(block, geometry, dtype, *shapes, training, kept, unasked)


@pytest.mark.parametrize(
    ("channels", "side", "batch", "state", "expected"),
    [
        ((64, 128), 256, 1, "kept", "winograd"),  # 1.2 times as fast so, where 128 channels were asked for
        ((64, 128), 256, 1, "training", "winograd"),  # 2.1
        ((64, 128), 28, 2, "kept", "direct"),  # 0.9: inside resnet18
        ((64, 128), 56, 1, "training", "direct"),  # 0.75
        ((64, 128), 64, 4, "training", "winograd"),  # 1.1
        ((64, 64), 112, 1, "unkept", "winograd"),  # 1.1 to 1.2
        ((64, 128), 64, 1, "unkept", "direct"),  # 1.0 to 1.1, and of 256 channels 0.9
        ((32, 64), 256, 1, "training", "direct"),  # 0.93
        ((128, 256), 56, 1, "kept", "winograd"),
        ((128, 256), 28, 1, "kept", "direct"),
    ],
)
def test_fewer_channels_need_more_tiles(channels, side, batch, state, expected):
    assert way(channels, side, batch, training=state == "training", kept=state == "kept") == expected


@pytest.mark.parametrize(
    ("channels", "side", "batch", "expected"),
    [
        ((3, 64), 96, 16, "direct"),
        ((64, 128), 48, 4, "winograd"),  # 1.5 times as fast so
        ((64, 128), 48, 16, "winograd"),  # 1.9
        ((128, 256), 24, 4, "direct"),  # 1.06
        ((128, 256), 24, 16, "winograd"),  # 1.75
        ((256, 512), 12, 16, "direct"),  # 0.9 to 1.1
        ((256, 512), 20, 16, "winograd"),  # 1.25 to 1.5
        ((512, 512), 10, 4, "direct"),  # 0.55
    ],
)
def test_training_the_critics_of_glcic(channels, side, batch, expected):
    assert way(channels, side, batch, taps=5, training=True) == expected


@pytest.mark.parametrize(
    ("channels", "side", "batch", "stride", "expected"),
    [
        (16, 4, 2, 1, "winograd"),  # 0.71 of PyTorch's time, which starts oneDNN for two pictures
        (8, 4, 2, 1, "direct"),  # of large maps 1.08
        (64, 4, 2, 1, "winograd"),  # 0.79 to 0.88
        (128, 4, 2, 1, "direct"),  # 0.79, and slower inside networks: hrnet_w18_small
        (512, 4, 2, 1, "direct"),  # resnet18, 6 % slower as a whole
        (512, 7, 2, 1, "winograd"),
        (64, 8, 1, 1, "direct"),  # 1.12: one picture, without oneDNN
        (24, 14, 1, 1, "direct"),  # 1.25
        (64, 14, 1, 1, "winograd"),  # 0.94, 0.79 with one thread
        (16, 28, 1, 1, "direct"),  # 1.1
        (16, 56, 1, 1, "winograd"),  # 0.88 with one thread: too large to run without oneDNN
        (16, 32, 2, 2, "winograd"),  # 0.86
        (32, 32, 2, 2, "winograd"),  # 0.90
        (32, 56, 2, 2, "direct"),  # 1.0
        (32, 16, 1, 2, "direct"),  # 1.23
    ],
)
def test_kept_weights_of_small_maps(channels, side, batch, stride, expected):
    """Times are those of this kernel over PyTorch's convolution, normalisation and activation, with cold caches."""
    assert way((channels, channels), side, batch, stride=stride, kept=True) == expected


def pretend(monkeypatch: pytest.MonkeyPatch, supported: bool, instructions: set[str]) -> None:
    """A processor, and whether PyTorch's convolution takes half precision there."""
    monkeypatch.setattr(choice, "IN_TORCH", dict.fromkeys(choice.IN_TORCH, supported))
    monkeypatch.setattr(choice, "INSTRUCTIONS", instructions)
    forget_plans()


AVX512 = {"avx512f"}
PAIRS = AVX512 | {"avx512_bf16"}
PROCESSORS = [(True, PAIRS | {"amx_bf16"}), (True, PAIRS), (True, AVX512), (True, set()), (False, AVX512)]


@pytest.mark.parametrize(("supported", "instructions"), PROCESSORS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [8, 64, 128])
@pytest.mark.parametrize("backend", [None, "cpp"])
def test_the_plan_that_users_see_is_the_one_that_is_followed(
    monkeypatch, supported, instructions, dtype, channels, backend
):
    """Half precision, too, on processors that have instructions for it and on those that have none."""
    pretend(monkeypatch, supported, instructions)
    x, w = torch.zeros(1, channels, 64, 64, dtype=dtype), torch.zeros(channels, channels, 3, 3, dtype=dtype)
    tensors = {"input": x, "weight": w, "bias": None, "scale": None, "shift": None}
    followed = plan_of(DILATED, (1, None), tensors, Epilogue(), "fast", backend)
    forget_plans()
    assert (plan_for_users(x, w, backend=backend).algorithm == "winograd") == followed.is_ours


# PyTorch's time and ours of bfloat16 tensors, on a Zen 4: with AVX512-BF16, and without it (ONEDNN_MAX_CPU_ISA).
@pytest.mark.parametrize(
    ("channels", "side", "batch", "settings", "pairs", "alone"),
    [
        (64, 112, 1, {"kept": True}, "direct", "winograd"),  # 0.91 to 1.08; 0.2
        (128, 28, 1, {"kept": True}, "direct", "winograd"),  # 0.91 to 1.02
        (128, 56, 1, {"kept": True}, "winograd", "winograd"),  # 0.78 to 0.84
        (256, 28, 1, {"kept": True}, "winograd", "winograd"),  # 0.71 to 0.90
        (256, 28, 1, {}, "direct", "winograd"),  # 0.98 to 1.06
        (256, 56, 1, {}, "winograd", "winograd"),  # 0.70 to 0.76
        (256, 56, 1, {"kept": True, "dilation": 8}, "direct", "winograd"),  # 0.86 to 0.97
        (128, 112, 1, {"kept": True, "dilation": 4}, "winograd", "winograd"),  # 0.74 to 0.82
        (256, 40, 1, {"training": True}, "direct", "winograd"),  # 0.93 to 1.00
        (256, 56, 1, {"training": True}, "winograd", "winograd"),  # 0.84 to 0.87
        (256, 112, 1, {"kept": True, "stride": 2, "taps": 4}, "direct", "winograd"),  # 1.3; 0.2
    ],
)
def test_bfloat16_by_the_processors_instructions(monkeypatch, channels, side, batch, settings, pairs, alone):
    """Nobody asked for a kernel of ours."""
    for supported, instructions in PROCESSORS:
        pretend(monkeypatch, supported, instructions)
        expected = pairs if instructions == PAIRS else alone if instructions == AVX512 else "direct"
        found = way((channels,) * 2, side, batch, dtype=torch.bfloat16, unasked=True, **{"stride": 1, **settings})
        assert found == expected


def test_float16_is_pytorchs_where_the_processor_has_instructions(monkeypatch):
    for supported, instructions in PROCESSORS:
        pretend(monkeypatch, supported, instructions)
        assert choice.least_of(torch.float16) == ({} if supported else choice.LEAST)
