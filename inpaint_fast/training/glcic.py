"""Recipe `glcic`: globally and locally consistent image completion in three phases.

Source: Iizuka, Simo-Serra, Ishikawa (SIGGRAPH 2017) and otenim's GLCIC-PyTorch, whose CelebA values are the defaults;
networks in `inpaint_fast.models.glcic`. What that program does against the paper or against itself is mended, and a
setting restores each: `composite`, `clear_gradients`, `alpha_on_discriminator`, `still_completion`,
`divide_gradients`. Its mean pixel was taken of files as they are, which fails on grey ones; here every picture is RGB.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from inpaint_fast.completion.generators import at_rest
from inpaint_fast.data import Batch, ContextBatch, ContextBatches, ImageError, heldout_crops, rectangles
from inpaint_fast.models.glcic import CompletionNetwork, ContextDiscriminator, patches
from inpaint_fast.ops import masked_l2, masked_l2_composite
from inpaint_fast.optim import Adadelta
from inpaint_fast.training.adversarial import at_ends, classifying, frozen, repeated_batch_statistics, spread_of
from inpaint_fast.training.parts import note
from inpaint_fast.training.recipe import Recipe, System

MEAN_PIXEL_PICTURES = 1000  # the mean of so many pictures, spread over all, is within 1/255 of the whole set's


@dataclass
class GLCIC(Recipe):
    """Completion network with dilated convolutions, local and global context discriminators; CelebA's sizes.

    Three phases: `completion_steps` of the completion network alone on squared error, `discriminator_steps` of the
    discriminators alone, then both to the end. Weeks on a GPU; glcic_small is the same in minutes on two CPU cores.
    """

    name: ClassVar[str] = "glcic"
    source: ClassVar[str] = (
        "Iizuka, Simo-Serra and Ishikawa (SIGGRAPH 2017); GLCIC-PyTorch, as J. Patel's GNR652 project (2020) runs it"
    )
    as_published: ClassVar[dict[str, object]] = {
        "holes": "one_area", "edge": (160, 160), "flip": False, "composite": False, "clear_gradients": False,
        "alpha_on_discriminator": True, "still_completion": False, "divide_gradients": False,
    }  # fmt: skip

    size: int = 160
    """Side of the training pictures in pixels, a multiple of 4."""
    local: int = 96
    """Side of the local discriminator's patch in pixels, a multiple of 4."""
    hole: tuple[int, int] = (48, 96)
    """Smallest and largest side of the rectangular holes, in pixels; width and height are drawn separately."""
    holes: Literal["free", "one_area"] = "free"
    """"free": anywhere in the picture, the local patch centred on each (paper). "one_area": all holes of a batch inside
    one random square, which is the patch (otenim)."""
    edge: tuple[int, int] | None = (160, 178)
    """Shortest and longest length that a picture's short side is scaled to before a square is cut from it. None: `crop`
    says how large the squares are."""
    mean_pixel: tuple[float, float, float] | None = None
    """RGB in [0, 1] that fills the holes; by default the mean of the training pictures (of 1000 of them)."""
    steps: int = 500_000
    """Steps of all three phases together."""
    completion_steps: int = 90_000
    """T_C: steps of the completion network alone."""
    discriminator_steps: int = 10_000
    """T_D: steps of the discriminators alone."""
    batch_size: int = 96
    """Pictures in a batch."""
    micro_batch: int | None = 16
    evaluate_every: int = 2_000
    """Steps between evaluations on held-out pictures (metrics, sample pictures)."""
    heldout_crops: int = 1
    """Held-out crops from each held-out picture."""
    alpha: float = 4e-4
    """Factor of the adversarial loss beside the squared error."""
    lr: float = 1.0
    """AdaDelta's learning rate."""
    settle: int = 0
    """Over so many last steps of the first phase the completion network's learning rate falls to a tenth, where it
    stays; 0, as published, leaves it alone. Narrow networks move faster than their running statistics can follow."""
    rho: float = 0.9
    """AdaDelta's decay."""
    eps: float = 1e-6
    """AdaDelta's epsilon."""
    channels: int = 64
    """Channels of the completion network's first convolution."""
    discriminator_channels: int = 64
    """Channels of each discriminator's first convolution."""
    features: int = 1024
    """Features of each discriminator."""
    order: Literal["act_norm", "norm_act"] = "act_norm"
    """"act_norm": convolution, ReLU, norm (otenim's weights); "norm_act": convolution, norm, ReLU (paper)."""
    saturating: bool = False
    """The completion network minimises log(1 - D) (paper) instead of -log D (otenim)."""
    composite: bool = True
    """The discriminators see completed pictures, whose known pixels are the true ones. False, as otenim: the network's
    whole output."""
    clear_gradients: bool = True
    """False, as otenim: what the completion network's step leaves in the discriminators' gradients is added to their
    next step."""
    alpha_on_discriminator: bool = False
    """True, as otenim: in the last phase the discriminators' loss is multiplied by alpha, which AdaDelta's epsilon
    turns into very slow steps."""
    still_completion: bool = True
    """The completion network is at rest while the discriminators are trained alone: eval mode, no graph. False, as
    otenim: training mode, so that its running statistics go on moving."""
    divide_gradients: bool = True
    """False, as otenim: the gradients of a batch's parts are summed, the larger the more parts there are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.expect_at_least(completion_steps=0, discriminator_steps=0, settle=0)
        if self.precision == "fp16" and not self.clear_gradients:
            raise ValueError(
                "precision: with clear_gradients=False gradients outlive the scale of their losses; 'float32' or "
                "'bf16' is expected, got 'fp16'"
            )
        for name in ("size", "local"):
            if getattr(self, name) < 4 or getattr(self, name) % 4:
                raise ValueError(f"{name}: a multiple of 4 (4, 8, 12, ...) is expected, got {getattr(self, name)}")
        if not 1 <= self.hole[0] <= self.hole[1] <= self.local <= self.size:
            raise ValueError(
                f"hole, local and size: 1 <= smallest <= largest hole <= local <= size is expected, got {self.hole}, "
                f"{self.local} and {self.size}"
            )

    @property
    def milestones(self) -> Sequence[int]:
        return (self.completion_steps, self.completion_steps + self.discriminator_steps)

    def batches(self, images: Sequence[Tensor], captions: Tensor | None = None) -> ContextBatches:
        return ContextBatches(
            images, local=self.local, hole=self.hole, one_area=self.holes == "one_area", batch_size=self.batch_size,
            size=self.size, crop=self.crop, edge=self.edge, flip=self.flip, seed=self.seed,
        )  # fmt: skip

    def heldout(self, images: Sequence[Tensor], captions: Tensor | None = None) -> Batch:
        return heldout_crops(
            images, per_image=self.heldout_crops, size=self.size, crop=self.crop, edge=self.edge,
            mask=rectangles(self.hole),
        )  # fmt: skip

    def build(self) -> System:
        return GLCICSystem(self)


@dataclass
class GLCICPlaces2(GLCIC):
    """glcic with the paper's sizes for Places2: pictures of 256 pixels, holes of 96 to 128, patches of 128."""

    name: ClassVar[str] = "glcic_places2"
    source: ClassVar[str] = "Iizuka, Simo-Serra and Ishikawa (SIGGRAPH 2017)"
    as_published: ClassVar[dict[str, object]] = {"order": "norm_act", "saturating": True, "flip": False}

    size: int = 256
    local: int = 128
    hole: tuple[int, int] = (96, 128)
    edge: tuple[int, int] | None = (256, 384)


