"""Settings that every recipe has, with every recipe: precision, average, schedules, patience."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from training.each_recipe import EACH_RECIPE
from training.test_systems import small

from inpaint_fast.completion import load_network
from inpaint_fast.training import DCGAN, ConvAutoencoderRecipe, GLCICSmall, Run, UNetL2, UNetWGAN, train
from inpaint_fast.training.average import Average
from inpaint_fast.training.evaluation import evaluations_since_best
from inpaint_fast.training.health import OVERFLOWS
from inpaint_fast.training.precision import Precision
from inpaint_fast.training.rates import rate_factor

TINY = {"filters": 2, "batch_size": 4, "heldout_crops": 1, "evaluate_every": 2}


def steps(run: Run, count: int) -> list[dict[str, float]]:
    """So many steps; what each measured."""
    measured = [run.step(run.batches[index]) for index in range(run.steps_done, run.steps_done + count)]
    return [{name: value.item() for name, value in each.items()} for each in measured]


def rows_of(folder) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# ---- every recipe ----

PHASES = {"autoencoder_steps": 2, "completion_steps": 1, "discriminator_steps": 1}


@pytest.mark.parametrize("name", EACH_RECIPE)
def test_every_recipe_in_16_bits_with_an_average_and_a_schedule(name: str) -> None:
    settings = {"ema": 0.9, "lr_schedule": "cosine", "warmup": 2, "steps": 5, "patience": 2, **PHASES}
    first: dict[str, dict[str, float]] = {}
    for precision in ("float32", "bf16", "fp16"):
        run = Run(small(name, precision=precision, **settings))
        measured = steps(run, 1 if precision == "float32" else 3)
        assert all(math.isfinite(value) for each in measured for value in each.values())
        assert all(param.dtype == torch.float32 for param in run.system.parameters())
        first[precision] = measured[0]
    for key in first["float32"]:
        if key.endswith("_loss") and key != "adversarial_loss":  # which may be of a critic whose update was skipped
            for precision in ("bf16", "fp16"):
                assert first[precision][key] == pytest.approx(first["float32"][key], rel=0.02, abs=0.01), key
    metrics, _ = run.evaluate()
    assert run.evaluation.error(metrics) >= 0 and all(math.isfinite(value) for value in metrics.values())


# ---- precision ----


def test_an_update_that_overflows_changes_nothing_and_is_counted() -> None:
    run = Run(UNetWGAN(precision="fp16", ema=0.9, critic_filters=2, critic_steps=2, **TINY))
    steps(run, 12)
    assert (counted := run.system.counts()["overflows"]) < 12
    state = copy.deepcopy(run.state_dict())
    state["system"]["precision"]["scaler"]["scale"] = 2.0**80
    run.load_state_dict(state)
    before = [(name, value.clone()) for name, value in run.system.learned()]
    measured = steps(run, 1)[0]
    assert all(math.isfinite(value) for value in measured.values())
    assert run.system.counts()["overflows"] == counted + 3  # two of the critic, one of the generator
    assert run.system.precision.state_dict()["updates"] == {"critic": [26, 2], "generator": [13, 1]}
    assert run.system.precision.signals() == {"overflows_in_a_row": 2} and not run.system.precision.unmoved()
    assert run.system.precision.state_dict()["scaler"]["scale"] == 2.0**77
    for (name, value), (_, now) in zip(before, run.system.learned(), strict=True):
        assert torch.equal(value, now), name
    state["system"]["precision"]["scaler"]["scale"] = 2.0
    run.load_state_dict(state)
    steps(run, 1)
    assert any(not torch.equal(value, now) for (_, value), (_, now) in zip(before, run.system.learned(), strict=True))


@pytest.mark.parametrize("steps", [7, 30])
def test_where_every_update_overflows_it_is_said(tmp_path, capsys, monkeypatch, steps: int) -> None:
    """As soon as more did than a scale needs to settle, and at the end."""
    scaled, settings = Precision.scaled, TINY | {"critic_filters": 2, "critic_steps": 1, "steps": steps}
    monkeypatch.setattr(Precision, "scaled", lambda self, value: scaled(self, value) * 1e30)
    train(UNetWGAN(precision="fp16", **settings | {"evaluate_every": 5}), tmp_path / "run")
    assert rows_of(tmp_path / "run")[-1]["overflows"] == 2 * steps
    warned = (tmp_path / "run" / "health.txt").read_text().splitlines()
    never = [f"each of the {steps} updates of the {name} overflowed in float16" for name in ("critic", "generator")]
    first = [f"every update of a network overflows in float16, {OVERFLOWS}"] if steps == 30 else []
    assert len(warned) == len(first + never)
    for line, words in zip(warned, first + never, strict=True):
        assert words in line and "--precision bf16" in line and "--lr" in line
    shown = "".join(capsys.readouterr())
    assert all(line in shown for line in warned)


def test_updates_that_were_made_are_not_warned_of(tmp_path) -> None:
    settings = TINY | {"critic_filters": 2, "critic_steps": 2, "steps": 14}
    train(UNetWGAN(precision="fp16", **settings), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "health.txt").exists() and rows_of(tmp_path / "run")[-1]["overflows"] > 0


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_batch_that_is_no_number_changes_nothing_in_16_bits(precision: str) -> None:
    run = Run(UNetWGAN(precision=precision, ema=0.9, critic_filters=2, critic_steps=2, **TINY))
    steps(run, 12)
    before, counts = [(name, value.clone()) for name, value in run.system.learned()], run.system.counts()
    run.step(run.batches[12].map(lambda part: part * math.nan))
    assert run.system.guard.skipped == 1 and run.system.counts() == counts
    for (name, value), (_, now) in zip(before, run.system.learned(), strict=True):
        assert torch.equal(value, now), name
    steps(run, 1)


@pytest.mark.parametrize(("precision", "error"), [("bf16", 0.05), ("fp16", 0.01)])
def test_gradients_are_those_of_float32_to_the_precision(precision: str, error: float) -> None:
    """Of a network without batch normalisation, which makes more of any rounding."""

    def gradients(**settings: str) -> dict[str, torch.Tensor]:
        run = Run(ConvAutoencoderRecipe(**TINY | {"filters": 8}, **settings))
        seen = {}
        run.system.optimizers["generator"].register_step_pre_hook(
            lambda *_: seen.update({name: p.grad.clone() for name, p in run.system.generator.named_parameters()})
        )
        run.step(run.batches[0])
        scale = run.system.precision.scaler.state_dict()["scale"] if precision == "fp16" and settings else 1.0
        return {name: value / scale for name, value in seen.items()}

    wanted, found = gradients(), gradients(precision=precision)
    for name, value in wanted.items():
        assert value.dtype == torch.float32 and (found[name] - value).norm() <= error * value.norm(), name


@pytest.mark.long
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_losses_of_two_hundred_steps_are_within_two_percent_of_float32(precision: str) -> None:
    def loss(precision: str) -> float:
        measured = steps(Run(UNetL2(precision=precision, filters=16, batch_size=16, heldout_crops=1)), 200)
        return sum(each["reconstruction_loss"] for each in measured[-50:])

    assert loss(precision) == pytest.approx(loss("float32"), rel=0.02)


# ---- parts ----


def stepped(run: Run, *, train: bool = False) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Gradients of every update of two steps and the last losses, in float64. The networks are in eval mode: no row of
    a batch knows of another."""
    batches = [run.batches[i].map(lambda x: x.double() if x.is_floating_point() else x) for i in range(2)]
    run.system.double().train(train)
    seen: list[torch.Tensor] = []
    for optimizer in run.system.optimizers.values():
        optimizer.register_step_pre_hook(
            lambda o, *_: seen.extend(p.grad.clone() for g in o.param_groups for p in g["params"] if p.grad is not None)
        )
    torch.set_default_dtype(torch.float64)  # of what is drawn
    try:
        measured = [run.step(batch) for batch in batches][-1]
    finally:
        torch.set_default_dtype(torch.float32)
    return seen, {name: value for name, value in measured.items() if name.endswith("_loss")}


