"""A trained generator, a picture and a mask to a completed picture; any size, any holes.

A generator that fills the centre of a small square (`UNetGenerator`: 32 of 64 pixels) is led over a picture hole by
hole: holes that lie close together are one; round each, a square twice its longer side is reduced to the generator's
size, other holes in it are closed harmonically, and the answer is enlarged into the hole. Memory stays bounded by the
picture itself, whatever the size of the hole.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inpaint_fast.completion.fills import harmonic, prefilled
from inpaint_fast.completion.holes import hole_boxes
from inpaint_fast.completion.weights import load_network
from inpaint_fast.data import CaptionEncoder, load_caption_encoder, read_image, to_float, to_uint8
from inpaint_fast.models.centre import CENTRE, PICTURE, CentreGenerator

MERGE = 8  # pixels: holes nearer than twice this are filled as one
SAMPLES = 8  # at most so many source pixels, in each direction, make one pixel of the generator's input
BATCH = 64  # holes given to the generator at a time
ROWS = 256  # rows of a hole that are enlarged at a time


def complete(
    image: Tensor | str | os.PathLike[str],
    mask: Tensor,
    *,
    weights: nn.Module | str | os.PathLike[str],
    device: torch.device | str | None = None,
    caption: str | Sequence[str] | None = None,
    caption_encoder: CaptionEncoder | None = None,
) -> Tensor:
    """Fill the holes of a picture.

    Args:
        image: uint8 (3, H, W), or the file to read it from; any size.
        mask: (1, H, W), true or 1 in the hole; any shape and number of holes. Without one the picture comes back as is.
        weights: a generator's safetensors file, a run's folder, or the generator itself, which is left as it is.
        device: where the generator runs; None: where it is (the CPU for a file).
        caption: of the picture, one or several; expected by generators that read captions.
        caption_encoder: what the generator was trained with; None: the one in the run's folder.

    Returns:
        uint8 (3, H, W); every pixel outside the mask is the picture's own, byte for byte.

    Raises:
        ValueError: shapes do not fit, or the hole covers the whole picture.
        ImageError, WeightsError: a file cannot be used.
    """
    picture = image if isinstance(image, Tensor) else read_image(image)
    if picture.dtype != torch.uint8 or picture.dim() != 3 or picture.shape[0] != 3:
        raise ValueError(f"image: a uint8 tensor (3, H, W) is expected, got {picture.dtype} {tuple(picture.shape)}")
    if mask.shape != (1, *picture.shape[1:]):
        raise ValueError(
            f"mask: shape (1, {picture.shape[1]}, {picture.shape[2]}) is expected, got {tuple(mask.shape)}"
        )
    hole = mask[0].cpu() > 0
    if not hole.any():
        return picture.clone()
    if hole.all():
        raise ValueError("mask: it covers the whole picture; nothing is left to complete it from")
    if isinstance(weights, nn.Module):
        generator = weights if device is None else copy.deepcopy(weights).to(device)
    else:
        generator = load_network(weights).to(device or "cpu")
        folder = Path(weights) if Path(weights).is_dir() else Path(weights).parent
        caption_encoder = caption_encoder or load_caption_encoder(folder)
    if not isinstance(generator, CentreGenerator):
        raise ValueError(f"weights: a generator that completes pictures is expected, got {type(generator).__name__}")
    captions = _encoded(generator, caption, caption_encoder)
    was_training = generator.training
    try:
        with torch.random.fork_rng(devices=[]):  # noise, where the hole is filled with it: always the same
            torch.manual_seed(0)
            return _fill_centres(picture, hole, generator.eval(), captions)
    finally:
        generator.train(was_training)


def _encoded(
    generator: CentreGenerator, caption: str | Sequence[str] | None, encoder: CaptionEncoder | None
) -> Tensor | None:
    """(1, captions, ...) for a generator that reads captions, None for another."""
    if not generator.reads_captions:
        if caption is not None:
            raise ValueError(f"caption: {type(generator).__name__} reads none")
        return None
    if caption is None:
        raise ValueError(f"caption: {type(generator).__name__} reads captions, got none")
    if encoder is None:
        raise ValueError("caption_encoder: that of the generator's training is expected, got none")
    return encoder([[caption] if isinstance(caption, str) else list(caption)])


@dataclass(frozen=True)
class _Square:
    """A square of the picture, of side `side` with its corner at (top, left), perhaps reaching over the edges."""

    top: float
    left: float
    side: float

    @staticmethod
    def around(box: tuple[int, int, int, int]) -> _Square:
        """Twice the longer side of the hole (top, left, bottom, right), never smaller than the generator's input."""
        top, left, bottom, right = box
        side = max(2 * (bottom - top), 2 * (right - left), PICTURE)
        return _Square((top + bottom - side) / 2, (left + right - side) / 2, side)


