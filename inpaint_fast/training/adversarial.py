"""One training step of a generator and, where there is one, its critic; every adversarial system is made of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from inpaint_fast.data import Batch
from inpaint_fast.losses import (
    critic_loss,
    discriminator_loss,
    generator_loss,
    literal_discriminator_loss,
    literal_generator_loss,
    nonsaturating_loss,
    saturating_loss,
)
from inpaint_fast.optim import ClippedAdam, ClippedAdamW, ClippedRMSprop, NesterovRMSprop
from inpaint_fast.training.parts import note
from inpaint_fast.training.recipe import Recipe, System

AT_THE_END = 0.005  # of a range of 1: values as near to its ends as this count as saturated


class Objective(NamedTuple):
    """The two sides of a game."""

    critic: Callable[[Tensor, Tensor], Tensor]
    """Scores of real and of generated pictures -> the critic's loss."""
    generator: Callable[[Tensor], Tensor]
    """Scores of generated pictures -> what the generator's loss gets from them."""


def wasserstein(critic_weight: float, adversarial_weight: float) -> Objective:
    """`losses.critic_loss` and `losses.generator_loss` with these factors."""
    return Objective(partial(critic_loss, factor=critic_weight), partial(generator_loss, factor=adversarial_weight))


def classifying(
    adversarial_weight: float = 1.0,
    *,
    critic_weight: float = 1.0,
    saturating: bool = False,
    real_target: float = 1.0,
    literal: bool = False,
) -> Objective:
    """Goodfellow's game on logits, see `losses.gan`; `literal` for the printed formulas that break."""
    critic = partial(
        literal_discriminator_loss if literal else discriminator_loss, real_target=real_target, factor=critic_weight
    )
    if literal:
        return Objective(critic, partial(literal_generator_loss, saturating=saturating, factor=adversarial_weight))
    return Objective(critic, partial(saturating_loss if saturating else nonsaturating_loss, factor=adversarial_weight))


class Made(NamedTuple):
    """What a generator made of a batch."""

    pictures: Tensor
    penalty: Tensor | None = None
    """A loss of the generator's own, besides those of its pictures."""


