"""Recipes `unet_l2` and `unet_wgan`: the U-Net-like generator, trained on L2 alone and with a Wasserstein critic.

Source: S. Subramanian, "Conditional Image Generation - Inpainting with MSCOCO" (2017); networks in
`inpaint_fast.models.unet_wgan`. The author's program is the default; what the document prints instead is an option.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from inpaint_fast.models.unet_wgan import UNetGenerator, WassersteinCritic
from inpaint_fast.optim import ClippedAdam
from inpaint_fast.training.adversarial import wasserstein
from inpaint_fast.training.centre import CentreRecipe, CentreSystem
from inpaint_fast.training.recipe import System


@dataclass
class UNetL2(CentreRecipe):
    """U-Net-like generator trained on the squared error of the hole alone: right on average, and blurred."""

    name: ClassVar[str] = "unet_l2"
    source: ClassVar[str] = "S. Subramanian, IFT6266 project (2017)"

    filters: int = 32
    """Channels of the generator's first convolution (the author's L2 notebook has 64)."""
    lr: float = 1e-3
    """Adam's learning rate (printed: 2e-3)."""
    betas: tuple[float, float] = (0.5, 0.999)
    """Adam's betas."""
    reconstruction_weight: float = 1.0
    """Factor of the squared error in the generator's loss."""

    def generator(self) -> tuple[type[nn.Module], dict[str, object]]:
        """The generator's class, and what it is built of."""
        return UNetGenerator, {"filters": self.filters, "prefill": self.prefill}

    def build(self) -> System:
        return UNetSystem(self)


@dataclass
class UNetWGAN(UNetL2):
    """The same generator with a Wasserstein critic whose weights are clipped after each of its steps."""

    name: ClassVar[str] = "unet_wgan"

    adversarial_weight: float = 0.5
    """Factor of -mean(D(fake)) in the generator's loss."""
    critic_weight: float = 0.5
    """Factor of the critic's loss -mean(D(real) - D(fake))."""
    critic_steps: int = 5
    """Critic steps before each generator step, all on its minibatch (the author's first version: 1)."""
    clip: float | None = None
    """Bound of the critic's parameters after each of its steps; by default 0.03 with several critic steps, 0.05 with
    1."""
    clip_params: Literal["all", "no_norm"] = "all"
    """What the clip bounds: "all" as published, BatchNorm's scale and shift too, which shrinks every layer's output to
    the bound; "no_norm" leaves those two alone."""
    critic_filters: int = 32
    """Channels of the critic's first convolution."""
    critic_variant: Literal["code", "table"] = "code"
    """The critic as the author's program has it, or as the document's table prints it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.critic_steps < 1:
            raise ValueError(f"critic_steps: at least 1 is expected, got {self.critic_steps} (unet_l2 has no critic)")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip: a positive bound is expected, got {self.clip}")

    @property
    def clip_bound(self) -> float:
        return self.clip if self.clip is not None else (0.05 if self.critic_steps == 1 else 0.03)

    def build(self) -> System:
        return UNetWGANSystem(self)


class UNetSystem(CentreSystem):
    """The recipe's generator and its Adam optimizer, on the squared error alone."""

    def __init__(self, recipe: UNetL2) -> None:
        super().__init__(recipe, *recipe.generator(), reconstruction_weight=recipe.reconstruction_weight)
        self.optimizers = self.optimizer_each(ClippedAdam, lr=recipe.lr, betas=recipe.betas)


class UNetWGANSystem(UNetSystem):
    """The same with a `WassersteinCritic` and its optimizer, which clips as it steps."""

    def __init__(self, recipe: UNetWGAN) -> None:
        super().__init__(recipe)
        self.add_network("critic", WassersteinCritic, filters=recipe.critic_filters, variant=recipe.critic_variant)
        self.critic_steps = recipe.critic_steps
        self.objective = wasserstein(recipe.critic_weight, recipe.adversarial_weight)
        groups = self.critic_groups(recipe.clip_bound, recipe.clip_params)
        self.optimizers["critic"] = ClippedAdam(groups, lr=recipe.lr, betas=recipe.betas)
