"""Objectives: reconstruction of the hole, and what a critic adds to it."""

from inpaint_fast.losses.logistic import adversarial_loss, discriminator_loss
from inpaint_fast.losses.reconstruction import hole_l2
from inpaint_fast.losses.wasserstein import critic_loss, generator_loss

__all__ = ["adversarial_loss", "critic_loss", "discriminator_loss", "generator_loss", "hole_l2"]
