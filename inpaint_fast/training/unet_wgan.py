"""Recipes `unet_l2` and `unet_wgan`: the U-Net-like generator, trained on L2 alone and with a Wasserstein critic.

Source: S. Subramanian, "Conditional Image Generation - Inpainting with MSCOCO" (2017); networks in
`inpaint_fast.models.unet_wgan`. The author's program is the default; what the document prints instead is an option.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from inpaint_fast.completion.fills import paste
from inpaint_fast.completion.weights import copy_weights
from inpaint_fast.data import Batch
from inpaint_fast.losses import critic_loss, generator_loss, hole_l2
from inpaint_fast.models.unet_wgan import HOLE, PICTURE, UNetGenerator, WassersteinCritic
from inpaint_fast.optim import ClippedAdam
from inpaint_fast.training.recipe import Recipe, System

_CENTRE = slice((PICTURE - HOLE) // 2, (PICTURE + HOLE) // 2)


@dataclass
class UNetL2(Recipe):
    """U-Net-like generator trained on the squared error of the hole alone: right on average, and blurred."""

    name: ClassVar[str] = "unet_l2"

    filters: int = 32
    """Channels of the generator's first convolution (the author's L2 notebook has 64)."""
    lr: float = 1e-3
    """Adam's learning rate (printed: 2e-3)."""
    betas: tuple[float, float] = (0.5, 0.999)
    """Adam's betas."""
    reconstruction_weight: float = 1.0
    """Factor of the squared error in the generator's loss."""
    pretrained: str | None = None
    """Start the generator from these weights: a run's folder or a safetensors file."""

    def build(self) -> System:
        return UNetSystem(self, None)


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
        return UNetSystem(self, self)


class UNetSystem(System):
    """Generator, critic (with `adversarial` settings) and their Adam optimizers.

    Args:
        recipe: settings of the generator and its optimizer.
        adversarial: settings of the critic; None trains on the squared error alone.
    """

    def __init__(self, recipe: UNetL2, adversarial: UNetWGAN | None) -> None:
        super().__init__()
        self.recipe, self.adversarial = recipe, adversarial
        self.arguments = {"generator": {"filters": recipe.filters}}
        self.generator = UNetGenerator(**self.arguments["generator"])
        if recipe.pretrained:
            copy_weights(recipe.pretrained, self.generator)
        self.critic: WassersteinCritic | None = None
        if adversarial:
            self.arguments["critic"] = {
                "filters": adversarial.critic_filters,
                "variant": adversarial.critic_variant,
            }
            self.critic = WassersteinCritic(**self.arguments["critic"])
        adam = {"lr": recipe.lr, "betas": recipe.betas}
        self.optimizers = {"generator": ClippedAdam(self.generator.parameters(), **adam)}
        if adversarial:
            groups = clip_groups(self.critic, adversarial.clip_bound, adversarial.clip_params)
            self.optimizers["critic"] = ClippedAdam(groups, **adam)
            clipped = sum(p.numel() for group in groups if group["clip"] for p in group["params"])
            every = sum(p.numel() for p in self.critic.parameters())
            self.notes = [
                f"after each critic step {clipped:,} of the critic's {every:,} parameters are clipped to "
                f"[-{adversarial.clip_bound}, {adversarial.clip_bound}] "
                + ("(BatchNorm's included)" if clipped == every else "(BatchNorm's are not)")
            ]

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Critic steps on the minibatch, each with its clip, then one generator step.

        The generator stands still during the critic steps, so its one forward pass serves all of them; its BatchNorm
        statistics end where a pass for each would have put them.
        """
        contour = batch.image.masked_fill(batch.mask, 0.0)
        truth = batch.image[..., _CENTRE, _CENTRE]
        passes = 1 + (self.adversarial.critic_steps if self.adversarial else 0)
        with repeated_batch_statistics(self.generator, passes):
            completion = self.generator(contour)
        losses = {}
        if self.adversarial:
            for _ in range(self.adversarial.critic_steps):
                losses["critic_loss"] = self.critic_step(truth, completion.detach())
        losses |= self.generator_step(truth, completion)
        return losses

    def critic_step(self, truth: Tensor, completion: Tensor) -> Tensor:
        """One step on real and generated holes; the optimizer clips in the same pass."""
        optimizer = self.optimizers["critic"]
        optimizer.zero_grad(set_to_none=True)
        loss = critic_loss(self.critic(truth), self.critic(completion), factor=self.adversarial.critic_weight)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def generator_step(self, truth: Tensor, completion: Tensor) -> dict[str, Tensor]:
        """One step on the squared error and, with a critic, on its score of the completion."""
        optimizer = self.optimizers["generator"]
        optimizer.zero_grad(set_to_none=True)
        loss = reconstruction = hole_l2(completion, truth, weight=self.recipe.reconstruction_weight)
        losses = {"reconstruction_loss": reconstruction.detach()}
        if self.adversarial:
            with frozen(self.critic):
                adversarial = generator_loss(self.critic(completion), factor=self.adversarial.adversarial_weight)
            losses["adversarial_loss"] = adversarial.detach()
            loss = reconstruction + adversarial
        loss.backward()
        optimizer.step()
        return losses

    def complete(self, batch: Batch) -> Tensor:
        """Fill the central holes; in eval mode, without gradients."""
        was_training = self.generator.training
        self.generator.eval()
        completed = complete_centres(self.generator, batch)
        self.generator.train(was_training)
        return completed


def complete_centres(generator: nn.Module, batch: Batch) -> Tensor:
    """A batch's central holes filled by a `UNetGenerator`, (N, 3, 64, 64); known pixels as they were."""
    with torch.no_grad():
        centre = generator(batch.image.masked_fill(batch.mask, 0.0))
    picture = batch.image.clone()
    picture[..., _CENTRE, _CENTRE] = centre
    return paste(picture, batch.image, batch.mask)


def clip_groups(critic: nn.Module, bound: float, clip_params: str) -> list[dict[str, Any]]:
    """The critic's parameters as optimizer groups: those to clip, and with "no_norm" those of its norms, unclipped."""
    norms = [module for module in critic.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    apart = {id(p) for norm in norms for p in norm.parameters()} if clip_params == "no_norm" else set()
    parameters = list(critic.parameters())
    groups = [{"params": [p for p in parameters if id(p) not in apart], "clip": bound}]
    if apart:
        groups.append({"params": [p for p in parameters if id(p) in apart], "clip": None})
    return groups


@contextmanager
def repeated_batch_statistics(network: nn.Module, times: int) -> Iterator[None]:
    """One training pass inside leaves BatchNorm's running statistics as `times` passes of the same batch would.

    Each pass moves them by `momentum` towards the batch: after k passes the old ones weigh (1 - momentum)^k.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = 1 - (1 - momentum) ** times
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            if norm.training:
                norm.num_batches_tracked += times - 1


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Inside, the network's parameters get no gradient: the generator's step needs those of its own alone."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
