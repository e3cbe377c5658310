"""Recipes `latent_gan`, a GAN from an auto-encoder's code of the noise-filled picture, and `conv_autoencoder`.

Source: G. Bernard, IFT6266 project "Conditional Image Generation" (2017); networks in `inpaint_fast.models.latent_gan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inpaint_fast.data import Batch
from inpaint_fast.models.latent_gan import CODE, ConvAutoencoder, LatentCritic, LatentDecoder, LatentGenerator
from inpaint_fast.optim import ClippedAdam
from inpaint_fast.training.adversarial import classifying
from inpaint_fast.training.centre import CentreRecipe, CentreSystem, Prefill
from inpaint_fast.training.parts import note
from inpaint_fast.training.recipe import System

SOURCE = "G. Bernard, IFT6266 project (2017)"


@dataclass
class ConvAutoencoderRecipe(CentreRecipe):
    """Convolutional encoder and decoder without normalisation, on the squared error of the hole."""

    name: ClassVar[str] = "conv_autoencoder"
    source: ClassVar[str] = SOURCE
    as_published: ClassVar[dict[str, object]] = {"batch_size": 128, "flip": False}

    filters: int = 64
    """Channels of every convolution."""
    constants: Literal["lasagne", "pytorch"] = "lasagne"
    """Whose starting weights."""
    lr: float = 1e-3
    """Adam's learning rate."""

    def build(self) -> System:
        return ConvAutoencoderSystem(self)


class ConvAutoencoderSystem(CentreSystem):
    """A `ConvAutoencoder` and its Adam optimizer."""

    def __init__(self, recipe: ConvAutoencoderRecipe) -> None:
        lasagne = recipe.constants == "lasagne"
        arguments = {"filters": recipe.filters, "lasagne": lasagne, "prefill": recipe.prefill}
        super().__init__(recipe, ConvAutoencoder, arguments)
        self.optimizers = self.optimizer_each(ClippedAdam, lr=recipe.lr)