@dataclass
class GLCICSmall(GLCIC):
    """glcic on pictures of 64 pixels with narrow networks: all three phases in minutes on two CPU cores.

    The holes have the same share of the picture as on CelebA. A demonstration: too short for the discriminators to
    sharpen much.
    """

    name: ClassVar[str] = "glcic_small"
    as_published: ClassVar[dict[str, object]] = GLCIC.as_published | {"edge": (64, 64)}

    size: int = 64
    local: int = 40
    hole: tuple[int, int] = (19, 38)
    edge: tuple[int, int] | None = None
    steps: int = 3_300
    completion_steps: int = 3_000
    discriminator_steps: int = 100
    settle: int = 1_200
    batch_size: int = 16
    micro_batch: int | None = None
    evaluate_every: int = 300
    heldout_crops: int = 16
    channels: int = 16
    discriminator_channels: int = 16
    features: int = 256


class GLCICSystem(System):
    """Completion network (`generator`), context discriminators (`discriminator`), their AdaDelta optimizers."""

    recipe: GLCIC
    generator: CompletionNetwork
    discriminator: ContextDiscriminator
    phase: int

    def __init__(self, recipe: GLCIC) -> None:
        super().__init__(recipe)
        self.add_network(
            "generator", CompletionNetwork, channels=recipe.channels, order=recipe.order, hole=recipe.hole[1]
        )
        self.add_network(
            "discriminator", ContextDiscriminator, local=recipe.local, size=recipe.size,
            channels=recipe.discriminator_channels, features=recipe.features, order=recipe.order,
        )  # fmt: skip
        if recipe.mean_pixel is not None:
            self._fill_with(recipe.mean_pixel)
        self.objective = classifying(critic_weight=0.5, saturating=recipe.saturating)
        self.optimizers = self.optimizer_each(Adadelta, lr=recipe.lr, rho=recipe.rho, eps=recipe.eps)
        self.phase = 1
        self.notes = [phases(recipe)] if recipe.steps else []

    def prepare(self, images: Sequence[Tensor]) -> None:
        if self.recipe.mean_pixel is None:
            self._fill_with(mean_pixel(images))

    def schedule(self, step: int, epoch: int) -> None:
        super().schedule(step, epoch)
        self.phase = 1 + sum(step >= end for end in self.recipe.milestones)

    def rate(self, optimizer: str, step: int, epoch: int) -> float:
        factor = super().rate(optimizer, step, epoch)
        return factor * self._settled(step) if optimizer == "generator" else factor

    def step(self, batch: ContextBatch) -> dict[str, Tensor]:
        """The step of the phase that the run is in."""
        return {1: self.completion_step, 2: self.discriminator_step, 3: self.joint_step}[self.phase](batch)

    def completion_step(self, batch: ContextBatch) -> dict[str, Tensor]:
        """Phase 1: the completion network on the squared error of the holes, a mean over all of the pictures."""
        losses: dict[str, Tensor] = {}
        for share, part in self.parts(batch):
            loss = masked_l2(self.through(self.generator, part.image, part.mask), part.image, part.mask)
            note(losses, share, reconstruction_loss=loss)
            self.backward(loss * self._gradient_share(share))
        self.update("generator")
        return losses

    def discriminator_step(self, batch: ContextBatch) -> dict[str, Tensor]:
        """Phase 2: the discriminators alone; the completion network stands still."""
        losses: dict[str, Tensor] = {}
        for share, part in self.parts(batch):
            with at_rest(self.generator) if self.recipe.still_completion else nullcontext(), torch.no_grad():
                _, completed = self._completed(part)
            loss, spread = self._discriminator_loss(part, completed)
            note(losses, share, discriminator_loss=loss, critic_spread=spread)
            self.backward(loss * self._gradient_share(share))
        self.update("discriminator")
        return losses

    def joint_step(self, batch: ContextBatch) -> dict[str, Tensor]:
        """Phase 3: a step of the discriminators, then one of the completion network against the new ones.

        With the batch in one part, one forward pass of the completion network serves both. In several parts its graphs
        would all have to be kept, so each part is completed a second time; its running statistics move once.
        """
        recipe, parts = self.recipe, self.parts(batch)
        losses: dict[str, Tensor] = {}
        kept: tuple[Tensor, Tensor] | None = None
        for share, part in parts:
            if len(parts) == 1:
                kept = self._completed(part)
                completed = kept[1].detach()
            else:
                with torch.no_grad(), repeated_batch_statistics(self.generator, 0):
                    _, completed = self._completed(part)
            loss, spread = self._discriminator_loss(part, completed)
            note(losses, share, discriminator_loss=loss, critic_spread=spread)
            factor = recipe.alpha if recipe.alpha_on_discriminator else 1.0
            self.backward(loss * (factor * self._gradient_share(share)))
        self.update("discriminator")
        for share, part in parts:
            reconstruction, completed = kept or self._completed(part)
            patch = patches(completed, part.hole_corner, recipe.local)
            with frozen(self.discriminator) if recipe.clear_gradients else nullcontext():
                logits = self.through(self.discriminator, patch, completed)
            adversarial = self.objective.generator(logits)
            note(losses, share, reconstruction_loss=reconstruction, adversarial_loss=adversarial)
            ends = [at_ends(pictures, (0.0, 1.0), part.mask) for pictures in (completed.detach(), part.image)]
            note(losses, share, saturated=ends[0] - ends[1])
            loss = (reconstruction + recipe.alpha * adversarial) / 2
            self.backward(loss * self._gradient_share(share))
        self.update("generator")
        return losses

    def _settled(self, step: int) -> float:
        """A factor of the rate: a tenth after the first phase, and on the way there in its last `settle` steps."""
        if self.recipe.settle == 0:
            return 1.0
        left = self.recipe.completion_steps - step
        return 0.1 + 0.9 * min(max(left / self.recipe.settle, 0.0), 1.0)

    def _gradient_share(self, share: float) -> float:
        return share if self.recipe.divide_gradients else float(self.processes.count)

    def _completed(self, part: ContextBatch) -> tuple[Tensor, Tensor]:
        """The squared error, and the pictures that the discriminators see."""
        output = self.through(self.generator, part.image, part.mask)
        if self.recipe.composite:
            return masked_l2_composite(output, part.image, part.mask)
        return masked_l2(output, part.image, part.mask), output

    def _discriminator_loss(self, part: ContextBatch, completed: Tensor) -> tuple[Tensor, Tensor]:
        """Completed and real pictures in one pass, each normalised by its own statistics: loss and spread of logits."""
        local = self.recipe.local
        patch = [patches(completed, part.hole_corner, local), patches(part.image, part.real_corner, local)]
        logits = self.through(self.discriminator, torch.cat(patch), torch.cat([completed, part.image]), groups=2)
        fake, real = logits.chunk(2)
        return self.objective.critic(real, fake), spread_of(logits)

    def _fill_with(self, pixel: Sequence[float]) -> None:
        self.arguments["generator"]["mean_pixel"] = [float(value) for value in pixel]
        self.generator.mean_pixel.copy_(torch.tensor(pixel, dtype=torch.float32))


def phases(recipe: GLCIC) -> str:
    """Which networks are trained until which step, as far as the run goes."""
    start, told = 0, []
    names = ("the completion network", "the discriminators", "both")
    for end, name in zip((*recipe.milestones, recipe.steps), names, strict=True):
        end = min(end, recipe.steps)
        if end > start:
            told.append(f"to step {end:,} {name}")
        start = end
    return f"trains {', '.join(told)}"


def mean_pixel(images: Sequence[Tensor], *, limit: int = MEAN_PIXEL_PICTURES) -> list[float]:
    """RGB in [0, 1]: the mean over pictures of their mean pixels; of `limit` of them, spread evenly.

    Args:
        images: uint8 tensors (3, H, W); those that cannot be read are left out.

    Raises:
        ImageError: none can be read.
    """
    total, count, failure = torch.zeros(3, dtype=torch.float64), 0, None
    for i in range(0, len(images), math.ceil(len(images) / limit)):
        try:
            total += images[i].flatten(1).double().mean(dim=1) / 255
            count += 1
        except ImageError as error:
            failure = error
    if not count:
        assert failure is not None  # there are pictures
        raise failure
    return (total / count).tolist()
