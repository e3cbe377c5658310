"""A run goes on where nobody reads what it prints: a closed pipe, a full log, no stderr."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TINY = ("--filters", "2", "--batch-size", "2", "--heldout-crops", "1", "--heldout-pictures", "1", "--steps", "6")


def trained(out: Path) -> bool:
    return (out / "checkpoints" / "step_000006" / "generator.safetensors").is_file()


ALONE = (pytest.param(streams, marks=pytest.mark.long) for streams in (">/dev/full", "2>&-", ">&-"))


@pytest.mark.parametrize("streams", ["| head -1", ">/dev/full 2>&1", ">&- 2>&-", *ALONE])
def test_from_the_shell(streams: str, tmp_path: Path) -> None:
    command = f'"$@" {streams}; exit ${{PIPESTATUS[0]}}'
    out = tmp_path / "run"
    start = [sys.executable, "-m", "inpaint_fast", "train", "unet_l2", *TINY, "--line-every", "0", "--out", str(out)]
    ran = subprocess.run(
        ["bash", "-c", command, "bash", *start],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=120,
    )
    assert trained(out), ran
    assert ran.returncode == 0 or streams != "| head -1"


def test_without_streams_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inpaint_fast.training import UNetL2, train

    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "stdout", None)
    recipe = UNetL2(filters=2, batch_size=2, heldout_crops=1, heldout_pictures=1, steps=6, accelerate=False)
    assert trained(train(recipe, tmp_path / "run"))
