"""Recipes and the loop that trains them.

    from inpaint_fast.training import UNetWGAN, train

    train(UNetWGAN(data="photos/", seconds=600), "run/")

`recipe`: what a recipe is; `adversarial`: the step of a generator and its critic; `centre`, `noise`: systems for
central holes, and for pictures from nothing; then one file a system, and `catalogue`: all their recipes. `precision`,
`average`, `rates`, `parts`: settings of every recipe. `run`: what a run owns; `loop`: the loop; `processes`,
`joint_norm`: a run in several processes; `guard`: steps that are skipped; `health`: early warnings; `display`: where a
run is, for who watches it; `ending`: signals; `records`: what a run writes, with `config` and `checkpoints`;
`evaluation`, `metrics`, `pictures`: how a completion is measured and shown; `report`: runs as one page; `tensorboard`:
a run as events; `columns`: what the columns of a row are.
"""

from inpaint_fast.training.catalogue import (
    DCGAN,
    GLCIC,
    MLPGAN,
    RECIPES,
    ContextCNNBow1,
    ContextCNNBow5,
    ContextCNNCaptionBias,
    ContextCNNGRU,
    ContextCNNLSTM,
    ContextCNNRecipe,
    ContextGAN,
    ContextWGAN,
    ConvAutoencoderRecipe,
    GLCICPlaces2,
    GLCICSmall,
    LatentGAN,
    NoiseGAN,
    UNetL2,
    UNetWGAN,
    UNetWGANCaption,
)
from inpaint_fast.training.config import read_recipe
from inpaint_fast.training.evaluation import Evaluation, area_table, table
from inpaint_fast.training.loop import TrainingError, train
from inpaint_fast.training.metrics import hole_metrics
from inpaint_fast.training.recipe import Recipe, System
from inpaint_fast.training.run import Run

__all__ = [
    "DCGAN", "GLCIC", "MLPGAN", "RECIPES", "ContextCNNBow1", "ContextCNNBow5", "ContextCNNCaptionBias", "ContextCNNGRU",
    "ContextCNNLSTM", "ContextCNNRecipe", "ContextGAN", "ContextWGAN", "ConvAutoencoderRecipe", "Evaluation",
    "GLCICPlaces2", "GLCICSmall", "LatentGAN", "NoiseGAN", "Recipe", "Run", "System", "TrainingError", "UNetL2",
    "UNetWGAN", "UNetWGANCaption", "area_table", "hole_metrics", "read_recipe", "table", "train",
]  # fmt: skip
