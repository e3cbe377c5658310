"""What a run leaves in its folder, from step 0 on:

config.toml             every setting of the recipe, and the versions that ran it
metrics.jsonl, .csv     a row an evaluation: step, seconds, images/s, mean losses since the last row, held-out metrics;
                        also the signals of `inpaint_fast.training.health`: saturated and others, explained there
pictures/step_*.png     held-out pictures: input, completed, the no-learning fills, truth
checkpoints/step_*/     all networks of one moment, a safetensors file each: the newest. The folder appears whole. With
                        an average of the generator (`ema`) that is generator, and the trained one generator_raw
generator.safetensors   the newest generator once more, to take away
vocabulary.json         (or sentence_vectors.safetensors) what turns captions into numbers, where the system reads them
health.txt              warnings of `inpaint_fast.training.health`, where there were any
owner.txt               the process that writes here, or the last one that did
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from inpaint_fast._files import (
    CHECKPOINTS,
    own_folder,
    remove_whole_folder,
    sweep_parts,
    write_whole,
    write_whole_folder,
)
from inpaint_fast._version import __version__
from inpaint_fast.completion.weights import save_network
from inpaint_fast.data import CaptionEncoder, write_png
from inpaint_fast.training.recipe import Recipe, System

LEARNED = (f"{CHECKPOINTS}/step_*", "metrics.*", "pictures/step_*", "generator.safetensors")
"""What no run writes over."""
OTHERS = ("*.safetensors", "config.toml", "vocabulary.json", "health.txt")
"""What, besides, no run writes over in a folder that was not a run's: it is somebody else's then."""


class Records:
    """Writes a run's folder, which is its own until `close()` or the end of the process.

    Args:
        folder: made if it is not there.
        recipe: its settings are written.
        caption_encoder: kept too, so that the weights can be used.

    Raises:
        FileExistsError: it holds another run already, or weights, or another process is writing there.
    """

    def __init__(
        self, folder: str | os.PathLike[str], recipe: Recipe, caption_encoder: CaptionEncoder | None = None
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._owner, last_owner = own_folder(self.folder)
        if last_owner:  # a run's folder: what lies there half-written is of a process that died
            sweep_parts(self.folder)
        try:
            self._expect_nothing(LEARNED if last_owner else LEARNED + OTHERS)
        except FileExistsError:
            self._owner.truncate(0)
            self._owner.write(last_owner)
            self.close()
            if not last_owner:
                Path(self._owner.name).unlink()
            raise
        for name in ("pictures", CHECKPOINTS):
            (self.folder / name).mkdir(exist_ok=True)
        self.rows: list[dict[str, float]] = []
        self.warnings: list[str] = []
        self.saved: int | None = None  # the newest checkpoint's step
        self._write("config.toml", config_toml(recipe))
        if caption_encoder is not None:
            caption_encoder.save(self.folder)

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the folder."""
        self._owner.close()

    def add(self, row: Mapping[str, float], picture: Tensor, system: System) -> None:
        """One evaluation: its row (`step` among the keys), its picture and the weights it was made with."""
        self.save(int(row["step"]), system)  # first: no row without its weights
        self.rows.append(dict(row))
        # Both files whole each time: a run has some hundred rows, and a reader never meets half a line.
        self._write("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in self.rows))
        self._write("metrics.csv", self._csv())
        write_png(self.folder / "pictures" / f"step_{int(row['step']):06d}.png", picture)

    def save(self, step: int, system: System) -> None:
        """A checkpoint of all networks; the one before it goes once it is there."""
        older = list((self.folder / CHECKPOINTS).glob("step_*"))
        checkpoint = self.folder / CHECKPOINTS / f"step_{step:06d}"

        def fill(folder: Path) -> None:
            for name, (network, arguments) in system.networks().items():
                save_network(folder / f"{name}.safetensors", network, arguments)

        write_whole_folder(checkpoint, fill)
        self.saved = step
        with open(checkpoint / "generator.safetensors", "rb") as newest:
            write_whole(self.folder / "generator.safetensors", lambda file: shutil.copyfileobj(newest, file))
        for folder in older:
            remove_whole_folder(folder)

    def warn(self, text: str) -> None:
        """Keep a warning."""
        self.warnings.append(text)
        self._write("health.txt", "\n".join(self.warnings) + "\n")

    def _expect_nothing(self, patterns: tuple[str, ...]) -> None:
        for pattern in patterns:
            for found in self.folder.glob(pattern):
                raise FileExistsError(
                    f"{self.folder} holds a run already, or weights ({found.relative_to(self.folder)}); "
                    "name another folder, or remove it"
                )

    def _csv(self) -> str:
        columns = dict.fromkeys(key for row in self.rows for key in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def _write(self, name: str, text: str) -> None:
        write_whole(self.folder / name, lambda file: file.write(text.encode()))


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
