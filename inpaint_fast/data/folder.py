"""Folders of pictures as sequences of tensors: the user's own, and the photographs that come with the package."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import overload

import torch
from torch import Tensor

from inpaint_fast._names import composed, printable
from inpaint_fast._recent import Recent
from inpaint_fast.data.images import ImageError, check_image, picture_suffixes, read_image
from inpaint_fast.data.layouts import CAPTIONS_FILE, CELEBA_PARTITION, celeba_split, coco_json, coco_split

SPLITS = ("train", "heldout")
_SAMPLES = Path(__file__).parent / "samples" / "photos"
RUN_FILES = frozenset({"config.toml", "metrics.jsonl"})
"""Files by which the folder of a training run is known (`inpaint_fast.training.records`)."""
_HELDOUT_NAMES = ("heldout", "test", "val")
_NAMED_IN_SUMMARY = 20


class ImageFolder(Sequence[Tensor]):
    """The pictures of a folder and its subfolders: `folder[i]` is a uint8 tensor (3, H, W), see `read_image`.

    Files count as pictures by their suffix (`picture_suffixes`). They are sorted by relative path, so the order is the
    same on every machine. Hidden files and folders are left out, and so are the folders of runs inside it; links are
    followed, and a loop of links ends. A slice gives an ImageFolder again.

    Construction reads every header. A file that fails there is left out; one that fails later, at decoding, keeps its
    place, so that positions never move, and `folder[i]` raises ImageError for it each time. Both are named in
    `skipped`.

    Args:
        root: the folder.
        cache_bytes: decoded pictures are kept up to this many bytes, the least recently used dropped first; 1 GiB.
            The tensors are shared with the cache: do not write into them.

    Attributes:
        root: the folder.
        paths: the picture files, in order.
        skipped: file -> reason, for every file that could not be read.
        shared: whether it is trained on and measured on alike: the only picture of a folder, see `open_folder`.

    Raises:
        FileNotFoundError: no such folder.
        ImageError: not a folder, or a folder without a readable picture.

    May be read from several threads at once; a copy sent to another process starts with an empty cache.
    """

    def __init__(self, root: str | os.PathLike[str], *, cache_bytes: int = 1 << 30):
        self.root = Path(root)
        self.paths: list[Path] = []
        self.skipped: dict[Path, str] = {}
        self.shared = False
        self._cache: Recent[Path, Tensor] = Recent(cache_bytes)
        if not self.root.exists():
            raise FileNotFoundError(f"{self.root}: no such folder; expected a folder of pictures")
        if not self.root.is_dir():
            raise ImageError(self.root, "not a folder; expected a folder of pictures")
        found = [Path(place, name) for place, names in picture_files(self.root, self.skipped) for name in names]
        for path in sorted(found, key=lambda path: (composed(self._name(path)), path)):
            try:
                check_image(path)
            except ImageError as error:
                self.skipped[path] = error.reason
            else:
                self.paths.append(path)
        if not self.paths:
            found = (
                self._reasons(self.skipped) or "no file with a suffix such as .jpg or .png, here or in its subfolders"
            )
            raise ImageError(self.root, f"holds no readable picture: {found}")

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> ImageFolder: ...

    def __getitem__(self, index: int | slice) -> Tensor | ImageFolder:
        if isinstance(index, slice):
            return self.only(self.paths[index])
        path = self.paths[index]
        if path in self.skipped:
            raise ImageError(path, self.skipped[path])
        try:
            return self._cache.get(path, read_image)
        except ImageError as error:
            self.skipped[path] = error.reason
            raise

    def only(self, paths: Iterable[Path]) -> ImageFolder:
        """The same folder with these of its `paths` alone; `skipped` and the cache stay shared."""
        part = copy.copy(self)
        part.paths = list(paths)
        return part

    def spread(self, count: int) -> ImageFolder:
        """At most `count` of the pictures, spread evenly over all of them."""
        return self.only(self.paths[i] for i in evenly(len(self), count))

    def summary(self, told: Collection[Path] = ()) -> str:
        """One sentence: "24 pictures in photos/ (2 skipped: broken.jpg: truncated; note.jpg: not an image)".

        Args:
            told: skipped files that were named elsewhere.
        """
        count = sum(path not in self.skipped for path in self.paths)
        name = printable(os.path.basename(os.path.realpath(self.root)))
        text = f"{count} picture{'' if count == 1 else 's'} in {name}/"
        text += ", the same for training and measuring: none is held out" if self.shared else ""
        skipped = {path: reason for path, reason in self.skipped.items() if path not in told}
        return f"{text} ({len(skipped)} skipped: {self._reasons(skipped)})" if skipped else text

    def fingerprint(self) -> str:
        """SHA-256 of the pictures' names in the folder and sizes in bytes, in order: whether they are the same."""
        return digest_of((self._name(path), path.stat().st_size) for path in self.paths)

    def _reasons(self, skipped: Mapping[Path, str]) -> str:
        named = [f"{printable(self._name(path))}: {reason}" for path, reason in sorted(skipped.items())]
        rest = len(named) - _NAMED_IN_SUMMARY
        return "; ".join(named[:_NAMED_IN_SUMMARY]) + (f"; and {rest} more" if rest > 0 else "")

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def picture_files(root: Path, unlisted: dict[Path, str]) -> Iterator[tuple[str, list[str]]]:
    """A folder and its subfolders, each once, and the names in it that are pictures by their suffix.

    Hidden ones, and the folders of runs, are left out. Folders that cannot be listed go into `unlisted`, with why.
    """
    suffixes = picture_suffixes()
    visited: set[tuple[int, int]] = set()

    def note(error: OSError) -> None:
        unlisted[Path(error.filename)] = error.strerror or str(error)

    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=note):
        status = os.stat(folder)
        identity = (status.st_dev, status.st_ino)
        # reached again through a link; or made by a run, whose samples are no pictures to learn from or to complete
        if identity in visited or (len(visited) and RUN_FILES.issubset(files)):
            subfolders.clear()
            continue
        visited.add(identity)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield folder, [name for name in files if name[0] != "." and name[name.rfind(".") :].lower() in suffixes]


