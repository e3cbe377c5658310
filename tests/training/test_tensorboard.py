"""What a run writes for TensorBoard, read back by TensorBoard itself."""

from __future__ import annotations

import sys

import pytest
import torch

from inpaint_fast.cli.main import main
from inpaint_fast.training import Run, UNetWGAN, train
from inpaint_fast.training.columns import columns_of

TINY = {"filters": 2, "batch_size": 4, "heldout_crops": 1, "evaluate_every": 1, "critic_steps": 1, "critic_filters": 2}


@pytest.fixture
def read():
    """A function: a run's folder -> what TensorBoard finds there."""
    reading = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="the extra [log] is not installed"
    )

    def events(folder):
        found = reading.EventAccumulator(str(folder / "tensorboard"), {reading.IMAGES: 0, reading.HISTOGRAMS: 0})
        return found.Reload()

    return events


def test_curves_pictures_and_clipped_weights_between_their_bounds(tmp_path, read) -> None:
    folder = train(UNetWGAN(steps=2, clip=0.02, **TINY), tmp_path / "run", progress=False, tensorboard=True)
    events = read(folder)
    tags = events.Tags()
    assert {"psnr/completed", "psnr/harmonic", "losses/critic", "signals/critic_spread"} <= set(tags["scalars"])
    assert [event.step for event in events.Scalars("ssim/completed")] == [0, 1, 2]
    assert [event.step for event in events.Images("held-out pictures")] == [0, 1, 2]
    clipped = [tag for tag in tags["histograms"] if tag.startswith("clipped/critic.")]
    assert len(clipped) == len(tags["histograms"]) >= 6
    for tag in clipped:
        last = events.Histograms(tag)[-1].histogram_value
        assert -0.02 - 1e-6 <= last.min <= last.max <= 0.02 + 1e-6
        assert last.bucket_limit[1] - last.bucket_limit[0] == pytest.approx(0.04 / 64, rel=1e-3)  # from bound to bound
    bounds = [events.Scalars(f"clip/critic {side} bound")[-1].value for side in ("lower", "upper")]
    assert bounds == pytest.approx([-0.02, 0.02]) and 0 <= events.Scalars("clip/critic at a bound")[-1].value <= 1


def test_a_run_that_goes_on_is_shown_without_what_was_logged_after_its_step(tmp_path, read) -> None:
    from inpaint_fast.training.tensorboard import EventLog

    run = Run(UNetWGAN(**TINY))
    picture = torch.zeros(3, 4, 4, dtype=torch.uint8)
    log = EventLog(tmp_path, after=0)
    for after, steps, psnr in ((0, range(5), 1.0), (2, (3, 4), 2.0), (3, (4, 5), 3.0)):
        if psnr == 2:  # another process
            log.close()
            log = EventLog(tmp_path, after=after)
        elif psnr == 3:  # the same goes back
            log.go_on(after)
        for step in steps:
            log.add({"step": step, "seconds": 0, "psnr": psnr}, picture, run.system)
    log.close()
    found = [(event.step, event.value) for event in read(tmp_path).Scalars("psnr/completed")]
    assert found == [(0, 1), (1, 1), (2, 1), (3, 2), (4, 3), (5, 3)]


def test_a_log_that_cannot_be_written_is_said_and_the_run_goes_on(tmp_path, read, monkeypatch, capsys) -> None:
    from torch.utils.tensorboard import SummaryWriter

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "flush", full)
    folder = train(UNetWGAN(steps=2, **TINY), tmp_path / "run", progress=False, tensorboard=True)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3
    assert capsys.readouterr().err.count("No space left on device; nothing more is written for it") == 1


def test_without_the_extra_it_is_named_and_no_folder_is_made(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "unet_wgan", "--tensorboard", "--steps", "0"]) == 2
    assert "pip install 'inpaint_fast[log]'" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_every_column_has_one_kind() -> None:
    names = ["step", "seconds", "images_per_second", "critic_loss", "saturated", "l1", "psnr", "ring_mean_l1"]
    columns = columns_of([*names, "psnr"])
    assert columns.heldout == ["psnr", "l1"] and columns.fills == {"ring_mean_l1": ("ring_mean", "l1")}
    assert columns.losses == ["critic_loss"] and columns.signals == ["images_per_second", "saturated"]
