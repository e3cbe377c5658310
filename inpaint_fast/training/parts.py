"""A batch in parts, which go through the networks one after another, so that less memory does."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor


def part_count(rows: int, most: int | None) -> int:
    """How many parts of at most so many rows it takes; None: one."""
    return math.ceil(rows / (most or rows))


def parts_of(count: int, *wholes: Any) -> Iterator[tuple[Any, ...]]:
    """So many parts of nearly one size.

    Args:
        count: of the parts.
        wholes: tensors of one number of rows, and tuples (a `Batch`) of such; None stays None.

    Yields:
        For each part its share of the rows, and its rows of each whole.
    """
    rows = _rows(wholes[0])
    for part in zip(*(_split(whole, count) for whole in wholes), strict=True):
        yield _rows(part[0]) / rows, *part


def note(measured: dict[str, Tensor], share: float, **values: Tensor) -> None:
    """Add what was measured of a part to what was measured of the batch, a mean over its parts."""
    for name, value in values.items():
        measured[name] = measured.get(name, 0) + share * value.detach()


def _rows(whole: Any) -> int:
    return len(whole) if isinstance(whole, Tensor) else len(whole[0])


def _split(whole: Any, count: int) -> list[Any]:
    if whole is None:
        return [None] * count
    if isinstance(whole, Tensor):
        return list(whole.tensor_split(count))
    fields = zip(*(_split(each, count) for each in whole), strict=True)
    return [type(whole)(*each) if hasattr(whole, "_fields") else tuple(each) for each in fields]
