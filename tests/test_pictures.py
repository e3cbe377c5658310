"""docs/pictures.py: every recipe has a short run whose settings it takes, a picture and its figures."""

from __future__ import annotations

import csv
import runpy
from pathlib import Path

import pytest
import torch
from PIL import Image

from inpaint_fast.cli.train import recipe_of
from inpaint_fast.training import RECIPES

DOCS = Path(__file__).parents[1] / "docs"


def test_every_recipe_has_its_run() -> None:
    runs = runpy.run_path(str(DOCS / "pictures.py"))["RUNS"]
    assert list(runs) == list(RECIPES)
    for name, settings in runs.items():
        recipe, _ = recipe_of(name, settings.split())
        assert 0 < recipe.steps <= 10_000
    with open(DOCS / "pictures.csv", newline="") as file:
        assert {row["recipe"]: row["settings"] for row in csv.DictReader(file)} == runs


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_its_picture(name: str) -> None:
    path = DOCS / f"{name}.png"
    assert path.stat().st_size <= 60 * 1024
    with Image.open(path) as picture:
        assert picture.width <= 680 and picture.height <= 400


def test_a_sheet_is_written_as_it_is(tmp_path) -> None:
    save = runpy.run_path(str(DOCS / "pictures.py"))["save"]
    tiles = torch.zeros(2, 3, 3, 8, 8)
    tiles[1, 2, 0] = 1.0
    save(tmp_path / "sheet.png", tiles)
    with Image.open(tmp_path / "sheet.png") as picture:
        picture = picture.convert("RGB")
        assert picture.size == (3 * 12 - 4, 2 * 12 - 4)
        assert [picture.getpixel(at) for at in ((0, 0), (9, 0), (31, 19))] == [(0, 0, 0), (255, 255, 255), (255, 0, 0)]
