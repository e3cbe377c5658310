"""A folder's pictures in one file, decoded and perhaps made smaller once; read through a map of the file into memory.

    byte 0   b"ipf-pack"
         8   version, uint64; all numbers are little-endian
        16   where the header begins, uint64
        24   its length in bytes, uint64; the file ends with it
        32   SHA-256 of the header
        64   the pictures one after another, each uint8 (H, W, 3), rows first
             the header, JSON: see `_Header`

Whatever is not as it was written is found when the file is opened: every byte is in one of the checksums.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import struct
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from inpaint_fast._files import write_whole
from inpaint_fast._names import kind_of_file, printable
from inpaint_fast.data.folder import SPLITS, ImageFolder, captions, digest_of, evenly, open_folder, samples
from inpaint_fast.data.images import ImageError
from inpaint_fast.data.layouts import read_captions

MAGIC, VERSION = b"ipf-pack", 1
START = struct.Struct("<8sQQQ32s")
CHUNK = 64 << 20  # bytes of pictures that one checksum is about
AT_ONCE = 64  # pictures decoded before they are written
EXPECTED = "a folder of pictures or a file of inpaint-fast pack is expected"


@dataclass
class _Split:
    """The pictures of a split, in order; they follow those of the split before."""

    folder: str
    """Where they were, relative to the data set's folder."""
    names: list[str]
    """Their paths in there."""
    file_bytes: list[int]
    """The sizes of their files."""
    heights: list[int]
    widths: list[int]
    shared: bool
    """See `ImageFolder.shared`."""

    def add(self, name: str, file_bytes: int, height: int, width: int) -> None:
        """One picture more."""
        self.names.append(name)
        self.file_bytes.append(file_bytes)
        self.heights.append(height)
        self.widths.append(width)


@dataclass
class _Header:
    name: str
    """Of the folder."""
    short_side: int | None
    """What the pictures' short sides were brought to, where they were longer; None: nothing was."""
    digests: list[str]
    """SHA-256 of each CHUNK of the pictures' bytes."""
    splits: dict[str, _Split]
    captions: dict[str, list[str]] | None
    """All captions of the data set, by picture, as its layout has them; None: it has none."""


class PackedImages(Sequence[Tensor]):
    """One split of a packed file: `images[i]` is the uint8 tensor (3, H, W) that the folder had there, a view of the
    file; do not write into it.

    Args:
        path: the file.
        split: "train" or "heldout".

    Attributes:
        path: the file.
        paths: the pictures' names, relative to the folder that was packed.
        pixels: uint8 (bytes,), all pictures of the file.
        starts, heights, widths: int64 arrays, where each picture of the split begins and its sides.
        device: where `crops.cut` makes crops of them; `resident`: `pixels` there, if it holds them all.
        shared: as `ImageFolder.shared`; `skipped`: nothing, unreadable pictures were left out.

    Raises:
        FileNotFoundError; ImageError: it is no packed file, or of another version, cut short, or damaged, which is
            found by its checksums, once in a process for each state of the file.
    """

    skipped: dict[Path, str] = {}

    def __init__(self, path: str | os.PathLike[str], split: str = "train") -> None:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(map(repr, SPLITS))}, got {split!r}")
        self.path = Path(path)
        self.pixels, header = _opened_as_it_is(self.path)
        own = header.splits[split]
        self.short_side, self.shared, self.file_bytes = header.short_side, own.shared, own.file_bytes
        self.captions, self._names = header.captions, own.names
        self.paths = [Path(own.folder, name) for name in own.names]
        sizes = {name: np.array([each.heights, each.widths], np.int64) for name, each in header.splits.items()}
        before = 0 if split == SPLITS[0] else int(sizes[SPLITS[0]].prod(axis=0).sum())
        self.heights, self.widths = sizes[split]
        self.device, self.resident = torch.device("cpu"), None
        ends = np.cumsum(self.heights * self.widths)
        self.starts = 3 * (before + ends - self.heights * self.widths)

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> PackedImages: ...

    def __getitem__(self, index: int | slice) -> Tensor | PackedImages:
        if isinstance(index, slice):
            return self.only(range(len(self))[index])
        height, width = int(self.heights[index]), int(self.widths[index])
        return (
            self.pixels.narrow(0, int(self.starts[index]), 3 * height * width).view(height, width, 3).permute(2, 0, 1)
        )

    def array(self, index: int) -> np.ndarray:
        """The same picture as an array (H, W, 3)."""
        height, width, start = self.heights[index], self.widths[index], self.starts[index]
        return self.pixels.numpy()[start : start + 3 * height * width].reshape(height, width, 3)

    def use(self, device: torch.device) -> None:
        """Make crops on this device. A GPU gets all pictures at once, where they take a quarter of its free memory at
        most; else each batch takes its own there, as it is made."""
        self.device, self.resident = device, None
        if device.type == "cuda" and 4 * self.pixels.nbytes <= torch.cuda.mem_get_info(device)[0]:
            self.resident = self.pixels.to(device)

    def only(self, rows: Iterable[int]) -> PackedImages:
        """The same file with these of its pictures alone."""
        part, rows = copy.copy(self), list(rows)
        part.paths, part.file_bytes, part._names = (
            [whole[row] for row in rows] for whole in (self.paths, self.file_bytes, self._names)
        )
        part.starts, part.heights, part.widths = (whole[rows] for whole in (self.starts, self.heights, self.widths))
        return part

    def spread(self, count: int) -> PackedImages:
        """At most `count` of the pictures, spread evenly over all of them."""
        return self.only(evenly(len(self), count))

    def summary(self, told: Collection[Path] = ()) -> str:
        """One sentence: "24 pictures in photos.pack"."""
        text = f"{len(self)} picture{'' if len(self) == 1 else 's'} in {printable(self.path.name)}"
        return text + (", the same for training and measuring: none is held out" if self.shared else "")

    def fingerprint(self) -> str:
        """That of the folder where the pictures are as they were there; of smaller ones another."""
        digest = digest_of(zip(self._names, self.file_bytes, strict=True))
        return digest if self.short_side is None else f"{digest} at {self.short_side}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.path, self.__dict__ | {"pixels": None, "resident": None})


