"""A generator fitted to one picture: a copy of its weights learns from what the picture has round its holes.

The picture is its own training set. The mask's holes, moved to known places, are holes whose truth is known; they are
cut out with their surroundings at the size at which the generator will see the true ones, and the copy learns to fill
them. Some of these places are held out: what lies there is as unknown in training as the true holes are. One half of
them says when the copy is best, and how much of the picture's own texture (`inpaint_fast.completion.texture`) is mixed
in; the other half says what was gained. Where that is nothing, the generator itself stays.

Norms keep their running statistics: a batch of crops that look alike would spoil them.

Source of the idea: Shocher, Cohen, Irani, "Zero-shot super-resolution using deep internal learning" (2018).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from inpaint_fast._words import check_number
from inpaint_fast.completion.generators import KINDS, Kind, kind_of
from inpaint_fast.completion.holes import thick_part
from inpaint_fast.completion.regions import views
from inpaint_fast.completion.scaling import Region, check_picture, reduced
from inpaint_fast.completion.texture import PIXELS, TexturedNetwork, texture
from inpaint_fast.data import hole_of, to_float, to_uint8
from inpaint_fast.nn import accelerate
from inpaint_fast.ops import masked_l2
from inpaint_fast.optim import ClippedAdam

RATE = 2e-3  # Adam's, which falls to 0 over the time
WARM = 10  # steps in which it rises first: Adam's first ones move every weight by the whole of it
BATCH = 8  # examples
EXAMPLES = 512  # are made; then they come again, each once before any comes twice
DECAY = 0.97  # of the average of the weights over the steps: it is what is measured and kept
HELD_OUT = 1 / 4  # of the known pixels, at most
PLACES = 24  # held out, at most
LEAST = 1 / 4  # of a moved hole that must lie on what is known
TRIES = 400  # of places, before there is said to be none
SHAPES = 64  # of holes, spread over all there are
FIRST, GROWTH = 10, 1 / 4  # steps before the first measurement, and by how many of them the next is later
PATIENCE = 5  # measurements without a better one
CHOOSING, TELLING = slice(0, None, 2), slice(1, None, 2)  # the halves of what is held out
FEWEST = 2  # places held out: what one of them chooses it cannot tell the gain of
FEWEST_OF_TEXTURE = 6  # by fewer a share of the texture is not found: a large hole may lie where no texture is
REACHES = (16, 8, 32)  # of the texture fills that are tried, in pixels; the first ones where there is little time
FILL_SECONDS, FILL_SHARE = 4e-6, 1 / 3  # what a fill takes for each pixel, about, and the share of the time for all


class Adapted(NamedTuple):
    """A generator for one picture, and how much better it is there than it was."""

    network: nn.Module
    """The adapted copy, in eval mode, or a `TexturedNetwork` of it; the generator itself, where nothing was gained."""
    before: float
    """PSNR in dB of the generator on the half of the held-out places that decides: of the mean squared error of all
    their pixels. NaN: there were none."""
    after: float
    """That of the copy."""
    steps: int
    """Of the training, up to the weights that were chosen."""
    share: float = 0
    """Of the texture fill in what the network completes, from 0 to 1."""
    untried: str = ""
    """Why no texture fill was tried; "": some were."""

    @property
    def gained(self) -> bool:
        """Whether the network is another than the generator."""
        return self.after > self.before

    def __str__(self) -> str:
        if math.isnan(self.before):
            why = "no hole is thick, or too little is known to hold two places as large out of it"
            return f"not adapted, the weights are used as they are: {why}"
        untried = f"; the picture's texture was not tried, {self.untried}" if self.untried else ""
        if not self.steps and not self.share:
            what = f"{self.before:.2f} dB on known pixels held out, and no better in the steps that there was time for"
            return f"nothing gained, the weights are used as they are: {what}{untried}"
        texture = f" with {self.share:.0%} of the picture's texture" if self.share else ""
        what = f"{self.before:.2f} dB before and {self.after:.2f} dB after {self.steps} steps{texture}"
        what += f", on known pixels held out{untried}"
        return f"adapted: {what}" if self.gained else f"nothing gained, the weights are used as they are: {what}"


class NothingGained(UserWarning):
    """A generator was to be adapted to a picture, and is used as it is."""


def adapt_to_picture(
    generator: nn.Module,
    picture: Tensor,
    mask: Tensor,
    *,
    seconds: float = 20,
    steps: int | None = None,
    seed: int = 0,
    progress: Callable[[float], object] | None = None,
) -> Adapted:
    """Train a copy of a generator on the known pixels of the picture that it is to complete.

    Args:
        generator: a `CompletionNetwork` or `ResidualCompletionNetwork`; left as it is. The copy is where it is.
        picture: uint8 (3, H, W); what it holds inside the hole does not matter.
        mask: (1, H, W), true or 1 in the hole, a soft one cut at half.
        seconds: to train for, at most; it ends earlier where nothing is gained any more. The texture fills are made
            before it, as many as take about a third of the time, and count.
        steps: to train for, at most, 1 or more; None: as many as there is time for. The weights after so many steps are
            always the same on one machine.
        seed: of the places.
        progress: called after each step with the fraction of the seconds, or of the steps, that have gone.

    Returns:
        The network to complete this picture with, and what was gained. `str()` of it is a sentence.

    Raises:
        TypeError: the generator or a number is of another type.
        ValueError: the generator is of a kind that cannot be adapted, the picture or the mask has another shape, or a
            number is out of its range.
    """
    kind = expect_adaptable(generator, seconds)
    for name, number, least in (("steps", steps, 1), ("seed", seed, 0)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"{name}: a whole number is expected, got {number!r}")
        if number is not None and number < least:
            raise ValueError(f"{name}: at least {least} is expected, got {number}")
    check_picture("picture", picture)
    if not isinstance(mask, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"mask: a tensor is expected, got {type(mask).__name__}")
    if mask.shape != (1, *picture.shape[1:]):
        raise ValueError(f"mask: shape {(1, *picture.shape[1:])} is expected, got {tuple(mask.shape)}")
    hole = hole_of(mask[0].cpu())
    with torch.inference_mode(False), torch.enable_grad():
        found = _Examples(kind, generator, picture, hole, torch.Generator().manual_seed(seed))
        if len(found.held_out) < FEWEST:
            return Adapted(generator, math.nan, math.nan, 0)
        begun = time.perf_counter()
        untried = found.no_texture(seconds)
        textures = {} if untried else found.textures(seconds)
        network, taken = _trained(generator, found, begun, seconds, steps, progress)
        return _mixed(generator, network, taken, found.held_out, textures)._replace(untried=untried)


def expect_adaptable(generator: nn.Module, seconds: float) -> Kind:
    """How the generator completes; arguments and errors as `adapt_to_picture`."""
    kind = kind_of(generator)
    if kind.prepared is None:
        names = " or ".join(each.network.__name__ for each in KINDS if each.prepared is not None)
        raise ValueError(f"adapt: a {names} is expected, got a {type(generator).__name__}, which cannot be adapted")
    if isinstance(seconds, bool):
        raise TypeError(f"adapt: a number of seconds is expected, got {seconds}")
    if not 0 < check_number("adapt", seconds) < math.inf:
        raise ValueError(f"adapt: a number of seconds, more than 0, is expected, got {seconds}")
    return kind


def _trained(
    generator: nn.Module,
    examples: _Examples,
    begun: float,
    seconds: float,
    steps: int | None,
    progress: Callable[[float], object] | None,
) -> tuple[nn.Module, int]:
    """A copy of the generator as it was best on the choosing half, and after how many steps that was."""
    choosing = examples.held_out[CHOOSING]
    network = copy.deepcopy(generator).eval().requires_grad_(True)
    average, best = copy.deepcopy(network), copy.deepcopy(network)
    if examples.device.type == "cpu":
        accelerate(network)
    optimizer = ClippedAdam(network.parameters(), lr=RATE)
    least, best_step, due, waited = _error(network, choosing), 0, FIRST, 0
    counted = 0.0  # the fraction of the steps that are done; where they are not numbered, of the time
    for step in range(1, 1 + (steps or 10**9)):
        batch = examples.batch(step)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, step / WARM) * (1 - counted)
        first, *others = _losses(network, batch)
        loss = sum(others, first) / sum(3 * example.wanted.sum() for example in batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        _move(average, network, 1 - min(DECAY, step / (step + FIRST)))
        gone = (time.perf_counter() - begun) / seconds
        counted = step / steps if steps else min(gone, 1.0)
        gone = max(gone, counted)
        if progress is not None:
            progress(min(gone, 1.0))
        if step >= due or gone >= 1:
            due, waited = step + max(FIRST, int(step * GROWTH)), waited + 1
            if (error := _error(average, choosing)) < least:
                least, best_step, waited = error, step, 0
                best.load_state_dict(average.state_dict())
        if gone >= 1 or waited == PATIENCE:
            break
    return best, best_step


def _mixed(
    generator: nn.Module,
    network: nn.Module,
    steps: int,
    held_out: Sequence[_Example],
    textures: Mapping[float, Sequence[Tensor]],
) -> Adapted:
    """The mean of a network and a texture fill that is best on the choosing half, and what the other half says of it.

    Args:
        generator: as it was.
        network: as it is after the steps.
        held_out: the places of both halves.
        textures: reach -> the texture fill of each place.
    """
    pictures, given = [place.picture for place in held_out], _answers(network, held_out)
    error = _difference(held_out, pictures, given, CHOOSING)
    least, reach, share = error.square().sum(), 0.0, 0.0
    for each, fills in textures.items():
        more = _difference(held_out, fills, given, CHOOSING)
        part = (error @ more / (more @ more).clamp(min=1e-30)).clamp(0, 1)  # least squares
        if (left := (error - part * more).square().sum()) < least:
            least, reach, share = left, each, part.item()
    error = _difference(held_out, pictures, given, TELLING)
    if share:
        error -= share * _difference(held_out, textures[reach], given, TELLING)
    before, after = map(_psnr, (_difference(held_out, pictures, _answers(generator, held_out), TELLING), error))
    if after <= before:
        return Adapted(generator, before, after, steps)
    return Adapted(TexturedNetwork(network, reach, share).eval() if share else network, before, after, steps, share)


def _answers(network: nn.Module, examples: Sequence[_Example]) -> list[Tensor]:
    """What a network makes of each, (3, height, width)."""
    with torch.no_grad():
        return [network(example.prepared[None], example.mask[None])[0] for example in examples]


def _difference(
    examples: Sequence[_Example], pictures: Sequence[Tensor], others: Sequence[Tensor], half: slice
) -> Tensor:
    """Pictures (3, height, width) of the examples of a half less others, where it counts; float64, flat."""
    triples = list(zip(examples, pictures, others, strict=True))[half]
    return torch.cat([(a.double() - b.double())[:, each.wanted[0]].flatten() for each, a, b in triples])


def _psnr(error: Tensor) -> float:
    return -10 * math.log10(max(error.square().mean().item(), 1e-10))


def _move(average: nn.Module, network: nn.Module, share: float) -> None:
    """Move the weights of one network by this share towards those of another."""
    with torch.no_grad():
        for mean, parameter in zip(average.parameters(), network.parameters(), strict=True):
            mean.lerp_(parameter, share)


class _Example(NamedTuple):
    """A part of the picture as the network sees it, with a moved hole whose truth is known."""

    picture: Tensor
    """float32 (3, height, width) in [0, 1], multiples of 4."""
    mask: Tensor
    """bool (1, height, width), true in the moved hole and where nothing is known."""
    wanted: Tensor
    """bool (1, height, width), true in the moved hole, where it lies on what is known."""
    prepared: Tensor
    """float32 (3, height, width), what the network is called with."""


class _Shape(NamedTuple):
    """What the mask has round one of its holes, as the network sees it."""

    region: Region
    middle: tuple[float, float]
    """Row and column of the hole's."""
    scale: float
    mask: Tensor
    """bool (1, height, width)."""


