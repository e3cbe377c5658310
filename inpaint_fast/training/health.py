"""Early warnings of the ways adversarial training goes wrong without a NaN: which, since when, what others tried; and
the look for a NaN.

A system measures, in each step, whichever of these signals it has:

critic_spread             standard deviation of the critic's outputs over a batch of real and generated pictures
adversarial_gradient      norm of the adversarial loss's gradient with respect to the generated pictures
reconstruction_gradient   the same of the reconstruction loss
saturated                 fraction of generated values at the ends of their range, less that of the real pictures
overflows_in_a_row        the last updates of one network that were skipped, since its gradients overflowed in float16
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PATIENCE = 50  # steps that a sign must last
OVERFLOWS = 24  # in a row: each halves the scale of the losses, which begins with 2^16 and is 2^-8 then
CURE_OF_OVERFLOWS = (
    "--precision bf16 reaches as far as float32 and needs no scale; where float32 diverges, too, a smaller --lr"
)


@dataclass(frozen=True)
class Ailment:
    """A sign that something has gone wrong."""

    name: str
    needs: tuple[str, ...]  # signals; without one of them the ailment cannot be seen
    seen: Callable[[Mapping[str, float]], bool]
    tried: str
    at_once: bool = False
    """It need not last."""


AILMENTS = (
    Ailment(
        "the critic gives every picture the same answer",
        ("critic_spread",),
        lambda signals: signals["critic_spread"] < 1e-4,
        "S. Larocque met it with clipped weights: she tried other learning rates (the critic's smaller), other ratios "
        "of steps, RMSprop and Nesterov momentum for Adam, no last activation. What her clip also bounds is batch "
        "normalisation's scale, which shrinks each layer: --clip-params no_norm leaves it alone",
    ),
    Ailment(
        "the adversarial gradient has vanished beside that of the reconstruction",
        ("adversarial_gradient", "reconstruction_gradient"),
        lambda signals: signals["adversarial_gradient"] < 1e-3 * signals["reconstruction_gradient"],
        "S. Larocque tried the non-saturating loss, smoothed labels, noise on the real pictures, average pooling, "
        "strides and leaky activations, several generator steps for each of the discriminator, and then a Wasserstein "
        "critic",
    ),
    Ailment(
        "the adversarial gradient has vanished",
        ("adversarial_gradient",),
        lambda signals: "reconstruction_gradient" not in signals and signals["adversarial_gradient"] < 1e-6,
        "G. Bernard saw it after the first epoch, his discriminator too good at its task; what had helped him until "
        "then were two generator steps for each of the discriminator, after B. Amos, and a larger discriminator",
    ),
    Ailment(
        "the adversarial gradient drowns that of the reconstruction",
        ("adversarial_gradient", "reconstruction_gradient"),
        lambda signals: signals["adversarial_gradient"] > 30 * signals["reconstruction_gradient"],
        "the picture round the hole then counts for little, and completions are patterns of the network's own. D. "
        "Pathak et al. give the squared error 0.999 of the loss; S. Larocque tried several weights and started from a "
        "generator trained on the squared error alone (--a, --adversarial-weight, --init)",
    ),
    Ailment(
        "the generator's outputs are saturated",
        ("saturated",),
        lambda signals: signals["saturated"] > 0.5,
        "S. Larocque saw all-white pictures that often came back by themselves; she tried sigmoid, tanh and no last "
        "activation, and a clip with a penalty on what it cuts off (--output, --clip-penalty, where there are such); "
        "after a large --lr, a smaller one",
    ),
    Ailment(
        f"every update of a network overflows in float16, {OVERFLOWS} and more of them in a row, and changes nothing",
        ("overflows_in_a_row",),
        lambda signals: signals["overflows_in_a_row"] >= OVERFLOWS,
        CURE_OF_OVERFLOWS,
        at_once=True,
    ),
)  # fmt: skip


class Health:
    """Looks at a run's signals now and then; warns once for each time that an ailment sets in and lasts."""

    def __init__(self) -> None:
        self._since: dict[str, int] = {}
        self._warned: set[str] = set()

    def look(self, step: int, signals: Mapping[str, float]) -> list[str]:
        """Warnings that are due now.

        Args:
            step: steps done.
            signals: what the last step measured, or the mean of some; names that are no signals are ignored.
        """
        due = []
        for ailment in AILMENTS:
            if not all(name in signals for name in ailment.needs):
                continue
            if not ailment.seen(signals):
                self._since.pop(ailment.name, None)
                self._warned.discard(ailment.name)
                continue
            since = self._since.setdefault(ailment.name, step)
            if (ailment.at_once or step - since >= PATIENCE) and ailment.name not in self._warned:
                self._warned.add(ailment.name)
                due.append(f"warning: since step {since} {ailment.name}. {ailment.tried}.")
        return due

    def state_dict(self) -> dict[str, object]:
        """What a run that goes on needs."""
        return {"since": dict(self._since), "warned": sorted(self._warned)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._since, self._warned = dict(state["since"]), set(state["warned"])


def not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first of these tensors that holds a NaN or an infinity, if one does. A GPU is waited for once."""
    named = [(name, tensor) for name, tensor in tensors if tensor.is_floating_point()]
    finite = [tensor.isfinite().all() for _, tensor in named]
    by_device: dict[torch.device, list[Tensor]] = {}
    for each in finite:
        by_device.setdefault(each.device, []).append(each)
    if all(torch.stack(some).all().item() for some in by_device.values()):
        return None
    return next(name for (name, _), is_finite in zip(named, finite, strict=True) if not is_finite)
