"""A number that is none, wherever it comes from, ends the run with a reason; what was saved before stays as it was."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from inpaint_fast.cli import main as cli
from inpaint_fast.completion import load_network, save_network
from inpaint_fast.completion.weights import checkpoints
from inpaint_fast.models import UNetGenerator
from inpaint_fast.training import Evaluation, TrainingError, UNetL2, UNetWGAN, train
from inpaint_fast.training.health import not_finite
from inpaint_fast.training.recipe import System
from inpaint_fast.training.unet_wgan import UNetWGANSystem

TINY = {"filters": 2, "batch_size": 2, "heldout_crops": 1, "heldout_pictures": 1, "accelerate": False}
STEPS = 4  # an evaluation after each second one
Spoil = Callable[[System], object]


def gradient(network: str, value: float) -> Spoil:
    def spoil(system: System) -> None:
        parameter = next(getattr(system, network).parameters())
        handle = parameter.register_hook(lambda grad: (handle.remove(), torch.full_like(grad, value))[1])

    return spoil


def buffer(network: str, value: float) -> Spoil:
    """In running statistics, which training, on those of the batch, does not notice."""

    def spoil(system: System) -> None:
        next(m for m in getattr(system, network).modules() if isinstance(m, nn.BatchNorm2d)).running_var.fill_(value)

    return spoil


def state(network: str) -> Spoil:
    """An average of squared gradients that is infinite: its weight stands still for ever, and finite."""

    def spoil(system: System) -> None:
        optimizer = system.optimizers[network]
        optimizer.state[next(getattr(system, network).parameters())]["exp_avg_sq"].fill_(math.inf)

    return spoil


POINTS: dict[str, tuple[Spoil, str]] = {
    "gradient of the generator": (gradient("generator", math.nan), "generator"),
    "gradient of the critic": (gradient("critic", math.inf), "critic"),
    "running statistics of the generator": (buffer("generator", math.nan), "running_var"),
    "running statistics of the critic": (buffer("critic", math.inf), "critic.*running_var"),
    "state of the critic's optimizer": (state("critic"), "exp_avg_sq of the critic"),
}


# In the last step of all; two of them in the first step after an evaluation, too.
MOMENTS = [*((point, STEPS - 1) for point in POINTS), ("gradient of the critic", 2), (next(reversed(POINTS)), 2)]


@pytest.mark.parametrize(("point", "step"), MOMENTS)
def test_nothing_of_it_is_saved(point: str, step: int, tmp_path, monkeypatch) -> None:
    spoil, words = POINTS[point]
    in_the_step, go, done = point.startswith("gradient"), UNetWGANSystem.step, []

    def spoilt(system: System, batch):
        if len(done) == step and in_the_step:
            spoil(system)
        done.append(go(system, batch))
        if len(done) == step + 1 and not in_the_step:
            spoil(system)
        return done[-1]

    monkeypatch.setattr(UNetWGANSystem, "step", spoilt)
    recipe = UNetWGAN(steps=STEPS, evaluate_every=2, critic_steps=1, critic_filters=2, **TINY)
    with pytest.raises(TrainingError, match=f"({words}|_loss|critic_spread|gradient).*those of step 2\\."):
        train(recipe, tmp_path / "run", progress=False)
    (checkpoint,) = checkpoints(tmp_path / "run")
    assert checkpoint.name == "step_000002"
    for kind in ("generator", "critic"):
        assert all(value.isfinite().all() for value in load_network(checkpoint, kind=kind).state_dict().values())
    assert (tmp_path / "run" / "generator.safetensors").read_bytes() == (
        checkpoint / "generator.safetensors"
    ).read_bytes()
    text = (tmp_path / "run" / "metrics.csv").read_text().lower()
    assert "nan" not in text and "inf" not in text


def test_a_batch_a_loss_and_a_heldout_metric(tmp_path, monkeypatch) -> None:
    recipe = UNetL2(steps=STEPS, evaluate_every=2, **TINY)
    make = type(recipe.batches(recipe.open_images("train"))).__getitem__
    batches = type(recipe.batches(recipe.open_images("train")))

    def bad_batch(self, index: int):
        batch = make(self, index)
        return batch if index < 3 else batch.map(lambda part: part * math.nan if part.is_floating_point() else part)

    measure, calls = Evaluation.measure, []

    def bad_metric(self, completed):
        calls.append(1)
        return measure(self, completed) | ({"ssim": math.nan} if len(calls) > 4 else {})  # two fills; steps 0 and 2

    for name, target, attribute, replacement, words in (
        ("batch", batches, "__getitem__", bad_batch, "reconstruction_loss is nan"),
        ("metric", Evaluation, "measure", bad_metric, "ssim is nan"),
    ):
        with monkeypatch.context() as patch, pytest.raises(TrainingError, match=f"{words}.*step 4.*of step 2"):
            patch.setattr(target, attribute, replacement)
            train(recipe, tmp_path / name, progress=False)
        assert [path.name for path in checkpoints(tmp_path / name)] == ["step_000002"]


def test_weights_that_start_so_are_said_before_the_first_step(tmp_path, capsys) -> None:
    start = UNetGenerator(2)
    nn.init.constant_(start.conv2.weight, math.nan)
    save_network(tmp_path / "bad.safetensors", start, {"filters": 2})
    words = ["--steps", "1", "--filters", "2", "--heldout-crops", "1", "--heldout-pictures", "1"]
    out = tmp_path / "run"
    assert cli.main(["train", "unet_l2", "--pretrained", str(tmp_path / "bad.safetensors"), "--out", str(out), *words])
    error = capsys.readouterr().err
    assert (
        "generator.conv2.weight holds a value that is not finite near step 0" in error and "No weights are in" in error
    )
    assert not list(out.rglob("*.safetensors")) and not (out / "metrics.jsonl").exists()


def test_what_is_finite() -> None:
    good = {"a": torch.ones(3), "large": torch.full((4,), 3e38), "count": torch.tensor(7), "none": torch.empty(0)}
    assert not_finite(good.items()) is None and not_finite([]) is None
    for value in (math.nan, math.inf, -math.inf):
        assert not_finite([*good.items(), ("bad", torch.tensor([0, value])), ("worse", torch.tensor(value))]) == "bad"
