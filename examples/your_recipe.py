"""A recipe of one's own: a network, its loss and its optimizer; the loop, checkpoints, metrics and pictures come along.

python examples/your_recipe.py --steps 400 --out runs/small_unet
"""

import argparse
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inpaint_fast.models import NETWORKS, CentreGenerator
from inpaint_fast.optim import ClippedAdam
from inpaint_fast.training import System, train
from inpaint_fast.training.centre import CentreRecipe, CentreSystem


class SmallUNet(CentreGenerator):
    """The 64x64 picture with its hole -> what the central 32x32 hole holds."""

    def __init__(self, width: int = 32, prefill: str = "mean") -> None:
        super().__init__(prefill)
        self.down = nn.Sequential(nn.Conv2d(3, width, 4, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(width, width, 3, padding=4, dilation=4), nn.BatchNorm2d(width), nn.ReLU())
        self.last = nn.Conv2d(2 * width, 3, 3, padding=1)

    def forward(self, picture: Tensor) -> Tensor:
        skip = self.down(picture)
        return torch.sigmoid(self.last(torch.cat([self.middle(skip), skip], dim=1)))


@dataclass
class SmallUNetRecipe(CentreRecipe):
    """A small U-Net on L1: beside these two settings, those of every recipe (data, steps, seconds, ema, ...)."""

    name: ClassVar[str] = "small_unet"
    width: int = 32
    """Channels of every map."""
    lr: float = 1e-3
    """Adam's learning rate."""

    def build(self) -> System:
        return SmallUNetSystem(self)


class SmallUNetSystem(CentreSystem):
    def __init__(self, recipe: SmallUNetRecipe) -> None:
        super().__init__(recipe, SmallUNet, {"width": recipe.width, "prefill": recipe.prefill})
        self.optimizers = self.optimizer_each(ClippedAdam, lr=recipe.lr)

    def reconstruction(self, pictures: Tensor, truth: Tensor) -> Tensor:
        return F.l1_loss(pictures, truth)


NETWORKS["SmallUNet"] = SmallUNet  # weight files name their network: those of this run can be loaded where this is done

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", default="runs/small_unet")
    args = parser.parse_args()
    print(train(SmallUNetRecipe(prefill="mean", steps=args.steps, evaluate_every=100), args.out))
