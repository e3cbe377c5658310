"""inpaint-fast export"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from inpaint_fast._names import printable
from inpaint_fast.cli._options import check_output, parse
from inpaint_fast.completion import export, load_network
from inpaint_fast.completion.graph import SUFFIXES


@dataclass
class Export:
    """Write a GLCIC completion network as ONNX or as a torch.export program, for pictures of any size.

    The graph is compared with the network before it is written. Its inputs: picture, RGB in [0, 1], and mask, at
    least 0.5 in the hole; heights and widths are multiples of 4.
    """

    weights: Annotated[Path, tyro.conf.Positional]
    """A safetensors file, or a run's folder."""
    out: Path
    """The file to write: .onnx (needs the extra [onnx]) or .pt2."""


def main(argv: Sequence[str]) -> int:
    """Run the command with these arguments; returns the exit code."""
    options = parse(Export, "inpaint-fast export", argv)
    check_output("--out", options.out, SUFFIXES, weights=options.weights)
    difference = export(load_network(options.weights), options.out)
    size = options.out.stat().st_size / 1e6
    print(f"{printable(options.out)}: {size:.1f} MB, within {difference:.0e} of the network")
    return 0
