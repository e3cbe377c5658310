"""Disks that take nothing more: what was saved stays as it is, the run says so, trains on, and tries again."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import times

from inpaint_fast import _files
from inpaint_fast.completion.weights import checkpoints
from inpaint_fast.training import Run, TrainingError, UNetL2, train
from inpaint_fast.training.checkpoints import read_checkpoint

TINY = {"filters": 2, "batch_size": 2, "heldout_crops": 1, "heldout_pictures": 1, "accelerate": False}
EACH = times(1, 20)
"""So often each kind of failure is caused, each time at another moment."""


@contextmanager
def full(run: Path, number: int) -> Iterator[None]:
    """No file can grow beyond some bytes: as a full disk, write by write, in whichever file is too large."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 + 700 * number, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def failing(name: str, number: int, code: int) -> Iterator[None]:
    """A call of the system that fails from the number-th on. Root, who may write anywhere, meets no refusal itself."""
    real, calls = getattr(_files.os, name), []

    def fails(*args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) > number:
            raise OSError(code, os.strerror(code), str(args[0]))
        return real(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_files.os, name, fails)
        yield


@contextmanager
def read_only(run: Path, number: int) -> Iterator[None]:
    """The file system is mounted anew, read-only: nothing is renamed any more."""
    with failing("replace", number, errno.EROFS), failing("rename", number, errno.EROFS):
        yield


@contextmanager
def unwritable(run: Path, number: int) -> Iterator[None]:
    """There is a file in the place of the folder of checkpoints, or a link to nowhere."""
    place = run / "checkpoints"
    place.rename(run / "elsewhere")
    if number % 2:
        place.symlink_to(run / "nowhere")
    else:
        place.write_text("")
    try:
        yield
    finally:
        place.unlink()
        (run / "elsewhere").rename(place)


@contextmanager
def broken(run: Path, number: int) -> Iterator[None]:
    """The disk itself fails: what was written does not get onto it."""
    with failing("fsync", number, errno.EIO):
        yield


KINDS = {"full": full, "read-only": read_only, "unwritable": unwritable, "broken": broken}


def contents(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (run / "checkpoints").rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_saved_stays_and_the_run_trains_on(kind: str, tmp_path, monkeypatch, capsys) -> None:
    """The disk fails while the checkpoints of the steps 2 to 4 are written, and is well again before the end."""
    step = Run.step
    for number in range(EACH):
        run, before = tmp_path / str(number), {}
        manager = None

        def stepped(self, batch, run=run, before=before, number=number):
            nonlocal manager
            if self.steps_done == 1:
                before.update(contents(run))
                manager = KINDS[kind](run, number)
                manager.__enter__()
            if self.steps_done == 4:
                manager.__exit__(None, None, None)
                manager = None
                now = contents(run)
                both = [path for path in now if path in before and path.name != "best.json"]
                assert now == before or (number and all(now[path] == before[path] for path in both))
                assert not list(run.rglob("*.part")) and all(map(read_checkpoint, checkpoints(run)))
            return step(self, batch)

        monkeypatch.setattr(Run, "step", stepped)
        try:
            train(UNetL2(steps=6, evaluate_every=1, **TINY), run, progress=False)
        finally:
            if manager is not None:
                manager.__exit__(None, None, None)
        assert before
        assert checkpoints(run)[-1].name == "step_000006" and read_checkpoint(checkpoints(run)[-1])
        rows = (run / "metrics.csv").read_text().splitlines()
        assert len(rows) == 1 + 7  # none is lost
        error = capsys.readouterr().err
        for text in (error, (run / "health.txt").read_text()):
            assert "warning: the checkpoint of step 4 could not be written (" in text and "the run goes on" in text


def test_an_end_that_cannot_be_saved_is_no_success(tmp_path, monkeypatch, capsys) -> None:
    step, run = Run.step, tmp_path / "run"

    def stepped(self, batch):
        if self.steps_done == 2:
            limit.__enter__()
        return step(self, batch)

    limit = full(run, 0)
    monkeypatch.setattr(Run, "step", stepped)
    try:
        with pytest.raises(TrainingError, match=r"is over, but its .* could not be written \(.*too large.*of step 2$"):
            train(UNetL2(steps=3, evaluate_every=1, **TINY), run, progress=False)
    finally:
        limit.__exit__(None, None, None)
    assert checkpoints(run)[-1].name == "step_000002"
    monkeypatch.undo()
    train(UNetL2(steps=3, evaluate_every=1, **TINY), run, resume=True, progress=False)
    assert checkpoints(run)[-1].name == "step_000003"


@pytest.mark.long
def test_a_process_on_a_full_disk_ends_with_a_sentence_and_another_exit_code(tmp_path) -> None:
    words = ["unet_l2", "--steps", "2", "--evaluate-every", "1", "--out", str(tmp_path / "run")]
    words += ["--filters", "2", "--batch-size", "2", "--heldout-crops", "1", "--heldout-pictures", "1"]
    full_disk = f"ulimit -f 4; exec {sys.executable} -m inpaint_fast train {' '.join(words)}"
    ended = subprocess.run(["bash", "-c", full_disk], capture_output=True, text=True)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert "the checkpoint of step 0 could not be written" in ended.stderr
    assert "the run is over, but its picture and checkpoint could not be written" in ended.stderr
    assert not list(tmp_path.rglob("*.part")) and not checkpoints(tmp_path / "run")
