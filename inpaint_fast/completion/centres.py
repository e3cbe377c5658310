"""Holes filled by a `CentreGenerator`, which knows the central 32 of 64 pixels alone.

It is led over a picture piece by piece. What it answers for is a square, and nothing known inside that square reaches
it; so a hole that is no compact blob (an L, a ring, a long stroke) is cut into pieces that are. Round each, a square
twice its longer side is brought to the generator's size, all holes in it are closed harmonically, and the answer is
brought back. Memory stays bounded by the picture itself, whatever the size of the hole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from inpaint_fast.completion.fills import harmonic, paste, prefilled
from inpaint_fast.completion.holes import Box, hole_boxes, thickness, tight
from inpaint_fast.completion.scaling import Region, answer, enlarge_into, reduced
from inpaint_fast.completion.small_holes import fill_of
from inpaint_fast.data import Batch
from inpaint_fast.models.centre import CENTRE, PICTURE, CentreGenerator

AT_ONCE = 64  # pieces given to the generator at a time
HOLE = torch.zeros(1, 1, PICTURE, PICTURE, dtype=torch.bool)
HOLE[..., CENTRE, CENTRE] = True


def generator_inputs(
    generator: CentreGenerator, image: Tensor, mask: Tensor, captions: Tensor | None
) -> tuple[Any, ...]:
    """What it is called with: the prefilled pictures, and captions where it reads them."""
    if generator.prefill == "harmonic":  # a known hole: no mask is read, so that a GPU is not waited for
        fill = fill_of(HOLE, image.device)
        picture = fill.filled(image, fill.values(image).to(image.dtype))
    else:
        picture = prefilled(image, mask, generator.prefill)
    return (picture, captions) if generator.reads_captions else (picture,)


def complete_centres(generator: CentreGenerator, batch: Batch) -> Tensor:
    """A batch's central holes filled, (N, 3, 64, 64) in [0, 1]; known pixels as they were."""
    picture = batch.image.clone()
    picture[..., CENTRE, CENTRE] = generator(*generator_inputs(generator, *batch))
    return paste(picture, batch.image, batch.mask).clamp(0, 1)


def fill_centres(
    generator: CentreGenerator,
    picture: Tensor,
    hole: Tensor,
    part: Tensor,
    captions: Tensor | None,
    told: Callable[[float], object] = lambda done: None,
) -> Tensor:
    """Fill a part of the holes of a picture.

    Args:
        generator: in eval mode.
        picture: uint8 (3, H, W); what it holds inside the hole does not matter.
        hole: bool (H, W), true in the hole.
        part: bool (H, W), true where to fill it.
        captions: (1, captions, ...), encoded, where the generator reads them.
        told: called with the fraction of the work that is done.

    Returns:
        uint8 (3, H, W); pixels outside the part are the picture's own.
    """
    result, device = picture.clone(), next(generator.parameters()).device
    boxes = [piece for box in hole_boxes(part) for piece in _pieces(part, box)]
    for start in range(0, len(boxes), AT_ONCE):
        some = boxes[start : start + AT_ONCE]
        squares = [_around(box) for box in some]
        small, unknown = zip(*(reduced(picture, hole, square, (PICTURE, PICTURE)) for square in squares), strict=True)
        completed = harmonic(torch.stack(small), torch.stack(unknown), tolerance=1e-3)
        words = None if captions is None else captions.expand(len(some), *captions.shape[1:])
        inputs = generator_inputs(generator, completed, HOLE, words)
        with torch.inference_mode():
            completed[..., CENTRE, CENTRE] = answer(generator(*(tensor.to(device) for tensor in inputs)))
        for box, square, filled in zip(some, squares, completed, strict=True):
            enlarge_into(result, part, box, square, filled)
        told(min(1.0, (start + AT_ONCE) / len(boxes)))
    return result


def _pieces(part: Tensor, box: Box) -> Iterator[Box]:
    """Boxes that together hold what the part has inside a box, halved until each is compact.

    Compact: hardly longer than wide, and half as long as it is a square fits in, as into a disc or a triangle.
    """
    if (found := tight(part, box)) is None:
        return
    top, left, bottom, right = box = found
    height, width = bottom - top, right - left
    side = max(height, width)
    if side <= 1.5 * min(height, width) and side <= 2 * thickness(part[top:bottom, left:right]) + 2:
        yield box
    elif height == side:
        yield from _pieces(part, (top, left, top + side // 2, right))
        yield from _pieces(part, (top + side // 2, left, bottom, right))
    else:
        yield from _pieces(part, (top, left, bottom, left + side // 2))
        yield from _pieces(part, (top, left + side // 2, bottom, right))


def _around(box: Box) -> Region:
    """A square of twice the longer side, about the same centre."""
    top, left, bottom, right = box
    side = 2 * max(bottom - top, right - left)
    return Region((top + bottom - side) / 2, (left + right - side) / 2, side, side)
