"""torchrun starts the processes of a run again where one is lost; a signal to one of them ends all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import times


def torchrun(*options: str, restarts: int = 0) -> subprocess.Popen[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", str(restarts)]
    command = [*start, "-m", "inpaint_fast", "train"]
    return subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def process_of(launcher: int, *, rank: int) -> int:
    """The process of this rank that torchrun has started."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"no process of rank {rank}")


@pytest.mark.parametrize("number", range(times(1, 5)))
def test_a_lost_process_is_started_again_and_a_signal_to_either_ends_both(number: int, tmp_path: Path) -> None:
    rank, out = 1 - number % 2, tmp_path / "run"
    options = ("--filters", "2", "--batch-size", "4", "--heldout-crops", "1", "--evaluate-every", "20")
    run = torchrun("unet_l2", "--out", str(out), *options, restarts=1)
    wait_for(out / "pictures" / "step_000020.png")
    os.kill(process_of(run.pid, rank=rank), signal.SIGKILL)
    before = int(max((out / "pictures").iterdir()).stem[5:])
    wait_for(out / "pictures" / f"step_{before + 40:06d}.png")
    os.kill(process_of(run.pid, rank=rank), signal.SIGUSR1)  # which the first process hears of, and goes on
    asked = max(path.name for path in (out / "pictures").iterdir())
    wait_for(out / "pictures" / f"step_{int(asked[5:11]) + 40:06d}.png")
    os.kill(process_of(run.pid, rank=rank), signal.SIGTERM)
    text = run.communicate(timeout=60)[0]
    assert text.count("SIGUSR1: The newest checkpoint in ") == 1
    assert run.returncode != 0 and "goes on after step" in text, text
    step = int(text.rpartition("SIGTERM: stopped after step ")[2].split(".")[0])
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(0, step + 1, 20))
    assert (out / "checkpoints" / f"step_{step:06d}" / "generator.safetensors").exists()
