"""Wasserstein losses with the factors of the inpainting systems.

Source: Arjovsky et al., "Wasserstein GAN" (2017), algorithm 1: the critic maximises E[D(real)] - E[D(fake)], the
generator E[D(fake)]. Subramanian and Larocque multiply both by 0.5 (`factor`); the latter's last scripts use 1.
"""

from __future__ import annotations

from torch import Tensor


def critic_loss(real_scores: Tensor, fake_scores: Tensor, *, factor: float = 0.5) -> Tensor:
    """-factor * mean(D(real) - D(fake)), to be minimised by the critic.

    Args:
        real_scores, fake_scores: (N,), the critic's outputs; any real numbers.
        factor: 0.5 as published for the inpainting systems, 1 in the paper.
    """
    return -factor * (real_scores.mean() - fake_scores.mean())


def generator_loss(fake_scores: Tensor, *, factor: float = 0.5) -> Tensor:
    """-factor * mean(D(fake)), what the generator adds to its reconstruction loss.

    Args:
        fake_scores: (N,), the critic's outputs; any real numbers.
        factor: 0.5 as published for the inpainting systems, 1 in the paper.

    Returns:
        A scalar.
    """
    return -factor * fake_scores.mean()
