"""The pictures that `complete` was given, the files that it makes of them, and what it leaves alone.

A result bears a mark in its header. Such a file is a former result: it may be made anew, and it is not completed again
where it lies among pictures in a folder, or where `photos/*` takes it in from the folder of results. Nothing else that
exists is ever written over.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from inpaint_fast._names import composed
from inpaint_fast._version import __version__
from inpaint_fast.completion.originals import MODES, kept_format
from inpaint_fast.data import ImageError, ImageFolder
from inpaint_fast.data.images import picture_suffixes, readable_suffixes, software_of, suffixes_of

MARK = "inpaint-fast complete"
SOFTWARE = f"{MARK} {__version__}"
"""What stands in the header of a result."""
MASK, RESULT = "mask", "former result"
RESULT_SUFFIXES = frozenset(suffix for format in MODES for suffix in suffixes_of(format))


class Job(NamedTuple):
    """One picture to complete."""

    source: Path
    target: Path
    """The file to write."""


class Rest(NamedTuple):
    """What is not to be completed."""

    left_out: Counter[str]
    """The command's own files among the pictures: MASK or RESULT -> how many."""
    refused: dict[Path, str]
    """Pictures that cannot be completed, and why."""


def plan(image: Path, out: Path, *more: Path, mask: Path | None = None, keep: bool = False) -> tuple[list[Job], Rest]:
    """What to do, in order; nothing is read but headers, and nothing written.

    Args:
        image, more: pictures, or folders of them.
        out: a file for one picture, or a folder.
        mask: the file or folder of masks; they are no pictures to complete.
        keep: results are of the pictures' formats and names; otherwise they are PNG files.

    Raises:
        ValueError: `out` is neither, or the pictures' folder is the masks' too.
        ImageError: the one folder holds no readable picture; or with `keep`, the one picture cannot be kept.
    """
    rest = Rest(Counter(), {})
    into_file = _is_file(out, several=bool(more) or image.is_dir(), original=image if keep else None)
    found = _found((image, *more), None if into_file else out, mask, rest)
    rest.left_out.update(file.own for file in found if file.own is not None)
    chosen = [file for file in found if file.own is None]
    names = [file.inside for file in chosen]
    targets = [out] if into_file else [out / name for name in (names if keep else results(names))]
    jobs = [Job(file.path, target) for file, target in zip(chosen, targets, strict=False)]  # none where it is left out
    kept = {os.path.realpath(file.path) for file in found if file.own != RESULT}
    return _allowed(jobs, kept, rest), rest


class _Found(NamedTuple):
    """A picture file among those that were named."""

    path: Path
    inside: Path
    """Its place in its folder."""
    own: str | None
    """The command's own: a mask or a former result."""


def _found(arguments: tuple[Path, ...], out: Path | None, mask: Path | None, rest: Rest) -> list[_Found]:
    """Every picture once; what cannot be read is refused."""
    found: dict[Path, _Found] = {}
    for argument in arguments:
        if not argument.is_dir():
            own = MASK if mask is not None and _same(argument, mask) else None
            if own is None and out is not None and _within(argument, out) and is_result(argument):
                own = RESULT
            found.setdefault(argument, _Found(argument, Path(argument.name), own))
            continue
        if mask is not None and _same(argument, mask):
            raise ValueError(f"--mask: a folder of its own is expected, {mask} is that of the pictures")
        try:
            folder = ImageFolder(argument)
        except ImageError as error:
            if len(arguments) == 1:
                raise
            rest.refused[argument] = error.reason
            continue
        rest.refused.update(folder.skipped)
        apart = None if mask is None or _within(argument, mask) else mask
        masks = {path for path in folder.paths if apart is not None and _within(path, apart)}
        made = {path for path in folder.paths if path not in masks and is_result(path)}
        if len(masks) + len(made) == len(folder):  # a folder of results: they are what is meant, but for those in --out
            made = {path for path in made if out is not None and _within(path, out)}
        for path in folder.paths:
            own = MASK if path in masks else RESULT if path in made else None
            found.setdefault(path, _Found(path, path.relative_to(argument), own))
    return list(found.values())


