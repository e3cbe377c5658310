"""Which backend runs unasked on a GPU: what was measured on GPUs of its kind, in fastest.csv beside this file.

A row: on a GPU of this compute capability, calls of this kind ("training" where a gradient is wanted or the statistics
are the batch's, otherwise "inference") of at least this size run this backend. The size is that of the smallest call
for which it was measured to be faster than PyTorch's own operators, as a user calls them, in every dtype and layout
that was measured; for smaller calls, and where no row is, these run. `ours_ms`, `pytorch_ms`, `case` and `commit` are
the measurement.

Sizes are multiplications of a convolution by its definition, or elements of what is normalised.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple


class Fastest(NamedTuple):
    """A backend, and the size from which on it is the fastest."""

    backend: str
    least: int


def read_table(path: Path) -> dict[tuple[str, tuple[int, int], str], Fastest]:
    """(operator, compute capability, kind) -> what is the fastest there.

    Raises:
        ValueError: a row is none; the message tells which.
    """
    table = {}
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            try:
                major, minor = map(int, row["capability"].split("."))
                key = row["operator"], (major, minor), row["kind"]
                found = Fastest(row["backend"], int(row["least"]))
                faster = float(row["ours_ms"]) < float(row["pytorch_ms"])
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            if key[2] not in KINDS or found.backend not in ("cuda", "triton") or key in table or not faster:
                raise ValueError(f"{path}, line {number}: a kind, a backend that was faster and no second row for "
                                 f"the same are expected, got {row}")  # fmt: skip
            table[key] = found
    return table


KINDS = ("inference", "training")
TABLE = read_table(Path(__file__).with_name("fastest.csv"))


def fastest(operator: str, capability: tuple[int, int], kind: str, size: int | None) -> str | None:
    """The backend that was measured to be the fastest; None: PyTorch's own operators are, or nothing was measured.

    Args:
        size: as above; None: any that is large enough.
    """
    found = TABLE.get((operator, capability, kind))
    return None if found is None or (size is not None and size < found.least) else found.backend
