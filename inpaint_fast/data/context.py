"""Batches for the local and global context discriminators of GLCIC: rectangular holes, and the patches to look at."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from inpaint_fast.data.batches import Batch, Batches, generator_of
from inpaint_fast.data.masks import Sampler, random_rectangle


class ContextBatch(NamedTuple):
    """Pictures, their holes, and the top left corners of two patches in each."""

    image: Tensor
    """(N, 3, size, size) float32 in [0, 1]."""
    mask: Tensor
    """(N, 1, size, size) bool; 1 marks the hole."""
    hole_corner: Tensor
    """int64 (N, 2), top and left of the patch round the hole, for the completed picture."""
    real_corner: Tensor
    """int64 (N, 2), top and left of a random patch, for the real picture."""

    map = Batch.map


class ContextBatches(Batches):
    """`Batches` whose holes are rectangles, with a patch round each hole and one elsewhere for the real picture.

    The patch is centred on the hole and moved into the picture where it would reach over its edge; the real picture's
    is placed so on a second hole, drawn like the first, so that nothing about its place tells the two apart.

    Args:
        images, size, batch_size, crop, edge, flip, seed: as `Batches`.
        local: side of the patches, in pixels.
        hole: smallest and largest side of the holes; width and height are drawn separately.
        one_area: True, as in otenim's program: a random square of `local` pixels is drawn once for the batch and all
            its holes lie somewhere inside; that square is the patch, and another one that of the real pictures.

    Raises:
        ValueError: as `Batches`; or the holes do not fit in the patch, or the patch in the picture.
    """

    def __init__(
        self,
        images: Sequence[Tensor],
        *,
        size: int,
        local: int,
        hole: tuple[int, int],
        one_area: bool = False,
        **options: Any,
    ):
        if not local <= size:
            raise ValueError(f"local must be at most the size {size}, got {local}")
        super().__init__(images, size=size, mask=rectangles(hole, local if one_area else None), **options)
        if not hole[1] <= local:
            raise ValueError(f"hole must fit in the local patch of {local}, got {hole}")
        self.local = local
        self.hole = hole
        self.one_area = one_area

    def rows(self, index: int, kept: slice) -> ContextBatch:
        image, mask, _ = super().rows(index, kept)
        generator = generator_of(self.seed, "patches", index)
        if self.one_area:
            corners = torch.randint(self.size - self.local + 1, (2, 2), generator=generator)
            mask = mask.roll(corners[0].tolist(), dims=(2, 3))
            hole_corner, real_corner = (corner.repeat(len(image), 1) for corner in corners)
            return ContextBatch(image, mask, hole_corner, real_corner)
        others = [random_rectangle(self.size, self.size, generator, sides=self.hole) for _ in range(self.batch_size)]
        hole_corner, real_corner = (patch_corners(holes, self.local) for holes in (mask, torch.stack(others)[kept]))
        return ContextBatch(image, mask, hole_corner, real_corner)


def rectangles(sides: tuple[int, int], area: int | None = None) -> Sampler:
    """A mask sampler: one rectangle with sides in this range, anywhere or in the top left square of side `area`."""
    return partial(_rectangle_in, sides=sides, area=area)


def _rectangle_in(height: int, width: int, generator: Generator, *, sides: tuple[int, int], area: int | None) -> Tensor:
    if area is None:
        return random_rectangle(height, width, generator, sides=sides)
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[:, :area, :area] = random_rectangle(area, area, generator, sides=sides)
    return mask


def patch_corners(mask: Tensor, side: int) -> Tensor:
    """Where a square patch centred on each hole begins, moved so that it lies inside the picture.

    Args:
        mask: bool (N, 1, H, W), a hole in each.
        side: of the patch, at most H and W.

    Returns:
        int64 (N, 2), top and left.
    """
    corners = []
    for axis, length in ((3, mask.shape[2]), (2, mask.shape[3])):
        line = mask.any(dim=axis)[:, 0].byte()  # (N, length), 1 where a row or column meets the hole
        first = line.argmax(dim=1)
        last = length - 1 - line.flip(1).argmax(dim=1)
        corners.append(((first + last + 1 - side) // 2).clamp(0, length - side))
    return torch.stack(corners, dim=1)