@dataclass
class LatentGAN(CentreRecipe):
    """A GAN that makes the whole picture from an auto-encoder's code of what is known; no squared error of the hole."""

    name: ClassVar[str] = "latent_gan"
    source: ClassVar[str] = SOURCE
    as_published: ClassVar[dict[str, object]] = {
        "batch_size": 128, "autoencoder_steps": 646, "decoder_output": "relu", "batch_statistics": True, "flip": False,
    }  # fmt: skip

    prefill: Prefill = "noise"
    """What the hole holds when the encoder sees the picture: "noise" as the program, uniform in a narrow band of grey;
    "gaussian_noise" as the text."""
    autoencoder_steps: int = 500
    """Steps, from the first on, that train the auto-encoder; then its encoder stands still and the GAN begins.
    Published: one epoch, 646 steps."""
    autoencoder_loss: Literal["mse", "bce"] = "mse"
    """Squared error as the program, or binary cross entropy of pictures in [0, 1] as the text."""
    autoencoder_lr: float = 1e-3
    """Adam's learning rate of the auto-encoder."""
    decoder_output: Literal["relu", "tanh"] = "tanh"
    """Last activation of its decoder with "mse"; the program's ReLU cannot give the darker half of the pictures."""
    width: int = 128
    """Channels of the first convolution of encoder and critic."""
    code: int = CODE
    """Numbers of the code."""
    hole: bool = False
    """Generator and critic make and see the hole alone, as the text says and the early program does."""
    batch_statistics: bool = False
    """The encoder normalises by the batch when it completes, too, as the program does."""
    constants: Literal["lasagne", "pytorch"] = "lasagne"
    """Whose starting weights and BatchNorm constants."""
    lr: float = 2e-4
    """Adam's learning rate of generator and critic."""
    betas: tuple[float, float] = (0.9, 0.999)
    """The generator's betas."""
    critic_betas: tuple[float, float] = (0.5, 0.999)
    """The critic's betas."""
    critic_steps: int = 1
    """Critic steps on each batch."""
    generator_steps: int = 2
    """Generator steps on each batch, all from the same codes."""
    real_target: float = 1.0
    """0.9 smooths the labels of real pictures (the program until April 28th)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.expect_at_least(autoencoder_steps=0, critic_steps=1, generator_steps=1)

    @property
    def milestones(self) -> Sequence[int]:
        return (self.autoencoder_steps,)

    def build(self) -> System:
        return LatentSystem(self)


class LatentSystem(CentreSystem):
    """Encoder and code generator (together `generator`), the auto-encoder's decoder, the critic."""

    recipe: LatentGAN
    generator: LatentGenerator
    decoder: LatentDecoder
    values = (-1.0, 1.0)
    memory_format = torch.contiguous_format
    """Its 2x2 and 9x9 convolutions stay PyTorch's own, which are some 5 % faster so."""

    def __init__(self, recipe: LatentGAN) -> None:
        lasagne = recipe.constants == "lasagne"
        arguments: dict[str, object] = {
            "width": recipe.width, "code": recipe.code, "hole": recipe.hole, "lasagne": lasagne,
            "batch_statistics": recipe.batch_statistics, "prefill": recipe.prefill,
        }  # fmt: skip
        super().__init__(recipe, LatentGenerator, arguments, reconstruction_weight=0.0)
        output = recipe.decoder_output if recipe.autoencoder_loss == "mse" else "none"
        decoder = {"width": recipe.width, "code": recipe.code, "output": output, "lasagne": lasagne}
        self.add_network("decoder", LatentDecoder, **decoder)
        self.add_network("critic", LatentCritic, width=recipe.width, hole=recipe.hole, lasagne=lasagne)
        self.objective = classifying(real_target=recipe.real_target)
        self.critic_steps, self.generator_steps = recipe.critic_steps, recipe.generator_steps
        autoencoder = [*self.generator.encoder.parameters(), *self.decoder.parameters()]
        self.optimizers = {
            "autoencoder": ClippedAdam(autoencoder, lr=recipe.autoencoder_lr),
            "generator": ClippedAdam(self.generator.decoder.parameters(), lr=recipe.lr, betas=recipe.betas),
            "critic": ClippedAdam(self.critic.parameters(), lr=recipe.lr, betas=recipe.critic_betas),
        }
        self.notes = [f"the first {recipe.autoencoder_steps:,} steps train the auto-encoder, the rest the GAN"]
        self.encoding = recipe.autoencoder_steps > 0
        self.codes: Tensor | None = None  # of the batch, during its step

    def schedule(self, step: int, epoch: int) -> None:
        super().schedule(step, epoch)
        self.encoding = step < self.recipe.autoencoder_steps

    @property
    def phase(self) -> bool:
        return self.encoding

    @property
    def maker(self) -> nn.Module:
        return self.generator.decoder

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """The auto-encoder's step on the noise-filled pictures themselves, or the GAN's from their codes."""
        (picture,) = super().inputs(batch)
        if self.encoding:
            return self.autoencoder_step(batch, picture)
        with torch.no_grad():
            codes = [self.through(self.generator.encoder, 2 * part - 1) for _, _, part in self.parts(batch, picture)]
        self.codes = torch.cat(codes)
        try:
            return super().step(batch)
        finally:
            self.codes = None

    def autoencoder_step(self, batch: Batch, picture: Tensor) -> dict[str, Tensor]:
        """One step of encoder and decoder on (N, 3, 64, 64) pictures in [0, 1], those of the batch."""
        measured: dict[str, Tensor] = {}
        for share, _, part in self.parts(batch, picture):
            decoded = self.through(self.decoder, self.through(self.generator.encoder, 2 * part - 1))
            if self.recipe.autoencoder_loss == "mse":
                loss = F.mse_loss(decoded, 2 * part - 1)
            else:
                loss = F.binary_cross_entropy_with_logits(decoded, part)
            self.backward(loss * share)
            note(measured, share, autoencoder_loss=loss)
        self.update("autoencoder")
        return measured

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        assert self.codes is not None  # within its step
        return (self.codes,)

    def truth(self, batch: Batch) -> Tensor:
        return 2 * (super().truth(batch) if self.recipe.hole else batch.image) - 1
