"""What a run leaves in its folder, from step 0 on:

config.toml             every setting of the recipe, and the versions and the machine that ran it
metrics.jsonl, .csv     a row an evaluation: step, seconds, images/s, mean losses since the last row, held-out metrics;
                        also the signals of `inpaint_fast.training.health`: saturated and others, explained there
pictures/step_*.png     held-out pictures: input, completed, the no-learning fills, truth
checkpoints/step_*/     all networks of one moment and what else it takes to go on from there
                        (`inpaint_fast.training.checkpoints`): the newest ones, and the best. Each folder appears whole.
                        With an average of the generator (`ema`) that is generator, and the trained one generator_raw
checkpoints/best.json   which of them has the least held-out error
generator.safetensors   the newest generator once more, to take away
vocabulary.json         (or sentence_vectors.safetensors) what turns captions into numbers, where the system reads them
health.txt              warnings of `inpaint_fast.training.health`, and what could not be written, where there were any
tensorboard/            what TensorBoard shows, where that was asked for (`inpaint_fast.training.tensorboard`)
owner.txt               the process that writes here, or the last one that did
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from inpaint_fast._files import (
    CHECKPOINTS,
    own_folder,
    remove_whole_folder,
    sweep_parts,
    write_whole,
    write_whole_folder,
)
from inpaint_fast.completion.weights import checkpoints, newest
from inpaint_fast.data import CaptionEncoder, write_png
from inpaint_fast.training.checkpoints import fill_checkpoint, read_checkpoint
from inpaint_fast.training.config import CONFIG, config_toml, expect_same_run
from inpaint_fast.training.recipe import Recipe, System

LEARNED = (f"{CHECKPOINTS}/step_*", "metrics.*", "pictures/step_*", "generator.safetensors")
"""What no run writes over."""
OTHERS = ("*.safetensors", CONFIG, "vocabulary.json", "health.txt")
"""What, besides, no run writes over in a folder that was not a run's: it is somebody else's then."""
ERROR = "l2"
"""The held-out metric by which one checkpoint is better than another, where there is such: the less the better."""


class Records:
    """Writes a run's folder, which is its own until `close()` or the end of the process.

    Args:
        folder: made if it is not there.
        recipe: its settings are written.
        caption_encoder: kept too, so that the weights can be used.
        resume: the folder is a run's that goes on: it must be there, and nothing in it is touched before `go_back`.

    Raises:
        FileExistsError: it holds another run already, or weights, or another process is writing there.
        NotADirectoryError: it is a file, or in one.
        FileNotFoundError, ValueError: with `resume`: it is no run's, or of a run with other settings.
        ValueError: its name is not UTF-8.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        recipe: Recipe,
        caption_encoder: CaptionEncoder | None = None,
        *,
        resume: bool = False,
    ) -> None:
        self.folder, self.recipe = Path(folder), recipe
        if any("\udc80" <= character <= "\udcff" for character in str(self.folder.absolute())):
            raise ValueError(
                f"out: a name in UTF-8 is expected, got {str(self.folder)!r}: no weights can be read there"
            )
        self.rows: list[dict[str, float]] = []
        self.warnings: list[str] = []
        self.saved: int | None = None  # the newest checkpoint's step
        if resume:
            expect_same_run(recipe, self.folder)
        else:
            self._make_folder()
        self._owner, self._last_owner = own_folder(self.folder)
        if resume:
            return
        if self._last_owner:  # a run's folder: what lies there half-written is of a process that died
            sweep_parts(self.folder)
        try:
            self._expect_nothing(LEARNED if self._last_owner else LEARNED + OTHERS)
        except FileExistsError:
            self.give_back()
            raise
        for name in ("pictures", CHECKPOINTS):
            (self.folder / name).mkdir(exist_ok=True)
        self._write(CONFIG, config_toml(recipe))
        if caption_encoder is not None:
            caption_encoder.save(self.folder)

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the folder."""
        self._owner.close()

    def give_back(self) -> None:
        """Give up the folder as it was before it was taken."""
        self._owner.truncate(0)
        self._owner.write(self._last_owner)
        self.close()
        if not self._last_owner:
            Path(self._owner.name).unlink()

    # ---- rows, pictures, warnings ----

    def write_rows(self) -> None:
        """Both files of metrics whole each time: a run has some hundred rows, and a reader never meets half a line."""
        self._write("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in self.rows))
        self._write("metrics.csv", self._csv())

    def write_picture(self, step: int, picture: Tensor) -> None:
        """What an evaluation shows."""
        write_png(self.folder / "pictures" / f"step_{step:06d}.png", picture)

    def write_warnings(self) -> None:
        """All of them, a line each, if there are any."""
        if self.warnings:
            self._write("health.txt", "\n".join(self.warnings) + "\n")
        else:
            (self.folder / "health.txt").unlink(missing_ok=True)

    # ---- checkpoints ----

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the records."""
        return {"rows": self.rows, "warnings": self.warnings}

    def save(self, step: int, system: System, state: dict[str, Any]) -> None:
        """A checkpoint, see `fill_checkpoint`."""
        write_whole_folder(self._checkpoint(step), lambda folder: fill_checkpoint(folder, system, state))
        self.saved = step

    def tidy(self) -> None:
        """After a checkpoint: its generator once more, the name of the best, and those that are no longer kept go."""
        self._take_away_generator()
        self._note_best()
        kept = {self.best(), *(path.name for path in checkpoints(self.folder)[-self.recipe.keep :])}
        for older in checkpoints(self.folder):
            if older.name not in kept:
                remove_whole_folder(older)

    def newest_state(self) -> dict[str, Any]:
        """The state in the newest checkpoint; in one before it, with a warning, where that is damaged.

        Raises:
            WeightsError: there is none, or none that is not damaged.
        """
        return newest(self.folder, read_checkpoint)

    def go_back(self, step: int, state: dict[str, Any]) -> None:
        """Make the folder that of the moment of a checkpoint: what came later goes, the settings are those of now.

        Later checkpoints are damaged, since this one is the newest that can be read; they are put aside.
        """
        sweep_parts(self.folder)
        for checkpoint in checkpoints(self.folder):
            if _step_of(checkpoint) > step:
                _put_aside(checkpoint)
        self.saved, self.rows, self.warnings = step, list(state["rows"]), list(state["warnings"])
        for picture in (self.folder / "pictures").glob("step_*.png"):
            if picture.stem[5:].isdecimal() and _step_of(picture) > step:
                picture.unlink()
        self._write(CONFIG, config_toml(self.recipe))
        self.write_warnings()
        self.write_rows()
        self._take_away_generator()
        self._note_best()

    def best(self) -> str | None:
        """The name of the checkpoint with the least held-out error, of those that are there and were measured."""
        there: dict[float, str] = {_step_of(path): path.name for path in checkpoints(self.folder)}
        measured = [(row[ERROR], there[row["step"]]) for row in self.rows if ERROR in row and row["step"] in there]
        return min(measured)[1] if measured else None

    def is_best(self, row: dict[str, float]) -> bool:
        """Whether this row's held-out error is less than that of every checkpoint there is."""
        there = {_step_of(path) for path in checkpoints(self.folder)}
        return ERROR in row and all(row[ERROR] < each[ERROR] for each in self.rows if each["step"] in there)

    def _checkpoint(self, step: int) -> Path:
        return self.folder / CHECKPOINTS / f"step_{step:06d}"

    def _take_away_generator(self) -> None:
        assert self.saved is not None  # a checkpoint has just been written, or is gone back to
        with open(self._checkpoint(self.saved) / "generator.safetensors", "rb") as saved:
            write_whole(self.folder / "generator.safetensors", lambda file: shutil.copyfileobj(saved, file))

    def _note_best(self) -> None:
        path, best = self.folder / CHECKPOINTS / "best.json", self.best()
        if best is None:
            path.unlink(missing_ok=True)
            return
        error = next(row[ERROR] for row in self.rows if self._checkpoint(int(row["step"])).name == best)
        text = json.dumps({"checkpoint": best, ERROR: error}) + "\n"
        if not path.is_file() or path.read_text() != text:
            self._write(f"{CHECKPOINTS}/best.json", text)

    # ---- files ----

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):  # of it, or of one above
            raise NotADirectoryError(f"out: a folder is expected, got {self.folder}, where a file is") from None

    def _expect_nothing(self, patterns: tuple[str, ...]) -> None:
        for pattern in patterns:
            for found in self.folder.glob(pattern):
                raise FileExistsError(
                    f"{self.folder} holds a run already, or weights ({found.relative_to(self.folder)}); "
                    "name another folder, remove it, or go on with that run (--resume)"
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


def _step_of(path: Path) -> int:
    """Of step_000200, or step_000200.png."""
    return int(path.stem[5:])


def _put_aside(checkpoint: Path) -> None:
    """Give a damaged checkpoint a name that nobody reads."""
    target = checkpoint.with_name(f"damaged_{checkpoint.name}")
    while target.exists():
        target = target.with_name(f"{target.name}_")
    checkpoint.rename(target)
