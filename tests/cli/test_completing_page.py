"""docs/completing.md: what it prints is run, in its order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from inpaint_fast.cli.main import main
from inpaint_fast.completion import load_network, save_network, weights
from inpaint_fast.data import samples
from inpaint_fast.models import ResidualCompletionNetwork

PAGE = Path(__file__).parents[2] / "docs" / "completing.md"
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_every_command_runs_as_it_is_printed(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_network("../sharp.safetensors", ResidualCompletionNetwork(1, hole=38), {"channels": 1, "hole": 38})
    monkeypatch.setattr(weights, "shipped", lambda name: tmp_path.parent / f"{name}.safetensors")
    assert load_network("sharp").hole == 38
    commands = 0
    for language, text in BLOCKS:
        text = text.replace("--adapt 20", "--adapt 0.01").replace("seconds=20", "seconds=0.01")
        if language == "python":
            exec(compile(text, PAGE.name, "exec"), {})
            continue
        for line in text.splitlines():
            if line.startswith("PHOTOS="):
                assert "samples('heldout').root" in line
                continue
            name, *words = shlex.split(line.replace("$PHOTOS", str(samples("heldout").root)))
            assert name == "inpaint-fast" and main(words) == 0, capsys.readouterr().err
            commands += 1
    assert commands >= 8
    for written in ("raccoon.png", "completed/dahlia_flower.png", "by_name/raccoon.png", "kept/steel_stairs.jpg"):
        assert Path(written).is_file()


@pytest.mark.parametrize("word", ["--keep", "--grow", "--adapt", "--invert-mask", "convert"])
def test_what_it_is_about(word) -> None:
    assert word in PAGE.read_text(encoding="utf-8")
