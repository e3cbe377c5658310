"""Runs as one page to look at: `inpaint-fast report`.

`runs`: what is read of their folders; `page`: what stands where; `curves`, `elements`: its drawings and its HTML;
`page.css`, `page.js`: how it looks, and what moves.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from inpaint_fast._files import write_whole
from inpaint_fast.training.report.page import GENERATOR, page
from inpaint_fast.training.report.runs import RecordedRun, read_runs

__all__ = ["RecordedRun", "read_runs", "write_report"]


def write_report(
    runs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], *, pictures: int = 12
) -> list[str]:
    """Write a page about these runs, side by side: curves, held-out pictures, settings, warnings. It is one file.

    Args:
        runs: a run's folder, or several. A run may still be going on: what it has written is shown.
        out: the page's file; an older page of this kind is replaced.
        pictures: at most so many of each run, spread evenly over its time.

    Returns:
        A sentence for each run, row and picture that is left out, because it is none or damaged.

    Raises:
        FileNotFoundError, ValueError: no run can be read; it is the reason of the first.
        ValueError: a run is named twice, or pictures is less than 1.
        FileExistsError: `out` is something else than such a page.
    """
    if pictures < 1:
        raise ValueError(f"pictures: at least 1 is expected, got {pictures}")
    out = Path(out)
    if out.exists() and (not out.is_file() or f'content="{GENERATOR}"'.encode() not in out.read_bytes()[:4096]):
        raise FileExistsError(f"{out} is no report of this command, and would be written over; name another file")
    read, left_out = read_runs([runs] if isinstance(runs, str | os.PathLike) else runs)
    text, no_pictures = page(read, pictures=pictures)
    write_whole(out, lambda file: file.write(text.encode()))
    return left_out + no_pictures