def _is_file(out: Path, *, several: bool, original: Path | None) -> bool:
    """Whether the result goes into this very file; False: into a folder of this name.

    Args:
        out: what was named.
        several: there may be several results.
        original: the picture whose format the result is to have; None: it is a PNG file.

    Raises:
        ValueError: it can be neither.
    """
    if out.is_dir():
        return False
    if several:
        if out.suffix.lower() in readable_suffixes() or os.path.lexists(out):
            raise ValueError(f"--out: a folder is expected for several pictures, got {out}")
        return False
    format = "PNG" if original is None else kept_format(original)
    if out.suffix.lower() in suffixes_of(format):
        return True
    if out.suffix.lower() in readable_suffixes() or os.path.lexists(out):
        why = "only PNG keeps every pixel; or --keep" if original is None else f"{original} is {format}"
        raise ValueError(f"--out: a {suffixes_of(format)[0]} file or a folder is expected ({why}), got {out}")
    return False


def results(names: list[Path]) -> list[Path]:
    """Names of PNG files: of a.jpg a.png; of those whose results would share a name, a.jpg.png.

    Names that differ in case, or in the way that Unicode spells a letter, count as one: on some disks they are.
    """

    def keys(files: list[Path]) -> list[str]:
        return [composed(file).casefold() for file in files]

    chosen = [name.with_suffix(".png") for name in names]
    whole = [name.with_name(name.name + ".png") for name in names]
    while True:
        counts = Counter(keys(chosen))
        longer = [
            long if counts[key] > 1 else name for long, name, key in zip(whole, chosen, keys(chosen), strict=True)
        ]
        if longer == chosen:
            return chosen
        chosen = longer


def _allowed(jobs: list[Job], kept: set[str], rest: Rest) -> list[Job]:
    """The jobs that write over nothing but former results; the others are refused."""
    allowed: dict[str, Job] = {}
    for job in jobs:
        place, over = os.path.realpath(job.target), None
        if place in allowed:
            over = f"the result of {allowed[place].source}"
        elif place in kept:
            over = "a picture to complete or a mask"
        elif os.path.lexists(job.target) and not is_result(job.target):
            over = "a file that is no former result"
        if over is None:
            allowed[place] = job
        else:
            rest.refused[job.source] = f"--out: {job.target} would be written over, {over}; name another folder or file"
    return list(allowed.values())


def is_result(path: Path) -> bool:
    """Whether this command wrote the file."""
    return path.suffix.lower() in RESULT_SUFFIXES and str(software_of(path)).startswith(MARK)


def _same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one place, links followed."""
    return os.path.realpath(one) == os.path.realpath(other)


def _within(path: Path, folder: Path) -> bool:
    """Whether a path is this one or lies in it, links followed."""
    place = os.path.realpath(folder)
    return os.path.realpath(path) == place or os.path.realpath(path).startswith(os.path.join(place, ""))


class _Names(NamedTuple):
    """What lies in one folder."""

    folder: Path
    names: dict[str, str]
    """Name as it is compared -> name."""
    suffixes: list[str]
    """Those of pictures."""


class MaskFolder:
    """The masks of a folder, by the pictures that they belong to; it and its subfolders are listed once.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[Path, _Names] = {}

    def _names(self, inside: Path) -> _Names:
        """What lies in a subfolder, "." the folder itself."""
        if inside not in self._listed:
            folder = self.root
            if inside.name:
                above = self._names(inside.parent)
                folder = above.folder / above.names.get(composed(inside.name), inside.name)
            names = os.listdir(folder) if folder.is_dir() else []
            suffixes = {name[name.rfind(".") :] for name in names}
            readable = sorted(suffix for suffix in suffixes if suffix.lower() in picture_suffixes())
            self._listed[inside] = _Names(folder, {composed(name): name for name in names}, readable)
        return self._listed[inside]

    def of(self, picture: Path, inside: Path) -> Path:
        """The mask of a picture, which bears its name but for the suffix.

        Args:
            picture: the file; it is not its own mask.
            inside: where it lies in its folder, as its mask does in this one.

        Raises:
            ValueError: there is none, or more than one.
        """
        folder, names, suffixes = self._names(inside.parent)
        keys = (composed(inside.stem) + suffix for suffix in suffixes)
        named = [folder / names[key] for key in keys if key in names]
        found = [path for path in named if not _same(path, picture)]
        if len(found) != 1:
            got = ", ".join(path.name for path in found) or "none"
            raise ValueError(f"one mask named {inside.with_suffix('.*')} is expected in {self.root}, got {got}")
        return found[0]
