"""Hole masks: bool tensors (1, H, W), 1 (True) marks the hole. Random ones draw from the given generator alone.

`mask_files` reads them from pictures, and `hole_of` from tensors of other types.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Generator, Tensor

ROUNDING = 1e-3  # what a soft mask may lie beyond 0 and 1

Sampler = Callable[[int, int, Generator], Tensor]
"""(height, width, generator) -> mask."""


def box(height: int, width: int, left: int, top: int, box_width: int, box_height: int) -> Tensor:
    """One rectangular hole.

    Args:
        height, width: of the picture, in pixels.
        left, top: of the hole: its first column and row.
        box_width, box_height: of the hole, in pixels.

    Returns:
        bool (1, height, width), True in the hole.

    Raises:
        ValueError: the box is empty or not wholly inside the picture.
    """
    _check_picture(height, width)
    for name, start, length_name, length, limit in (
        ("left", left, "box_width", box_width, width),
        ("top", top, "box_height", box_height, height),
    ):
        if start < 0:
            raise ValueError(f"{name} must be at least 0, got {start}")
        if length < 1:
            raise ValueError(f"{length_name} must be at least 1, got {length}")
        if start + length > limit:
            raise ValueError(
                f"{name} + {length_name} must be at most {limit} in a picture of {width} x {height}, "
                f"got {start} + {length}"
            )
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[:, top : top + box_height, left : left + box_width] = True
    return mask


def center_square(height: int, width: int, hole: int | None = None) -> Tensor:
    """A square hole in the middle.

    Args:
        height, width: of the picture, in pixels.
        hole: its side in pixels; by default half the smaller side: rows and columns 16..47 of 64.

    Returns:
        bool (1, height, width), True in the hole.

    Raises:
        ValueError: the hole does not fit into the picture.
    """
    _check_picture(height, width)
    hole = max(1, min(height, width) // 2) if hole is None else hole
    if not 1 <= hole <= min(height, width):
        raise ValueError(
            f"hole must be between 1 and {min(height, width)} in a picture of {width} x {height}, got {hole}"
        )
    return box(height, width, (width - hole) // 2, (height - hole) // 2, hole, hole)


def random_rectangle(height: int, width: int, generator: Generator, *, sides: tuple[int, int] = (48, 96)) -> Tensor:
    """One rectangular hole anywhere inside the picture, as GLCIC trains on (Iizuka et al. 2017).

    Args:
        height, width: of the picture.
        generator: the CPU generator to draw from.
        sides: smallest and largest side in pixels, both included; width and height of the hole are drawn separately
            and uniformly. The default is for pictures of 160 x 160.

    Returns:
        bool (1, height, width), True in the hole.

    Raises:
        ValueError: the largest side does not fit in the picture.
    """
    _check_picture(height, width)
    low, high = sides
    if not 1 <= low <= high <= min(height, width):
        raise ValueError(f"sides must satisfy 1 <= smallest <= largest <= {min(height, width)}, got {sides}")
    box_width = _integer(low, high, generator)
    box_height = _integer(low, high, generator)
    left = _integer(0, width - box_width, generator)
    top = _integer(0, height - box_height, generator)
    return box(height, width, left, top, box_width, box_height)


def free_form(
    height: int,
    width: int,
    generator: Generator,
    *,
    strokes: tuple[int, int] = (1, 4),
    vertices: tuple[int, int] = (4, 12),
    length: tuple[float, float] = (0.05, 0.4),
    brush: tuple[float, float] = (0.05, 0.15),
    angle: tuple[float, float] = (0.8, 1.7),
) -> Tensor:
    """Brush strokes, after the free-form masks of DeepFill v2 (Yu et al., Free-Form Image Inpainting with Gated
    Convolution, 2019, algorithm 1): each is a random walk of thick lines with round caps that zigzags about a
    heading, as a hand does that rubs something out. Never empty and never full.

    Args:
        height, width: of the picture; it needs at least 2 pixels.
        generator: the CPU generator to draw from.
        strokes: fewest and most strokes, both included.
        vertices: fewest and most vertices of a stroke after its start, both included.
        length: shortest and longest line between two vertices, as a fraction of the smaller side.
        brush: thinnest and thickest brush, as a fraction of the smaller side; one for each stroke, at least a pixel.
        angle: smallest and largest angle in radians between a line and the stroke's random heading, to the left and to
            the right of it in turn.

    Returns:
        bool (1, height, width), True in the hole.

    Raises:
        ValueError: a range, which is named, is reversed or not positive.
    """
    _check_picture(height, width)
    if height * width < 2:
        raise ValueError("height x width must be at least 2 pixels for a mask that is neither empty nor full, got 1")
    ranges = {"strokes": strokes, "vertices": vertices, "length": length, "brush": brush, "angle": angle}
    for name, (low, high) in ranges.items():
        if not 0 < low <= high:
            raise ValueError(f"{name} must be two positive numbers, the smaller first, got {(low, high)}")
    smaller = min(height, width)
    canvas = Image.new("L", (width, height))
    draw = ImageDraw.Draw(canvas)
    for _ in range(_integer(*strokes, generator)):
        steps = _integer(*vertices, generator)
        x, y = _integer(0, width - 1, generator), _integer(0, height - 1, generator)
        thickness, heading, *draws = torch.rand(2 + 2 * steps, generator=generator).tolist()
        radius = round(_between(brush, thickness) * smaller) // 2
        points = [(x, y)]
        for step in range(steps):
            swing = _between(angle, draws[2 * step])
            turn = heading * 2 * math.pi + (swing if step % 2 else -swing)
            reach = _between(length, draws[2 * step + 1]) * smaller
            x = min(max(round(x + reach * math.cos(turn)), 0), width - 1)
            y = min(max(round(y + reach * math.sin(turn)), 0), height - 1)
            points.append((x, y))
        draw.line(points, fill=255, width=2 * radius + 1)
        for x, y in points:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    mask = torch.from_numpy(np.array(canvas) > 0)[None]
    if mask.all():
        mask[0, _integer(0, height - 1, generator), _integer(0, width - 1, generator)] = False
    return mask


def hole_of(mask: Tensor, *, name: str = "mask") -> Tensor:
    """The hole that a mask of any type marks, as bool of the same shape; what is soft is cut at half.

    Args:
        mask: any shape; bool; floating point from 0 to 1, whose hole is 0.5 and more; integers 0 and 1, or from 0 to
            255, where the hole is 128 and more.
        name: of the argument, for the errors.

    Returns:
        bool, of the mask's shape.

    Raises:
        TypeError: it is complex.
        ValueError: it holds NaN or other values (a thousandth over or under counts as rounding), or some that are not 0
            but none that is half of what a hole has.
    """
    if mask.dtype == torch.bool or not mask.numel():
        return mask.bool()
    if mask.is_complex():
        raise TypeError(f"{name}: bool, floating point or integers are expected, got {mask.dtype}")
    low, high = (value.item() for value in mask.aminmax())  # NaN, where there is one
    soft = mask.is_floating_point()
    if not (low >= -ROUNDING and high <= (1 + ROUNDING if soft else 255)):
        expected = "between 0 and 1" if soft else "between 0 and 1 or 0 and 255"
        got = "NaN" if math.isnan(low) else f"{low:g} to {high:g}"
        raise ValueError(f"{name}: values {expected} are expected, got {got}")
    half = 0.5 if soft or high <= 1 else 128
    if ROUNDING < high < half:
        raise ValueError(f"{name}: its values reach {high:g} alone, and a hole has {half} and more")
    return mask >= half


def sampler(name: str, **options: object) -> Sampler:
    """A function (height, width, generator) -> mask, by name; it can be sent to another process.

    - "center": `center_square`. Options: hole.
    - "rectangle": `random_rectangle`. Options: sides; by default GLCIC's 48..96 of 160, scaled to the smaller side.
    - "free_form": `free_form`, with its options.
    - "everything": the whole picture is the hole, for systems that generate from nothing.

    Raises ValueError for another name and TypeError for an option that the mask does not have.
    """
    drawers = {"center": _center, "rectangle": _rectangle, "free_form": free_form, "everything": _everything}
    if name not in drawers:
        raise ValueError(f"mask must be one of {', '.join(map(repr, drawers))}, got {name!r}")
    inspect.signature(drawers[name]).bind(1, 1, None, **options)
    return partial(drawers[name], **options)


def _center(height: int, width: int, generator: Generator, *, hole: int | None = None) -> Tensor:
    return center_square(height, width, hole)


def _everything(height: int, width: int, generator: Generator) -> Tensor:
    return torch.ones(1, height, width, dtype=torch.bool)


def _rectangle(height: int, width: int, generator: Generator, *, sides: tuple[int, int] | None = None) -> Tensor:
    smaller = min(height, width)
    scaled = (max(1, round(smaller * 0.3)), max(1, round(smaller * 0.6)))
    return random_rectangle(height, width, generator, sides=sides or scaled)


def _check_picture(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be at least 1, got {height} and {width}")


def _integer(low: int, high: int, generator: Generator) -> int:
    """Uniform over low..high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _between(limits: tuple[float, float], draw: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * draw