class _Examples:
    """Holes of the mask at known places of the picture.

    Args:
        kind, generator: that will see them.
        picture: uint8 (3, H, W).
        hole: bool (H, W).
        draws: where the places come from.
    """

    def __init__(self, kind: Kind, generator: nn.Module, picture: Tensor, hole: Tensor, draws: Generator) -> None:
        self.device = next(generator.parameters()).device
        self._prepared, self._picture, self._draws = kind.prepared, picture, draws
        longest = cast(int, generator.hole)  # all generators that can be adapted have it
        self._shapes = _shapes(picture, hole, thick_part(hole, kind.thin + 1), longest)
        self._unknown, self._made, self._regions, self._order = hole, [], [], []
        self.held_out = self._hold_out() if self._shapes else []

    def batch(self, step: int) -> list[_Example]:
        """Those of a step, from 1 on."""
        if len(self._made) < EXAMPLES:
            new = [example for example, _ in self._moved(BATCH)]
            self._made += self._ready(new)
            return self._made[-len(new) :]
        if not self._order:
            self._order = torch.randperm(len(self._made), generator=self._draws).tolist()
        taken, self._order = self._order[:BATCH], self._order[BATCH:]
        return [self._made[i] for i in taken]

    def _hold_out(self) -> list[_Example]:
        """Some examples, whose wanted pixels are unknown from then on."""
        most, known, examples = HELD_OUT * int((~self._unknown).sum()), ~self._unknown, []
        while len(examples) < PLACES and (found := next(self._moved(1), None)) is not None:
            example, (top, left, height, width) = found[0], map(int, found[1])
            unknown = self._unknown.clone()
            part = unknown[top : top + height, left : left + width]
            part |= F.interpolate(example.wanted[None].float(), size=part.shape)[0, 0] > 0
            if examples and int((unknown & known).sum()) > most:
                break
            self._unknown = unknown
            examples.append(example)
            self._regions.append(found[1])
        return self._ready(examples)

    def no_texture(self, seconds: float) -> str:
        """Why no texture fill is to be tried in so much time; "" where there is no reason."""
        if (pixels := self._unknown.numel()) > PIXELS:
            return f"which is done in pictures of up to {PIXELS:,} pixels, and this one has {pixels:,}"
        if (places := len(self.held_out)) < FEWEST_OF_TEXTURE:
            return f"for which {FEWEST_OF_TEXTURE} places as large as the hole are held out, and there were {places}"
        if not self._reaches(seconds):
            least = self._unknown.numel() * FILL_SECONDS / FILL_SHARE
            return f"for which {seconds:g} seconds are too few, and {math.ceil(least)} are enough"
        return ""

    def _reaches(self, seconds: float) -> tuple[int, ...]:
        """Of the texture fills that there is time for; by arithmetic, so that two runs try the same."""
        return REACHES[: int(seconds * FILL_SHARE / (self._unknown.numel() * FILL_SECONDS))]

    def textures(self, seconds: float) -> dict[float, list[Tensor]]:
        """Reach -> the texture fill of each held-out place, (3, height, width)."""
        picture, nothing = to_float(self._picture.cpu()), torch.zeros_like(self._unknown)
        fills = {reach: to_uint8(texture(picture, self._unknown, reach)) for reach in self._reaches(seconds)}
        places = [(region, *place.mask.shape[1:]) for region, place in zip(self._regions, self.held_out, strict=True)]
        return {
            reach: [reduced(fill, nothing, region, (high, wide))[0].to(self.device) for region, high, wide in places]
            for reach, fill in fills.items()
        }

    def _moved(self, count: int) -> Iterator[tuple[_Example, Region]]:
        """So many examples at random places, if there are any; not prepared yet."""
        for _ in range(TRIES * count):
            which, down, right = torch.rand(3, generator=self._draws).tolist()
            shape = self._shapes[int(which * len(self._shapes))]
            if (found := self._at(shape, down, right)) is not None:
                yield found
                count -= 1
                if not count:
                    return

    def _at(self, shape: _Shape, down: float, right: float) -> tuple[_Example, Region] | None:
        """The hole with its middle at a place, given as fractions of the picture, if enough is known there."""
        _, height, width = shape.mask.shape
        starts, shifts = [], []
        for first, extent, middle, length, fraction in zip(
            shape.region[:2], shape.region[2:], shape.middle, self._unknown.shape, (down, right), strict=True
        ):
            start = first + int(fraction * length - middle)
            starts.append(min(max(0, start), length - extent))
            shifts.append(round((start - starts[-1]) * shape.scale))
        moved = F.pad(shape.mask, (shifts[1], -shifts[1], shifts[0], -shifts[0]))
        region = shape.region._replace(top=starts[0], left=starts[1])
        small, unknown = reduced(self._picture, self._unknown, region, (height, width))
        wanted = moved & ~unknown
        if wanted.sum() < max(1, LEAST * shape.mask.sum()):
            return None
        return _Example(small, moved | unknown, wanted, small), region

    def _ready(self, examples: Sequence[_Example]) -> list[_Example]:
        """Examples with what the network is called with, on its device."""
        ready: list[_Example] = []
        for some in _of_one_size(examples):
            picture, mask, wanted = (torch.stack(parts).to(self.device) for parts in list(zip(*some, strict=True))[:3])
            ready += map(_Example, picture, mask, wanted, self._prepared(picture, mask))
        return ready


