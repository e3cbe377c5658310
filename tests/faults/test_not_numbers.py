"""A number that is none, wherever it comes from, changes nothing that is learned; where it was learned, the run ends.

The guard puts back whatever the step has moved, bit for bit, counts the step and goes on; too many of them in a row
take the run back to its last checkpoint, and the second time they end it with a reason. What was saved stays.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from inpaint_fast.cli import main as cli
from inpaint_fast.completion import load_network, save_network
from inpaint_fast.completion.weights import checkpoints
from inpaint_fast.data import Batches
from inpaint_fast.models import UNetGenerator
from inpaint_fast.training import ContextWGAN, Evaluation, GLCICSmall, Run, TrainingError, UNetL2, UNetWGAN, train
from inpaint_fast.training.guard import Guard
from inpaint_fast.training.health import not_finite
from inpaint_fast.training.recipe import System
from inpaint_fast.training.unet_wgan import UNetWGANSystem

TINY = {"filters": 2, "batch_size": 2, "heldout_crops": 1, "heldout_pictures": 1, "accelerate": False}
STEPS = 4  # an evaluation after each second one
Spoil = Callable[[System], object]


def copied(state: object) -> object:
    if isinstance(state, Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    return [copied(value) for value in state] if isinstance(state, list) else state


def differences(one: object, other: object, path: str = "") -> list[str]:
    """Where two states are not the same, bit for bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = dict.fromkeys([*one, *other])
        return [found for key in keys for found in differences(one.get(key), other.get(key), f"{path}/{key}")]
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        same = one.shape == other.shape and one.equal(other) and one.isfinite().all()
    else:
        same = one == other
    return [] if same else [path]


# ---- steps that are skipped ----


def gradient(network: str, value: float) -> Spoil:
    """In the next one."""

    def spoil(system: System) -> None:
        parameter = next(getattr(system, network).parameters())
        handle = parameter.register_hook(lambda grad: (handle.remove(), torch.full_like(grad, value))[1])

    return spoil


def loss(side: str, value: float) -> Spoil:
    """Of one side of the game, once: its gradients are finite nevertheless."""

    def spoil(system: System) -> None:
        objective = system.objective

        def spoilt(*scores: Tensor) -> Tensor:
            system.objective = objective
            right = getattr(objective, side)(*scores)
            return right + (value - right).detach()

        system.objective = objective._replace(**{side: spoilt})

    return spoil


SKIPPED: dict[str, tuple[Spoil | None, tuple[str, ...]]] = {
    "a batch": (None, ()),
    "the critic's loss": (loss("critic", math.nan), ()),
    "the generator's loss": (loss("generator", math.inf), ("critic",)),
    "a gradient of the critic": (gradient("critic", math.inf), ()),
    "a gradient of the generator": (gradient("generator", math.nan), ("critic",)),
    "a gradient whose square no float holds": (gradient("critic", 3e30), ()),
    "one of the generator": (gradient("generator", -3e30), ("critic",)),
}


@pytest.fixture(scope="module", params=["plain", "accelerated", "unread"])
def begun(request) -> tuple[Run, dict]:
    """A run and its state after two steps. "unread" is the way of a GPU, whose decisions the host does not know."""
    width = {"filters": 24, "accelerate": True} if request.param == "accelerated" else {}
    run = Run(UNetWGAN(critic_steps=1, critic_filters=2, **TINY | width))
    if request.param == "unread":
        run.system.guard.at_once = False
    for index in range(2):
        run.step(run.batches[index])
    return run, copied(run.state_dict())


@pytest.mark.parametrize("point", SKIPPED)
def test_nothing_is_learned_from_it(point: str, begun: tuple[Run, dict]) -> None:
    """Networks, running statistics, optimizers: but for those that had made their step before it."""
    (spoil, moved), (run, state) = SKIPPED[point], begun
    run.load_state_dict(copied(state))
    before, batch = copied(run.system.training_state()), run.batches[2]
    if spoil is None:
        batch = batch._replace(image=batch.image.index_fill(0, torch.tensor([1]), math.nan))
    else:
        spoil(run.system)
    run.step(batch)
    guard = run.system.guard
    assert not guard.good and guard.skipped == guard.in_a_row == 1
    found = differences(before, copied(run.system.training_state()))
    allowed = [f"/networks/{name}" for name in moved] + [f"/optimizers/{name}" for name in moved]
    assert not [each for each in found if not each.startswith(tuple(allowed))]
    assert not [each for each in found if "running_" in each or "num_batches" in each]
    assert not_finite(run.system.learned()) is None
    run.step(run.batches[3])
    assert guard.good and guard.skipped == 1 and guard.in_a_row == 0
    assert differences(before["networks"], run.system.state_dict()) and not_finite(run.system.learned()) is None


