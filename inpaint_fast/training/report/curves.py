"""Curves as SVG: small enough to lie in a page a hundred times, coloured by the page's own style.

A plotting library writes ten times as much for one, with fonts and colours fixed, and ids that clash on one page.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from inpaint_fast.training.report.elements import Element, element, group

WIDTH, HEIGHT = 420, 230  # of a drawing, in its own units
TOP, RIGHT, BOTTOM = 10, 12, 34  # margins; the left one is as wide as its labels
CHARACTER = 6.6  # width of a digit
LOG_FROM = 100  # largest over smallest value, from which on an axis is logarithmic
UNITS = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """A line through these points, in the order given: one at least."""

    style: str
    """Classes of the page's style sheet."""
    points: Points


@dataclass
class Axis:
    """Values onto places along a side of the drawing, between two round ones; a few ticks."""

    low: float
    high: float
    start: float
    """Where `low` is drawn; `high` is at `end`."""
    end: float
    logarithmic: bool = False
    ticks: list[float] = field(init=False)

    def __post_init__(self) -> None:
        if self.logarithmic:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            step = max(1, math.ceil((last - first) / 5))
            self.ticks = [10.0**power for power in range(first, last + step, step)]
        else:
            if self.high - self.low <= 1e-9 * max(abs(self.low), abs(self.high)):  # one value alone
                margin = abs(self.low) / 10 or 1.0
                self.low, self.high = self.low - margin, self.high + margin
            step = round_step((self.high - self.low) / 4)
            first, last = math.floor(self.low / step + 1e-9), math.ceil(self.high / step - 1e-9)
            self.ticks = [count * step for count in range(first, last + 1)]
        self.low, self.high = self.ticks[0], self.ticks[-1]

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)


def round_step(rough: float) -> float:
    """1, 2 or 5 times a power of ten: the nearest that is not smaller."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def number(value: float) -> str:
    """A value in at most four digits: 0.01841, 16.5, 2500, 20k."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if 10 * unit <= abs(value) < 1e4 * unit or (letter == "M" and unit <= abs(value) < 1e9):
            return f"{value / unit:.4g}{letter}"
    return f"{value + 0.0:.4g}"


def unit_of(seconds: float) -> str:
    """What a time of this length is counted in."""
    return next((unit for unit, length in UNITS.items() if seconds >= 3 * length), "seconds")


def chart(curves: Sequence[Curve], levels: Mapping[str, float], along: str) -> Element:
    """A drawing.

    Args:
        curves: at least one.
        levels: name -> value to compare them with: a line across, with its name on it.
        along: "step" or "seconds": what the points' first numbers are.
    """
    points = [point for curve in curves for point in curve.points]
    xs, ys = [x for x, _ in points], [*(y for _, y in points), *levels.values()]
    logarithmic = min(ys) > 0 and max(ys) >= LOG_FROM * min(ys)
    up = Axis(min(ys), max(ys), HEIGHT - BOTTOM, TOP, logarithmic)
    labels = [number(tick) for tick in up.ticks]
    left = 10 + CHARACTER * max(map(len, labels))
    unit = unit_of(max(xs)) if along == "seconds" else "steps"
    length = UNITS.get(unit, 1)
    across = Axis(0, max(xs) / length or 1, left, WIDTH - RIGHT)
    parts = []
    for tick, label in zip(up.ticks, labels, strict=True):
        parts.append(element("path", d=f"M{left:g} {up(tick):g}H{WIDTH - RIGHT}", class_="rule"))
        parts.append(element("text", label, x=left - 6, y=up(tick) + 4, class_="end"))
    for tick in across.ticks:
        parts.append(element("text", number(tick), x=across(tick), y=HEIGHT - BOTTOM + 16, class_="middle"))
    parts.append(element("text", unit, x=WIDTH - RIGHT, y=HEIGHT - 3, class_="end"))
    if logarithmic:
        parts.append(element("text", "log scale", x=left + 4, y=TOP + 12))
    lowest = -math.inf
    for name, value in sorted(levels.items(), key=lambda level: -level[1]):
        lowest = max(up(value) - 4, lowest + 12, TOP + 4)  # names that would touch are moved apart
        parts.append(element("path", d=f"M{left:g} {up(value):g}H{WIDTH - RIGHT}", class_="level"))
        parts.append(element("text", name, x=WIDTH - RIGHT, y=lowest, class_="end name"))
    for curve in reversed(curves):  # the first run's on top
        parts.append(_line(curve.style, [(across(x / length), up(y)) for x, y in curve.points]))
    places = [[[across(x / length), up(y), number(x), number(y)] for x, y in curve.points] for curve in curves]
    return group(
        "svg", parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", class_=f"by-{along}", data_along=along, data_top=TOP,
        data_bottom=HEIGHT - BOTTOM, data_places=json.dumps(places, separators=(",", ":")),
    )  # fmt: skip


def _line(style: str, places: Points) -> Element:
    """Through these places of the drawing; where there is one alone, a dot."""
    if len(places) == 1:
        return element("circle", class_=f"dot {style}", cx=places[0][0], cy=places[0][1], r=3)
    return element("path", class_=f"line {style}", d="M" + "L".join(f"{x:g} {y:g}" for x, y in places))