def pack(
    data: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    short_side: int | None = None,
    progress: bool = False,
) -> dict[Path, str]:
    """Decode the pictures of a folder into one file, which then stands in its place: `open_images(path)`.

    Args:
        data: a folder in any of the layouts of `open_images`, or "samples".
        path: the file to write; it appears whole or not at all.
        short_side: pictures whose shorter side is longer are scaled down to so many pixels, with antialiasing; None:
            none is.
        progress: show a bar where stderr is a terminal.

    Returns:
        Pictures that are not in it, since they cannot be read, and why.

    Raises:
        ValueError: short_side is less than 1, or the path is a file of another kind, which would be lost.
        FileNotFoundError, ImageError: as `open_images`, or no picture of a split can be read; OSError.
    """
    if short_side is not None and short_side < 1:
        raise ValueError(f"short_side: at least 1 is expected, got {short_side}")
    path = Path(path)
    if path.exists() and not is_packed(path):
        raise ValueError(f"{path} is there already and is no packed file; name another one")
    folders = {split: open_folder(data, split, cache_bytes=0) for split in SPLITS}
    root = samples().root.parent if data == "samples" else Path(data)
    try:
        texts = captions() if data == "samples" else read_captions(root)
    except FileNotFoundError:
        texts = None

    def write(file: BinaryIO) -> None:
        file.write(bytes(START.size))
        hashed, splits = _Hashed(file), {}
        for split, folder in folders.items():
            packed = _Split(folder.root.relative_to(root).as_posix(), [], [], [], [], folder.shared)
            pictures = _decoded(folder, short_side)
            for source, picture in tqdm(pictures, split, len(folder), disable=None if progress else True):
                packed.add(source.relative_to(folder.root).as_posix(), source.stat().st_size, *picture.shape[1:])
                hashed.write(picture.permute(1, 2, 0).contiguous().numpy().data.cast("B"))
            if not packed.names:
                raise ImageError(folder.root, f"no picture of the {split} split can be read")
            splits[split] = packed
        name = os.path.basename(os.path.realpath(root))
        header = json.dumps(asdict(_Header(name, short_side, hashed.digests(), splits, texts))).encode()
        at = file.tell()
        file.write(header)
        file.seek(0)
        file.write(START.pack(MAGIC, VERSION, at, len(header), hashlib.sha256(header).digest()))

    write_whole(path, write)
    return {file: reason for folder in folders.values() for file, reason in folder.skipped.items()}


def open_images(
    name_or_path: str | os.PathLike[str], split: str = "train", *, cache_bytes: int = 1 << 30
) -> ImageFolder | PackedImages:
    """One split of a named set, of a folder of pictures (`open_folder`), or of a packed file (`PackedImages`).

    Args:
        name_or_path: "samples", a folder, or a file that `inpaint-fast pack` has written.
        split: "train" or "heldout".
        cache_bytes: of a folder, see `ImageFolder`.

    Raises:
        As those two.
    """
    if name_or_path != "samples" and os.path.isfile(name_or_path):
        return PackedImages(name_or_path, split)
    return open_folder(name_or_path, split, cache_bytes=cache_bytes)