def _shapes(picture: Tensor, hole: Tensor, part: Tensor, longest: int) -> list[_Shape]:
    """The holes that a network fills, as it will see them; some of them where there are many."""
    shapes, found = [], views(part, longest)
    for (top, left, bottom, right), _, scale, region, size in found[:: -(-len(found) // SHAPES) or 1]:
        rows, columns = (max(4, length - length % 4) for length in size)
        _, unknown = reduced(picture, hole, region, (rows, columns))
        shapes.append(_Shape(region, ((top + bottom) / 2, (left + right) / 2), scale, unknown))
    return shapes


def _of_one_size(examples: Sequence[_Example]) -> list[list[_Example]]:
    sizes: dict[torch.Size, list[_Example]] = {}
    for example in examples:
        sizes.setdefault(example.picture.shape, []).append(example)
    return list(sizes.values())


def _losses(network: nn.Module, examples: Sequence[_Example]) -> list[Tensor]:
    """Squared errors of the network where they count, summed; one for each size."""
    return [
        masked_l2(network(prepared, mask), picture, wanted, reduction="sum")
        for picture, mask, wanted, prepared in (
            map(torch.stack, zip(*some, strict=True)) for some in _of_one_size(examples)
        )
    ]


def _error(network: nn.Module, examples: Sequence[_Example]) -> float:
    """The mean squared error of the network where it counts."""
    with torch.no_grad():
        total = sum(loss.item() for loss in _losses(network, examples))
    return total / sum(3 * int(example.wanted.sum()) for example in examples)