class AdversarialSystem(System):
    """A generator and perhaps a critic, and the step that trains them.

    The step: `critic_steps` times the critic, on real pictures and the generator's; then `generator_steps` times the
    generator, on its reconstruction and the critic's opinion; all on one batch. The generator stands still while the
    critic trains, so one forward pass serves all those steps and the generator's first; with the batch in several
    parts, whose graphs would all have to be kept, one serves the critic's and another the generator's. What is random
    outside the networks is drawn for the whole batch.

    A subclass adds `generator` and `critic` (none: no adversary), their `objective` and `optimizers`, and says what the
    networks see: `inputs`, `truth`, `judged`, `reconstruction`.
    """

    critic: nn.Module | None
    objective: Objective | None = None
    critic_steps = 1
    generator_steps = 1
    shared_pass = False
    """True: the original, too, makes one pass for critic and generator. False: BatchNorm's running statistics are moved
    as by the pass that it makes for each of their steps."""
    fresh_draws = False
    """True: the generator's input is drawn anew for each step, so that no pass is shared."""
    values = (0.0, 1.0)
    """The range of the generator's pictures."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.critic = None

    @property
    def maker(self) -> nn.Module:
        """The network that `make` passes through, if it is not the whole generator."""
        return self.generator

    @abstractmethod
    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the generator makes its pictures from."""

    def make(self, *inputs: Tensor) -> Made:
        """One pass of the generator."""
        return Made(self.through(self.maker, *inputs))

    @abstractmethod
    def truth(self, batch: Batch) -> Tensor:
        """What the generator should have made, or pictures of the kind that it should make."""

    def judged(self, pictures: Tensor, batch: Batch) -> Tensor:
        """What the critic sees of generated or real pictures."""
        return pictures

    def disturbed(self, truth: Tensor) -> Tensor:
        """Real pictures as the critic gets them: noise belongs here."""
        return truth

    def reconstruction(self, pictures: Tensor, truth: Tensor) -> Tensor | None:
        """The loss of the pictures against the truth, weighted; None: only the critic judges."""
        return None

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """The critic's steps, then the generator's; see the class."""
        truth, inputs, made, measured = self.truth(batch), None, None, {}
        shared = not self.fresh_draws
        keep = shared and len(self.parts(batch)) == 1  # the critic's pass, with its graph, for the generator
        for _ in range(self.critic_steps if self.critic is not None else 0):
            if inputs is None or not shared:
                inputs = self.inputs(batch)
                with torch.set_grad_enabled(keep):
                    made = self._made(batch, inputs, shared, keep)
            measured = self.critic_step(batch, truth, made.pictures.detach())
        for i in range(self.generator_steps):
            if inputs is None or i > 0 or not shared:
                inputs = self.inputs(batch)
            measured |= self.generator_step(batch, truth, inputs, made if keep and i == 0 else None)
        return measured

    def critic_step(self, batch: Batch, truth: Tensor, pictures: Tensor) -> dict[str, Tensor]:
        """One step on real and generated pictures, a pass for each; the optimizer clips as it steps."""
        critic = self.critic
        assert critic is not None  # or it had no steps
        measured: dict[str, Tensor] = {}
        for share, part, real, fake in self.parts(batch, self.disturbed(truth), pictures):
            real_scores = self.through(critic, self.judged(real, part))
            fake_scores = self.through(critic, self.judged(fake, part))
            loss = self.objective.critic(real_scores, fake_scores)
            self.backward(loss * share)
            note(measured, share, critic_loss=loss, critic_spread=spread_of(real_scores, fake_scores))
        self.update("critic")
        return measured

    def generator_step(
        self, batch: Batch, truth: Tensor, inputs: tuple[Tensor, ...], made: Made | None = None
    ) -> dict[str, Tensor]:
        """One step on whatever losses there are, of pictures that are made of these inputs, or were."""
        measured: dict[str, Tensor] = {}
        for share, part, real, given in self.parts(batch, truth, inputs):
            self._generator_part(share, part, real, given, made, measured)
        self.update("generator")
        return measured

    def _generator_part(
        self, share: float, batch: Batch, truth: Tensor, inputs: tuple[Tensor, ...], made: Made | None,
        measured: dict[str, Tensor],
    ) -> None:  # fmt: skip
        """Losses and gradients of a part. The losses' gradients are taken at the pictures, where they can be compared,
        and go back through the generator together."""
        made = self.make(*inputs) if made is None else made
        pictures = made.pictures.detach().requires_grad_()
        note(measured, share, saturated=at_ends(pictures.detach(), self.values) - at_ends(truth, self.values))
        losses: dict[str, Tensor] = {}
        if (reconstruction := self.reconstruction(pictures, truth)) is not None:
            losses["reconstruction"] = reconstruction
        if self.critic is not None:
            with frozen(self.critic):
                scores = self.through(self.critic, self.judged(pictures, batch))
            losses["adversarial"] = self.objective.generator(scores)
        self.guard.observe(*losses.values())
        total = torch.zeros_like(pictures)
        for name, loss in losses.items():
            gradient = self.gradient(loss, pictures)
            total += gradient
            norm = self.precision.signal(gradient.norm())
            note(measured, share, **{f"{name}_loss": loss, f"{name}_gradient": norm})
        roots, gradients = [made.pictures], [total * share]
        if made.penalty is not None:
            note(measured, share, penalty_loss=made.penalty)
            roots.append(made.penalty)
            gradients.append(torch.full_like(made.penalty, share))
        self.backward(*roots, gradients=gradients)

    def critic_groups(self, bound: float | None, clip_params: str) -> list[dict[str, Any]]:
        """The critic's parameters for its optimizer, which is to clip them to this bound, if there is one; `notes` then
        say so. With "no_norm" those of its norms are left alone."""
        critic = self.critic
        assert critic is not None  # there is one by now
        if bound is None:
            return [{"params": list(critic.parameters()), "clip": None}]
        groups = clip_groups(critic, bound, clip_params)
        self.notes = [clip_note(critic, bound, groups)]
        return groups

    def _made(self, batch: Batch, inputs: tuple[Tensor, ...], shared: bool, keep: bool) -> Made:
        """What the critic's steps see. It leaves BatchNorm's running statistics as the passes would that it stands for:
        one for each critic step, unless the original shares them too, and with `keep` the generator's own."""
        times, made = (0 if self.shared_pass else self.critic_steps) + keep if shared else 1, []
        for _, _, part in self.parts(batch, inputs):
            with repeated_batch_statistics(self.maker, times):
                made.append(self.make(*part))
        return made[0] if len(made) == 1 else Made(torch.cat([each.pictures for each in made]))