def digest_of(files: Iterable[tuple[str, int]]) -> str:
    """SHA-256 of the names of files and their sizes in bytes, in order."""
    digest = hashlib.sha256()
    for name, size in files:
        digest.update(b"%s\0%d\0" % (composed(name).encode("utf-8", "surrogateescape"), size))
    return digest.hexdigest()


def evenly(length: int, count: int) -> list[int]:
    """At most `count` positions, spread evenly from the first of `length` to the last."""
    return torch.linspace(0, length - 1, min(count, length), dtype=torch.float64).round().long().tolist()


def samples(split: str = "train") -> ImageFolder:
    """The photographs that come with the package, short side 320 pixels: 18 to train on, 6 other scenes held out.

    Enough for a demonstration or a quick test, not for a benchmark. Their authors and licences are in
    `samples/photos/LICENSES.md`. Raises ValueError for a split other than "train" and "heldout".
    """
    _check_split(split)
    return ImageFolder(_SAMPLES / split)


def captions() -> dict[str, list[str]]:
    """Five English captions for each sample photograph, by file name relative to the set: "train/astronaut.jpg"."""
    return coco_json(_SAMPLES / CAPTIONS_FILE)


def open_folder(
    name_or_path: str | os.PathLike[str], split: str = "train", *, cache_bytes: int = 1 << 30
) -> ImageFolder:
    """One split of a named set or of a folder of pictures.

    - "samples" is the set that comes with the package ("./samples" is a folder of that name).
    - COCO 2014 or 2017 and CelebA as they are published (`inpaint_fast.data.layouts`): their train and val parts.
    - A folder that contains `train/` and one of `heldout/`, `test/`, `val/` is split that way.
    - Any other folder is split by a hash of each picture's relative path: about one in ten is held out, at least one
      where there are two, and adding a picture does not move the others. A single picture is in both splits, and
      says so.

    Args:
        name_or_path: "samples" or a folder.
        split: "train" or "heldout".
        cache_bytes: as for `ImageFolder`.

    Raises:
        ValueError: another split.
        FileNotFoundError, ImageError: as for `ImageFolder`; a file of a published layout that is missing is named.
    """
    _check_split(split)
    if name_or_path == "samples":
        return ImageFolder(_SAMPLES / split, cache_bytes=cache_bytes)
    root = Path(name_or_path)
    if (coco := coco_split(root, split)) is not None:
        return ImageFolder(coco, cache_bytes=cache_bytes)
    if (celeba := celeba_split(root, split)) is not None:
        folder = ImageFolder(celeba[0], cache_bytes=cache_bytes)
        chosen = [path for path in folder.paths if composed(path.name) in celeba[1]]
        if not chosen:
            raise ImageError(celeba[0], f"holds no picture of the {split} split of {CELEBA_PARTITION}")
        return folder.only(chosen)
    heldout = next((root / name for name in _HELDOUT_NAMES if (root / name).is_dir()), None)
    if heldout and (root / "train").is_dir():
        return ImageFolder(root / "train" if split == "train" else heldout, cache_bytes=cache_bytes)
    folder = ImageFolder(root, cache_bytes=cache_bytes)
    if len(folder) == 1:
        folder.shared = True
        return folder
    held = _held_out([path.relative_to(root).as_posix() for path in folder.paths])
    return folder.only(path for path, out in zip(folder.paths, held, strict=True) if out == (split == "heldout"))


def _held_out(names: list[str]) -> list[bool]:
    """True for the pictures to hold out: about a tenth, never none and never all."""
    encoded = [composed(name).encode("utf-8", "surrogateescape") for name in names]
    hashes = [int.from_bytes(hashlib.sha256(name).digest(), "big") for name in encoded]
    held = [value % 10 == 0 for value in hashes]
    if not any(held):
        held[hashes.index(min(hashes))] = True
    elif all(held):
        held[hashes.index(max(hashes))] = False
    return held


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(map(repr, SPLITS))}, got {split!r}")
