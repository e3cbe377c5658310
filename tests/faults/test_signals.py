"""Signals: those that end a run leave a checkpoint to go on from, SIGUSR1 has one saved, a second one ends at once."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from inpaint_fast.cli.main import main
from inpaint_fast.completion.weights import checkpoints
from inpaint_fast.training import Run, TrainingError, UNetL2, train
from inpaint_fast.training.checkpoints import read_checkpoint
from inpaint_fast.training.records import Records

TINY = {"filters": 2, "batch_size": 2, "heldout_crops": 1, "heldout_pictures": 1, "accelerate": False}
WORDS = ["--filters", "2", "--batch-size", "2", "--heldout-crops", "1", "--heldout-pictures", "1"]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_step_saves_and_goes_on_to_whoever_had_it(end: signal.Signals, tmp_path, monkeypatch, capsys):
    got = []
    before = signal.signal(end, lambda number, _: got.append((number, [p.name for p in checkpoints(tmp_path / "run")])))
    step = Run.step

    def signalled(self, batch):
        if self.steps_done == 2:
            signal.raise_signal(end)  # the step is made nevertheless
        return step(self, batch)

    monkeypatch.setattr(Run, "step", signalled)
    try:
        train(UNetL2(steps=50, **TINY), tmp_path / "run", progress=False)
    finally:
        handler = signal.signal(end, before)
    assert got == [(end, ["step_000000", "step_000003"])] and handler.__code__.co_filename == __file__
    run = tmp_path / "run"
    assert capsys.readouterr().err == (
        f"{end.name}: stopped after step 3. The newest checkpoint in {run}/ is that of step 3; to go on: inpaint-fast "
        f"train --resume {run}\n"
    )
    assert read_checkpoint(checkpoints(run)[-1])["run"]["steps_done"] == 3
    train(UNetL2(steps=4, **TINY), run, resume=True, progress=False)


def test_a_signal_breaks_off_an_evaluation_and_a_second_one_is_not_held_up(tmp_path, monkeypatch) -> None:
    evaluate, save, evaluations, got, at_save = Run.evaluate, Records.save, [], [], []

    def long(self):
        evaluations.append(1)
        if len(evaluations) == 2:
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError("it is broken off before")
        return evaluate(self)

    def impatient(self, step, *state):
        if step == 1:
            signal.raise_signal(signal.SIGTERM)
            at_save.extend(got)
        save(self, step, *state)

    before = signal.signal(signal.SIGTERM, lambda *_: got.append(1))
    monkeypatch.setattr(Run, "evaluate", long)
    monkeypatch.setattr(Records, "save", impatient)
    try:
        train(UNetL2(steps=50, evaluate_every=1, **TINY), tmp_path / "run", progress=False)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert at_save == [1] and got == [1, 1]  # the second one at once, the first one at the end
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step_000000", "step_000001"]


def test_an_interrupted_command_has_saved_and_ends_with_130(tmp_path, monkeypatch, capsys) -> None:
    step = Run.step
    monkeypatch.setattr(Run, "step", lambda *args: (signal.raise_signal(signal.SIGINT), step(*args))[1])
    assert main(["train", "unet_l2", "--out", str(tmp_path / "run"), *WORDS]) == 130
    error = capsys.readouterr().err
    assert "SIGINT: stopped after step 1" in error and "what was written so far is whole" in error
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step_000000", "step_000001"]


def test_ignored_signals_stay_ignored(tmp_path, monkeypatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    step = Run.step
    monkeypatch.setattr(Run, "step", lambda *args: (signal.raise_signal(signal.SIGHUP), step(*args))[1])
    try:
        train(UNetL2(steps=2, **TINY), tmp_path / "run", progress=False)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step_000000", "step_000002"]


def test_networks_that_are_not_finite_are_not_saved_by_a_signal_either(tmp_path, monkeypatch) -> None:
    before, step = signal.signal(signal.SIGTERM, lambda *_: None), Run.step

    def spoilt(self, batch):
        signal.raise_signal(signal.SIGTERM)
        measured = step(self, batch)
        with torch.no_grad():
            next(self.system.parameters()).fill_(torch.nan)
        return measured

    monkeypatch.setattr(Run, "step", spoilt)
    try:
        with pytest.raises(TrainingError, match="not finite near step 1.*is that of step 0"):
            train(UNetL2(steps=5, **TINY), tmp_path / "run", progress=False)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_sigusr1_has_a_checkpoint_saved_and_the_run_goes_on(tmp_path, monkeypatch, capsys) -> None:
    step, run = Run.step, tmp_path / "run"
    seen = []

    def asked(self, batch):
        measured = step(self, batch)
        if self.steps_done == 3:
            signal.raise_signal(signal.SIGUSR1)
        if self.steps_done == 4:
            seen.extend(path.name for path in checkpoints(run))
        return measured

    monkeypatch.setattr(Run, "step", asked)
    before = signal.getsignal(signal.SIGUSR1)
    train(UNetL2(steps=5, **TINY), run, progress=False)
    assert seen == ["step_000000", "step_000003"] and signal.getsignal(signal.SIGUSR1) == before
    assert capsys.readouterr().err == f"SIGUSR1: The newest checkpoint in {run}/ is that of step 3\n"


# ---- whole processes ----


def process(run: Path, *words: str) -> subprocess.Popen:
    """A run that trains by now: it has written its settings, and a checkpoint."""
    begun = time.time_ns()
    command = [sys.executable, "-m", "inpaint_fast", "train", *words, *WORDS, "--steps", "1000000"]
    command += ["--evaluate-every", "1000", "--no-accelerate"]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    config = run / "config.toml"
    while not (checkpoints(run) and config.stat().st_mtime_ns > begun):
        assert started.poll() is None, started.communicate()[1]
        time.sleep(0.05)
    return started


@pytest.mark.long
def test_twenty_signals() -> None:
    """Each ends its process within 10 s, with its own exit code; the run goes on where the sentence says it stands."""
    moments, slowest = random.Random(0), 0.0
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        words, last = ["unet_l2", "--out", str(run)], 0
        for i in range(20):
            started = process(run, *words)
            time.sleep(moments.uniform(0.0, 1.0))
            end = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)[i % 3]
            sent = time.monotonic()
            started.send_signal(end)
            error = started.communicate()[1]
            slowest = max(slowest, time.monotonic() - sent)
            assert started.returncode == (130 if end == signal.SIGINT else -end), error
            step = int(checkpoints(run)[-1].name[5:])
            assert f"{end.name}: stopped after step {step}. " in error and f"inpaint-fast train --resume {run}" in error
            assert step >= last and read_checkpoint(checkpoints(run)[-1])["run"]["steps_done"] == step
            words, last = ["--resume", str(run)], step
    print(f"20 signals, the slowest process left after {slowest:.2f} s")
    assert slowest < 10 and last > 0
