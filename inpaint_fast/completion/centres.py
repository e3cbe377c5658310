"""Holes filled by a `CentreGenerator`, which knows the central 32 of 64 pixels alone.

It is led over a picture hole by hole: holes that lie close together are one; round each, a square twice its longer side
is reduced to the generator's size, other holes in it are closed harmonically, and the answer is enlarged into the hole.
Memory stays bounded by the picture itself, whatever the size of the hole.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inpaint_fast.completion.fills import harmonic, paste, prefilled
from inpaint_fast.completion.holes import MERGE, hole_boxes
from inpaint_fast.completion.scaling import Region, answer, enlarge_into, reduced
from inpaint_fast.data import Batch
from inpaint_fast.models.centre import CENTRE, PICTURE, CentreGenerator

AT_ONCE = 64  # holes given to the generator at a time


def generator_inputs(
    generator: CentreGenerator, image: Tensor, mask: Tensor, captions: Tensor | None
) -> tuple[Tensor, ...]:
    """What it is called with: the prefilled pictures, and captions where it reads them."""
    picture = prefilled(image, mask, generator.prefill)
    return (picture, captions) if generator.reads_captions else (picture,)


def complete_centres(generator: CentreGenerator, batch: Batch) -> Tensor:
    """A batch's central holes filled, (N, 3, 64, 64) in [0, 1]; known pixels as they were."""
    picture = batch.image.clone()
    picture[..., CENTRE, CENTRE] = generator(*generator_inputs(generator, *batch))
    return paste(picture, batch.image, batch.mask).clamp(0, 1)


def fill_centres(generator: CentreGenerator, picture: Tensor, hole: Tensor, captions: Tensor | None) -> Tensor:
    """Fill the holes of a picture.

    Args:
        generator: in eval mode.
        picture: uint8 (3, H, W); what it holds inside the hole does not matter.
        hole: bool (H, W), true in the hole.
        captions: (1, captions, ...), encoded, where the generator reads them.

    Returns:
        uint8 (3, H, W); pixels outside the hole are the picture's own.
    """
    result, device = picture.clone(), next(generator.parameters()).device
    boxes = hole_boxes(hole, merge=MERGE)
    centre = torch.zeros(1, 1, PICTURE, PICTURE, dtype=torch.bool)
    centre[..., CENTRE, CENTRE] = True
    for start in range(0, len(boxes), AT_ONCE):
        part = boxes[start : start + AT_ONCE]
        squares = [_around(box) for box in part]
        completed = torch.stack([_closed(picture, hole, square) for square in squares])
        words = None if captions is None else captions.expand(len(part), *captions.shape[1:])
        inputs = generator_inputs(generator, completed, centre, words)
        with torch.inference_mode():
            completed[..., CENTRE, CENTRE] = answer(generator(*(tensor.to(device) for tensor in inputs)))
        for box, square, small in zip(part, squares, completed, strict=True):
            enlarge_into(result, hole, box, square, small)
    return result


def _around(box: tuple[int, int, int, int]) -> Region:
    """A square of twice the longer side of the hole (top, left, bottom, right), never smaller than the input."""
    top, left, bottom, right = box
    side = max(2 * (bottom - top), 2 * (right - left), PICTURE)
    return Region((top + bottom - side) / 2, (left + right - side) / 2, side, side)


def _closed(picture: Tensor, hole: Tensor, square: Region) -> Tensor:
    """The square at the generator's size, (3, 64, 64) in [0, 1], its holes closed harmonically."""
    small, unknown = reduced(picture, hole, square, (PICTURE, PICTURE))
    return harmonic(small[None], unknown[None])[0]
