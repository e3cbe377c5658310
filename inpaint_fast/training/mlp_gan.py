"""Recipe `mlp_gan`: a GAN of fully connected layers on MNIST's digits.

Source: J. Patel, GNR652 project (2020), after Goodfellow et al. (2014); networks in `inpaint_fast.models.mlp_gan`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from inpaint_fast.data import Digits, PackedImages
from inpaint_fast.data.packed import is_packed
from inpaint_fast.models.mlp_gan import SIDE, MLPCritic, MLPGenerator
from inpaint_fast.optim import ClippedAdam
from inpaint_fast.training.adversarial import classifying
from inpaint_fast.training.noise import NoiseRecipe, NoiseSystem
from inpaint_fast.training.recipe import System


@dataclass
class MLPGAN(NoiseRecipe):
    """Handwritten digits from noise, by fully connected layers."""

    name: ClassVar[str] = "mlp_gan"
    source: ClassVar[str] = "J. Patel, GNR652 project (2020)"
    size: ClassVar[int] = SIDE
    as_published: ClassVar[dict[str, object]] = {"literal_range": True}

    data: str = "samples"
    """A folder with MNIST's idx files, plain or gzipped, or "samples", the slice that comes with the package."""
    batch_size: int = 100
    """Pictures in a batch."""
    crop: tuple[int, int] = (SIDE, SIDE)
    """Digits are taken whole."""
    flip: bool = False
    """Digits are not mirrored."""
    heldout_crops: int = 1
    """As many pictures are generated as held-out digits are taken, times this."""
    heldout_pictures: int = 400
    """At most so many held-out digits, spread evenly over all of them, are measured against."""
    width: int = 256
    """Size of the smallest hidden layer, of both networks."""
    lr: float = 2e-4
    """Adam's learning rate, of both."""
    literal_range: bool = False
    """Real digits in [0, 1] as in the program, although the generator's tanh gives [-1, 1]."""

    def open_images(self, split: str) -> Digits | PackedImages:
        return PackedImages(self.data, split) if is_packed(self.data) else Digits(self.data, split)

    def build(self) -> System:
        return MLPGANSystem(self)


class MLPGANSystem(NoiseSystem):
    """An `MLPGenerator`, an `MLPCritic` and their Adam optimizers."""

    channels = 1
    fresh_draws = True

    def __init__(self, recipe: MLPGAN) -> None:
        super().__init__(recipe)
        self.values = (0.0, 1.0) if recipe.literal_range else (-1.0, 1.0)
        self.add_network("generator", MLPGenerator, width=recipe.width)
        self.add_network("critic", MLPCritic, width=recipe.width)
        self.objective = classifying()
        self.optimizers = self.optimizer_each(ClippedAdam, lr=recipe.lr)
