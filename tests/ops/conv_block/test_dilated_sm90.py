"""Which of the two CUDA codes dilated_block's convolution runs, sm_80's or sm_90a's, and the machine code of both."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from emulation.build import ROOT, launches, load
from torch import Tensor

from inpaint_fast import _extension
from inpaint_fast.cli.info import report
from inpaint_fast.ops._dispatch import OPERATORS

TILES = 4
VARIABLE = "INPAINT_FAST_CUDA_CAPABILITY"


@pytest.fixture(autouse=True)
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    load("dilated_block")
    monkeypatch.delenv(VARIABLE, raising=False)


def code_of(input: Tensor, *, tf32: bool = True) -> str:
    """Whose code a convolution of the input runs: sm_90a's has a producer's warp more than whole warpgroups."""
    weight = torch.randn(8, input.shape[1], 3, 3).to(input.dtype)
    launches("dilated_block")
    OPERATORS["dilated_block"].call(
        "emulated", "dilated_block", input, weight, *[None] * 4, [1, 1, 1, 1], 0, 0.0, 0, True, tf32
    )
    threads = launches("dilated_block")[-1].threads
    return "sm_90a" if threads % 128 == 32 else "sm_80"


def nhwc(*shape: int) -> Tensor:
    """Pictures (images, channels, height, width) in channels_last."""
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


# ---- the choice ----


def test_the_best_that_is_there_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert code_of(nhwc(1, 8, 4, 4)) == "sm_90a"
    for capability in ("80", "89", "100", "120"):
        monkeypatch.setenv("INPAINT_FAST_EMULATED_CAPABILITY", capability)
        assert code_of(nhwc(1, 8, 4, 4)) == "sm_80"


def test_the_variable_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    for wish, code in (("sm_80", "sm_80"), ("sm_90a", "sm_90a"), ("", "sm_90a")):
        monkeypatch.setenv(VARIABLE, wish)
        assert code_of(nhwc(1, 8, 4, 4)) == code
    for wish, capability, message in (
        ("sm_90", "90", f"{VARIABLE}: sm_80, sm_90a or nothing is expected, got 'sm_90'"),
        ("avx2", "80", f"{VARIABLE}: sm_80, sm_90a or nothing is expected, got 'avx2'"),
        ("sm_90a", "80", f"{VARIABLE}: sm_90a needs a GPU of compute capability 9.0 and a build for 9.0a"),
    ):
        monkeypatch.setenv(VARIABLE, wish)
        monkeypatch.setenv("INPAINT_FAST_EMULATED_CAPABILITY", capability)
        with pytest.raises(RuntimeError, match=message):
            code_of(nhwc(1, 8, 4, 4))


@pytest.mark.parametrize(
    ("code", "make"),
    [
        ("sm_90a", lambda: torch.randn(2, 3, 5, 6)),  # packed
        ("sm_90a", lambda: nhwc(2, 8, 5, 6)),
        ("sm_90a", lambda: nhwc(2, 16, 9, 9)[:, 8:, 1:7, 2:]),
        ("sm_90a", lambda: nhwc(4, 8, 9, 9)[::2, :, ::3]),
        ("sm_90a", lambda: torch.randn(1, 7, 1, 8).as_strided((1, 8, 1, 7), (12, 1, 4, 8))),  # strides of sizes of 1
        ("sm_80", lambda: nhwc(2, 8, 5, 6).transpose(2, 3)),  # columns further apart than rows
        ("sm_80", lambda: nhwc(1, 8, 5, 6).expand(3, -1, -1, -1)),  # one picture three times
        ("sm_80", lambda: nhwc(4, 8, 9, 9)[:, :, :, ::2]),  # rows 4.5 columns apart
        ("sm_80", lambda: nhwc(2, 8, 9, 13).as_strided((2, 8, 5, 6), (960, 1, 80, 16))),  # rows that overlap
    ],
)  # fmt: skip
def test_what_has_no_tensor_map_runs_by_sm_80(code: str, make: Callable[[], Tensor]) -> None:
    torch.manual_seed(0)
    assert code_of(make()) == code
    assert code_of(make(), tf32=False) == "sm_80"  # float32 in full


@pytest.mark.skipif(_extension.module is None, reason="the extension is not built")
def test_info_tells_which_would_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _extension.cuda_capability() in ("none", *_extension.CUDA_CAPABILITIES)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=9, minor=0))
    monkeypatch.setattr(_extension, "cuda_capability", lambda: "sm_90a")
    monkeypatch.setattr(_extension, "cuda_weight_gradient", lambda: "sm_80")
    assert "CUDA code of dilated_block's convolution: sm_90a; of its weights' gradient: sm_80\n" in report()

    def wrong() -> str:
        raise RuntimeError(f"{VARIABLE}: sm_90a needs more")

    monkeypatch.setattr(_extension, "cuda_weight_gradient", wrong)
    monkeypatch.setattr(_extension, "cuda_capability", wrong)
    assert f"convolution: {VARIABLE}: sm_90a needs more; of its weights' gradient: {VARIABLE}: sm_90a" in report()


# ---- machine code ----


def nvcc() -> str | None:
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    candidates = [*(str(Path(home) / "bin" / "nvcc") for home in homes), "nvcc", "/usr/local/cuda/bin/nvcc"]
    return next(filter(None, map(shutil.which, candidates)), None)


@pytest.mark.long
@pytest.mark.skipif(nvcc() is None, reason="the CUDA toolkit is not here")
def test_kernels_spill_nothing(tmp_path: Path) -> None:
    """Nor does ptxas make products of warpgroups wait for one another, of which it warns (C7510)."""

    def compile_for(architecture: str) -> str:
        command = [
            nvcc(),
            "-std=c++17",
            "-O3",
            f"-I{ROOT / 'csrc'}",
            "-cubin",
            f"-arch={architecture}",
            "-Xptxas",
            "-v",
        ]
        command += [str(ROOT / "csrc" / "conv_block" / "cuda" / "kernels.cu"), "-o", str(tmp_path / architecture)]
        ran = subprocess.run(command, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return ran.stderr

    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(compile_for, ("sm_80", "sm_90a")))
    pattern = r"Function properties for (\S+)\n\s*(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill"
    for text in said:
        kernels = re.findall(pattern, text)
        assert sum("convolution_sm90_kernel" in name for name, *_ in kernels) == 3 * TILES
        assert "C7510" not in text and "serialized" not in text
        assert sum("convolution_kernel" in name for name, *_ in kernels) == 4 * TILES
        assert sum("weight_gradient_kernel" in name for name, *_ in kernels) == 4 * 2
        assert sum("weight_gradient_sm90_kernel" in name for name, *_ in kernels) == 2 * TILES
        for name, *spilled in kernels:
            assert spilled == ["0"] * 3, name
