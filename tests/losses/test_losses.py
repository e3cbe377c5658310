from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from inpaint_fast.losses import critic_loss, generator_loss, hole_l2


@pytest.mark.proves("hole_l2", equals="F.mse_loss on the hole's pixels")
def test_hole_l2() -> None:
    completion, truth = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(hole_l2(completion, truth), F.mse_loss(completion, truth))
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., 2:5, 1:7] = True
    inside = F.mse_loss(completion[..., 2:5, 1:7], truth[..., 2:5, 1:7])
    torch.testing.assert_close(hole_l2(completion, truth, mask, weight=3), 3 * inside)


@pytest.mark.proves(
    "critic_loss", "generator_loss", equals="the printed losses", source="Arjovsky et al. (2017)", within="exactly"
)
def test_wasserstein_signs_and_factors() -> None:
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])
    assert critic_loss(real, fake) == -0.5 * (2 - 0.5)
    assert critic_loss(real, fake, factor=1) == -(2 - 0.5)
    assert generator_loss(fake) == -0.25
    assert generator_loss(fake, factor=2) == -1
