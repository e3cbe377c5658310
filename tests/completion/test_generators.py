"""A batch completed by any generator that completes pictures; what completes none is named."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from inpaint_fast.completion import complete, complete_batch
from inpaint_fast.completion.generators import at_rest
from inpaint_fast.data import Batch, center_square, heldout_crops, samples
from inpaint_fast.models import CaptionUNetGenerator, CompletionNetwork, ContextCNN, DCGANGenerator, UNetGenerator


def crops(size: int, mask: str) -> Batch:
    return heldout_crops(samples("heldout")[:2], size=size, per_image=2, mask=mask)


@pytest.mark.parametrize(
    ("generator", "batch"),
    [
        (lambda: UNetGenerator(4), lambda: crops(64, "center")),
        (lambda: ContextCNN(filters=4, code=8, prefill="mean"), lambda: crops(64, "center")),
        (
            lambda: CaptionUNetGenerator(4, vector=6),
            lambda: crops(64, "center")._replace(captions=torch.rand(4, 2, 6)),
        ),
        (lambda: CompletionNetwork(4), lambda: crops(48, "free_form")),
    ],
)
def test_holes_are_filled_and_known_pixels_untouched(generator, batch) -> None:
    torch.manual_seed(0)
    generator, batch = generator().train(), batch()
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    completed = complete_batch(generator, batch)
    known = (~batch.mask).expand_as(batch.image)
    assert torch.equal(completed[known], batch.image[known]) and not torch.equal(completed, batch.image)
    assert completed.min() >= 0 and completed.max() <= 1 and not completed.requires_grad
    assert generator.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())
    spoiled = batch._replace(image=batch.image.masked_fill(batch.mask, 0.9))
    assert torch.equal(complete_batch(generator, spoiled).masked_fill(known, 0), completed.masked_fill(known, 0))


def test_many_pictures_in_parts_are_as_one_by_one() -> None:
    network, batch = CompletionNetwork(4), crops(32, "rectangle")
    batch = batch.map(lambda part: part.repeat(5, 1, 1, 1))
    alone = [complete_batch(network, batch.map(lambda part, i=i: part[i : i + 1])) for i in range(20)]
    torch.testing.assert_close(complete_batch(network, batch), torch.cat(alone))


def test_what_completes_no_pictures_is_named() -> None:
    with pytest.raises(ValueError, match="a generator that completes pictures is expected, got DCGANGenerator"):
        complete_batch(DCGANGenerator(4), crops(64, "center"))
    picture = samples("heldout")[0]
    with pytest.raises(ValueError, match="a generator that completes pictures is expected, got DCGANGenerator"):
        complete(picture, center_square(*picture.shape[1:], 9), weights=DCGANGenerator(4))


def test_each_module_goes_back_to_its_own_mode() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Sequential(nn.Dropout(), nn.BatchNorm2d(1))).train()
    network[1][1].eval()  # a norm that its user has frozen
    with pytest.raises(KeyError), at_rest(network):
        assert not any(module.training for module in network.modules())
        raise KeyError
    assert [module.training for module in network.modules()] == [True, True, True, True, False]


def test_a_frozen_norm_stays_frozen_when_a_picture_is_completed() -> None:
    picture, generator = samples("heldout")[0], UNetGenerator(4).train()
    generator.bn2.eval()
    complete(picture, center_square(*picture.shape[1:], 20), weights=generator)
    assert generator.training and generator.bn1.training and not generator.bn2.training
