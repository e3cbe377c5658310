"""A fill that knows a picture's texture: what is to be expected in the hole of a picture with its covariance.

The picture is taken for a Gaussian texture: the covariance of two pixels depends on how far apart they lie, along and
across. It is the mean product of all known pairs that lie so, weighted down with the distance. What is known then has
one most probable continuation, which of all linear ones is the nearest to the truth in the mean (kriging). Where a
picture repeats itself that goes on in the hole; where it does not, the middle of the hole becomes the mean colour. The
harmonic fill is the same for one fixed covariance, that of a surface that is smooth and no more.

Source: Galerne, Leclaire, "Texture inpainting using efficient Gaussian conditional simulation" (2017): this is the
mean of theirs. All products with the covariance and its inverse are those of a torus, by Fourier transforms; it is
larger than the picture by more than the covariance reaches, and what is added is unknown, too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fft import irfft2, rfft2

PIXELS = 2**20  # of a picture, at most: it takes seconds then, and 250 MB; of 2**22 half a minute, and 700 MB
LEAST = 1e-3  # of the mean of the spectrum: what is below is noise of the estimate
TOLERANCE = 1e-2  # of the norm of the residual, where to stop
STEPS = 100  # at most


def texture(picture: Tensor, hole: Tensor, reach: float) -> Tensor:
    """Fill the hole with what is to be expected in a Gaussian texture of the picture's covariance.

    Args:
        picture: float32 or float64 (3, H, W) in [0, 1]; what it holds inside the hole does not matter.
        hole: bool (H, W), true in the hole; it does not cover everything.
        reach: in pixels, the standard deviation of the bell by which the covariance is weighted down.

    Returns:
        (3, H, W) in [0, 1], of the same dtype, on the CPU; known pixels as they were. In a picture of one colour: that.
    """
    pixels, known = picture.cpu(), ~hole.cpu()
    mean = pixels[:, known].mean(dim=1)[:, None, None]
    around = torch.where(known, pixels - mean, 0)
    size = tuple(_smooth(length + round(3 * reach)) for length in hole.shape)
    spectrum = _spectrum(around, known, reach, size)
    if not spectrum.any():
        return torch.where(known, pixels, mean)
    unknown = torch.ones(size, dtype=pixels.dtype)
    unknown[: hole.shape[0], : hole.shape[1]] = hole
    return torch.where(known, pixels, (mean + _expected(around, unknown, spectrum)).clamp(0, 1))


class TexturedNetwork(nn.Module):
    """A generator and a texture fill; what they complete is their mean.

    Args:
        network: any generator that completes pictures.
        reach: in pixels, of the texture fill.
        share: of the texture fill, from 0 to 1; the rest is the network's.

    Shapes:
        picture (N, 3, H, W) in [0, 1], what it holds inside the hole as the network wants it, and mask (N|1, 1, H, W),
        as the network takes them. Output (N, 3, H, W): the picture with the mean in the hole. `inpaint_fast.complete`
        and `complete_batch` bring a picture to that, and fill it for the network where it wants that.
    """

    def __init__(self, network: nn.Module, reach: float, share: float) -> None:
        super().__init__()
        self.network, self.reach, self.share = network, reach, share
        self.reads_captions = network.reads_captions

    def forward(self, picture: Tensor, mask: Tensor) -> Tensor:
        answer = self.network(picture, mask)
        hole = (mask >= 0.5).expand(len(picture), -1, -1, -1)
        return self.mixed(torch.where(hole, answer, picture), hole)

    def mixed(self, completed: Tensor, holes: Tensor) -> Tensor:
        """The mean in the holes, bool (N, 1, H, W), of pictures (N, 3, H, W) in [0, 1] that the network completed."""
        if not len(completed):
            return completed
        fills = [
            picture if hole.all() else texture(picture, hole, self.reach).to(picture)  # (where all is hole: no texture)
            for picture, hole in zip(completed, holes[:, 0], strict=True)
        ]
        return torch.where(holes, completed.lerp(torch.stack(fills), self.share), completed)


def _spectrum(around: Tensor, known: Tensor, reach: float, size: tuple[int, ...]) -> Tensor:
    """Of the covariance on a torus of this size, the mean of the channels; none of its values is far below their mean.

    Args:
        around: (3, H, W), differences from the mean, 0 where nothing is known.
        known: bool (H, W).
    """
    products = irfft2(rfft2(around, size).abs().square().mean(dim=0), size)
    pairs = irfft2(rfft2(known.to(around.dtype), size).abs().square(), size)
    covariance = products / pairs.clamp(min=1)
    rows, columns = (torch.arange(length).minimum(length - torch.arange(length)) for length in size)
    bell = torch.exp((rows[:, None] ** 2 + columns**2).to(covariance.dtype) / (-2 * reach**2))
    spectrum = rfft2(covariance * bell).real
    return spectrum.clamp(min=LEAST * covariance[0, 0].item())  # whose value at no distance is the spectrum's mean


def _expected(around: Tensor, unknown: Tensor, spectrum: Tensor) -> Tensor:
    """Conjugate gradients for the unknown values that make the whole most probable.

    The equations' matrix is the unknown part of the covariance's inverse, and the unknown part of the covariance
    preconditions them.
    """

    def product(values: Tensor, spectrum: Tensor) -> Tensor:
        return irfft2(rfft2(values) * spectrum, unknown.shape) * unknown

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(dim=(1, 2), keepdim=True)

    height, width = around.shape[1:]
    values = around.new_zeros(len(around), *unknown.shape)
    values[:, :height, :width] = around
    residual, values = -product(values, 1 / spectrum), torch.zeros_like(values)
    direction = better = product(residual, spectrum)
    first = left = dot(residual, better)
    for _ in range(STEPS):
        moved = product(direction, 1 / spectrum)
        step = left / dot(direction, moved).clamp(min=1e-30)  # 0 where a channel has nothing left
        values, residual = values + step * direction, residual - step * moved
        better = product(residual, spectrum)
        before, left = left, dot(residual, better)
        if (left <= TOLERANCE**2 * first).all():
            break
        direction = better + left / before.clamp(min=1e-30) * direction
    return values[:, :height, :width]


def _smooth(length: int) -> int:
    """The next even length, whose prime factors Fourier transforms are fast for."""
    length += length % 2
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 2
