"""The generators that complete pictures: what the two kinds of them have in common, told apart here alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from inpaint_fast.completion.centres import complete_centres, fill_centres
from inpaint_fast.completion.corrections import complete_residual, correct_regions
from inpaint_fast.completion.fills import harmonic
from inpaint_fast.completion.holes import thick_part
from inpaint_fast.completion.regions import complete_holes, fill_regions
from inpaint_fast.completion.texture import TexturedNetwork
from inpaint_fast.data import Batch, hole_of, to_float, to_uint8
from inpaint_fast.models import CentreGenerator, CompletionNetwork, ResidualCompletionNetwork
from inpaint_fast.nn import accelerate

THIN = 8  # pixels: where a hole is no thicker, its surroundings know better than any network


Told = Callable[[float], object]
"""What is called with the fraction of the work that is done."""


class Kind(NamedTuple):
    """How the generators of one kind complete."""

    network: type[nn.Module]
    """Their class."""
    batch: Callable[[Any, Batch], Tensor]
    """(generator, batch) -> the batch's pictures completed."""
    picture: Callable[[Any, Tensor, Tensor, Tensor, Tensor | None, Told], Tensor]
    """(generator, picture, hole, part, encoded captions, told) -> a picture of any size, that part of its hole filled;
    `told` is called with the fraction that is done."""
    takes: tuple[int, str] | None = None
    """Side and mask of the only batches that they complete; None: any."""
    prepared: Callable[[Tensor, Tensor], Tensor] | None = None
    """(picture, mask) -> what such a network is called with, beside the mask, to fill a picture of its own size, any
    multiples of 4; None: it fills none but those of `takes`, and cannot be adapted."""
    thin: int = THIN
    """Pixels: no thicker holes are left to the harmonic fill; 0 where the generators correct that fill themselves."""


def kind_of(generator: nn.Module) -> Kind:
    """How this generator completes.

    Raises:
        ValueError: it completes no pictures.
    """
    for kind in KINDS:
        if isinstance(generator, kind.network):
            return kind
    raise ValueError(f"weights: a generator that completes pictures is expected, got {type(generator).__name__}")


def complete_batch(generator: nn.Module, batch: Batch) -> Tensor:
    """A batch's holes filled by any generator that completes pictures; in eval mode, without gradients.

    Args:
        generator: left in the mode that it is in.
        batch: pictures and holes of the kind that it completes, with captions where it reads them.

    Returns:
        (N, 3, H, W) in [0, 1]; known pixels as they were.

    Raises:
        ValueError: it completes no pictures, or the batch's mask holds NaN or values other than those of a mask.
    """
    kind, batch = kind_of(generator), batch._replace(mask=hole_of(batch.mask, name="batch.mask"))
    with at_rest(generator), torch.no_grad():
        return kind.batch(generator, batch)


def complete_picture(
    generator: nn.Module, picture: Tensor, hole: Tensor, captions: Tensor | None = None, *, told: Told | None = None
) -> Tensor:
    """The holes of a picture filled: by the generator where they are thick, harmonically where they are thin.

    Thick is what squares of more than `Kind.thin` pixels cover that lie in the hole. A scratch, writing, the thin arms
    of a large hole are not; they are filled last, so that they join what is known to what the generator gave.

    Args:
        generator: in eval mode.
        picture: uint8 (3, H, W), any size; what it holds inside the hole does not matter.
        hole: bool (H, W), true in the hole; it does not cover everything.
        captions: (1, captions, ...), encoded, where the generator reads them.
        told: called with the fraction of the work that is done, now and then.

    Returns:
        uint8 (3, H, W); known pixels as they were.

    Raises:
        ValueError: it completes no pictures, or its answer is not finite.
    """
    kind = kind_of(generator)
    thick = thick_part(hole, kind.thin + 1)
    if thick.any():
        picture = kind.picture(generator, picture, hole, thick, captions, told or (lambda done: None))
    return harmonic(picture[None], (hole & ~thick)[None, None])[0]


def _complete_textured(generator: TexturedNetwork, batch: Batch) -> Tensor:
    """A batch's holes filled by a generator and a texture fill, (N, 3, H, W); known pixels as they were."""
    completed = complete_batch(generator.network, batch)
    return generator.mixed(completed, batch.mask.expand(len(completed), -1, -1, -1).bool())


def _fill_textured(
    generator: TexturedNetwork, picture: Tensor, hole: Tensor, part: Tensor, captions: Tensor | None, told: Told
) -> Tensor:
    """The holes of a picture, uint8 (3, H, W), filled by a generator and a texture fill."""
    completed = complete_picture(generator.network, picture, hole, captions, told=told)
    return to_uint8(generator.mixed(to_float(completed)[None], hole[None, None])[0])


KINDS = (
    Kind(CentreGenerator, complete_centres, fill_centres, takes=(64, "center")),
    Kind(CompletionNetwork, complete_holes, fill_regions, prepared=lambda picture, mask: picture),
    Kind(ResidualCompletionNetwork, complete_residual, correct_regions, prepared=harmonic, thin=0),
    Kind(TexturedNetwork, _complete_textured, _fill_textured, thin=0),
)


def placed(generator: nn.Module, device: torch.device) -> nn.Module:
    """A generator of one's own on a device, in eval mode, to complete with: on a GPU its calls are CUDA graphs."""
    generator = generator.to(device).eval()
    return accelerate(generator, inference=True) if device.type == "cuda" else generator


@contextmanager
def at_rest(network: nn.Module) -> Iterator[None]:
    """Inside, the network is in eval mode; afterwards each of its modules is in the mode that it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        network.train(modes[0][1])
        for module, training in modes:
            module.training = training
