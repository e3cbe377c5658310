"""MNIST's idx files (LeCun, Cortes and Burges), plain or gzipped, as pictures.

Format: two zero bytes, the type (8: unsigned byte), the number of dimensions, each dimension as a big-endian 32-bit
integer, then the values, the last dimension fastest.
"""

from __future__ import annotations

import copy
import gzip
import hashlib
import os
import zlib
from collections.abc import Collection, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inpaint_fast.data.folder import evenly
from inpaint_fast.data.images import ImageError

_SAMPLES = Path(__file__).parent / "samples" / "digits"
_FILES = {"train": "train", "heldout": "t10k"}


def read_idx(path: str | os.PathLike[str]) -> Tensor:
    """Read a file of MNIST's format.

    Args:
        path: of a file of unsigned bytes, gzipped where its name ends in .gz.

    Returns:
        uint8, any shape: that of its heading.

    Raises:
        FileNotFoundError; ImageError: no idx file of unsigned bytes, or not as long as its heading says.
    """
    path = Path(path)
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ImageError(path, f"not a whole gzip file ({error})") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise ImageError(path, "an idx file of unsigned bytes is expected")
    start = 4 + 4 * data[3]
    sizes = [int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4)]
    if len(data) != start + prod(sizes):
        raise ImageError(path, f"{prod(sizes)} bytes are expected for {sizes}, got {max(len(data) - start, 0)}")
    return torch.frombuffer(bytearray(data[start:]), dtype=torch.uint8).view(sizes)


class Digits(Sequence[Tensor]):
    """One split of a folder of MNIST files: `digits[i]` is a uint8 tensor (3, 28, 28), grey as three equal channels.

    Args:
        data: "samples", the slice that comes with the package, or a folder that holds train-images-idx3-ubyte and
            t10k-images-idx3-ubyte, plain or with .gz.
        split: "train" or "heldout" (the t10k files).

    Raises:
        FileNotFoundError: names the file; ImageError: it is damaged; ValueError: another split.
    """

    skipped: dict[Path, str] = {}

    def __init__(self, data: str | os.PathLike[str] = "samples", split: str = "train") -> None:
        if split not in _FILES:
            raise ValueError(f"split must be one of {', '.join(map(repr, _FILES))}, got {split!r}")
        folder = _SAMPLES if data == "samples" else Path(data)
        name = f"{_FILES[split]}-images-idx3-ubyte"
        found = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
        if not found:
            raise FileNotFoundError(f"{folder / name} (or {name}.gz): MNIST's {split} pictures are expected there")
        self.path = found[0]
        self.images = read_idx(self.path)
        if self.images.dim() != 3:
            raise ImageError(self.path, f"pictures (N, H, W) are expected, got {tuple(self.images.shape)}")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index].expand(3, -1, -1)

    def spread(self, count: int) -> Digits:
        """At most `count` of the digits, spread evenly over all of them."""
        part = copy.copy(self)
        part.images = self.images[evenly(len(self), count)]
        return part

    def summary(self, told: Collection[Path] = ()) -> str:
        """One sentence: "1600 digits in train-images-idx3-ubyte.gz"."""
        return f"{len(self)} digits in {self.path.name}"

    def fingerprint(self) -> str:
        """SHA-256 of the digits: whether they are the same."""
        array: Any = self.images.contiguous().numpy()
        return hashlib.sha256(array).hexdigest()
