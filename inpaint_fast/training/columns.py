"""What the columns of a run's rows are, by their names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from inpaint_fast.completion.fills import FILLS
from inpaint_fast.training.metrics import METRICS

HELD_OUT = (*METRICS, "diversity")
PLACE = ("step", "seconds")


class Columns(NamedTuple):
    """Columns of one kind each, in the order that they have in the rows."""

    heldout: list[str]
    """Metrics of the system's own pictures."""
    fills: dict[str, tuple[str, str]]
    """Metrics of the fills that learn nothing: column -> fill, metric."""
    losses: list[str]
    signals: list[str]
    """Everything else but the row's place."""


def columns_of(names: Iterable[str]) -> Columns:
    """These columns, sorted."""
    names = list(dict.fromkeys(names))
    heldout = [name for name in HELD_OUT if name in names]
    fills = {f"{fill}_{metric}": (fill, metric) for fill in FILLS for metric in heldout}
    fills = {name: fills[name] for name in names if name in fills}
    losses = [name for name in names if name.endswith("_loss")]
    known = {*PLACE, *heldout, *fills, *losses}
    return Columns(heldout, fills, losses, [name for name in names if name not in known])
