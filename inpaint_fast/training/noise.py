"""Systems that make pictures from noise alone, and what their recipes share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from inpaint_fast.completion.generators import at_rest
from inpaint_fast.data import Batch
from inpaint_fast.models._common import FromNoise
from inpaint_fast.training.adversarial import AdversarialSystem
from inpaint_fast.training.evaluation import Evaluation, Generation
from inpaint_fast.training.recipe import Recipe


@dataclass
class NoiseRecipe(Recipe):
    """A recipe whose pictures come from nothing: the hole is everything."""

    mask: ClassVar[str] = "everything"

    def evaluation(self, heldout: Batch) -> Evaluation:
        return Generation(heldout)


class NoiseSystem(AdversarialSystem):
    """A generator of noise, and a critic of its pictures.

    Real pictures, in [0, 1], are brought to `values`, the range of the generator's.
    """

    generator: FromNoise
    channels = 3
    """Of the pictures; 1 takes the first of the real ones' three equal channels."""
    shared_pass = True

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        device = batch.image.device
        return (self.processes.own(lambda rows: self.generator.noise(rows, device), len(batch.image)),)

    def truth(self, batch: Batch) -> Tensor:
        low, high = self.values
        return batch.image[:, : self.channels] * (high - low) + low

    def complete(self, batch: Batch) -> Tensor:
        """As many new pictures as the batch has, (N, 3, H, W) in [0, 1]."""
        generator = self.finished_generator
        assert isinstance(generator, FromNoise)  # a copy of it
        with at_rest(generator), torch.no_grad():
            pictures = generator(generator.noise(len(batch.image), batch.image.device))
        low, high = self.values
        return ((pictures - low) / (high - low)).clamp(0, 1).expand(-1, 3, -1, -1)
