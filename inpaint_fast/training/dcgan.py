"""Recipe `dcgan`: 64x64 pictures from noise, by strided convolutions.

Source: Radford, Metz and Chintala (2016), as PyTorch's example trains it; J. Patel's GNR652 project (2020) runs it on
CelebA. Networks in `inpaint_fast.models.dcgan`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from inpaint_fast.models.dcgan import DCGANCritic, DCGANGenerator
from inpaint_fast.optim import ClippedAdam
from inpaint_fast.training.adversarial import classifying
from inpaint_fast.training.noise import NoiseRecipe, NoiseSystem
from inpaint_fast.training.recipe import System

WHOLE = 1 << 16  # pixels: more than any picture has, so a crop is as large as it can be


@dataclass
class DCGAN(NoiseRecipe):
    """64x64 pictures from noise, by strided convolutions."""

    name: ClassVar[str] = "dcgan"
    source: ClassVar[str] = "Radford, Metz and Chintala (2016); J. Patel, GNR652 project (2020)"
    as_published: ClassVar[dict[str, object]] = {"batch_size": 128, "crop": (WHOLE, WHOLE), "flip": False}

    width: int = 64
    """Channels of the generator's last map but one and of the critic's first."""
    noise: Literal["normal", "uniform"] = "normal"
    """What pictures are made from: normal as PyTorch's example, uniform in [-1, 1) as the paper."""
    lr: float = 2e-4
    """Adam's learning rate, of both."""
    betas: tuple[float, float] = (0.5, 0.999)
    """Adam's betas, of both."""
    real_target: float = 1.0
    """0.9 smooths the labels of real pictures."""

    def build(self) -> System:
        return DCGANSystem(self)


class DCGANSystem(NoiseSystem):
    """A `DCGANGenerator`, a `DCGANCritic` and their Adam optimizers."""

    values = (-1.0, 1.0)

    def __init__(self, recipe: DCGAN) -> None:
        super().__init__(recipe)
        self.add_network("generator", DCGANGenerator, width=recipe.width, noise=recipe.noise)
        self.add_network("critic", DCGANCritic, width=recipe.width)
        self.objective = classifying(real_target=recipe.real_target)
        self.optimizers = self.optimizer_each(ClippedAdam, lr=recipe.lr, betas=recipe.betas)
