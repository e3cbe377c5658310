"""Fills that learn nothing: what every trained network must be compared with.

`ring_mean` is strong where a hole lies in a plain surface; `harmonic` is hard to beat in PSNR and easy in sharpness.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from inpaint_fast.data import hole_of


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
    grown = F.max_pool2d(hole, 2 * width + 1, stride=1, padding=width)
    ring = grown - hole
    count = ring.sum(dim=(2, 3), keepdim=True)
    known = torch.where(hole > 0, 0, picture)  # not a product: the hole may hold NaN
    mean = torch.where(count > 0, (known * ring).sum(dim=(2, 3), keepdim=True) / count.clamp(min=1), 0.5)
    return paste(mean.to(picture.dtype), picture, hole)


def harmonic(picture: Tensor, mask: Tensor, *, tolerance: float = 1e-4, max_steps: int = 10_000) -> Tensor:
    """Fill the hole with the solution of Laplace's equation, the known pixels around it as boundary values.

    Each hole pixel becomes the mean of its neighbours (four, fewer at the picture's edge); solved by conjugate
    gradients in float64, started from `ring_mean`.

    Args:
        picture: (N, C, H, W), any range; what it holds inside the hole does not matter.
        mask: (N|1, 1, H, W), true or 1 in the hole.
        tolerance: largest residual at which to stop, in the picture's units.
        max_steps: bound on the number of steps.

    Returns:
        (N, C, H, W): the picture, its hole filled. Where the hole covers everything: 0.5.
    """
    hole = _hole(picture, mask).double()
    start = ring_mean(picture, mask).double()
    degree = _neighbours(torch.ones_like(start[:1, :1]))

    def laplacian(x: Tensor) -> Tensor:
        return hole * (degree * x - _neighbours(x))

    x = torch.where(hole > 0, start, 0.0)
    residual = -laplacian(start)
    direction, energy = residual.clone(), residual.square().sum(dim=(2, 3), keepdim=True)
    for step in range(max_steps):
        if step % 16 == 0 and residual.abs().max() <= tolerance:
            break
        pressed = laplacian(direction)
        length = energy / (direction * pressed).sum(dim=(2, 3), keepdim=True).clamp(min=1e-300)
        x = x + length * direction
        residual = residual - length * pressed
        before, energy = energy, residual.square().sum(dim=(2, 3), keepdim=True)
        direction = residual + energy / before.clamp(min=1e-300) * direction
    return paste(x.to(picture.dtype), picture, hole)


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
        known = (_hole(picture, mask) == 0).to(picture.dtype)
        total = torch.where(mask > 0, 0.0, picture).sum(dim=(2, 3), keepdim=True)
        return paste(total / known.sum(dim=(2, 3), keepdim=True).clamp(min=1), picture, mask)
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
    """The mask as 0 and 1 in the picture's dtype, (N, 1, H, W)."""
    if picture.dim() != 4:
        raise ValueError(f"picture: shape (N, C, H, W) is expected, got {tuple(picture.shape)}")
    n, _, h, w = picture.shape
    if mask.dim() != 4 or mask.shape[0] not in (1, n) or mask.shape[1:] != (1, h, w):
        raise ValueError(f"mask: shape ({n}|1, 1, {h}, {w}) is expected, got {tuple(mask.shape)}")
    return hole_of(mask).to(picture.dtype).expand(n, 1, h, w)


def _neighbours(x: Tensor) -> Tensor:
    """The sum of each pixel's neighbours."""
    total = torch.zeros_like(x)
    total[..., :, :-1] += x[..., :, 1:]
    total[..., :, 1:] += x[..., :, :-1]
    total[..., :-1, :] += x[..., 1:, :]
    total[..., 1:, :] += x[..., :-1, :]
    return total
