"""Pictures of any size completed by a network that corrects the harmonic fill."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from inpaint_fast import complete
from inpaint_fast.completion import complete_batch, harmonic
from inpaint_fast.data import Batch, box
from inpaint_fast.models import ResidualCompletionNetwork


def picture(height: int = 60, width: int = 82) -> Tensor:
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    ramp = (40 + rows + columns) % 256
    return torch.stack([ramp, ramp // 2, 255 - ramp]).to(torch.uint8)


class Lighter(ResidualCompletionNetwork):
    """Its correction is 0.1 everywhere in the hole."""

    def __init__(self) -> None:
        super().__init__(2, hole=12)
        nn.init.constant_(self.last.bias, 0.1)


@pytest.mark.parametrize(
    "mask",
    [
        box(60, 82, 20, 10, 12, 12),
        box(60, 82, 0, 0, 40, 50),  # thicker than the network's, at the picture's corner
        box(60, 82, 5, 30, 70, 3),  # thin
        box(60, 82, 5, 5, 60, 10) | box(60, 82, 5, 5, 10, 50),
    ],
)
def test_what_is_corrected_is_the_fill_of_the_whole_picture(mask) -> None:
    fill = harmonic(picture()[None], mask[None])[0]
    untrained = complete(picture(), mask, weights=ResidualCompletionNetwork(2, hole=12))
    assert torch.equal(untrained, fill)
    lighter = complete(picture(), mask, weights=Lighter())
    change = lighter.int() - fill.int()
    hole = mask.expand_as(change)
    assert not change[~hole].any()
    assert change[hole].float().mean() > 0.6 * 25.5  # enlarged, it fades towards the hole's edge
    assert change.max() <= 26 and change.min() >= 0


def test_a_hole_of_the_networks_size_is_corrected_pixel_by_pixel() -> None:
    mask = box(60, 82, 20, 10, 12, 12)
    change = complete(picture(), mask, weights=Lighter()).int() - harmonic(picture()[None], mask[None])[0].int()
    assert set(change[mask.expand_as(change)].tolist()) <= {25, 26}


def test_batches() -> None:
    image = picture(64, 64)[None].float() / 255
    mask = box(64, 64, 16, 16, 32, 32)[None]
    completed = complete_batch(Lighter(), Batch(image, mask, None))
    expected = torch.where(mask, (harmonic(image, mask) + 0.1).clamp(0, 1), image)
    assert torch.allclose(completed, expected, atol=1e-6)


def test_an_answer_that_is_not_finite_is_refused() -> None:
    network = ResidualCompletionNetwork(2, hole=12)
    nn.init.constant_(network.last.bias, float("nan"))
    with pytest.raises(ValueError, match="NaN"):
        complete(picture(), box(60, 82, 20, 10, 12, 12), weights=network)
