"""Recipes and the loop that trains them.

    from inpaint_fast.training import UNetWGAN, train

    train(UNetWGAN(data="photos/", seconds=600), "run/")

`recipe`: what a recipe is; `unet_wgan`, `glcic`: those there are; `loop`: the loop; `records`: what a run writes;
`evaluation`, `metrics`, `pictures`: how a completion is measured and shown.
"""

from inpaint_fast.training.evaluation import Evaluation, table
from inpaint_fast.training.glcic import GLCIC, GLCICPlaces2, GLCICSmall
from inpaint_fast.training.loop import Run, TrainingError, train
from inpaint_fast.training.metrics import hole_metrics
from inpaint_fast.training.recipe import Recipe, System
from inpaint_fast.training.unet_wgan import UNetL2, UNetWGAN

RECIPES: dict[str, type[Recipe]] = {
    recipe.name: recipe for recipe in (UNetL2, UNetWGAN, GLCIC, GLCICPlaces2, GLCICSmall)
}

__all__ = [
    "GLCIC", "RECIPES", "Evaluation", "GLCICPlaces2", "GLCICSmall", "Recipe", "Run", "System", "TrainingError",
    "UNetL2", "UNetWGAN", "hole_metrics", "table", "train",
]  # fmt: skip