@pytest.mark.parametrize("name", EACH_RECIPE)
def test_parts_give_the_gradients_of_the_whole_batch(name: str) -> None:
    settings = {"completion_steps": 0, "discriminator_steps": 0, "autoencoder_steps": 1, "prefill": "noise"}
    whole, parted = (
        Run(small(name, batch_size=5, micro_batch=most, accelerate=False, real_noise=(1.0, 1.0), **settings))
        for most in (None, 3)
    )
    (wanted, losses), (found, others) = stepped(whole), stepped(parted)
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(others, losses, rtol=1e-7, atol=1e-10)


def test_running_statistics_move_as_often_in_parts() -> None:
    for recipe in (UNetWGAN(critic_filters=2, **TINY), DCGAN(width=2, batch_size=4)):
        whole, parted = Run(recipe), Run(replace(recipe, micro_batch=2))
        for run in (whole, parted):
            steps(run, 1)
        for (key, wanted), found in zip(
            whole.system.state_dict().items(), parted.system.state_dict().values(), strict=True
        ):
            if key.endswith("num_batches_tracked"):
                assert found == 2 * wanted, key


# ---- the average ----


def test_the_average_is_that_of_its_definition() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    average, wanted = Average(network, 0.9), [p.detach().clone() for p in network.parameters()]
    never = copy.deepcopy(average)
    for n in range(1, 120):
        network(torch.randn(2, 3, 5, 5))
        with torch.no_grad():
            for param, mean in zip(network.parameters(), wanted, strict=True):
                param += torch.randn_like(param)
                keep = min(0.9, n / (9 + n))
                mean.copy_(keep * mean + (1 - keep) * param)
        average.move(network)
        never.move(network, skipped=torch.tensor(True))
    for mean, param, still in zip(wanted, average.network.parameters(), never.network.parameters(), strict=True):
        torch.testing.assert_close(param, mean)
        assert not torch.allclose(still, mean)
    assert torch.equal(average.network[1].running_mean, network[1].running_mean)
    skipping = copy.deepcopy(never)
    skipping.move(network, skipped=torch.tensor(False))
    never.move(network)
    for one, other in zip(skipping.network.parameters(), never.network.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_the_average_is_measured_and_saved_beside_the_trained_weights(tmp_path) -> None:
    recipe = UNetWGAN(ema=0.5, steps=4, critic_steps=1, critic_filters=2, **TINY)
    folder = train(recipe, tmp_path / "run", progress=False)
    run = Run(recipe)
    steps(run, 4)
    saved = {kind: load_network(folder, kind=kind).state_dict() for kind in ("generator", "generator_raw")}
    for kind, network in (("generator", run.system.average.network), ("generator_raw", run.system.generator)):
        assert all(torch.equal(value, saved[kind][name]) for name, value in network.state_dict().items())
    weight = next(iter(saved["generator"]))
    assert not torch.equal(saved["generator"][weight], saved["generator_raw"][weight])
    assert rows_of(folder)[-1]["psnr"] == run.evaluate()[0]["psnr"]
    run.system.average = None
    assert rows_of(folder)[-1]["psnr"] != run.evaluate()[0]["psnr"]


# ---- schedules ----


def test_rates() -> None:
    assert [rate_factor("constant", step, 4) for step in range(5)] == [1.0] * 5
    assert [rate_factor("linear", step, 4, end=0.2) for step in range(5)] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    half = [rate_factor("cosine", step, 10, warmup=2) for step in range(11)]
    assert half[:3] == [0.5, 1.0, 1.0] and half[6] == pytest.approx(0.5) and half[10] == pytest.approx(0, abs=1e-12)
    assert half[2:] == sorted(half[2:], reverse=True)


def test_schedules_multiply_what_the_recipe_does_to_its_rates() -> None:
    for name, settings in (
        ("context_gan", {"lr_decay": 0.9}), ("glcic_small", {"settle": 2, "completion_steps": 3}), ("unet_l2", {}),
    ):  # fmt: skip
        plain, scheduled = (
            small(name, steps=6, **settings, **schedule).build()
            for schedule in ({}, {"lr_schedule": "linear", "lr_end": 0.5, "warmup": 1})
        )
        for step in range(6):
            for system in (plain, scheduled):
                system.schedule(step, 0)
            for network, optimizer in plain.optimizers.items():
                rate = scheduled.optimizers[network].param_groups[0]["lr"]
                factor = rate_factor("linear", step, 6, warmup=1, end=0.5)
                assert rate == pytest.approx(optimizer.param_groups[0]["lr"] * factor), (name, step)


# ---- patience ----


def test_patience_ends_a_run_that_gets_no_better(tmp_path, capsys) -> None:
    folder = train(UNetL2(lr=0.0, steps=50, patience=2, **TINY), tmp_path / "run")
    rows = rows_of(folder)
    assert [row["step"] for row in rows][-1] < 50
    best = min(range(len(rows)), key=lambda i: rows[i]["l2"])
    assert [row["evaluations_since_best"] for row in rows][-3:] == [0, 1, 2] and len(rows) == best + 3
    assert "--patience" in capsys.readouterr().out


def test_patience_waits_for_the_last_phase(tmp_path) -> None:
    recipe = small("glcic_small", steps=9, completion_steps=1, discriminator_steps=6, lr=0.0, patience=1)
    rows = rows_of(train(recipe, tmp_path / "run", progress=False))
    assert [(row["step"], row["evaluations_since_best"]) for row in rows][-2:] == [(7, 0), (8, 1)]


def test_evaluations_since_the_best() -> None:
    assert [evaluations_since_best(errors) for errors in ([], [1.0], [1.0, 0.5], [0.5, 1.0, 0.5])] == [0, 0, 0, 2]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"precision": "half"}, "precision: .*bf16.*'half'"), ({"ema": 1.0}, "ema: .*1.0"),
        ({"lr_schedule": "step"}, "lr_schedule: .*cosine.*'step'"), ({"lr_end": 2.0}, "lr_end: .*2.0"),
        ({"warmup": -1}, "warmup: .*-1"), ({"patience": 0}, "patience: .*0"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        UNetL2(**settings)


def test_scaled_gradients_do_not_outlive_their_scale() -> None:
    with pytest.raises(ValueError, match="precision: .*clear_gradients"):
        GLCICSmall(precision="fp16", clear_gradients=False)
