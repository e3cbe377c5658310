"""How good a completion is, inside the hole: PSNR, SSIM, L1, L2 and sharpness."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from inpaint_fast.data import hole_of

METRICS = ("psnr", "ssim", "l1", "l2", "sharpness")


def hole_metrics(completed: Tensor, truth: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Metrics of completed pictures inside their holes.

    Args:
        completed, truth: (N, C, H, W) in [0, 1].
        mask: (N|1, 1, H, W), true or 1 in the hole; every picture has one.

    Returns:
        Scalars, means over the pictures (none of them leaves the device):
        psnr in dB (mean over pictures of 10 log10(1 / mean squared error), at most 100); ssim, the mean of `ssim_map`
        over the hole's pixels: it is made of the whole pictures, so that the windows of pixels at the hole's edge see
        known pixels, too; l1 and l2, the mean absolute and squared error; sharpness, the mean absolute difference of
        neighbouring hole pixels over that of the truth: 1 is as sharp as the truth, 0 flat.
    """
    hole = hole_of(mask).to(completed.dtype).expand(completed.shape[0], 1, *completed.shape[2:])
    count = hole.sum(dim=(1, 2, 3)) * completed.shape[1]
    error = (completed - truth) * hole
    l2 = error.square().sum(dim=(1, 2, 3)) / count
    ssim = (ssim_map(completed, truth) * hole).sum(dim=(1, 2, 3)) / count
    return {
        "psnr": (-10 * torch.log10(l2.clamp(min=1e-10))).mean(),
        "ssim": ssim.mean(),
        "l1": (error.abs().sum(dim=(1, 2, 3)) / count).mean(),
        "l2": l2.mean(),
        "sharpness": _roughness(completed, hole) / _roughness(truth, hole).clamp(min=1e-10),
    }


def generation_metrics(pictures: Tensor, real: Tensor) -> dict[str, Tensor]:
    """Metrics of pictures made from nothing, (N, C, H, W) in [0, 1], beside real ones of the same shape.

    Returns:
        Scalars: sharpness, as in `hole_metrics`; diversity, the mean absolute difference between each picture and the
        next, over that of the real ones. 1 is as varied as they are, 0 is one picture over and over.
    """
    everything = torch.ones_like(real[:, :1])
    return {
        "sharpness": _roughness(pictures, everything) / _roughness(real, everything).clamp(min=1e-10),
        "diversity": _variety(pictures) / _variety(real).clamp(min=1e-10),
    }


def _variety(pictures: Tensor) -> Tensor:
    return (pictures - pictures.roll(1, 0)).abs().mean()


def ssim_map(a: Tensor, b: Tensor, *, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Structural similarity of each pixel's neighbourhood, (N, C, H, W); pictures in [0, 1], reflected at the edges.

    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity" (2004), with its
    Gaussian window and constants.
    """
    channels = a.shape[1]
    offsets = torch.arange(window, dtype=a.dtype, device=a.device) - window // 2
    line = torch.exp(-offsets.square() / (2 * sigma**2))
    line = (line / line.sum()).expand(channels, 1, 1, window)

    def blur(x: Tensor) -> Tensor:
        x = F.pad(x, [window // 2] * 4, mode="reflect")
        return F.conv2d(F.conv2d(x, line, groups=channels), line.transpose(2, 3), groups=channels)

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))


def _roughness(picture: Tensor, hole: Tensor) -> Tensor:
    """Sum of absolute differences between neighbours that both lie in the hole."""
    across = (picture[..., 1:] - picture[..., :-1]).abs() * hole[..., 1:] * hole[..., :-1]
    down = (picture[..., 1:, :] - picture[..., :-1, :]).abs() * hole[..., 1:, :] * hole[..., :-1, :]
    return across.sum() + down.sum()
