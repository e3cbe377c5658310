"""Recipes `context_gan` and `context_wgan`: the context CNN with a discriminator or a Wasserstein critic; `noise_gan`.

Source: S. Larocque, "IFT6266 project: inpainting" (2017): "NaNs instead of GANs" of April 23rd, "W-GAN" of April 24th,
"Other investigations" of April 28th. The joint loss is that of Pathak et al., "Context encoders" (2016).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from inpaint_fast.models.context_gan import CRITICS, ContextCritic, NoiseGenerator
from inpaint_fast.optim import ClippedAdam
from inpaint_fast.training.adversarial import Objective, classifying, optimizer_of, wasserstein
from inpaint_fast.training.context_cnn import SOURCE, ContextCNNRecipe, ContextSystem
from inpaint_fast.training.noise import NoiseRecipe, NoiseSystem
from inpaint_fast.training.recipe import System, set_number

Critic = Literal["v1", "v2", "v3", "v3_average", "v4_early", "v4", "v4_hole", "v4_deep"]


@dataclass
class _Adversarial(ContextCNNRecipe):
    """What both have: a critic, and how it takes turns with the generator."""

    clip: ClassVar[float | None] = None
    clip_params: ClassVar[str] = "all"

    critic: Critic = "v4_hole"
    """Discriminator, by the author's version: v1, v2 (max pooling, dense head), v3 (strides), v3_average; v4_early
    (strides), v4 (7x7), v4_deep see the whole picture; v4_hole the hole alone."""
    critic_filters: int | None = None
    """Channels of its first block; by default as published: 64 in v1 and v2, otherwise 32."""
    critic_optimizer: Literal["adam", "adamw", "rmsprop", "nesterov"] = "adam"
    """Of the critic."""
    critic_lr: float = 1e-4
    """Its learning rate."""
    critic_steps: int = 1
    """Critic steps on each batch."""
    generator_steps: int = 1
    """Generator steps on each batch (published: 1 to 10)."""
    real_noise: tuple[float, float] = (0.0, 0.0)
    """Standard deviation of the normal noise on what the critic sees of real holes, at the start and at the end of
    `real_noise_steps` (published: 1.0, later 0.1)."""
    real_noise_steps: int = 1000
    """Steps over which that noise goes from one to the other."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.expect_at_least(critic_steps=1, generator_steps=1, real_noise_steps=1)
        if min(self.real_noise) < 0:
            raise ValueError(f"real_noise: standard deviations of at least 0 are expected, got {self.real_noise}")

    @abstractmethod
    def weighted(self) -> tuple[float, Objective]:
        """The weight of the squared error, and the game with the weights of its sides."""

    def build(self) -> System:
        return ContextGANSystem(self)


@dataclass
class ContextGAN(_Adversarial):
    """The context CNN on a * squared error + (1 - a) * the discriminator's opinion."""

    name: ClassVar[str] = "context_gan"
    as_published: ClassVar[dict[str, object]] = {
        "batch_size": 128, "lr": 0.01, "flip": False, "lr_decay": 0.99, "output": "relu", "a": 0.5,
    }  # fmt: skip

    a: float = 0.999
    """Share of the squared error in the generator's loss; the rest is adversarial. 0.999 is that of Pathak et al.: at
    the pictures the two gradients are then of one size. With the author's 0.5 the adversarial one is some 200 times
    the other, and the discriminator, which sees the hole alone, cares for nothing round it."""
    saturating: bool = False
    """The generator minimises log(1 - D(fake)), not -log D(fake)."""
    real_target: float = 1.0
    """0.9 smooths the labels of real pictures."""
    literal_log: ClassVar[bool] = False  # no setting: the printed formulas, logarithms of probabilities, end in NaN

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.a <= 1:
            raise ValueError(f"a: a share between 0 and 1 is expected, got {self.a}")

    def weighted(self) -> tuple[float, Objective]:
        return self.a, classifying(
            1 - self.a, saturating=self.saturating, real_target=self.real_target, literal=self.literal_log
        )


