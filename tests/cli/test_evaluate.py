"""inpaint-fast evaluate: several sizes and masks in one call, by hole area, and into files."""

from __future__ import annotations

import csv
import json

import pytest
import torch

from inpaint_fast.cli.main import main
from inpaint_fast.completion import save_network
from inpaint_fast.data import Batch, box
from inpaint_fast.models import CompletionNetwork, UNetGenerator
from inpaint_fast.training import Evaluation, area_table
from inpaint_fast.training.metrics import METRICS


def evaluate(*arguments: object) -> int:
    try:
        return main(["evaluate", *map(str, arguments), "--heldout-crops", "3"])
    except SystemExit as stop:
        return int(stop.code or 0)


@pytest.fixture(scope="module")
def glcic(tmp_path_factory) -> str:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "glcic.safetensors"
    save_network(file, CompletionNetwork(2), {"channels": 2})
    return str(file)


def test_sizes_masks_and_areas_as_text_and_in_files(glcic, tmp_path, capsys) -> None:
    files = ["--csv", tmp_path / "e.csv", "--json", tmp_path / "e.json"]
    assert evaluate(glcic, "--size", 32, 40, "--mask", "rectangle", "free_form", *files, "--seed", 3) == 0
    text = capsys.readouterr().out
    assert text.count("18 crops") == 4 and "32x32, rectangle" in text and "40x40, free_form" in text
    assert text.count("in the hole") == text.count("PSNR dB by area of the hole") == 4 and "10-20 %" in text
    with open(tmp_path / "e.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    whole = json.loads((tmp_path / "e.json").read_text())
    assert [{key: str(value) for key, value in row.items()} for row in whole["rows"]] == rows
    assert whole["settings"]["seed"] == 3 and whole["settings"]["size"] == [32, 40]
    every = [row for row in rows if row["area"] == "all"]
    assert len(every) == 4 * 3 and {row["completed_by"] for row in every} == {"glcic", "ring_mean", "harmonic"}
    assert set(METRICS) <= rows[0].keys()
    for row in every:  # the parts make up the whole
        same = [other for other in rows if all(other[key] == row[key] for key in ("size", "mask", "completed_by"))]
        parts = [other for other in same if other["area"] != "all"]
        assert sum(int(part["pictures"]) for part in parts) == int(row["pictures"]) == 18
        for key in ("psnr", "ssim", "l1", "l2"):
            mean = sum(float(part[key]) * int(part["pictures"]) for part in parts) / 18
            assert mean == pytest.approx(float(row[key]), rel=1e-4)


def test_the_same_seed_gives_the_same_file_and_another_seed_another(glcic, tmp_path) -> None:
    texts = []
    for seed in (0, 0, 1):
        assert evaluate(glcic, "--size", 32, "--seed", seed, "--csv", tmp_path / "e.csv", "--device", "cpu") == 0
        texts.append((tmp_path / "e.csv").read_text())
    assert texts[0] == texts[1] != texts[2]


def test_areas_are_tenths_of_the_picture() -> None:
    masks = [box(10, 10, 0, 0, *sides) for sides in ((1, 1), (3, 3), (10, 1), (5, 5), (10, 3), (10, 10))]
    areas = Evaluation(Batch(torch.rand(6, 3, 10, 10), torch.stack(masks)), shown=1).areas()
    assert {area: rows.tolist() for area, rows in areas.items()} == {
        "0-10 %": [0, 1], "10-20 %": [2], "20-30 %": [3], "30-40 %": [4], "90-100 %": [5],
    }  # fmt: skip


def test_columns_of_the_area_table_are_aligned() -> None:
    figures = {"a": {"psnr": 9.5}, "a_name_of_many_letters": {"psnr": 19.25}}
    lines = area_table({"0-10 %": figures, "90-100 %": figures}, {"0-10 %": 12, "90-100 %": 3}).splitlines()
    assert len({len(line) for line in lines}) == 1 and lines[1].split() == ["0-10", "%", "12", "9.50", "19.25"]


def test_mistakes_are_said_before_anything_is_measured(glcic, tmp_path, capsys) -> None:
    save_network(tmp_path / "u.safetensors", UNetGenerator(2), {"filters": 2})
    for arguments, words in (
        ((tmp_path / "u.safetensors", "--size", 64, 32), "UNetGenerator takes 64 and center, got 32 and center"),
        ((glcic, "--csv", tmp_path / "e.txt"), "--csv: a .csv file"),
        ((glcic, "--json", tmp_path / "e.csv"), "--json: a .json file"),
        ((glcic, "--json", tmp_path / "nowhere" / "e.json"), "a folder that is not there"),
        ((glcic, "--device", "cuda:77"), "device"),
        ((glcic, "--mask"), "--mask: one at least"),
    ):
        assert evaluate(*arguments) == 2
        captured = capsys.readouterr()
        assert words in captured.err and "crops" not in captured.out
    broken = CompletionNetwork(2)
    torch.nn.init.constant_(next(broken.parameters()), float("inf"))
    save_network(tmp_path / "broken.safetensors", broken, {"channels": 2})
    assert evaluate(tmp_path / "broken.safetensors", "--csv", tmp_path / "e.csv") == 2
    assert "not finite" in capsys.readouterr().err and not (tmp_path / "e.csv").exists()
