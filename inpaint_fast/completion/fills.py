"""Fills that learn nothing: what every trained network must be compared with.

`ring_mean` is strong where a hole lies in a plain surface; `harmonic` is hard to beat in PSNR and easy in sharpness.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from inpaint_fast.completion.laplace import NOT_FINITE, solve_laplace
from inpaint_fast.completion.small_holes import fill_of
from inpaint_fast.data import hole_of

NOTHING_KNOWN = 0.5  # what stands in a hole that covers the whole picture


def ring_mean(picture: Tensor, mask: Tensor, *, width: int = 2) -> Tensor:
    """Fill the hole with the mean colour of the ring around it.

    Args:
        picture: (N, C, H, W), any range; what it holds inside the hole does not matter.
        mask: (N|1, 1, H, W), true or 1 in the hole.
        width: of the ring, in pixels.

    Returns:
        (N, C, H, W): the picture, its hole filled. Where the hole covers everything: 0.5.
    """
    hole = _hole(picture, mask)
    grown = F.max_pool2d(hole.float(), 2 * width + 1, stride=1, padding=width) > 0
    mean = _mean(picture, grown & ~hole)
    return paste(_in_dtype(mean, picture.dtype), picture, hole)


def harmonic(
    picture: Tensor,
    mask: Tensor,
    *,
    tolerance: float | None = None,
    max_steps: int = 100,
    told: Callable[[float], object] | None = None,
) -> Tensor:
    """Fill the hole with the solution of Laplace's equation, the known pixels around it as boundary values.

    Each hole pixel becomes the mean of its neighbours (four, fewer at the picture's edge). Time and memory go by the
    hole's pixels; a small hole that is the same in all pictures is one matrix product, exact to rounding
    (`completion.small_holes`).

    Args:
        picture: (N, C, H, W), any range; what it holds inside the hole does not matter.
        mask: (N|1, 1, H, W), true or 1 in the hole.
        tolerance: largest residual (count of a pixel's neighbours times its value, less their sum), and about the
            largest error of a value, at which to stop, in the picture's units; None: 1e-4 of the largest value beside
            the hole.
        max_steps: bound on the number of steps; 15 have been enough for any hole at the default tolerance.
        told: called now and then with about the fraction of the work that is done, if it takes several steps.

    Returns:
        (N, C, H, W): the picture, its hole filled; integers are rounded. Where the hole covers everything: 0.5.
        Gradients flow to known pixels alone.

    Raises:
        ValueError: shapes do not fit, or a pixel beside the hole is NaN or infinite.
        RuntimeError: the tolerance was not reached in `max_steps`.
    """
    hole = _hole(picture, mask)
    if len(hole) > 1 and (hole == hole[:1]).all():
        hole = hole[:1]
    if len(hole) == 1 and (fill := fill_of(hole, picture.device)) is not None:
        values = fill.values(picture)
        if not values.isfinite().all():
            raise ValueError(NOT_FINITE)
        return fill.filled(picture, _in_dtype(values, picture.dtype))
    filled = picture.detach().clone(memory_format=torch.contiguous_format)
    # a hole that is the same for all makes one system of equations, with the channels of all pictures
    columns = filled.flatten(0, 1)[:, None] if len(hole) == 1 else filled.transpose(0, 1)
    unknown, covered = hole[:, 0], hole.flatten(1).all(dim=1)
    columns[:, covered] = NOTHING_KNOWN if picture.is_floating_point() else 0
    unknown = unknown & ~covered[:, None, None]
    values = solve_laplace(columns, unknown, tolerance=tolerance, max_steps=max_steps, told=told)
    columns[:, unknown] = _in_dtype(values, picture.dtype)
    return paste(filled, picture, hole)


def prefilled(picture: Tensor, mask: Tensor, kind: str) -> Tensor:
    """What a generator sees: the picture with its hole filled in as its author had it.

    Args:
        picture: (N, 3, H, W) in [0, 1]; what it holds inside the hole does not matter.
        mask: (N|1, 1, H, W), true or 1 in the hole.
        kind: "zero"; "mean", the mean colour of the picture's known pixels; "noise", uniform in [0.505, 0.51), which is
            (U(0, 1) + 1) / 100 in [-1, 1] as in G. Bernard's program; "gaussian_noise", of standard deviation 1 in
            [-1, 1], clipped, for what his text says; "harmonic". Noise is drawn from torch's default generator.
    """
    if kind == "zero":
        return torch.where(mask > 0, 0.0, picture)
    if kind == "mean":
        mean = _mean(picture, ~_hole(picture, mask))
        return paste(mean.to(picture.dtype), picture, mask)
    if kind == "noise":
        return paste(((torch.rand_like(picture) + 1) / 100 + 1) / 2, picture, mask)
    if kind == "gaussian_noise":
        return paste((torch.randn_like(picture).clamp(-1, 1) + 1) / 2, picture, mask)
    if kind == "harmonic":
        return harmonic(picture, mask)
    raise ValueError(f"kind: one of 'zero', 'mean', 'noise', 'gaussian_noise', 'harmonic' is expected, got {kind!r}")


def paste(filled: Tensor, picture: Tensor, mask: Tensor) -> Tensor:
    """`filled` inside the hole, `picture` outside; a choice, not a product, so known pixels are bitwise untouched.

    Args:
        filled, picture: (N, C, H, W), one range.
        mask: (N|1, 1, H, W), true or 1 in the hole.
    """
    return torch.where(mask > 0, filled, picture)


FILLS = {"ring_mean": ring_mean, "harmonic": harmonic}


def _hole(picture: Tensor, mask: Tensor) -> Tensor:
    """The mask as bool, (N|1, 1, H, W)."""
    if picture.dim() != 4:
        raise ValueError(f"picture: shape (N, C, H, W) is expected, got {tuple(picture.shape)}")
    n, _, h, w = picture.shape
    if mask.dim() != 4 or mask.shape[0] not in (1, n) or mask.shape[1:] != (1, h, w):
        raise ValueError(f"mask: shape ({n}|1, 1, {h}, {w}) is expected, got {tuple(mask.shape)}")
    return hole_of(mask)


def _mean(picture: Tensor, part: Tensor) -> Tensor:
    """The mean colour of the pixels in `part`, bool (N|1, 1, H, W); float64 (N, C, 1, 1)."""
    total = torch.where(part, picture, 0).sum(dim=(2, 3), keepdim=True, dtype=torch.float64)  # elsewhere may be NaN
    count = part.sum(dim=(2, 3), keepdim=True)
    return torch.where(count > 0, total / count.clamp(min=1), NOTHING_KNOWN)


def _in_dtype(values: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype.is_floating_point:
        return values.to(dtype)
    return values.mul(2**20).round().div(2**20).round().to(dtype)  # a tie stays one, whatever float64 has rounded
