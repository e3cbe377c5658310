"""Objectives: reconstruction of the hole, and what a critic adds to it."""

from inpaint_fast.losses.reconstruction import hole_l2
from inpaint_fast.losses.wasserstein import critic_loss, generator_loss

__all__ = ["critic_loss", "generator_loss", "hole_l2"]