class NoReading(TorchDispatchMode):
    """Inside, a tensor's value is not to be asked for, which would make a GPU wait."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default)
        return function(*args, **(kwargs or {}))


def test_the_host_asks_for_nothing_where_it_would_have_to_wait() -> None:
    recipe = ContextWGAN(optimizer="nesterov", critic_optimizer="nesterov", critic_filters=2, code=4, **TINY)
    run = Run(recipe)
    run.system.guard.at_once = False
    batches = [run.batches[index] for index in range(3)]
    run.step(batches[0])
    before = copied(run.system.training_state())
    with NoReading():
        run.step(batches[1]._replace(image=batches[1].image * math.nan))
    unmoved = differences(before, run.system.training_state())
    with NoReading():
        run.step(batches[2])
    assert not unmoved and differences(before["networks"], run.system.state_dict())
    assert run.system.guard.skipped == 1 and not_finite(run.system.learned()) is None


def test_gradients_that_are_left_for_the_next_step_are_kept() -> None:
    settings = {"size": 32, "local": 20, "hole": (8, 18), "channels": 2, "discriminator_channels": 2, "features": 4}
    phases = {"completion_steps": 0, "discriminator_steps": 0, "clear_gradients": False, "batch_size": 2}
    run = Run(GLCICSmall(heldout_crops=1, heldout_pictures=1, accelerate=False, **settings, **phases))
    run.step(run.batches[0])
    before = copied(run.system.training_state())
    assert before["gradients"]
    gradient("discriminator", math.nan)(run.system)
    run.step(run.batches[1])
    assert differences(before, run.system.training_state()) == [] and run.system.guard.skipped == 1


def test_an_optimizer_that_cannot_be_told_is_undone() -> None:
    """As on a GPU, where the decision is not known to the host; PyTorch's own optimizers wait or know nothing."""
    parameter = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([parameter], lr=0.1)
    guard = Guard()
    for bad in (True, False, True):
        before = copied([parameter.detach(), optimizer.state_dict()["state"].get(0, {})])
        parameter.grad, guard.good = torch.tensor([1.0, math.nan if bad else 2.0, 3.0]), torch.tensor(not bad)
        guard._step_and_undo(optimizer, [parameter])
        after = [parameter.detach(), optimizer.state_dict()["state"][0]]
        if bad and before[1]:
            assert all(differences(*pair) == [] for pair in zip(before, after, strict=True))
        elif bad:  # states that were made meanwhile are those before any step
            assert parameter.equal(before[0]) and all((value == 0).all() for value in after[1].values())
        else:
            assert not parameter.equal(before[0]) and after[1]["step"] == 1


def test_steps_that_are_skipped_are_counted_and_left_out_of_the_means(tmp_path, monkeypatch) -> None:
    make = Batches.__getitem__

    def some_bad(self, index: int):
        batch = make(self, index)
        return batch if index not in (1, 4, 5) else batch._replace(image=batch.image * math.nan)

    monkeypatch.setattr(Batches, "__getitem__", some_bad)
    folder = train(UNetL2(steps=6, evaluate_every=2, **TINY), tmp_path / "run", progress=False)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["skipped"] for row in rows] == [0, 1, 1, 3]
    assert ["reconstruction_loss" in row for row in rows] == [False, True, True, False]
    for row in rows:
        assert all(math.isfinite(value) for value in row.values())


def failing_memory(monkeypatch, first: int, last: int) -> list[int]:
    """The batches that are made as the first-th to the last-th are bad; returns the steps that were begun, in order."""
    step, begun = Run.step, []

    def failing(self, batch):
        begun.append(self.steps_done)
        return step(self, batch._replace(image=batch.image * math.nan) if first <= len(begun) <= last else batch)

    monkeypatch.setattr(Run, "step", failing)
    return begun


def test_too_many_in_a_row_take_the_run_back_to_its_last_checkpoint(tmp_path, monkeypatch, capsys) -> None:
    recipe = UNetL2(steps=8, evaluate_every=3, max_skipped=3, checkpoint_every=2, **TINY)
    straight = train(recipe, tmp_path / "straight", progress=False)
    begun = failing_memory(monkeypatch, 6, 8)
    run = train(recipe, tmp_path / "run", progress=False)
    assert begun == [0, 1, 2, 3, 4, 5, 6, 7, 6, 7]  # the checkpoint of step 6 was made between skipped steps
    words = (
        "3 steps in a row had a batch, a loss or a gradient that is no number near step 8: the run goes back to step 6"
    )
    assert words in capsys.readouterr().err and words in (run / "health.txt").read_text()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["skipped"]) for row in rows] == [(0, 0), (3, 0), (6, 1), (8, 1)]
    networks = [load_network(folder).state_dict() for folder in (run, straight)]
    assert not_finite(networks[0].items()) is None and differences(*networks)


