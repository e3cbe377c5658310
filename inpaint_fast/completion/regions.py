"""Holes of any shape, filled by a `CompletionNetwork` in bounded regions round them.

The network answers for a whole picture, but a pixel of its answer depends on no pixel farther away than CONTEXT. So
only a region of that much context round a hole is given to it, aligned to its grid of 4 pixels: the answer is what the
whole picture would have given, and memory is bounded whatever the picture's size. Near holes share a region. A hole
longer than those the network was trained on is reduced to that length, with its context, and the answer enlarged.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from inpaint_fast.completion.fills import paste
from inpaint_fast.completion.holes import MERGE, hole_boxes
from inpaint_fast.completion.scaling import Region, answer, enlarge_into, reduced
from inpaint_fast.data import Batch, to_uint8
from inpaint_fast.models.glcic import CompletionNetwork

CONTEXT = 156  # pixels: half of the receptive field is 153; a multiple of 4
TILE = 128  # pixels: holes whose centres lie in one square of this size are filled in one region

Box = tuple[int, int, int, int]


def complete_holes(network: CompletionNetwork, batch: Batch, *, at_once: int = 16) -> Tensor:
    """A batch's holes filled, (N, 3, H, W), at most `at_once` pictures at a time; known pixels as they were."""
    parts = zip(batch.image.split(at_once), batch.mask.split(at_once), strict=True)
    return torch.cat([paste(network(image, mask), image, mask) for image, mask in parts])


def fill_regions(network: CompletionNetwork, picture: Tensor, hole: Tensor, captions: Tensor | None = None) -> Tensor:
    """Fill the holes of a picture.

    Args:
        network: in eval mode.
        picture: uint8 (3, H, W); what it holds inside the hole does not matter.
        hole: bool (H, W), true in the hole.
        captions: None: it reads none.

    Returns:
        uint8 (3, H, W); pixels outside the hole are the picture's own.
    """
    result, device = picture.clone(), network.mean_pixel.device
    for boxes, region, size in _regions(hole_boxes(hole, merge=MERGE), hole.shape, network.hole):
        small, unknown = reduced(picture, hole, region, size)
        padded, padded_mask = _to_multiple_of_4(small[None]), _to_multiple_of_4(unknown[None].float())
        with torch.inference_mode():
            filled = answer(network(padded.to(device), padded_mask.to(device))[0, :, : size[0], : size[1]])
        for box in boxes:
            if size == region[2:]:
                _write(result, hole, box, region, filled)
            else:
                enlarge_into(result, hole, box, region, filled)
    return result


def _regions(
    boxes: list[Box], shape: tuple[int, int], longest: int
) -> Iterator[tuple[list[Box], Region, tuple[int, int]]]:
    """The boxes that are filled together, the region to fill them from, and its size as the network sees it."""
    tiles: dict[tuple[int, int], list[Box]] = {}
    for box in boxes:
        top, left, bottom, right = box
        length = max(bottom - top, right - left)
        if length <= longest:
            tiles.setdefault(((top + bottom) // 2 // TILE, (left + right) // 2 // TILE), []).append(box)
        else:
            scale = longest / length
            region = _grown(box, round(CONTEXT / scale), shape)
            yield [box], region, tuple(max(4, round(extent * scale / 4) * 4) for extent in region[2:])
    for together in tiles.values():
        tops, lefts, bottoms, rights = zip(*together, strict=True)
        region = _grown((min(tops), min(lefts), max(bottoms), max(rights)), CONTEXT, shape)
        yield together, region, region[2:]


def _grown(box: Box, margin: int, shape: tuple[int, int]) -> Region:
    """The box with a margin, its top left corner on the network's grid, cut off at the picture's edges."""
    top, left = (max(0, start - margin) // 4 * 4 for start in box[:2])
    bottom, right = (min(length, end + margin) for end, length in zip(box[2:], shape, strict=True))
    return Region(top, left, bottom - top, right - left)


def _to_multiple_of_4(x: Tensor) -> Tensor:
    """Rows and columns at the bottom and the right repeated until height and width are multiples of 4."""
    return F.pad(x, (0, -x.shape[-1] % 4, 0, -x.shape[-2] % 4), mode="replicate")


def _write(result: Tensor, hole: Tensor, box: Box, region: Region, filled: Tensor) -> None:
    top, left, bottom, right = box
    part = filled[:, top - region.top : bottom - region.top, left - region.left : right - region.left]
    window = result[:, top:bottom, left:right]
    window.copy_(torch.where(hole[top:bottom, left:right], to_uint8(part), window))
