"""A trained generator, a picture and a mask to a completed picture; any size, any holes.

Thin holes are filled harmonically, thick ones by the generator: `inpaint_fast.completion.generators`. A
`CompletionNetwork` fills holes anywhere: `inpaint_fast.completion.regions`. What a
`ResidualCompletionNetwork` knows better than the harmonic fill is added to that: `inpaint_fast.completion.corrections`.
A `CentreGenerator`, which fills the centre of a small square, is led over a picture piece by piece:
`inpaint_fast.completion.centres`.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from inpaint_fast._devices import device_of
from inpaint_fast.completion.adapt import NothingGained, adapt_to_picture
from inpaint_fast.completion.blend import blend_holes
from inpaint_fast.completion.fills import FILLS
from inpaint_fast.completion.generators import at_rest, complete_picture, kind_of, placed
from inpaint_fast.completion.holes import grown
from inpaint_fast.completion.scaling import check_picture
from inpaint_fast.completion.weights import SHIPPED, load_network
from inpaint_fast.data import CaptionEncoder, hole_of, load_caption_encoder, read_image

Progress = Callable[[str, float], object]
"""What is called with what is being done, and how much of it is done, a fraction."""


def complete(
    image: Tensor | str | os.PathLike[str],
    mask: Tensor,
    *,
    weights: nn.Module | str | os.PathLike[str] | None = None,
    fill: str | None = None,
    device: torch.device | str | None = None,
    blend: bool = False,
    grow: int = 0,
    adapt: float | None = None,
    progress: Progress | None = None,
    caption: str | Sequence[str] | None = None,
    caption_encoder: CaptionEncoder | None = None,
) -> Tensor:
    """Fill the holes of a picture.

    Args:
        image: uint8 (3, H, W), or the file to read it from; any size.
        mask: (1, H, W), true or 1 in the hole, a soft one cut at half (`inpaint_fast.data.hole_of`); any shape and
            number of holes. Without one the picture comes back as is.
        weights: a generator's safetensors file, a run's folder, or the generator itself, which is left as it is; or
            "sharp" or "smooth", which the package ships. Without weights and fill: "sharp". Where a hole is thin
            (squares of 9 pixels do not fit in) a generator of another kind than those is not asked: "harmonic" is hard
            to beat there.
        fill: instead of weights: "harmonic" or "ring_mean", which learn nothing (`inpaint_fast.completion.fills`).
        device: where the generator or the fill runs, "auto" for the first GPU if there is one; None: where the
            generator is (the CPU for a file).
        blend: draw the completion into the picture's colours at the holes' edges (`inpaint_fast.completion.blend`).
        grow: the hole is taken larger by so many pixels each way.
        adapt: seconds for which a copy of the generator first learns from the known pixels of this very picture
            (`inpaint_fast.completion.adapt`, which says what was gained). Where that is nothing, a warning says so and
            the generator is used as it is.
        progress: called now and then with what is being done, "adapting" or "completing", and how much of it is done, a
            fraction.
        caption: of the picture, one or several; expected by generators that read captions.
        caption_encoder: what the generator was trained with; None: the one in the run's folder.

    Returns:
        uint8 (3, H, W); every pixel outside the hole is the picture's own, byte for byte.

    Raises:
        TypeError: image, mask, weights or grow is of another type.
        ValueError: shapes do not fit, the mask holds NaN or other values, grow is negative, there is no such fill or
            device, weights are there beside a fill, the hole covers the whole picture, the network completes none or
            cannot be adapted, its answer is not finite, or captions are there where none are read, or not where they
            are.
        ImageError, WeightsError: a file cannot be used.
    """
    for name, value, kinds, expected in (
        ("image", image, (Tensor, str, os.PathLike), "a tensor or the path of a picture"),
        ("mask", mask, (Tensor,), "a tensor (inpaint_fast.data.read_mask reads one from a file)"),
    ):
        if not isinstance(value, kinds):
            raise TypeError(f"{name}: {expected} is expected, got {type(value).__name__}")
    if weights is None and fill is None:
        weights = SHIPPED[0]
    check_filler(weights, fill, caption, adapt)
    device = device_of(device) if isinstance(device, str) else device
    picture = image if isinstance(image, Tensor) else read_image(image)
    check_picture("image", picture)
    if mask.shape != (1, *picture.shape[1:]):
        raise ValueError(
            f"mask: shape (1, {picture.shape[1]}, {picture.shape[2]}) is expected, got {tuple(mask.shape)}"
        )
    hole = grown(hole_of(mask[0].cpu()), grow)
    if not hole.any():
        return picture.clone()
    if hole.all():
        raise ValueError("mask: it covers the whole picture; nothing is left to complete it from")
    tell = progress or (lambda doing, done: None)
    if fill is not None:
        options = {"told": partial(tell, "completing")} if fill == "harmonic" else {}  # the other takes no time
        completed = FILLS[fill](picture[None].to(device), hole[None, None].to(device), **options)[0].cpu()
        return blend_holes(completed, picture, hole[None]) if blend else completed
    if isinstance(weights, nn.Module):
        generator = weights if device is None else copy.deepcopy(weights).to(device)
    else:
        assert weights is not None  # `check_filler` has asked for one of the two
        generator = placed(load_network(weights), torch.device(device or "cpu"))
        caption_encoder = caption_encoder or load_caption_encoder(weights)
    captions = encoded_captions(generator, caption, caption_encoder)
    if adapt is not None:
        adapted = adapt_to_picture(generator, picture, hole[None], seconds=adapt, progress=partial(tell, "adapting"))
        if not adapted.gained:
            warnings.warn(str(adapted), NothingGained, stacklevel=2)
        generator = adapted.network
    with at_rest(generator), torch.random.fork_rng(devices=[]):  # noise that fills the hole: always the same
        torch.manual_seed(0)
        completed = complete_picture(generator, picture, hole, captions, told=partial(tell, "completing"))
    return blend_holes(completed, picture, hole[None]) if blend else completed


def check_filler(weights: object, fill: object, caption: object, adapt: object) -> None:
    """Raise TypeError or ValueError where these say nothing of what fills the hole, or two things."""
    names = " or ".join(map(repr, FILLS))
    if fill is None:
        if not isinstance(weights, nn.Module | str | os.PathLike):
            raise TypeError(
                f"weights: a generator or the path of its weights is expected, or instead a fill, {names}, which needs "
                f"none; got {type(weights).__name__}"
            )
    elif fill not in FILLS:
        raise ValueError(f"fill: {names} is expected, got {fill!r}")
    elif others := [n for n, v in (("weights", weights), ("caption", caption), ("adapt", adapt)) if v is not None]:
        other = others[0]
        raise ValueError(f"fill and {other}: one of them is expected, got both; {fill!r} learns and reads nothing")


def encoded_captions(
    generator: nn.Module, caption: str | Sequence[str] | None, encoder: CaptionEncoder | None
) -> Tensor | None:
    """(1, captions, ...) for a generator that reads captions, None for another; arguments and errors as `complete`."""
    kind_of(generator)
    if not generator.reads_captions:
        if caption is not None:
            raise ValueError(f"caption: {type(generator).__name__} reads none")
        return None
    if caption is None:
        raise ValueError(f"caption: {type(generator).__name__} reads captions, got none")
    if encoder is None:
        raise ValueError("caption_encoder: that of the generator's training is expected, got none")
    return encoder([[caption] if isinstance(caption, str) else list(caption)])
