"""Laplace's equation in a small hole, solved once for all that may lie around it.

What a hole gets is linear in the known pixels that touch it, its ring. So one hole in many pictures takes one matrix,
from the ring to the hole, and filling it is a product: for the central 32 of 64 pixels 1024 x 128 numbers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from inpaint_fast._recent import Recent
from inpaint_fast.completion.laplace import PIXELS, STEPS

VALUES = 2**21  # pixels of a hole times those and its ring's, at most: some 0.1 s of work; the central hole has half
KEPT_BYTES = 64 << 20  # of matrices: those of fifty such holes


class HoleFill:
    """What fills one hole, in any picture of its size.

    Args:
        hole: bool (H, W), true in the hole; neither empty nor everything.
        device: of the pictures.
    """

    @torch.inference_mode(False)  # it outlives that
    def __init__(self, hole: Tensor, device: torch.device) -> None:
        self.size = hole.shape
        flat = hole.flatten().cpu()
        cells, own, neighbours = flat.nonzero()[:, 0], [], []
        for down, right in STEPS:
            row, column = cells // hole.shape[1] + down, cells % hole.shape[1] + right
            inside = (row >= 0) & (row < hole.shape[0]) & (column >= 0) & (column < hole.shape[1])
            own.append(inside.nonzero()[:, 0])
            neighbours.append((row * hole.shape[1] + column)[inside])
        rows, others = torch.cat(own), torch.cat(neighbours)
        ring = others[~flat[others]].unique()
        columns = torch.empty_like(flat, dtype=torch.int64)
        columns[cells], columns[ring] = torch.arange(len(cells)), torch.arange(len(ring)) + len(cells)
        equations = torch.zeros(len(cells), len(cells) + len(ring), dtype=torch.float64)
        equations[rows, columns[others]] = -1
        equations.diagonal().copy_(rows.bincount(minlength=len(cells)))
        system, known = equations.split([len(cells), len(ring)], dim=1)
        self.cells, self.ring = cells.to(device), ring.to(device)
        """int64 (cells,), (ring,): their places in a picture, flattened."""
        self.matrix = torch.cholesky_solve(-known, torch.linalg.cholesky(system)).T.contiguous().to(device)
        """float64 (ring, cells)."""

    @property
    def nbytes(self) -> int:
        return self.matrix.nbytes + self.cells.nbytes + self.ring.nbytes

    def values(self, picture: Tensor) -> Tensor:
        """What the hole gets in pictures (N, C, H, W) of any dtype: float64 (N, C, cells), NaN where the ring has any.

        It reads no tensor on the host. Raises ValueError for pictures of another size.
        """
        if picture.shape[2:] != self.size:
            raise ValueError(f"picture: size {tuple(self.size)} is expected, got {tuple(picture.shape[2:])}")
        return picture.detach().flatten(2)[..., self.ring].double() @ self.matrix

    def filled(self, picture: Tensor, values: Tensor) -> Tensor:
        """The pictures with these values in the hole; gradients flow to known pixels alone."""
        result = picture.clone(memory_format=torch.contiguous_format)
        result.flatten(2)[..., self.cells] = values
        return result


def fill_of(hole: Tensor, device: torch.device) -> HoleFill | None:
    """What fills the hole that all pictures have, bool (1, 1, H, W); None where it is not small, or empty."""
    if hole.numel() > PIXELS:
        return None
    array = hole[0, 0].cpu().numpy().view(np.uint8) != 0  # Pillow's True may be 255
    cells = int(np.count_nonzero(array))
    if not 0 < cells < array.size or cells * (cells + _ring_length(array)) > VALUES:
        return None
    key = array.shape, np.packbits(array).tobytes(), device
    return _fills.get(key, lambda _: HoleFill(torch.from_numpy(array), device))


def _ring_length(hole: np.ndarray) -> int:
    """How many pixels touch it."""
    grown = hole.copy()
    grown[1:] |= hole[:-1]
    grown[:-1] |= hole[1:]
    grown[:, 1:] |= hole[:, :-1]
    grown[:, :-1] |= hole[:, 1:]
    return int(np.count_nonzero(grown) - np.count_nonzero(hole))


_fills: Recent[tuple[tuple[int, ...], bytes, torch.device], HoleFill] = Recent(KEPT_BYTES)
