"""Objectives: reconstruction of the hole, and what a critic adds to it."""

from inpaint_fast.losses.gan import (
    discriminator_loss,
    literal_discriminator_loss,
    literal_generator_loss,
    nonsaturating_loss,
    saturating_loss,
)
from inpaint_fast.losses.reconstruction import clip_penalty, hole_l2
from inpaint_fast.losses.wasserstein import critic_loss, generator_loss

__all__ = [
    "clip_penalty", "critic_loss", "discriminator_loss", "generator_loss", "hole_l2", "literal_discriminator_loss",
    "literal_generator_loss", "nonsaturating_loss", "saturating_loss",
]  # fmt: skip
