"""The losses of the original GAN, from logits: a sigmoid that saturates to 0 or 1 never meets a logarithm.

Source: Goodfellow et al., "Generative Adversarial Nets" (2014). With p = sigmoid(logit) the cross-entropy for "real" is
-log p = softplus(-logit), and for "completed" -log(1 - p) = softplus(logit).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Half of -mean(log p(real)) - mean(log(1 - p(fake))), to be minimised by the discriminator.

    Args:
        real_logits, fake_logits: (N,), the discriminator's outputs before the sigmoid.
    """
    return (F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()) / 2


def adversarial_loss(fake_logits: Tensor, *, saturating: bool = False) -> Tensor:
    """What the generator adds to its reconstruction loss: -mean(log p(fake)).

    Args:
        fake_logits: (N,), the discriminator's outputs before the sigmoid.
        saturating: True: mean(log(1 - p(fake))), as the papers write it, whose gradient vanishes where the
            discriminator is sure.
    """
    return -F.softplus(fake_logits).mean() if saturating else F.softplus(-fake_logits).mean()
