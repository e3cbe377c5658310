"""Losses of the classifying discriminator (Goodfellow et al., "Generative adversarial networks", 2014).

All take logits. The sigmoid of a confident discriminator is exactly 0 or 1 in float32 and its logarithm infinite, which
ended the trainings of S. Larocque's posts of March and April 2017; logsigmoid of the logit is finite wherever the logit
is. The formulas as they print them are kept in `literal_discriminator_loss` and `literal_generator_loss`, to compare.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def discriminator_loss(
    real_logits: Tensor, fake_logits: Tensor, *, real_target: float = 1.0, factor: float = 1.0
) -> Tensor:
    """factor * (BCE(D(real), real_target) + BCE(D(fake), 0)), D the sigmoid of the logits.

    With `real_target` 1 this is -mean(log D(real) + log(1 - D(fake))).

    Args:
        real_logits, fake_logits: any shape, any real numbers.
        real_target: above 0, at most 1; 0.9 smooths the labels, of real pictures alone (Salimans et al. 2016).
        factor: of the loss.

    Returns:
        A scalar.

    Raises:
        ValueError: real_target is out of its range.
    """
    if not 0 < real_target <= 1:
        raise ValueError(f"real_target: a number above 0, at most 1 is expected, got {real_target}")
    target = torch.full_like(real_logits, real_target)
    real = F.binary_cross_entropy_with_logits(real_logits, target)
    fake = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    return factor * (real + fake)


def nonsaturating_loss(fake_logits: Tensor, *, factor: float = 1.0) -> Tensor:
    """-factor * mean(log D(fake)): its gradient is largest where the discriminator rejects the fakes.

    Args:
        fake_logits: any shape, any real numbers.
        factor: of the loss.

    Returns:
        A scalar.
    """
    return -factor * F.logsigmoid(fake_logits).mean()


def saturating_loss(fake_logits: Tensor, *, factor: float = 1.0) -> Tensor:
    """factor * mean(log(1 - D(fake))): the game's own value, whose gradient vanishes where D rejects the fakes.

    Args:
        fake_logits: any shape, any real numbers.
        factor: of the loss.

    Returns:
        A scalar.
    """
    return factor * F.logsigmoid(-fake_logits).mean()


def literal_discriminator_loss(
    real_logits: Tensor, fake_logits: Tensor, *, real_target: float = 1.0, factor: float = 1.0
) -> Tensor:
    """`discriminator_loss` as printed, of probabilities: infinite where one is exactly 0 or 1. To compare with.

    Args:
        real_logits, fake_logits: any shape, any real numbers.
        real_target: above 0, at most 1.
        factor: of the loss.

    Returns:
        A scalar.
    """
    real, fake = torch.sigmoid(real_logits), torch.sigmoid(fake_logits)
    likelihood = real_target * torch.log(real)
    if real_target < 1:  # as printed without smoothing: 0 * log(0) is no number
        likelihood = likelihood + (1 - real_target) * torch.log(1 - real)
    return -factor * (likelihood.mean() + torch.log(1 - fake).mean())


def literal_generator_loss(fake_logits: Tensor, *, saturating: bool = False, factor: float = 1.0) -> Tensor:
    """`saturating_loss` or `nonsaturating_loss` as printed, of probabilities: infinite where one is exactly 0 or 1.

    Args:
        fake_logits: any shape, any real numbers.
        saturating: which of the two.
        factor: of the loss.

    Returns:
        A scalar.
    """
    fake = torch.sigmoid(fake_logits)
    return factor * (torch.log(1 - fake).mean() if saturating else -torch.log(fake).mean())