def _fill_centres(picture: Tensor, hole: Tensor, generator: CentreGenerator, captions: Tensor | None) -> Tensor:
    result, device = picture.clone(), next(generator.parameters()).device
    boxes = hole_boxes(hole, merge=MERGE)
    for start in range(0, len(boxes), BATCH):
        part = boxes[start : start + BATCH]
        squares = [_Square.around(box) for box in part]
        inputs = torch.stack([_reduced(picture, hole, square) for square in squares])
        centre = torch.zeros(1, 1, PICTURE, PICTURE, dtype=torch.bool)
        centre[..., CENTRE, CENTRE] = True
        words = () if captions is None else (captions.expand(len(part), *captions.shape[1:]).to(device),)
        with torch.inference_mode():
            filled = generator(prefilled(inputs, centre, generator.prefill).to(device), *words).float().cpu()
        completed = inputs.clone()
        completed[..., CENTRE, CENTRE] = filled
        for box, square, small in zip(part, squares, completed, strict=True):
            _enlarge_into(result, hole, box, square, small)
    return result


def _reduced(picture: Tensor, hole: Tensor, square: _Square) -> Tensor:
    """The square at the generator's size, (3, 64, 64) in [0, 1], its holes closed harmonically."""
    rows, columns = (
        _reflected(corner, square.side, length)
        for corner, length in zip((square.top, square.left), hole.shape, strict=True)
    )
    pixels = to_float(picture[:, rows][:, :, columns])
    known = (~hole[rows][:, columns]).float()[None]
    weight = F.adaptive_avg_pool2d(known, PICTURE)
    mean = F.adaptive_avg_pool2d(pixels * known, PICTURE) / weight.clamp(min=1e-6)
    return harmonic(mean[None], (weight == 0)[None])[0]


def _reflected(corner: float, side: float, length: int) -> Tensor:
    """Indices of samples over [corner, corner + side) of a line of `length` pixels, mirrored at its ends."""
    count = min(round(side), PICTURE * SAMPLES)
    position = torch.floor(corner + (torch.arange(count) + 0.5) * (side / count)).long()
    position = position % (2 * length)
    return torch.minimum(position, 2 * length - 1 - position)


def _enlarge_into(result: Tensor, hole: Tensor, box: tuple[int, int, int, int], square: _Square, small: Tensor) -> None:
    """Write the hole's pixels inside `box` from the generator's completed square, interpolated bilinearly."""
    top, left, bottom, right = box
    scale = 2 / square.side  # grid_sample's coordinates: -1 and 1 are the square's edges
    x = (torch.arange(left, right) + 0.5 - square.left) * scale - 1
    for row in range(top, bottom, ROWS):
        end = min(row + ROWS, bottom)
        y = (torch.arange(row, end) + 0.5 - square.top) * scale - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None].float()
        large = to_uint8(F.grid_sample(small[None], grid, align_corners=False, padding_mode="border"))[0]
        inside = hole[row:end, left:right]
        window = result[:, row:end, left:right]
        window.copy_(torch.where(inside, large, window))