@dataclass
class ContextWGAN(_Adversarial):
    """The context CNN with a Wasserstein critic of the whole picture, its weights clipped after each of its steps.

    The run with Adam is --as-published. That with RMSprop: --optimizer rmsprop --critic-optimizer rmsprop --lr 0.01
    --critic-lr 0.001 --lr-decay 0.99 --batch-size 250 --critic v4_deep --clip 0.02 --critic-weight 1
    --adversarial-weight 2 --output clip --clip-penalty 0.001
    """

    name: ClassVar[str] = "context_wgan"
    as_published: ClassVar[dict[str, object]] = {
        "batch_size": 400, "blocks": (2, 2), "lr": 0.05, "flip": False, "output": "tanh",
        "adversarial_weight": 0.5,
    }  # fmt: skip

    critic: Critic = "v4"
    critic_lr: float = 5e-4
    """Its learning rate (0.001 in the RMSprop run)."""
    reconstruction_weight: float = 1.0
    """Factor of the squared error in the generator's loss."""
    critic_weight: float = 0.5
    """Factor of the critic's loss -mean(D(real) - D(fake)) (1 in the last scripts)."""
    adversarial_weight: float = 0.01
    """Factor of -mean(D(fake)) in the generator's loss; published: 0.5 (1 in the last Adam script, 2 with RMSprop;
    0.05 was tried). With 0.01 its gradient at the pictures and that of the squared error are of one size; with 0.5 it
    is 20 times the other at first, later 100 times."""
    clip: float = 0.05
    """Bound of the critic's parameters after each of its steps (0.02 in the RMSprop run)."""
    clip_params: Literal["all", "no_norm"] = "all"
    """What the clip bounds: "all" as published, BatchNorm's scale and shift too; "no_norm" leaves those two alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.clip > 0:
            raise ValueError(f"clip: a positive bound is expected, got {self.clip}")

    def weighted(self) -> tuple[float, Objective]:
        return self.reconstruction_weight, wasserstein(self.critic_weight, self.adversarial_weight)


class ContextGANSystem(ContextSystem):
    """A `ContextCNN`, a `ContextCritic` and their optimizers."""

    recipe: _Adversarial

    def __init__(self, recipe: _Adversarial) -> None:
        arguments = dict(CRITICS[recipe.critic])
        weight, objective = recipe.weighted()
        super().__init__(recipe, whole=bool(arguments["whole"]), reconstruction_weight=weight)
        if recipe.critic_filters is not None:
            arguments["filters"] = recipe.critic_filters
        lasagne = recipe.constants == "lasagne"
        self.add_network("critic", ContextCritic, **arguments, lasagne=lasagne)
        self.objective = objective
        self.critic_steps, self.generator_steps = recipe.critic_steps, recipe.generator_steps
        self.real_noise: float | Tensor = recipe.real_noise[0]
        self.phase = self.real_noise > 0
        groups = self.critic_groups(recipe.clip, recipe.clip_params)
        self.optimizers["critic"] = optimizer_of(recipe.critic_optimizer, groups, lr=recipe.critic_lr, lasagne=lasagne)

    def schedule(self, step: int, epoch: int) -> None:
        super().schedule(step, epoch)
        start, end = self.recipe.real_noise
        noise = start + (end - start) * min(1.0, step / self.recipe.real_noise_steps)
        self.phase = noise > 0  # whether there is any
        self.real_noise = set_number(self.real_noise, noise)

    def move_numbers(self, device: torch.device) -> None:
        super().move_numbers(device)
        self.real_noise = torch.tensor(float(self.real_noise), device=device)

    def disturbed(self, truth: Tensor) -> Tensor:
        if not self.phase:
            return truth
        shape, like = truth.shape[1:], {"dtype": truth.dtype, "device": truth.device}
        return truth + self.real_noise * self.processes.own(lambda rows: torch.randn(rows, *shape, **like), len(truth))


@dataclass
class NoiseGAN(NoiseRecipe):
    """32x32 pictures from noise alone: the author's first GAN."""

    name: ClassVar[str] = "noise_gan"
    source: ClassVar[str] = SOURCE
    size: ClassVar[int] = 32
    as_published: ClassVar[dict[str, object]] = {
        "batch_size": 128, "flip": False, "output": "relu", "lr": 1e-3,
        "betas": (0.9, 0.999), "noise": "unsigned",
    }  # fmt: skip

    filters: int = 512
    """Channels of the generator's first convolution."""
    output: Literal["sigmoid", "relu"] = "sigmoid"
    """Last activation of the generator. The published ReLU can die: all pictures black, and no gradient to bring them
    back."""
    noise: Literal["signed", "unsigned"] = "signed"
    """What pictures are made from: uniform in [-1, 1), or as published in [0, 1), whose mean outweighs it: all pictures
    become the same."""
    critic: Literal["v1", "v2"] = "v1"
    """Discriminator: without normalisation and with ReLU, or with normalisation and tanh."""
    critic_filters: int = 64
    """Channels of its first block."""
    lr: float = 2e-4
    """Adam's learning rate, of both (published: 0.001)."""
    betas: tuple[float, float] = (0.5, 0.999)
    """Adam's betas, of both (published: 0.9, 0.999)."""
    saturating: bool = False
    """The generator minimises log(1 - D(fake)), not -log D(fake)."""
    constants: Literal["lasagne", "pytorch"] = "lasagne"
    """Whose starting weights and BatchNorm constants."""

    def build(self) -> System:
        return NoiseGANSystem(self)


class NoiseGANSystem(NoiseSystem):
    """A `NoiseGenerator`, a `ContextCritic` and their Adam optimizers."""

    def __init__(self, recipe: NoiseGAN) -> None:
        super().__init__(recipe)
        lasagne = recipe.constants == "lasagne"
        self.add_network(
            "generator", NoiseGenerator, filters=recipe.filters, lasagne=lasagne, output=recipe.output,
            noise=recipe.noise,
        )  # fmt: skip
        critic = {**CRITICS[recipe.critic], "filters": recipe.critic_filters, "lasagne": lasagne}
        self.add_network("critic", ContextCritic, **critic)
        self.objective = classifying(saturating=recipe.saturating)
        self.optimizers = self.optimizer_each(ClippedAdam, lr=recipe.lr, betas=recipe.betas)
