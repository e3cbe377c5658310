"""A run goes on in its folder: what it takes, what is refused, what stands there afterwards, which checkpoints stay."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from inpaint_fast.cli import main as cli
from inpaint_fast.completion import WeightsError, load_network
from inpaint_fast.completion.weights import checkpoints
from inpaint_fast.training import Run, TrainingError, UNetL2, UNetWGAN, read_recipe, train
from inpaint_fast.training.checkpoints import fill_checkpoint, read_checkpoint
from inpaint_fast.training.records import Records

TINY = {"filters": 2, "batch_size": 2, "heldout_crops": 1, "heldout_pictures": 1, "accelerate": False}


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "photos"
    folder.mkdir()
    for i in range(4):
        Image.effect_noise((70 + i, 90), 60).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def over(photos: Path, tmp_path_factory) -> Path:
    """A run that is over, after three steps."""
    recipe = UNetL2(data=str(photos), steps=3, evaluate_every=2, **TINY)
    return train(recipe, tmp_path_factory.mktemp("runs") / "run", progress=False)


@pytest.fixture
def run(over: Path, tmp_path) -> Path:
    return Path(shutil.copytree(over, tmp_path / "run"))


def shell(*words: object) -> int:
    return cli.main(["train", *map(str, words)])


# ---- going on ----


def test_a_run_that_is_over_is_left_as_it_is(run: Path, capsys) -> None:
    before = contents(run)
    assert shell("--resume", run) == 0
    assert (
        f"unet_l2: the run in {run} is finished, at step 3; it goes on with larger --steps" in capsys.readouterr().out
    )
    assert contents(run) == before


def test_it_goes_on_with_more_steps_and_the_settings_of_now(run: Path, capsys) -> None:
    assert shell("--resume", run, "--steps", 5, "--evaluate-every", 1, "--keep=1") == 0
    assert "unet_l2: goes on after step 3" in capsys.readouterr().out
    assert [row["step"] for row in rows_of(run)] == [0, 2, 3, 4, 5]
    assert [path.stem for path in sorted((run / "pictures").iterdir())] == [f"step_{i:06d}" for i in (0, 2, 3, 4, 5)]
    assert read_recipe(run).steps == 5 and read_recipe(run).keep == 1
    assert load_network(run).state_dict().keys() and checkpoints(run)[-1].name == "step_000005"


def test_what_came_after_the_checkpoint_goes_and_no_row_stands_twice(run: Path) -> None:
    recipe, last = read_recipe(run), rows_of(run)[-1]
    shutil.rmtree(checkpoints(run)[-1])  # as if it had died before this one
    (run / "health.txt").write_text("warning: of step 3\n")
    (run / "checkpoints" / ".0123.part").mkdir()
    train(recipe, run, resume=True, progress=False)
    rows = rows_of(run)
    assert [row["step"] for row in rows] == [0, 2, 3] and not (run / "health.txt").exists()
    assert not list(run.rglob("*.part"))
    for row in (last, rows[-1]):
        del row["seconds"], row["images_per_second"]
    assert rows[-1] == last


def test_the_pictures_may_have_moved(run: Path, photos: Path, tmp_path) -> None:
    moved = shutil.copytree(photos, tmp_path / "elsewhere")
    train(replace(read_recipe(run), data=moved, steps=4), run, resume=True, progress=False)
    assert read_recipe(run).data == str(moved) and rows_of(run)[-1]["step"] == 4


def test_seconds_go_on_being_counted(run: Path) -> None:
    before = rows_of(run)[-1]["seconds"]
    train(replace(read_recipe(run), steps=10_000, seconds=before + 0.3), run, resume=True, progress=False)
    row = rows_of(run)[-1]
    assert row["step"] > 3 and before + 0.3 <= row["seconds"] < before + 5
    before = contents(run)
    train(read_recipe(run), run, resume=True, progress=False)
    assert contents(run) == before


# ---- what is refused, and changes nothing ----


def test_other_settings_are_refused_by_their_names(run: Path, capsys) -> None:
    before = contents(run)
    for words, message in (
        (
            ["--lr", "0.1"],
            "lr: the run in .* goes on with 0.001, with which it began, got 0.1; --init .*/run starts a new",
        ),
        (["--seed", "1"], "seed: the run in"),
        (["--init", "other"], "init: the run in .* goes on with None"),
        (["--out", "other"], "--out: a run goes on in its own folder"),
        (["--as-published"], "--as-published: the settings are those of the run"),
        (["--config", "x"], "--config: with --resume the settings are those of the run"),
    ):
        assert shell("--resume", run, "--steps", 9, *words) == 2
        assert re.search(message, capsys.readouterr().err), words
    assert shell("unet_wgan", "--resume", run) == 2
    assert "is of the recipe unet_l2, got unet_wgan" in capsys.readouterr().err
    with pytest.raises(ValueError, match="recipe: the run in .* is one of unet_l2, got unet_wgan"):
        train(UNetWGAN(), run, resume=True, progress=False)
    assert contents(run) == before


@pytest.mark.parametrize("change", ["one more", "one less", "another"])
def test_other_pictures_are_refused(change: str, run: Path, photos: Path, tmp_path) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "photos"))
    recipe, before = replace(read_recipe(run), data=str(data), steps=9), contents(run)
    train_picture = next(path for path in recipe.open_images("train").paths)
    if change == "one more":
        shutil.copy(train_picture, data / "more.png")
    elif change == "one less":
        train_picture.unlink()
    else:
        Image.effect_noise((75, 91), 50).save(train_picture)
    with pytest.raises(
        ValueError, match="data: the pictures or captions in .*photos are not those of the run in .*--init"
    ):
        train(recipe, run, resume=True, progress=False)
    assert contents(run) == before


def test_other_captions_are_refused(photos: Path, tmp_path) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "photos"))

    def describe(text: str) -> None:
        images = [{"id": i, "file_name": f"{i}.png"} for i in range(4)]
        annotations = [{"image_id": i, "caption": text} for i in range(4) for _ in range(5)]
        (data / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))

    describe("grey noise")
    words = ["--filters", 2, "--code", 2, "--batch-size", 2, "--heldout-crops", 1, "--steps", 1]
    assert shell("context_cnn_bow1", "--data", data, "--out", tmp_path / "run", *words) == 0
    describe("noise grey")
    assert shell("--resume", tmp_path / "run", "--steps", 2) == 2


def test_a_folder_without_a_run_or_with_another_process_in_it(run: Path, tmp_path, capsys) -> None:
    for path, words in (
        (tmp_path / "nowhere", "no such file; the config.toml of a run is expected there"),
        (tmp_path, "no such file; the config.toml of a run is expected there"),
    ):
        assert shell("--resume", path) == 2 and words in capsys.readouterr().err
    empty = Records(tmp_path / "empty", UNetL2(**TINY))
    assert shell("--resume", tmp_path / "empty") == 2
    assert "is being written by process" in capsys.readouterr().err
    empty.close()
    assert shell("--resume", tmp_path / "empty") == 2
    assert "holds no checkpoint" in capsys.readouterr().err
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(WeightsError, match="holds no checkpoint"):
        train(read_recipe(run), run, resume=True, progress=False)


def test_a_checkpoint_of_another_run_does_not_fit(run: Path, tmp_path, photos: Path) -> None:
    other = train(UNetL2(data=str(photos), steps=9, **TINY | {"filters": 3}), tmp_path / "other", progress=False)
    shutil.copytree(checkpoints(other)[-1], run / "checkpoints" / "step_000009")
    with pytest.raises(ValueError, match="filters: the run in .* goes on with 3, with which it began, got 2"):
        train(replace(read_recipe(run), steps=20), run, resume=True, progress=False)


@pytest.mark.parametrize(
    ("edited", "words"), [("lr = 0.5", "lr: .* with 0.001, with which it began, got 0.5"), ("", "")]
)
def test_an_edited_configuration_is_not_believed(run: Path, capsys, edited: str, words: str) -> None:
    config = run / "config.toml"
    config.write_text(re.sub(r"\nlr = .*", f"\n{edited}", config.read_text()))
    before = contents(run)
    code, error = shell("--resume", run, "--steps", 5), capsys.readouterr().err
    if edited:
        assert code == 2 and re.search(words, error) and contents(run) == before
    else:  # the line is gone: the default is what it was
        assert code == 0


def test_a_run_goes_on_from_another_folder_than_it_began_in(photos: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(photos.parent)
    first = train(UNetL2(data="photos", steps=1, **TINY), tmp_path / "first", progress=False)
    monkeypatch.chdir(first.parent)
    recipe = UNetL2(data=str(photos), init="first", steps=1, **TINY)
    train(recipe, "second", progress=False)
    train(replace(recipe, steps=2), "second", resume=True, progress=False)
    monkeypatch.chdir(photos)
    for run in (first, tmp_path / "second"):
        assert shell("--resume", run, "--steps", 3) == 0
        assert rows_of(run)[-1]["step"] == 3


# ---- repeating ----


def test_a_configuration_repeats_a_run(run: Path, tmp_path) -> None:
    assert shell("--config", run / "config.toml", "--out", tmp_path / "again") == 0
    networks = [load_network(folder).state_dict() for folder in (run, tmp_path / "again")]
    assert all(torch.equal(value, networks[1][name]) for name, value in networks[0].items())
    assert shell("unet_l2", f"--config={run}", "--steps", "1", "--out", tmp_path / "less") == 0
    assert rows_of(tmp_path / "less")[-1]["step"] == 1 and read_recipe(tmp_path / "less").filters == 2


# ---- which checkpoints there are ----


def names(run: Path) -> list[int]:
    return [int(path.name[5:]) for path in checkpoints(run)]


def measured(errors: dict[int, float], monkeypatch) -> None:
    """Evaluations give these errors after these steps."""
    evaluate = Run.evaluate

    def evaluated(self):
        metrics, picture = evaluate(self)
        return metrics | {"l2": errors[self.steps_done]}, picture

    monkeypatch.setattr(Run, "evaluate", evaluated)


def test_the_newest_are_kept_and_the_best(tmp_path, monkeypatch) -> None:
    measured({0: 0.5, 1: 0.4, 2: 0.1, 3: 0.3, 4: 0.2, 5: 0.2}, monkeypatch)
    run = train(UNetL2(steps=5, evaluate_every=1, keep=2, **TINY), tmp_path / "run", progress=False)
    assert names(run) == [2, 4, 5]
    assert json.loads((run / "checkpoints" / "best.json").read_text()) == {"checkpoint": "step_000002", "l2": 0.1}
    assert load_network(run / "checkpoints" / "step_000002").training is False


def test_after_so_many_steps_and_at_the_best(tmp_path, monkeypatch) -> None:
    measured({0: 0.5, 2: 0.6, 4: 0.4, 6: 0.7, 7: 0.6}, monkeypatch)
    recipe = UNetL2(steps=7, evaluate_every=2, checkpoint_every=3, keep=9, **TINY)
    assert names(train(recipe, tmp_path / "run", progress=False)) == [0, 3, 4, 6, 7]


def test_after_so_many_minutes(tmp_path) -> None:
    recipe = UNetL2(steps=3, evaluate_every=100, checkpoint_minutes=0, keep=9, **TINY)
    assert names(train(recipe, tmp_path / "often", progress=False)) == [0, 1, 2, 3]
    recipe = replace(recipe, checkpoint_minutes=None)
    assert names(train(recipe, tmp_path / "never", progress=False)) == [0, 3]


# ---- what a checkpoint holds ----


def test_any_state_of_plain_things_comes_back(tmp_path) -> None:
    shared, system = torch.arange(6.0).view(2, 3), UNetL2(**TINY).build()
    state = {
        "numbers": [1, -(2**70), 0.1, 1e-310, float("inf"), True, None, "text \udce9 \"'"],
        "pair": (1, (2.5,), []), 7: {"deep": {"a/b": shared, "a": {"b": shared[0].clone()}}},
        "tensors": [
            torch.tensor(3), torch.tensor([True, False]), torch.empty(0, 4), torch.ones(2, dtype=torch.bfloat16),
            torch.arange(8).view(1, 2, 2, 2).contiguous(memory_format=torch.channels_last), shared.t(),
            next(system.parameters()),
        ],
        "twice": shared,
    }  # fmt: skip
    (tmp_path / "step").mkdir()
    fill_checkpoint(tmp_path / "step", system, state)
    found = read_checkpoint(tmp_path / "step")
    assert found["numbers"] == state["numbers"] and found["pair"] == state["pair"]
    assert type(found["numbers"][5]) is bool and list(found) == list(state)
    assert torch.equal(found[7]["deep"]["a/b"], shared) and torch.equal(found[7]["deep"]["a"]["b"], shared[0])
    for one, other in zip(found["tensors"], state["tensors"], strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other) and not one.requires_grad
    assert found["tensors"][4].is_contiguous(memory_format=torch.channels_last)
    nan = {"x": float("nan")}
    (tmp_path / "nan").mkdir()
    fill_checkpoint(tmp_path / "nan", system, nan)
    assert str(read_checkpoint(tmp_path / "nan")["x"]) == "nan"


@pytest.mark.parametrize("bad", [{1, 2}, object(), {None: 1}, {True: 1}, b"bytes", len])
def test_what_cannot_be_kept_is_an_error_that_says_where(bad: object, tmp_path) -> None:
    with pytest.raises(TypeError, match="the run's state, /system/0: .* expected, got"):
        fill_checkpoint(tmp_path, UNetL2(**TINY).build(), {"system": [bad]})


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [("lr", np.float64(1e-3), 1e-3), ("steps", np.int64(3), 3), ("betas", [0.5, 0.9], (0.5, 0.9))],
)
def test_numbers_of_numpy_and_lists_are_plain_settings(name: str, value: object, kept: object) -> None:
    recipe = UNetL2(**{name: value})
    assert getattr(recipe, name) == kept and type(getattr(recipe, name)) is type(kept)


@pytest.mark.parametrize(
    ("name", "value"), [("steps", 1e1), ("flip", 1), ("seed", 1.5), ("batch_size", "4"), ("crop", 64)]
)
def test_a_setting_of_another_type_is_refused_at_once(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=name):
        UNetL2(**{name: value})


def test_a_folder_whose_name_is_not_utf8_is_refused_before_training(tmp_path) -> None:
    with pytest.raises(ValueError, match="out: a name in UTF-8"):
        train(UNetL2(steps=1), os.path.join(tmp_path, "nu\udcff"), progress=False)


def test_steps_that_are_all_skipped_leave_the_average_as_it_was(tmp_path) -> None:
    recipe = UNetL2(
        steps=3, batch_size=2, heldout_crops=1, heldout_pictures=1, filters=2, evaluate_every=1, max_skipped=50, keep=9,
        ema=0.9, accelerate=False,
    )  # fmt: skip
    recipe.reconstruction_weight = float("nan")  # which no recipe is made with
    with pytest.raises(TrainingError, match="each of the 3 steps"):
        train(recipe, tmp_path / "run", progress=False)
    first, *others = sorted(tmp_path.glob("run/checkpoints/step_*/generator.safetensors"))
    for other in others:
        for name, tensor in safetensors.torch.load_file(other).items():
            assert torch.equal(tensor, safetensors.torch.load_file(first)[name]), name
