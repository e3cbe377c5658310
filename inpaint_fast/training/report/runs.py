"""What the folders of runs hold, read to be shown: rows, settings, pictures, warnings. A run may still be going on."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inpaint_fast._names import printable

PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class RecordedRun:
    """One run as its folder has it."""

    name: str
    """The folder's own name; its whole path where several runs have that."""
    rows: list[dict[str, float]]
    """An evaluation each, in the order of steps: at least one. Values that are no finite numbers are left out."""
    about: dict[str, Any]
    """The recipe's name and the versions that ran it."""
    settings: dict[str, Any]
    """Of the recipe; those that are not set are missing."""
    pictures: dict[int, Path]
    """Step -> its grid of held-out pictures."""
    warnings: list[str]
    """Lines of health.txt."""

    @property
    def last(self) -> dict[str, float]:
        """The newest row."""
        return self.rows[-1]

    def points(self, key: str, along: str) -> list[tuple[float, float]]:
        """The curve of a column along another: those rows that have both."""
        return [(row[along], row[key]) for row in self.rows if key in row and along in row]


def read_runs(folders: Sequence[str | os.PathLike[str]]) -> tuple[list[RecordedRun], list[str]]:
    """The runs in these folders; and a sentence for each run, and for each file's lines, that is left out because it
    cannot be read.

    Raises:
        FileNotFoundError, ValueError: no run can be read; it is the reason of the first. Or none is named, or one is
            named twice.
    """
    paths = [Path(os.path.abspath(folder)) for folder in folders]
    if not paths:
        raise ValueError("runs: at least one run's folder is expected, got none")
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise ValueError(f"runs: {twice[0]} is named twice")
    own = [path.name for path in paths]
    names = [path.name if own.count(path.name) == 1 else os.fspath(path) for path in paths]
    runs: list[RecordedRun] = []
    left_out: list[str] = []
    failures: list[Exception] = []
    for folder, name in zip(folders, names, strict=True):
        try:
            run, sentences = _read_run(Path(folder), printable(name))
        except (OSError, ValueError) as error:
            failures.append(error)
            left_out.append(str(error))
        else:
            runs.append(run)
            left_out += sentences
    if not runs:
        raise failures[0]
    return runs, left_out


def _read_run(folder: Path, name: str) -> tuple[RecordedRun, list[str]]:
    metrics, config, health = (folder / file for file in ("metrics.jsonl", "config.toml", "health.txt"))
    if not config.is_file():
        raise FileNotFoundError(f"{folder}: the folder of a run is expected, with a config.toml in it")
    if not metrics.is_file():
        raise FileNotFoundError(f"{folder}: its run has no rows yet; the first comes with its first evaluation")
    about = _toml(config)
    settings = about.pop("settings", {})
    if not isinstance(settings, dict):
        raise ValueError(f"{config}: settings: a table is expected, got {settings!r}")
    warnings = health.read_text(encoding="utf-8", errors="replace").splitlines() if health.is_file() else []
    found = {path: re.fullmatch(r"step_(\d{1,15})\.png", path.name) for path in folder.glob("pictures/*")}
    pictures = {int(match[1]): path for path, match in found.items() if match}
    not_set = about.pop("not_set", [])
    if isinstance(not_set, list):
        settings = settings | {str(setting): None for setting in not_set}
    rows, left_out = _rows(metrics)
    return RecordedRun(name, rows, about, settings, dict(sorted(pictures.items())), warnings), left_out


def _rows(path: Path) -> tuple[list[dict[str, float]], list[str]]:
    """The rows of a file, and a sentence where some of its lines are none: it was cut off, or edited."""
    rows, bad = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            row = {key: float(value) for key, value in json.loads(line).items() if _is_finite(value)}
        except (ValueError, AttributeError, RecursionError):
            row = {}
        if {"step", "seconds"} <= row.keys():
            rows.append(row)
        else:
            bad.append(f"line {number}: {line[:60]!r}")
    if not rows:
        got = bad[0] if bad else "none"
        raise ValueError(f"{path}: a row at least, with step and seconds, is expected, got {got}")
    more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    expected = "a row, names and numbers with step and seconds among them, is expected"
    return rows, [f"{path}, {bad[0]}{more}: {expected}"] if bad else []


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e300 and math.isfinite(value)


def _toml(path: Path) -> dict[str, Any]:
    try:
        import tomllib
    except ModuleNotFoundError:  # before Python 3.11
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # of the decoding, too
        raise ValueError(f"{path}: {error}") from None
