"""Systems that make pictures from noise alone, and what their recipes share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from inpaint_fast.data import Batch
from inpaint_fast.training.adversarial import AdversarialSystem, Made, at_rest
from inpaint_fast.training.evaluation import Evaluation, Generation
from inpaint_fast.training.recipe import Recipe


@dataclass
class NoiseRecipe(Recipe):
    """A recipe whose pictures come from nothing: the hole is everything."""

    mask: ClassVar[str] = "everything"

    def evaluation(self, heldout: Batch) -> Evaluation:
        return Generation(heldout)


class NoiseSystem(AdversarialSystem):
    """A generator of noise and a critic.

    Args:
        generator: has `noise(count, device)`, what it is called with.
        critic: of pictures like the generator's.
        arguments: as `System`.
        values: the range of the generator's pictures; real ones, in [0, 1], are brought to it.
        channels: of the pictures; 1 takes the first of the real ones' three equal channels.
        fresh_draws, shared_pass: as `AdversarialSystem`.
    """

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        arguments: dict[str, dict[str, object]],
        *,
        values: tuple[float, float] = (0.0, 1.0),
        channels: int = 3,
        fresh_draws: bool = False,
        shared_pass: bool = True,
    ) -> None:
        super().__init__()
        self.generator, self.critic, self.arguments = generator, critic, arguments
        self.values, self.channels = values, channels
        self.fresh_draws, self.shared_pass = fresh_draws, shared_pass

    def make(self, batch: Batch) -> Made:
        return Made(self.generator(self.generator.noise(len(batch.image), batch.image.device)))

    def truth(self, batch: Batch) -> Tensor:
        low, high = self.values
        return batch.image[:, : self.channels] * (high - low) + low

    def complete(self, batch: Batch) -> Tensor:
        """As many new pictures as the batch has, (N, 3, H, W) in [0, 1]."""
        with at_rest(self.generator), torch.no_grad():
            pictures = self.make(batch).pictures
        low, high = self.values
        return ((pictures - low) / (high - low)).clamp(0, 1).expand(-1, 3, -1, -1)
