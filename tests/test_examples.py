"""Every script of examples/ runs, in a short form, and does what it says."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from inpaint_fast.data import read_image
from inpaint_fast.models import NETWORKS

EXAMPLES = Path(__file__).parents[1] / "examples"
Example = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path) -> Example:
    """run(script, *arguments): what it prints; it runs in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(script: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_operators_in_your_loop(run: Example) -> None:
    printed = run("operators_in_your_loop.py", "--steps", "2")
    assert re.findall(r"step (\d+): loss 0\.\d+, outside the holes unchanged: (\w+)", printed) == [
        ("0", "True"),
        ("1", "True"),
    ]


def test_clip_your_wgan(run: Example) -> None:
    printed = run("clip_your_wgan.py", "--steps", "3")
    assert re.findall(r"step (\d+): .*largest critic weight ([\d.]+)", printed) == [("0", "0.100"), ("2", "0.100")]


@pytest.mark.parametrize(("network", "swapped"), [("resnet18", 16), ("unet", 18), ("lama", 58)])
def test_accelerate_networks(run: Example, network: str, swapped: int) -> None:
    printed = run("accelerate_networks.py", "--network", network, "--width", "8", "--side", "64", "--steps", "1")
    assert printed.startswith(f"{swapped} of ")
    assert float(re.search(r"relative difference (\S+)", printed)[1]) < 1e-4


def test_your_recipe(run: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "SmallUNet", None)  # and taken out again
    assert run("your_recipe.py", "--steps", "2", "--out", "run").rstrip().endswith("run")
    assert Path("run/generator.safetensors").is_file()
    assert [line.split(",")[0] for line in Path("run/metrics.csv").read_text().splitlines()][-1] == "2"


def test_train_on_a_folder_and_complete_by_what_was_trained(run: Example) -> None:
    printed = run("train_on_a_folder.py", "--steps", "2", "--out", "run")
    assert re.search(r"^run: step 3, PSNR \d+\.\d+ dB", printed, re.MULTILINE)
    printed = run("complete_from_python.py", "--weights", "run", "--out", "completed.png")
    assert printed.startswith("completed.png: ")
    assert read_image("completed.png").dtype == torch.uint8


def test_all_are_listed() -> None:
    listed = re.findall(r"\]\((\w+\.py)\)", (EXAMPLES / "README.md").read_text())
    assert sorted(listed) == sorted(path.name for path in EXAMPLES.glob("*.py"))
