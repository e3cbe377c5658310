"""Masks from picture files: what is the hole, by one rule, and what cannot be meant.

The rule: in a file with transparency the transparent part is the hole, whatever its colour. In any other white is: grey
of at least half of full scale; but where there are just two colours and one of them is black, the other is the hole,
whatever it is (masks of 0 and 1 in any number of bits, a class of a palette). What could as well mean something else is
an error that says so.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from inpaint_fast.data.images import DEEP, ImageError, Source, full_scale, open_image, stored_size

CHANNELS = ("colour", "transparency")
OPAQUE = 128  # alpha from which on a pixel is not transparent
ONE_COLOUR = 8  # levels of 255 by which a stroke of one colour may vary
COLOURED = 32  # levels of 255 between the channels of a pixel that is no grey
MOST = 0.9  # of a picture: more than this is no hole


def read_mask(
    path: Source,
    size: tuple[int, int] | None = None,
    *,
    invert: bool = False,
    by: str | None = None,
) -> Tensor:
    """Read a mask from a picture file of any kind that `read_image` reads, upright (EXIF).

    Args:
        path: the file, or an `Upload`.
        size: the (height, width) that the mask must have; None accepts any.
        invert: True swaps hole and surroundings.
        by: "transparency" or "colour" (transparent parts are black then): which of them tells the hole in a file with
            transparency. None: transparency, unless all that is opaque has one colour; those may be strokes that mark
            the hole, so this is an error.

    Returns:
        bool (1, H, W), True in the hole; there may be none, or nothing else.

    Raises:
        ImageError: the file cannot be read, its size is not `size`, or it may mean more than one thing.
        ValueError: by is no such channel.
    """
    if by not in (None, *CHANNELS):
        raise ValueError(f"by: 'colour' or 'transparency' is expected, got {by!r}")
    image = open_image(path)
    if size is not None:
        check_size(path, (image.height, image.width), size)
    alpha = np.asarray(image.getchannel("A")) if image.mode == "RGBA" else None
    transparent = alpha is not None and alpha.min() < OPAQUE
    if by == "transparency" and not transparent:
        raise ImageError(path, "no part of it is transparent (by, --mask-by)")
    if transparent and by != "colour":
        hole = alpha < OPAQUE
        if by is None:
            _check_opaque(path, np.asarray(image.convert("RGB"))[~hole])
    elif image.mode.startswith(DEEP):
        hole = _bright(path, np.asarray(image), full_scale(image))
    else:
        hole = _by_colour(path, image)
    return torch.from_numpy(hole != invert)[None]


def check_size(path: Source, size: tuple[int, int], expected: tuple[int, int]) -> None:
    """Raise ImageError where a mask file does not have the (height, width) of its picture."""
    if tuple(size) == tuple(expected):
        return
    text = f"the mask is {size[1]} x {size[0]} (width x height) and the picture {expected[1]} x {expected[0]}"
    if tuple(size) == (expected[1], expected[0]):
        text += "; the mask" if stored_size(path) == tuple(expected) else "; if this is the picture's mask, the picture"
        text += " is turned upright by its EXIF orientation: draw the mask on the upright picture, and save it as PNG"
    raise ImageError(path, text)


def check_share(mask: Tensor, name: str | os.PathLike[str] = "mask") -> None:
    """Raise ValueError, naming the mask, where nothing of the picture is hole, or nearly everything: who means that?"""
    pixels, hole = mask.numel(), int(mask.sum())
    if hole == 0:
        raise ValueError(f"{name}: no hole in it, nothing to complete (the hole is white, or transparent)")
    if hole > MOST * pixels:
        known = pixels - hole
        share = f"{hole / pixels:.1%} of the picture" if known > 9 else f"all but {known} pixel{'s' * (known > 1)}"
        share = share if known else "the whole picture"
        meant = " Where it is meant: inpaint_fast.complete in Python takes it" if known else ""
        raise ValueError(f"{name}: the hole would be {share}; is it the other way round (--invert-mask)?{meant}")


def _check_opaque(path: Source, colours: np.ndarray) -> None:
    """Raise ImageError where the opaque pixels (N, 3) may be strokes that mark the hole."""
    if len(colours) and np.ptp(colours, axis=0).max() <= ONE_COLOUR:
        raise ImageError(
            path,
            "opaque in one colour, else transparent: strokes that mark the hole, or a ground with a hole in it? "
            "Say which: --mask-by transparency for such a hole, --mask-by transparency --invert-mask for strokes",
        )


def _by_colour(path: Source, image: Image.Image) -> np.ndarray:
    if image.mode == "RGBA":
        ground = Image.new("RGBA", image.size, "black")
        ground.alpha_composite(image)
        image = ground.convert("RGB")
    colours = image.getcolors(2)  # None where there are more
    if colours is not None and (0, 0, 0) in [colour for _, colour in colours]:
        return np.asarray(np.asarray(image).any(-1))
    pixels = np.asarray(image).astype(np.int16)
    if (np.ptp(pixels, axis=-1) > COLOURED).mean() > 0.001:  # a little is JPEG's
        raise ImageError(
            path, "in colours: a mask is black and white, or black and one colour, or transparent in the hole"
        )
    return _bright(path, np.asarray(image.convert("L")), 255)


def _bright(path: Source, levels: np.ndarray, full: float) -> np.ndarray:
    """Where grey is bright: at least half of full scale, or not black where there is one other level alone."""
    low, high = levels.min(), levels.max()
    if np.isnan(low):
        raise ImageError(path, "holds NaN, which is neither hole nor surroundings")
    two = ((levels == low) | (levels == high)).all()
    if two and low == 0:
        return levels > 0
    if 0 < high < full / 2:
        raise ImageError(
            path,
            f"no white in it: its grey levels go from {low:g} to {high:g}, where white is {full:g}; classes? "
            "A mask is white in the hole and black elsewhere",
        )
    if not two and ((levels > full / 4) & (levels < full * 3 / 4)).mean() > 0.5:
        raise ImageError(path, "most of it is neither black nor white: a photograph? A mask is white in the hole")
    return levels >= full / 2
