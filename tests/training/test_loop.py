from __future__ import annotations

import csv
import json
import math
import os
import sys
from dataclasses import replace

import pytest
import torch
from PIL import Image

from inpaint_fast.completion import load_network
from inpaint_fast.data import write_png
from inpaint_fast.nn import acceleration_report
from inpaint_fast.training import MLPGAN, RECIPES, Run, UNetL2, UNetWGAN, read_recipe, train
from inpaint_fast.training.config import config_toml
from inpaint_fast.training.evaluation import table
from inpaint_fast.training.metrics import METRICS

TINY = {"filters": 2, "batch_size": 4, "heldout_crops": 1, "evaluate_every": 2}


def test_a_run_writes_its_folder_from_step_zero(tmp_path) -> None:
    folder = train(UNetWGAN(steps=3, critic_steps=1, critic_filters=2, **TINY), tmp_path / "run", progress=False)
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints", "config.toml", "generator.safetensors", "metrics.csv", "metrics.jsonl", "owner.txt", "pictures",
    ]  # fmt: skip
    best, *kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert best == "best.json" and kept[-2:] == ["step_000002", "step_000003"]
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == [
        "step_000000.png", "step_000002.png", "step_000003.png",
    ]  # fmt: skip
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 2, 3]
    for fill in ("", "ring_mean_", "harmonic_"):
        assert {f"{fill}{name}" for name in METRICS} <= rows[0].keys()
    assert {"critic_loss", "reconstruction_loss", "adversarial_loss", "images_per_second"} <= rows[1].keys()
    with open(folder / "metrics.csv", newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [0, 2, 3]
    load_network(folder)
    load_network(folder, kind="critic")


def test_layers_are_timed_where_that_is_asked_for() -> None:
    run = Run(UNetWGAN(tune=True, **TINY | {"filters": 24}))
    assert acceleration_report(run.system).measured == {}
    run.step(run.batches[0])
    report = acceleration_report(run.system)
    assert report.measured and "PyTorch's" in str(report)


def test_networks_are_accelerated_on_a_cpu_unless_told_otherwise() -> None:
    tiny = TINY | {"filters": 24, "batch_size": 8}  # wide enough for the fused operators to run
    ours, plain = Run(UNetWGAN(**tiny)), Run(UNetWGAN(accelerate=False, **tiny))
    report = acceleration_report(ours.system)
    assert "generator.conv2 + generator.bn2 + generator.relu2" in str(report)
    assert ours.system.generator.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(ValueError, match="was not accelerated"):
        acceleration_report(plain.system)
    found, wanted = (run.step(run.batches[0]) for run in (ours, plain))
    for name, value in wanted.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-2, abs=1e-5), name
    assert found["reconstruction_loss"].item() == pytest.approx(wanted["reconstruction_loss"].item(), rel=1e-5)


