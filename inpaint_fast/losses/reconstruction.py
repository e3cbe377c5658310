"""Reconstruction losses: how far the completion is from the truth, inside the hole."""

from __future__ import annotations

from torch import Tensor

from inpaint_fast.ops import masked_l2


def hole_l2(completion: Tensor, truth: Tensor, mask: Tensor | None = None, *, weight: float = 1.0) -> Tensor:
    """Mean squared error inside the hole, by the fused operator `masked_l2`.

    Args:
        completion, truth: (N, C, H, W). The hole alone (`mask=None`), or whole pictures with a mask.
        mask: (N|1, 1, H, W), 1 marks the hole; the mean is then over the hole's elements. Values are factors, as
            `masked_l2` has them: it cuts nothing, and 255 counts 255 times.
        weight: factor of the loss.

    Returns:
        The loss, a scalar; 0 where the hole is empty.
    """
    return masked_l2(completion, truth, mask, weight=weight, reduction="mean" if mask is None else "mask_mean")


def clip_penalty(unclipped: Tensor, *, weight: float = 0.001) -> Tensor:
    """weight * mean((x - clamp(x, 0, 1))^2) of an output before it is clipped to [0, 1].

    The clip's gradient is 0 outside [0, 1]; this one brings back what left it. Source: S. Larocque (2017), with weight
    0.001.

    Args:
        unclipped: any shape, any real numbers.
        weight: factor of the loss.

    Returns:
        A scalar.
    """
    return weight * (unclipped - unclipped.clamp(0, 1)).square().mean()
