"""Systems whose generator fills the central hole of a 64x64 picture, and the settings that they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inpaint_fast.completion.fills import paste, prefilled
from inpaint_fast.completion.weights import copy_weights
from inpaint_fast.data import Batch
from inpaint_fast.losses import clip_penalty, hole_l2
from inpaint_fast.models.centre import CENTRE, HOLE, PICTURE
from inpaint_fast.training.adversarial import AdversarialSystem, Made, at_rest
from inpaint_fast.training.recipe import Recipe

Prefill = Literal["zero", "mean", "noise", "gaussian_noise", "harmonic"]


@dataclass
class CentreRecipe(Recipe):
    """What every recipe for the central hole can set."""

    prefill: Prefill = "zero"
    """What the hole holds when the generator sees the picture; "harmonic" is an addition of this library."""
    pretrained: str | None = None
    """Start the generator from these weights: a run's folder or a safetensors file."""


class CentreSystem(AdversarialSystem):
    """A `CentreGenerator` and perhaps a critic of its holes, or of whole pictures with its holes.

    Args:
        recipe: the settings shared by all.
        generator, arguments: the network, and what its constructor was given.
        reconstruction_weight: factor of the squared error of the hole; 0 leaves it out.
        whole: the critic sees whole pictures, not the hole alone.
        penalty: weight of `losses.clip_penalty`; 0 leaves it out.
    """

    def __init__(
        self,
        recipe: CentreRecipe,
        generator: nn.Module,
        arguments: dict[str, object],
        *,
        reconstruction_weight: float = 1.0,
        whole: bool = False,
        penalty: float = 0.0,
    ) -> None:
        super().__init__()
        self.recipe, self.whole, self.penalty = recipe, whole, penalty
        self.reconstruction_weight = reconstruction_weight
        self.generator, self.arguments = generator, {"generator": arguments}
        if recipe.pretrained:
            copy_weights(recipe.pretrained, self.generator)

    def make(self, batch: Batch) -> Made:
        inputs = generator_inputs(self.generator, batch)
        if not self.penalty:
            return Made(self.generator(*inputs))
        pictures, unclipped = self.generator(*inputs, unclipped=True)
        return Made(pictures, clip_penalty(unclipped, weight=self.penalty))

    def truth(self, batch: Batch) -> Tensor:
        return batch.image[..., CENTRE, CENTRE]

    def judged(self, pictures: Tensor, batch: Batch) -> Tensor:
        if not self.whole:
            return pictures
        margin = (PICTURE - HOLE) // 2
        return batch.image.masked_fill(batch.mask, 0.0) + F.pad(pictures, (margin,) * 4)

    def reconstruction(self, pictures: Tensor, truth: Tensor) -> Tensor | None:
        weight = self.reconstruction_weight
        return hole_l2(pictures, truth, weight=weight) if weight else None

    def complete(self, batch: Batch) -> Tensor:
        """Fill the central holes; in eval mode, without gradients."""
        with at_rest(self.generator):
            return complete_centres(self.generator, batch)


def generator_inputs(generator: nn.Module, batch: Batch) -> tuple[Tensor, ...]:
    """What a `CentreGenerator` is called with: the prefilled picture, and captions where it reads them."""
    picture = prefilled(batch.image, batch.mask, generator.prefill)
    return (picture, batch.captions) if generator.reads_captions else (picture,)


def complete_centres(generator: nn.Module, batch: Batch) -> Tensor:
    """A batch's central holes filled by a `CentreGenerator`, (N, 3, 64, 64); known pixels as they were."""
    with torch.no_grad():
        centre = generator(*generator_inputs(generator, batch))
    picture = batch.image.clone()
    picture[..., CENTRE, CENTRE] = centre
    return paste(picture, batch.image, batch.mask).clamp(0, 1)