def test_at_most_so_many_heldout_pictures_are_measured_on() -> None:
    for recipe, count in ((UNetL2(heldout_pictures=2, **TINY), 2), (MLPGAN(width=2, heldout_pictures=9), 9)):
        assert len(Run(recipe).evaluation.heldout.image) == count


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_the_configuration_is_toml_that_rebuilds_the_recipe(tmp_path) -> None:
    import tomllib

    recipe = UNetL2(steps=0, lr=0.003, data="samples", checkpoint_minutes=None, **TINY)
    folder = train(recipe, tmp_path / "run", progress=False)
    config = tomllib.loads((folder / "config.toml").read_text())
    assert config["recipe"] == "unet_l2" and "checkpoint_minutes" in config["not_set"]
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in config["settings"].items()}
    assert UNetL2(**settings, **dict.fromkeys(config["not_set"])) == recipe == read_recipe(folder)


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("glcic", {"edge": None, "mean_pixel": (0.5, 1.0, 0.25), "data": 'pho\udce9 \\ "tos"\n'}),
        ("context_cnn", {"blocks": (1, 1, 1, 1), "clip_penalty": 1, "vocabulary": 7}),
        ("unet_l2", {"seconds": math.inf, "lr": 1e-30, "data": "./samples"}),
    ],
)
def test_every_setting_comes_back(recipe: str, settings: dict, tmp_path) -> None:
    recipe = RECIPES[recipe](**settings)
    (tmp_path / "config.toml").write_text(config_toml(recipe), encoding="utf-8")
    if recipe.data != "samples":  # a run goes on from any folder
        recipe = replace(recipe, data=os.path.abspath(recipe.data))
    assert read_recipe(tmp_path) == read_recipe(tmp_path / "config.toml") == recipe


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("recipe = ", "config.toml: no TOML"),
        ("\xe9", "config.toml: no TOML"),
        ("[" * 5000, "config.toml: no TOML"),
        ('recipe = "os.system"', "recipe: one of unet_l2, .* is expected, got 'os.system'"),
        ('recipe = ["unet_l2"]', "recipe: one of unet_l2"),
        ('recipe = "unet_l2"\nsettings = 3', r"\[settings\]"),
        ('recipe = "unet_l2"\n[settings]\nlearning_rate = 3', "learning_rate: unet_l2 has no such setting"),
        ('recipe = "unet_l2"\n[settings]\nsteps = "many"', "steps: 'many': str is not an instance of int"),
        ('recipe = "unet_l2"\n[settings]\ncrop = [1, 2, 3]', "crop: .*wrong number of elements"),
        ('recipe = "unet_l2"\n[settings]\nprefill = "__import__"', "prefill: '__import__'"),
        ('recipe = "unet_l2"\nnot_set = ["steps"]', "steps: None"),
        ('recipe = "unet_l2"\n[settings]\nsteps = -1', "config.toml: steps: at least 0 is expected, got -1"),
    ],
)
def test_a_configuration_that_is_none_is_named(text: str, words: str, tmp_path) -> None:
    (tmp_path / "config.toml").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=words):
        read_recipe(tmp_path)


def test_seconds_end_a_run(tmp_path) -> None:
    folder = train(UNetL2(seconds=0.2, **TINY), tmp_path / "run", progress=False)
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 < last["step"] < 20_000 and last["seconds"] >= 0.2


def test_any_folder_of_pictures_and_one_bad_file(tmp_path, capsys) -> None:
    data = tmp_path / "photos" / "deep"
    data.mkdir(parents=True)
    for i, (mode, size) in enumerate((("RGB", (90, 70)), ("L", (64, 200)), ("RGBA", (80, 80)), ("P", (100, 65)))):
        Image.new(mode, size, i * 20).save(data / f"{i}.png")
    (data / "broken.jpg").write_bytes(b"nothing")
    Image.effect_noise((90, 90), 50).save(data / "truncated.png")
    whole = (data / "truncated.png").read_bytes()
    (data / "truncated.png").write_bytes(whole[: len(whole) // 2])  # its header can be read
    train(UNetL2(data=str(tmp_path / "photos"), steps=2, **TINY), tmp_path / "run")
    text = capsys.readouterr().out
    assert "broken.jpg" in text and text.count("truncated.png") == 1


def test_the_data_may_be_a_path_and_the_recipe_must_be_one(tmp_path) -> None:
    (tmp_path / "photos").mkdir()
    write_png(tmp_path / "photos" / "a.png", torch.zeros(3, 70, 70, dtype=torch.uint8))
    train(UNetL2(data=tmp_path / "photos", steps=1, **TINY), tmp_path / "run", progress=False)
    assert f"data = {json.dumps(str(tmp_path / 'photos'))}\n" in (tmp_path / "run" / "config.toml").read_text()
    for recipe in (UNetL2, "unet_l2"):
        with pytest.raises(TypeError, match="recipe.*got"):
            train(recipe, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_data_must_be_there(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train(UNetL2(data=str(tmp_path / "nowhere"), **TINY), tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="device.*'gpu'"):
        train(UNetL2(device="gpu", **TINY), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_table_lines_up() -> None:
    text = table({"a": dict.fromkeys(METRICS, 1.0), "longer": dict.fromkeys(METRICS, 0.25)})
    assert len({len(line) for line in text.splitlines()}) == 1
