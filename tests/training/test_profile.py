"""A profile times the steps of a run and changes nothing about them."""

from __future__ import annotations

import json

import pytest
import torch

from inpaint_fast.cli.main import main
from inpaint_fast.data import samples
from inpaint_fast.training import RECIPES, profile
from inpaint_fast.training.profile import PHASES, Stopwatch, _watched, _watched_step
from inpaint_fast.training.run import Run

FEW = {"batch_size": 2, "heldout_crops": 1, "heldout_pictures": 1, "device": "cpu", "accelerate": False}
SETTINGS = {
    "unet_wgan": {"filters": 2, "critic_filters": 2},
    "context_wgan": {"filters": 2, "code": 4, "critic_filters": 2, "critic_optimizer": "nesterov"},
    "glcic_small": {"channels": 4, "discriminator_channels": 2, "features": 4, "completion_steps": 0,
                    "discriminator_steps": 0, "settle": 0},
    "context_cnn": {"filters": 2, "code": 4},
}  # fmt: skip


def recipe(name: str):
    return RECIPES[name](**FEW, **SETTINGS[name])


class TestStopwatch:
    def test_time_is_that_of_the_innermost_phase(self, monkeypatch):
        clock = iter([0.0, 1.0, 3.0, 7.0, 8.0, 10.0])
        monkeypatch.setattr(profile, "_now", lambda device: next(clock))
        watch = Stopwatch(torch.device("cpu"))
        with watch.phase("outer"):  # 0
            with watch.phase("inner"):  # 1 to 3
                pass
            watch.rename("outer", "other")  # 7: until here it was another's
            with watch.phase("inner"):  # 8, fails at 10
                clock = iter([10.0, 12.0])
        assert watch.seconds == {"other": 1.0 + 4.0, "inner": 2.0 + 2.0, "outer": 1.0 + 2.0}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_phase_of_a_step_is_seen(name):
    plain, watched = Run(recipe(name)), Run(recipe(name))
    watch = Stopwatch(watched.device)
    for _ in range(2):
        expected = plain.step(plain.batches[plain.steps_done])
        batch = watched.batches[watched.steps_done]
        with watch.phase("other"), _watched(watched.system, watch):
            assert watched.step(batch) == expected
    assert [*map(torch.equal, plain.system.state_dict().values(), watched.system.state_dict().values())].count(
        False
    ) == 0
    seen = {"generator", "optimizer", "metrics", "other"}
    seen |= {"critic"} if len(watched.system.optimizers) > 1 else set()
    seen |= {"clip"} if name == "context_wgan" else set()
    assert {phase for phase, seconds in watch.seconds.items() if seconds > 0} == seen <= set(PHASES)
    owners = [watched.system, watched.system.guard, watched.system.processes, *watched.system.optimizers.values()]
    assert not any(
        {"through", "gradient", "update", "observe", "mean", "clip_group"} & vars(each).keys() for each in owners
    )


def test_a_step_makes_the_batch_of_its_place():
    plain, watched = Run(recipe("context_cnn")), Run(recipe("context_cnn"))
    watch = Stopwatch(watched.device)
    for index in range(2):
        _watched_step(watched, watch)
        plain.step(plain.batches[index])
    assert all(map(torch.equal, plain.system.state_dict().values(), watched.system.state_dict().values()))
    assert watch.seconds["data"] > 0


def test_from_the_shell(tmp_path, capfd):
    options = [f"--{key.replace('_', '-')}={value}" for key, value in {**FEW, **SETTINGS["context_cnn"]}.items()]
    options = [option.replace("--accelerate=False", "--no-accelerate") for option in options]
    trace = tmp_path / "trace.json"
    assert main(["profile", "context_cnn", *options, "--steps", "1", "--out", str(trace), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["recipe"] == "context_cnn" and found["steps"] == 1 and list(found["phases"]) == list(PHASES)
    assert found["images_per_second"] == pytest.approx(2 / found["step"]) and found["evaluation"] > 0
    assert found["peak_bytes"] > sum(image.nbytes for image in samples())  # which the run has decoded
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert {"data", "generator", "optimizer"} <= names


def test_bad_arguments(tmp_path, capsys):
    for arguments, expected in (
        (["context_cnn", "--steps", "0"], "steps: at least 1 is expected, got 0"),
        (["context_cnn", "--steps", "few"], "--steps: a number of steps is expected, got 'few'"),
        (["context_cnn", "--out", "trace.txt"], "--out: a .json file is expected"),
        (["context_cn"], "did you mean context_cnn?"),
    ):
        assert main(["profile", *arguments]) == 2
        assert expected in capsys.readouterr().err
