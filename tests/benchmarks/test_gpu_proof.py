"""benchmarks/gpu_proof.sh as far as it goes without a GPU: its stages, its errors, its tables."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu_proof.sh"
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


def proof(*arguments: str, out: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHON": sys.executable, "OUT": str(out), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([str(SCRIPT), *arguments], capture_output=True, text=True, env=environment)


def test_a_stage_that_is_not_there_is_named(tmp_path) -> None:
    ran = proof("--only", "teleport", out=tmp_path)
    assert ran.returncode == 2 and "there is no stage teleport" in ran.stderr


def test_stages_that_need_a_gpu_say_so_and_are_no_failure(tmp_path) -> None:
    ran = proof("--only", "tests_gpu,bench_norm_act", out=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("no GPU") >= 3
    assert "0 stages failed; 2 could not run here" in ran.stdout


def test_the_table_has_ratios_to_the_best_of_each_kind(tmp_path) -> None:
    rows = [
        "case,implementation,backend,median_ms",
        "a,inpaint_fast,cuda,0.5",
        "a,eager,pytorch,2",
        "a,eager_nchw,,1.5",
    ]
    rows += ["a,compile_default,inductor,1", "b,inpaint_fast,not run: it is late,", "b,eager,pytorch,1"]
    (tmp_path / "x.csv").write_text("\n".join(rows) + "\n")
    ran = proof("--table", out=tmp_path)
    assert ran.returncode == 0, ran.stderr
    a, b = (line.split() for line in ran.stdout.splitlines() if line.startswith(("a ", "b ")))
    assert a == ["a", "0.5000", "3.00x", "2.00x", "-"]
    assert " ".join(b) == "b not measured: not run: it is late"
