"""Recipes and the loop that trains them.

    from inpaint_fast.training import UNetWGAN, train

    train(UNetWGAN(data="photos/", seconds=600), "run/")

`recipe`: what a recipe is; `adversarial`: the step of a generator and its critic; `centre`, `noise`: systems for
central holes, and for pictures from nothing; then one file a system. `precision`, `average`, `rates`, `parts`: settings
of every recipe; `processes`, `joint_norm`: a run in several processes. `loop`: the loop; `health`: early warnings;
`ending`: signals that end a run; `records`: what a run writes; `evaluation`, `metrics`, `pictures`: how a completion is
measured and shown.
"""

from inpaint_fast.training.context_cnn import (
    ContextCNNBow1,
    ContextCNNBow5,
    ContextCNNCaptionBias,
    ContextCNNGRU,
    ContextCNNLSTM,
    ContextCNNRecipe,
)
from inpaint_fast.training.context_gan import ContextGAN, ContextWGAN, NoiseGAN
from inpaint_fast.training.dcgan import DCGAN
from inpaint_fast.training.evaluation import Evaluation, table
from inpaint_fast.training.glcic import GLCIC, GLCICPlaces2, GLCICSmall
from inpaint_fast.training.latent_gan import ConvAutoencoderRecipe, LatentGAN
from inpaint_fast.training.loop import Run, TrainingError, train
from inpaint_fast.training.metrics import hole_metrics
from inpaint_fast.training.mlp_gan import MLPGAN
from inpaint_fast.training.recipe import Recipe, System
from inpaint_fast.training.unet_wgan import UNetL2, UNetWGAN
from inpaint_fast.training.unet_wgan_caption import UNetWGANCaption

RECIPES: dict[str, type[Recipe]] = {
    recipe.name: recipe
    for recipe in (
        UNetL2, UNetWGAN, UNetWGANCaption, ContextCNNRecipe, ContextCNNBow1, ContextCNNBow5, ContextCNNLSTM,
        ContextCNNGRU, ContextCNNCaptionBias, ContextGAN, ContextWGAN, NoiseGAN, ConvAutoencoderRecipe, LatentGAN,
        GLCIC, GLCICPlaces2, GLCICSmall, MLPGAN, DCGAN,
    )
}  # fmt: skip

__all__ = [
    "RECIPES", "Evaluation", "Recipe", "Run", "System", "TrainingError", "hole_metrics", "table", "train",
    *(recipe.__name__ for recipe in RECIPES.values()),
]  # fmt: skip
