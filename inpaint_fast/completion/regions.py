"""Holes of any shape, filled by a `CompletionNetwork` in bounded regions round them.

The network answers for a whole picture, but a pixel of its answer depends on no pixel farther away than CONTEXT. So
only a region of that much context round a hole is given to it, aligned to its grid of 4 pixels: the answer is what the
whole picture would have given, and memory is bounded whatever the picture's size. A long hole takes several regions.
What is thicker than the holes that the network was trained on is reduced to their size, with its context, and the
answer enlarged; thickness is the side of the largest square that fits into the hole.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from inpaint_fast.completion.fills import paste
from inpaint_fast.completion.holes import Box, hole_boxes, thick_part, thickness, windows
from inpaint_fast.completion.scaling import Region, answer, enlarge_into, reduced
from inpaint_fast.data import Batch, to_uint8
from inpaint_fast.models.glcic import CompletionNetwork

CONTEXT = 156  # pixels: half of the receptive field is 153; a multiple of 4
TILE = 128  # pixels, as the network sees them: at most so much of a hole, each way, is filled from one region


def complete_holes(network: CompletionNetwork, batch: Batch, *, at_once: int = 16) -> Tensor:
    """A batch's holes filled, (N, 3, H, W), at most `at_once` pictures at a time; known pixels as they were."""
    parts = zip(batch.image.split(at_once), batch.mask.split(at_once), strict=True)
    return torch.cat([paste(network(image, mask), image, mask) for image, mask in parts])


def fill_regions(
    network: CompletionNetwork, picture: Tensor, hole: Tensor, part: Tensor, captions: Tensor | None = None
) -> Tensor:
    """Fill a part of the holes of a picture.

    Args:
        network: in eval mode.
        picture: uint8 (3, H, W); what it holds inside the hole does not matter.
        hole: bool (H, W), true in the hole.
        part: bool (H, W), true where to fill it.
        captions: None: it reads none.

    Returns:
        uint8 (3, H, W); pixels outside the part are the picture's own.
    """
    result, device = picture.clone(), network.mean_pixel.device
    for box, wanted, scale in _boxes(part, network.hole):
        region = _grown(box, round(CONTEXT / scale), hole.shape)
        size = region[2:] if scale == 1 else tuple(max(4, round(extent * scale / 4) * 4) for extent in region[2:])
        small, unknown = reduced(picture, hole, region, size)
        padded, padded_mask = _to_multiple_of_4(small[None]), _to_multiple_of_4(unknown[None].float())
        with torch.inference_mode():
            filled = answer(network(padded.to(device), padded_mask.to(device))[0, :, : size[0], : size[1]])
        if scale == 1:
            _write(result, wanted, box, region, filled)
        else:
            enlarge_into(result, wanted, box, region, filled)
    return result


def _boxes(part: Tensor, thickest: int) -> Iterator[tuple[Box, Tensor, float]]:
    """Boxes that hold what is to be filled, what that is, and the scale at which the network sees it."""
    thick = thick_part(part, thickest + 1)
    for box in hole_boxes(thick):
        top, left, bottom, right = box
        scale = thickest / thickness(thick[top:bottom, left:right])
        for window in windows(thick, box, round(TILE / scale)):
            yield window, thick, scale
    thin = part & ~thick
    for window in windows(thin, (0, 0, *thin.shape), TILE):
        yield window, thin, 1


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