def packed_captions(path: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Every caption of the folder that was packed. Raises ValueError where it had none."""
    texts = PackedImages(path).captions
    if texts is None:
        raise ValueError(f"{path}: the folder that was packed had no captions")
    return texts


def is_packed(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a packed one."""
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _decoded(folder: ImageFolder, short_side: int | None) -> Iterator[tuple[Path, Tensor]]:
    """The pictures that can be read, decoded by several threads, in order."""

    def read(row: int) -> Tensor | None:
        try:
            picture = folder[row]
        except ImageError:  # the folder notes it
            return None
        short = min(picture.shape[1:])
        if short_side is None or short <= short_side:
            return picture
        size = [max(1, round(side * short_side / short)) for side in picture.shape[1:]]
        return F.interpolate(picture[None], size=size, mode="bilinear", antialias=True)[0]

    with ThreadPoolExecutor() as threads:
        for start in range(0, len(folder), AT_ONCE):
            rows = range(len(folder))[start : start + AT_ONCE]
            for row, picture in zip(rows, threads.map(read, rows), strict=True):
                if picture is not None:
                    yield folder.paths[row], picture


class _Hashed:
    """Writes to a file and takes the checksum of every CHUNK."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.done, self.left, self.hash = file, [], CHUNK, hashlib.sha256()

    def write(self, data: memoryview) -> None:
        self.file.write(data)
        while len(data) >= self.left:
            self.hash.update(data[: self.left])
            data = data[self.left :]
            self.done.append(self.hash.hexdigest())
            self.left, self.hash = CHUNK, hashlib.sha256()
        self.hash.update(data)
        self.left -= len(data)

    def digests(self) -> list[str]:
        return self.done if self.left == CHUNK else [*self.done, self.hash.hexdigest()]


def _opened_as_it_is(path: Path) -> tuple[Tensor, _Header]:
    """The pictures' bytes and the header of a file, checked when its state is a new one."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; {EXPECTED}")
    status = os.stat(path)
    return _opened(path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=2)
def _opened(path: Path, state: tuple[int, ...]) -> tuple[Tensor, _Header]:
    with open(path, "rb") as file:
        start = file.read(START.size)
        if not start.startswith(MAGIC):
            kind = kind_of_file(path)
            raise ImageError(path, f"not a folder{f' but {kind}' if kind else ''}; {EXPECTED}")
        if len(start) < START.size:
            raise ImageError(path, "truncated: a packed file without its beginning")
        _, version, at, length, digest = START.unpack(start)
        if version != VERSION:
            raise ImageError(path, f"a packed file of version {version}; version {VERSION} is read: pack it again")
        if at + length != state[2]:
            raise ImageError(path, f"truncated or damaged: {at + length:,} bytes are expected, got {state[2]:,}")
        file.seek(at)
        if hashlib.sha256(text := file.read(length)).digest() != digest:
            raise ImageError(path, "damaged: its header is not as it was written; pack it again")
    try:
        header, expected = _header_of(text)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ImageError(path, f"damaged: {type(error).__name__}: {error}") from error
    if expected != at - START.size:
        raise ImageError(path, f"damaged: {expected:,} bytes of pictures are expected, got {at - START.size:,}")
    mapped = np.memmap(path, np.uint8, "r", START.size, (expected,))
    starts = range(0, expected, CHUNK)
    with ThreadPoolExecutor() as threads:
        found = list(threads.map(lambda start: hashlib.sha256(mapped[start : start + CHUNK].data).hexdigest(), starts))
    wrong = [start for start, a, b in zip(starts, found, header.digests, strict=True) if a != b]
    if wrong:
        raise ImageError(path, f"damaged: bytes after {START.size + wrong[0]:,} are not as written; pack it again")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the map cannot be written to
        return torch.from_numpy(mapped), header


def _header_of(text: bytes) -> tuple[_Header, int]:
    """The header, and how many bytes its pictures take. KeyError, TypeError, ValueError: it is none."""
    told, total = json.loads(text), 0
    header = _Header(**told | {"splits": {split: _Split(**told["splits"][split]) for split in SPLITS}})
    for name, split in header.splits.items():
        for side in (*split.heights, *split.widths, *split.file_bytes):
            if not isinstance(side, int) or side < 1:
                raise ValueError(f"sizes of at least 1 are expected in {name}, got {side!r}")
        columns = zip(split.names, split.file_bytes, split.heights, split.widths, strict=True)
        total += sum(3 * height * width for _, _, height, width in columns)
    if len(header.digests) != -(-total // CHUNK):
        raise ValueError(f"{-(-total // CHUNK)} checksums are expected, got {len(header.digests)}")
    return header, total


def _reopened(path: Path, state: dict[str, Any]) -> PackedImages:
    images = PackedImages.__new__(PackedImages)
    images.__dict__.update(state)
    images.pixels = _opened_as_it_is(path)[0]
    return images
