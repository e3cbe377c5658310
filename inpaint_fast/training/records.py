"""What a run leaves in its folder, from step 0 on:

config.toml             every setting of the recipe, and the versions that ran it
metrics.jsonl, .csv     a row an evaluation: step, seconds, images/s, mean losses since the last row, held-out metrics;
                        also the signals of `inpaint_fast.training.health`: saturated and others, explained there
pictures/step_*.png     held-out pictures: input, completed, the no-learning fills, truth
generator.safetensors   the newest weights; also those of the critic, discriminator or decoder, where there is one
vocabulary.json         (or sentence_vectors.safetensors) what turns captions into numbers, where the system reads them
health.txt              warnings of `inpaint_fast.training.health`, where there were any
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from inpaint_fast._files import write_whole
from inpaint_fast._version import __version__
from inpaint_fast.completion.weights import save_network
from inpaint_fast.data import CaptionEncoder, write_png
from inpaint_fast.training.recipe import Recipe, System


class Records:
    """Writes a run's folder.

    Args:
        folder: made if it is not there.
        recipe: its settings are written.
        caption_encoder: kept too, so that the weights can be used.

    Raises:
        FileExistsError: it holds another run already.
    """

    def __init__(
        self, folder: str | os.PathLike[str], recipe: Recipe, caption_encoder: CaptionEncoder | None = None
    ) -> None:
        self.folder = Path(folder)
        if (self.folder / "metrics.jsonl").exists():
            raise FileExistsError(f"{self.folder} holds a run already; name another folder, or remove it")
        (self.folder / "pictures").mkdir(parents=True, exist_ok=True)
        self.rows: list[dict[str, float]] = []
        self.warnings: list[str] = []
        self._write("config.toml", config_toml(recipe))
        if caption_encoder is not None:
            caption_encoder.save(self.folder)

    def add(self, row: Mapping[str, float], picture: Tensor, system: System) -> None:
        """One evaluation: its row (`step` among the keys), its picture and the weights it was made with."""
        for name, network in system.named_children():  # first: no row without its weights
            save_network(self.folder / f"{name}.safetensors", network, system.arguments[name])
        self.rows.append(dict(row))
        # Both files whole each time: a run has some hundred rows, and a reader never meets half a line.
        self._write("metrics.jsonl", "".join(json.dumps(_plain(row)) + "\n" for row in self.rows))
        self._write("metrics.csv", self._csv())
        write_png(self.folder / "pictures" / f"step_{int(row['step']):06d}.png", picture)

    def warn(self, text: str) -> None:
        """Keep a warning."""
        self.warnings.append(text)
        self._write("health.txt", "\n".join(self.warnings) + "\n")

    def _csv(self) -> str:
        columns = dict.fromkeys(key for row in self.rows for key in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def _write(self, name: str, text: str) -> None:
        write_whole(self.folder / name, lambda file: file.write(text.encode()))


def _plain(row: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {key: value if math.isfinite(value) else None for key, value in row.items()}


def config_toml(recipe: Recipe) -> str:
    """The recipe as TOML; settings that are None are comments."""
    lines = [f"recipe = {_toml(recipe.name)}", f'inpaint_fast = "{__version__}"', f'torch = "{torch.__version__}"']
    lines += ["", "[settings]"]
    for key, value in asdict(recipe).items():
        lines.append(f"# {key}: not set" if value is None else f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    """A setting as TOML has it. Bytes of a path that are not UTF-8 have no place there: "\\\\udce9" stands for one."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    return '"' + "".join(map(_toml_character, os.fspath(value))) + '"'


def _toml_character(c: str) -> str:
    if "\ud800" <= c <= "\udfff":
        return f"\\\\u{ord(c):04x}"
    if c in '"\\':
        return "\\" + c
    return c if c.isprintable() else f"\\U{ord(c):08x}"
