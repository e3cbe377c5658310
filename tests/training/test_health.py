"""Warnings: which, since when, and once."""

from __future__ import annotations

import re

import pytest
import torch

from inpaint_fast.training import ContextGAN, ContextWGAN, Run, TrainingError, train
from inpaint_fast.training.health import PATIENCE, Health


def test_a_sign_must_last() -> None:
    health = Health()
    assert health.look(0, {"critic_spread": 0.0}) == []
    assert health.look(PATIENCE - 1, {"critic_spread": 0.0}) == []
    (warning,) = health.look(PATIENCE, {"critic_spread": 0.0})
    assert "since step 0 the critic gives every picture the same answer" in warning and "Larocque" in warning
    assert health.look(2 * PATIENCE, {"critic_spread": 0.0}) == []  # once


def test_a_recovery_starts_it_anew() -> None:
    health = Health()
    for step, saturated in ((0, 0.9), (40, 0.1), (80, 0.9), (120, 0.9)):
        assert health.look(step, {"saturated": saturated}) == []
    (warning,) = health.look(130, {"saturated": 0.9})
    assert "since step 80" in warning and "saturated" in warning
    assert health.look(140, {"saturated": 0.2}) == []
    health.look(150, {"saturated": 0.9})
    assert len(health.look(200, {"saturated": 0.9})) == 1


@pytest.mark.parametrize(
    ("signals", "words"),
    [
        ({"adversarial_gradient": 1e-6, "reconstruction_gradient": 1.0}, "beside that of the reconstruction"),
        ({"adversarial_gradient": 1e-8}, "the adversarial gradient has vanished\\. G. Bernard"),
        (
            {"adversarial_gradient": 0.2, "reconstruction_gradient": 1e-3},
            "drowns that of the reconstruction\\. .*Pathak",
        ),
    ],
)
def test_gradients_of_wrong_sizes(signals, words) -> None:
    health = Health()
    health.look(0, signals)
    (warning,) = health.look(PATIENCE, signals)
    assert re.search(words, warning)


def test_what_is_well_or_unknown_is_not_warned_of() -> None:
    health = Health()
    signals = {"critic_spread": 0.1, "adversarial_gradient": 0.1, "reconstruction_gradient": 1.0, "saturated": 0.2}
    for step in range(0, 500, 50):
        assert health.look(step, signals) == [] and health.look(step, {"critic_loss": 0.0}) == []


@pytest.mark.parametrize("recipe", [ContextGAN, ContextWGAN])
def test_the_two_gradients_are_of_one_size_by_default_and_not_as_published(recipe: type) -> None:
    def ratio(**settings) -> float:
        run = Run(recipe(filters=8, critic_filters=8, code=16, batch_size=8, heldout_crops=1, **settings))
        measured = [run.step(run.batches[index]) for index in range(8)][-1]
        return (measured["adversarial_gradient"] / measured["reconstruction_gradient"]).item()

    weights = {name: recipe.as_published[name] for name in ("a", "adversarial_weight") if name in recipe.as_published}
    assert 0.1 < ratio() < 3 and ratio(**weights) > 10


TINY = {"filters": 2, "critic_filters": 2, "code": 4, "batch_size": 4, "heldout_crops": 1}


def test_training_says_so_and_keeps_it(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("inpaint_fast.training.health.PATIENCE", 6)
    recipe = ContextWGAN(clip=1e-4, critic="v3", steps=12, evaluate_every=3, **TINY)
    train(recipe, tmp_path / "run")
    text = (tmp_path / "run" / "health.txt").read_text()
    assert "the critic gives every picture the same answer" in text
    assert "the critic gives every picture the same answer" in capsys.readouterr().out


class Confident(ContextGAN):
    """Its discriminator starts as the documents' ends: so sure of itself that its sigmoid is exactly 0 or 1."""

    def build(self):
        system = super().build()
        with torch.no_grad():
            system.critic.head.weight *= 1e4
        return system


class AsPrinted(Confident):
    literal_log = True


def test_the_printed_logarithms_end_in_no_number_and_the_guard_says_so(tmp_path) -> None:
    settings = {"a": 0.5, "steps": 4, "evaluate_every": 2, **TINY}
    for most, words in (
        (2, "2 steps in a row had .* that is no number, again"),
        (9, "each of the 4 steps had .* no number"),
    ):
        with pytest.raises(TrainingError, match=words):
            train(AsPrinted(max_skipped=most, **settings), tmp_path / f"literal{most}", progress=False)
    train(Confident(**settings), tmp_path / "logits", progress=False)  # the same start on logits goes on
