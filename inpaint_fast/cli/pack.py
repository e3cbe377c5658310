"""inpaint-fast pack"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from inpaint_fast._names import printable
from inpaint_fast.cli._options import parse
from inpaint_fast.data import PackedImages, open_images, pack


@dataclass
class Pack:
    """Decode the pictures of a folder once, into one file that stands in for it: --data FILE, in every command.

    It holds the pictures with their names, split and captions, and checksums of all that. A run with it makes the
    batches that it would have made of the folder, bit for bit, and decodes nothing. With --short-side the pictures are
    made smaller first: a smaller file, smaller crops to choose from, and batches that are made faster.
    """

    data: Annotated[str, tyro.conf.Positional]
    """The folder, in any layout that --data takes, or "samples"."""
    file: Annotated[Path, tyro.conf.Positional]
    """The file to write; whole or not at all."""
    short_side: int | None = None
    """Pictures whose shorter side is longer are scaled down to so many pixels; by default none is."""


def main(argv: Sequence[str]) -> int:
    """Run the command with these arguments; returns the exit code."""
    options = parse(Pack, "inpaint-fast pack", argv)
    skipped = pack(options.data, options.file, short_side=options.short_side, progress=True)
    for path, reason in skipped.items():
        print(f"left out: {printable(path)}: {printable(reason)}")
    train, heldout = (open_images(options.file, split) for split in ("train", "heldout"))
    captions = "with captions" if isinstance(train, PackedImages) and train.captions else "without captions"
    print(
        f"{printable(options.file)}: {len(train)} pictures to train on, {len(heldout)} held out, {captions}, "
        f"{options.file.stat().st_size / 1e6:.1f} MB"
    )
    return 1 if skipped else 0
