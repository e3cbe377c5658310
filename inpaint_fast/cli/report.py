"""inpaint-fast report"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from inpaint_fast._names import printable
from inpaint_fast.cli._options import check_output, parse
from inpaint_fast.training.report import write_report


@dataclass
class Report:
    """One page about runs, side by side: curves of losses, held-out metrics and signals, held-out pictures over time,
    settings (those that differ marked) and warnings.

    The page is a single HTML file that loads nothing. A run may still be going on: what it has written is shown.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of runs."""
    out: Path = Path("report.html")
    """The page; an older one is replaced."""
    pictures: int = 12
    """At most so many pictures of each run, spread evenly over its time."""


def main(argv: Sequence[str]) -> int:
    """Run the command with these arguments; returns the exit code."""
    options = parse(Report, "inpaint-fast report", argv)
    check_output("--out", options.out, [".html"])
    left_out = write_report(options.runs, options.out, pictures=options.pictures)
    for sentence in left_out:
        print(f"left out: {printable(sentence)}", file=sys.stderr)
    print(f"{printable(options.out)}: {options.out.stat().st_size / 1e6:.1f} MB")
    return 1 if left_out else 0