def test_the_second_time_they_end_it(tmp_path, monkeypatch) -> None:
    recipe, run = UNetL2(steps=50, evaluate_every=50, max_skipped=3, checkpoint_every=2, **TINY), tmp_path / "run"
    begun = failing_memory(monkeypatch, 4, 100)
    with pytest.raises(TrainingError, match="3 steps in a row .*no number, again near step 7.*is that of step 6"):
        train(recipe, run, progress=False)
    assert begun == [0, 1, 2, 3, 4, 5, 4, 5, 6] and [path.name for path in checkpoints(run)]
    assert not_finite(load_network(run).state_dict().items()) is None


# ---- what was learned nevertheless ends the run ----


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
    "running statistics of the generator": (buffer("generator", math.nan), "running_var"),
    "running statistics of the critic": (buffer("critic", math.inf), "critic.*running_var"),
    "state of the critic's optimizer": (state("critic"), "exp_avg_sq of the critic"),
}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("step", [2, STEPS - 1])
def test_nothing_of_it_is_saved(point: str, step: int, tmp_path, monkeypatch) -> None:
    """In the last step of all, and in the first one after an evaluation."""
    (spoil, words), go, done = POINTS[point], UNetWGANSystem.step, []

    def spoilt(system: System, batch):
        done.append(go(system, batch))
        if len(done) == step + 1:
            spoil(system)
        return done[-1]

    monkeypatch.setattr(UNetWGANSystem, "step", spoilt)
    recipe, run = UNetWGAN(steps=STEPS, evaluate_every=2, critic_steps=1, critic_filters=2, **TINY), tmp_path / "run"
    with pytest.raises(TrainingError, match=f"({words}|_loss|critic_spread|gradient).*is that of step 2\\."):
        train(recipe, run, progress=False)
    saved = checkpoints(run)
    assert saved[-1].name == "step_000002"
    for kind in ("generator", "critic"):
        assert not_finite(load_network(saved[-1], kind=kind).state_dict().items()) is None
    assert (run / "generator.safetensors").read_bytes() == (saved[-1] / "generator.safetensors").read_bytes()
    text = (run / "metrics.csv").read_text().lower()
    assert "nan" not in text and "inf" not in text


def test_a_heldout_metric(tmp_path, monkeypatch) -> None:
    measure, calls = Evaluation.measure, []

    def bad_metric(self, completed):
        calls.append(1)
        return measure(self, completed) | ({"ssim": math.nan} if len(calls) > 4 else {})  # two fills; steps 0 and 2

    monkeypatch.setattr(Evaluation, "measure", bad_metric)
    with pytest.raises(TrainingError, match="ssim is nan near step 4.*is that of step 2"):
        train(UNetL2(steps=STEPS, evaluate_every=2, **TINY), tmp_path / "run", progress=False)
    assert checkpoints(tmp_path / "run")[-1].name == "step_000002"


def test_weights_that_start_so_are_said_before_the_first_step(tmp_path, capsys) -> None:
    start = UNetGenerator(2)
    nn.init.constant_(start.conv2.weight, math.nan)
    save_network(tmp_path / "bad.safetensors", start, {"filters": 2})
    words = ["--steps", "1", "--filters", "2", "--heldout-crops", "1", "--heldout-pictures", "1"]
    out = tmp_path / "run"
    assert cli.main(["train", "unet_l2", "--init", str(tmp_path / "bad.safetensors"), "--out", str(out), *words])
    error = capsys.readouterr().err
    assert (
        "generator.conv2.weight holds a value that is not finite near step 0" in error
        and "No checkpoint is in" in error
    )
    assert not list(out.rglob("*.safetensors")) and not (out / "metrics.jsonl").exists()


def test_what_is_finite() -> None:
    good = {"a": torch.ones(3), "large": torch.full((4,), 3e38), "count": torch.tensor(7), "none": torch.empty(0)}
    assert not_finite(good.items()) is None and not_finite([]) is None
    for value in (math.nan, math.inf, -math.inf):
        assert not_finite([*good.items(), ("bad", torch.tensor([0, value])), ("worse", torch.tensor(value))]) == "bad"
