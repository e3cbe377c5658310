"""A trained generator, a picture and a mask to a completed picture; any size, any holes.

A `CompletionNetwork` fills holes anywhere: see `inpaint_fast.completion.regions`. A generator that fills the centre of
a small square (`UNetGenerator`: 32 of 64 pixels) is led over a picture hole by hole: holes that lie close together are
one; round each, a square twice its longer side is reduced to the generator's size, other holes in it are closed
harmonically, and the answer is enlarged into the hole. Memory stays bounded by the picture itself, whatever the size of
the hole.
"""

from __future__ import annotations

import copy
import os

import torch
from torch import Tensor, nn

from inpaint_fast.completion.blend import blend_holes, require_opencv
from inpaint_fast.completion.fills import harmonic
from inpaint_fast.completion.holes import hole_boxes
from inpaint_fast.completion.regions import fill_regions
from inpaint_fast.completion.scaling import Region, enlarge_into, reduced
from inpaint_fast.completion.weights import load_network
from inpaint_fast.data import read_image
from inpaint_fast.models.glcic import CompletionNetwork
from inpaint_fast.models.unet_wgan import HOLE, PICTURE

MERGE = 8  # pixels: holes nearer than twice this are filled as one
BATCH = 64  # holes given to the generator at a time


def complete(
    image: Tensor | str | os.PathLike[str],
    mask: Tensor,
    *,
    weights: nn.Module | str | os.PathLike[str],
    device: torch.device | str | None = None,
    blend: bool = False,
) -> Tensor:
    """Fill the holes of a picture.

    Args:
        image: uint8 (3, H, W), or the file to read it from; any size.
        mask: (1, H, W), true or 1 in the hole; any shape and number of holes. Without one the picture comes back as is.
        weights: a generator's safetensors file, a run's folder, or the generator itself, which is left as it is.
        device: where the generator runs; None: where it is (the CPU for a file).
        blend: draw the completion into the picture's colours at the holes' edges (`inpaint_fast.completion.blend`);
            needs OpenCV, the extra [blend].

    Returns:
        uint8 (3, H, W); every pixel outside the mask is the picture's own, byte for byte.

    Raises:
        ValueError: shapes do not fit, or the hole covers the whole picture.
        ImageError, WeightsError: a file cannot be used.
        RuntimeError: blending was asked for and OpenCV is not there.
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
    if blend:
        require_opencv()
    if not isinstance(weights, nn.Module):
        completed = _fill(picture, hole, load_network(weights).to(device or "cpu"))
    else:
        generator = weights if device is None else copy.deepcopy(weights).to(device)
        was_training = generator.training
        try:
            completed = _fill(picture, hole, generator.eval())
        finally:
            generator.train(was_training)
    return blend_holes(completed, picture, hole[None]) if blend else completed


def _fill(picture: Tensor, hole: Tensor, generator: nn.Module) -> Tensor:
    fill = fill_regions if isinstance(generator, CompletionNetwork) else _fill_centres
    return fill(picture, hole, generator)


def _around(box: tuple[int, int, int, int]) -> Region:
    """A square of twice the longer side of the hole (top, left, bottom, right), never smaller than the input."""
    top, left, bottom, right = box
    side = max(2 * (bottom - top), 2 * (right - left), PICTURE)
    return Region((top + bottom - side) / 2, (left + right - side) / 2, side, side)


def _fill_centres(picture: Tensor, hole: Tensor, generator: nn.Module) -> Tensor:
    result, device = picture.clone(), next(generator.parameters()).device
    boxes = hole_boxes(hole, merge=MERGE)
    for start in range(0, len(boxes), BATCH):
        part = boxes[start : start + BATCH]
        squares = [_around(box) for box in part]
        inputs = torch.stack([_closed(picture, hole, square) for square in squares])
        centre = torch.zeros(1, 1, PICTURE, PICTURE, dtype=torch.bool)
        edge = (PICTURE - HOLE) // 2
        centre[..., edge : edge + HOLE, edge : edge + HOLE] = True
        with torch.inference_mode():
            filled = generator(inputs.masked_fill(centre, 0).to(device)).float().cpu()
        completed = inputs.clone()
        completed[..., edge : edge + HOLE, edge : edge + HOLE] = filled
        for box, square, small in zip(part, squares, completed, strict=True):
            enlarge_into(result, hole, box, square, small)
    return result


def _closed(picture: Tensor, hole: Tensor, square: Region) -> Tensor:
    """The square at the generator's size, (3, 64, 64) in [0, 1], its holes closed harmonically."""
    small, unknown = reduced(picture, hole, square, (PICTURE, PICTURE))
    return harmonic(small[None], unknown[None])[0]
