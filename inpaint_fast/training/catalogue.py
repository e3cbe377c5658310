"""Every recipe, by the name that the command line has for it."""

from __future__ import annotations

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
from inpaint_fast.training.glcic import GLCIC, GLCICPlaces2, GLCICSmall
from inpaint_fast.training.latent_gan import ConvAutoencoderRecipe, LatentGAN
from inpaint_fast.training.mlp_gan import MLPGAN
from inpaint_fast.training.recipe import Recipe
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
