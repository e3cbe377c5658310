"""Optimizers that step and clip in one pass; drop-in for those of torch.optim whose names they carry.

opt = ClippedRMSprop(critic.parameters(), lr=5e-5, clip=0.01)   # Wasserstein GAN: step, then clamp to [-0.01, 0.01]
"""

from inpaint_fast.optim.clipped import Adadelta, ClippedAdam, ClippedAdamW, ClippedRMSprop, ClippedSGD
from inpaint_fast.optim.nesterov import NesterovRMSprop

__all__ = ["Adadelta", "ClippedAdam", "ClippedAdamW", "ClippedRMSprop", "ClippedSGD", "NesterovRMSprop"]