# ---- signals of `inpaint_fast.training.health` ----


def spread_of(*scores: Tensor) -> Tensor:
    """critic_spread: the standard deviation of all of a critic's answers."""
    return torch.cat([score.detach().flatten() for score in scores]).std(correction=0)


def at_ends(pictures: Tensor, values: tuple[float, float], mask: Tensor | None = None) -> Tensor:
    """The fraction of the values that are saturated, in pictures of this range; inside the holes, where a mask is."""
    low, high = values
    margin = AT_THE_END * (high - low)
    saturated = ((pictures <= low + margin) | (pictures >= high - margin)).float()
    if mask is None:
        return saturated.mean()
    return (saturated * mask).sum() / (pictures.shape[1] * mask.sum()).clamp_min(1)


def optimizer_of(
    kind: str,
    params: Any,
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    clip: float | None = None,
    lasagne: bool = True,
) -> torch.optim.Optimizer:
    """ "adam", "adamw" (weight decay 0.01), "rmsprop" (with `lasagne` rho 0.9 and eps 1e-6 inside the root, otherwise
    PyTorch's constants) or "nesterov", which is Lasagne's RMSprop under Nesterov momentum 0.9."""
    if kind in ("adam", "adamw"):
        return (ClippedAdam if kind == "adam" else ClippedAdamW)(params, lr=lr, betas=betas, clip=clip)
    if kind == "rmsprop":
        constants = {"alpha": 0.9, "eps": 1e-6, "eps_inside": True} if lasagne else {}
        return ClippedRMSprop(params, lr=lr, clip=clip, **constants)
    if kind == "nesterov":
        return NesterovRMSprop(params, lr=lr, clip=clip)
    raise ValueError(f"optimizer: one of 'adam', 'adamw', 'rmsprop', 'nesterov' is expected, got {kind!r}")


def clip_groups(critic: nn.Module, bound: float, clip_params: str) -> list[dict[str, Any]]:
    """The critic's parameters as optimizer groups: those to clip, and with "no_norm" those of its norms, unclipped."""
    norms = [module for module in critic.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    apart = {id(p) for norm in norms for p in norm.parameters()} if clip_params == "no_norm" else set()
    parameters = list(critic.parameters())
    groups = [{"params": [p for p in parameters if id(p) not in apart], "clip": bound}]
    if apart:
        groups.append({"params": [p for p in parameters if id(p) in apart], "clip": None})
    return groups


def clip_note(critic: nn.Module, bound: float, groups: list[dict[str, Any]]) -> str:
    """What the clip bounds, in a sentence."""
    clipped = sum(p.numel() for group in groups if group["clip"] for p in group["params"])
    every = sum(p.numel() for p in critic.parameters())
    return (
        f"after each critic step {clipped:,} of the critic's {every:,} parameters are clipped to [-{bound}, {bound}] "
        + ("(BatchNorm's included)" if clipped == every else "(BatchNorm's are not)")
    )


@contextmanager
def repeated_batch_statistics(network: nn.Module, times: int) -> Iterator[None]:
    """One training pass inside leaves BatchNorm's running statistics as `times` passes of the same batch would.

    Each pass moves them by `momentum` towards the batch: after k passes the old ones weigh (1 - momentum)^k.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm, momentum in zip(norms, momenta, strict=True):
        assert momentum is not None  # a cumulative average, which none of the networks has
        norm.momentum = 1 - (1 - momentum) ** times
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            if norm.training and norm.num_batches_tracked is not None:
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
