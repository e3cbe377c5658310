"""Losses on logits against their printed formulas, and where the printed ones break."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from inpaint_fast.losses import (
    clip_penalty,
    discriminator_loss,
    literal_discriminator_loss,
    literal_generator_loss,
    nonsaturating_loss,
    saturating_loss,
)


@pytest.mark.proves(
    "discriminator_loss",
    "nonsaturating_loss",
    "saturating_loss",
    equals="the printed formulas of probabilities",
    source="Goodfellow et al. (2014)",
)
@pytest.mark.parametrize("real_target", [1.0, 0.9])
def test_logits_give_the_printed_values(real_target: float) -> None:
    real, fake = torch.randn(64, dtype=torch.float64), torch.randn(64, dtype=torch.float64)
    d_real, d_fake = torch.sigmoid(real), torch.sigmoid(fake)
    bce = F.binary_cross_entropy
    expected = bce(d_real, torch.full_like(real, real_target)) + bce(d_fake, torch.zeros_like(fake))
    torch.testing.assert_close(discriminator_loss(real, fake, real_target=real_target), expected)
    torch.testing.assert_close(discriminator_loss(real, fake, real_target=real_target, factor=0.5), expected / 2)
    torch.testing.assert_close(literal_discriminator_loss(real, fake, real_target=real_target), expected)
    torch.testing.assert_close(nonsaturating_loss(fake, factor=0.5), -0.5 * torch.log(d_fake).mean())
    torch.testing.assert_close(saturating_loss(fake, factor=2), 2 * torch.log(1 - d_fake).mean())
    torch.testing.assert_close(literal_generator_loss(fake), nonsaturating_loss(fake))
    torch.testing.assert_close(literal_generator_loss(fake, saturating=True), saturating_loss(fake))


def test_a_confident_discriminator_breaks_the_printed_formulas_alone() -> None:
    real, fake = torch.tensor([200.0]), torch.tensor([200.0], requires_grad=True)
    assert torch.isinf(literal_discriminator_loss(real, fake))
    assert torch.isinf(literal_generator_loss(-fake))
    assert discriminator_loss(real, fake) == 200
    loss = nonsaturating_loss(-fake)
    assert loss == 200
    (gradient,) = torch.autograd.grad(loss, fake)
    assert gradient == 1  # the largest that it can be
    (gradient,) = torch.autograd.grad(saturating_loss(-fake), fake)
    assert gradient == 0  # the vanished one


def test_clip_penalty_brings_back_what_left() -> None:
    x = torch.tensor([-0.5, 0.25, 1.5], requires_grad=True)
    penalty = clip_penalty(x)
    torch.testing.assert_close(penalty, torch.tensor(0.001 * (0.25 + 0.25) / 3))
    (through_clip,) = torch.autograd.grad(x.clamp(0, 1).sum(), x)
    assert through_clip.tolist() == [0, 1, 0]
    (gradient,) = torch.autograd.grad(penalty, x)
    torch.testing.assert_close(gradient, 0.001 * 2 / 3 * torch.tensor([-0.5, 0, 0.5]))


def test_wrong_targets_are_named() -> None:
    with pytest.raises(ValueError, match="real_target.*1.5"):
        discriminator_loss(torch.zeros(1), torch.zeros(1), real_target=1.5)
