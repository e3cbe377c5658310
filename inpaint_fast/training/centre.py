"""Systems whose generator fills the central hole of a 64x64 picture, and the settings that they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from inpaint_fast.completion.centres import generator_inputs
from inpaint_fast.data import Batch
from inpaint_fast.losses import clip_penalty, hole_l2
from inpaint_fast.models.centre import CENTRE, HOLE, PICTURE, CentreGenerator
from inpaint_fast.training.adversarial import AdversarialSystem, Made
from inpaint_fast.training.recipe import Recipe

Prefill = Literal["zero", "mean", "noise", "gaussian_noise", "harmonic"]


@dataclass
class CentreRecipe(Recipe):
    """What every recipe for the central hole can set."""

    prefill: Prefill = "zero"
    """What the hole holds when the generator sees the picture; "harmonic" is an addition of this library."""


class CentreSystem(AdversarialSystem):
    """A `CentreGenerator` and perhaps a critic of its holes, or of whole pictures with its holes.

    Args:
        recipe: the settings shared by all.
        network, arguments: the generator's class, and what it is built of.
        reconstruction_weight: factor of the squared error of the hole; 0 leaves it out.
        whole: the critic sees whole pictures, not the hole alone.
        penalty: weight of `losses.clip_penalty`; 0 leaves it out.
    """

    generator: CentreGenerator

    def __init__(
        self,
        recipe: CentreRecipe,
        network: type[nn.Module],
        arguments: dict[str, object],
        *,
        reconstruction_weight: float = 1.0,
        whole: bool = False,
        penalty: float = 0.0,
    ) -> None:
        super().__init__(recipe)
        self.reconstruction_weight, self.whole, self.penalty = reconstruction_weight, whole, penalty
        self.add_network("generator", network, **arguments)

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        with self.processes.apart(batch.image.device):
            return generator_inputs(self.generator, *batch)

    def make(self, *inputs: Tensor) -> Made:
        if not self.penalty:
            return super().make(*inputs)
        pictures, unclipped = self.through(self.generator, *inputs, unclipped=True)
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
