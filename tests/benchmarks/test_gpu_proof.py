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
    assert "0 stages failed; 2 could not run here; 0 left for another call" in ran.stdout
    names = proof("--list", out=tmp_path).stdout.split()
    assert names[:3] == ["tools", "build", "info"] and {"train", "memcheck", "racecheck"} <= set(names)


def test_the_table_has_ratios_to_the_best_of_each_kind(tmp_path) -> None:
    rows = [
        "case,implementation,backend,median_ms,gpu_ms",
        "a,inpaint_fast,cuda,0.5,0.25",
        "a,eager,pytorch,2,1",
        "a,eager_nchw,,1.5,",
    ]
    rows += ["a,compile_default,inductor,1,", "b,inpaint_fast,not run: it is late,,", "b,eager,pytorch,1,"]
    rows += ["a,inpaint_fast_wgrad_sm_80,cuda,0.6,0.3", "a,inpaint_fast_wgrad_sm_90a,cuda,0.5,0.2"]
    (tmp_path / "x.csv").write_text("\n".join(rows) + "\n")
    ran = proof("--table", out=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "a: with the weights' gradient by sm_90a's code instead of sm_80's 1.20x / 1.50x\n" in ran.stdout
    a, b = (line.split() for line in ran.stdout.splitlines() if line.startswith(("a ", "b ")))
    assert a == ["a", "0.5000", "0.2500", "3.00x", "/", "4.00x", "2.00x", "/", "-", "-"]
    assert " ".join(b) == "b not measured: not run: it is late"


def test_stages_run_beside_each_other_or_alone_within_the_budget(tmp_path) -> None:
    """With stages of its own in the place of those that need a GPU."""
    stages = "\n9 no alone one\n9 no beside two\n9 no beside three\n9 no alone four\n400000 no alone five\n"
    text = SCRIPT.read_text()
    begin, end = text.index('STAGES="') + len('STAGES="'), text.index('"\nONLY=')
    marks = tmp_path / "marks"
    body = f"""
run_stage() {{ echo "begin $1" >>{marks}; [ $1 != two ] || sleep 1; echo "end $1" >>{marks}; [ $1 != three ]; }}
"""
    text = text[:begin] + stages + text[end:]
    text = text.replace("# ---- the tables ----", body + "# ---- the tables ----")
    (tmp_path / "benchmarks").mkdir()
    for name in ("setup.py", "pyproject.toml"):
        (tmp_path / name).touch()
    for name in ("csrc", "kernels", "inpaint_fast", "tests"):
        (tmp_path / name).mkdir()
    script = tmp_path / "benchmarks" / "gpu_proof.sh"
    script.write_text(text)
    python = tmp_path / "python"  # has a virtual environment, and sees no GPU
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    environment = os.environ | {"PYTHON": str(python), "OUT": str(tmp_path / "out")}
    call = ["bash", str(script), "--seconds", "100000"]
    ran = subprocess.run(call, capture_output=True, text=True, env=environment)
    seen = marks.read_text().splitlines()
    assert ran.returncode == 1 and "1 stages failed; 0 could not run here" in ran.stdout, ran.stdout + ran.stderr
    assert seen.index("begin three") < seen.index("end two") < seen.index("begin four")
    assert "begin five" not in seen and "LEFT  five" in ran.stdout
    again = subprocess.run(call, capture_output=True, text=True, env=environment)
    assert marks.read_text().splitlines()[len(seen) :] == ["begin three", "end three"], again.stdout
