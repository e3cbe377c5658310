"""inpaint-fast evaluate"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from inpaint_fast._names import printable
from inpaint_fast.cli._options import check_output, parse
from inpaint_fast.completion import complete_batch, load_network
from inpaint_fast.completion.generators import kind_of
from inpaint_fast.data import captions_for, heldout_crops, load_caption_encoder, open_images, write_png
from inpaint_fast.training import Evaluation, table


@dataclass
class Evaluate:
    """Measure a trained generator on held-out crops, beside the fills that learn nothing.

    PSNR, SSIM, L1, L2 and sharpness inside the hole (sharpness 1: as sharp as the truth).
    """

    weights: Annotated[Path, tyro.conf.Positional]
    """A run's folder or its generator.safetensors."""
    data: str = "samples"
    """A folder of pictures, or "samples"; its held-out part is measured on."""
    crop: tuple[int, int] = (64, 320)
    """Smallest and largest side of the crops, in pixels."""
    heldout_crops: int = 16
    """Crops from each picture."""
    heldout_pictures: int = 64
    """At most so many pictures, spread evenly over all of the held-out part."""
    size: int = 64
    """Side that the crops are scaled to, in pixels: that of the training pictures."""
    mask: Literal["center", "rectangle", "free_form"] = "center"
    """The holes; a network that fills central squares alone takes "center"."""
    picture: Path | None = None
    """Also write a grid of some completions to this PNG file."""


def main(argv: Sequence[str]) -> int:
    """Run the command with these arguments; returns the exit code."""
    options = parse(Evaluate, "inpaint-fast evaluate", argv)
    if options.picture:
        check_output("--picture", options.picture, [".png"])
    if options.heldout_pictures < 1:
        raise ValueError(f"--heldout-pictures: at least 1 is expected, got {options.heldout_pictures}")
    generator = load_network(options.weights)
    takes, asked = kind_of(generator).takes, (options.size, options.mask)
    if takes not in (None, asked):
        expected, got = (f"{size} and {mask}" for size, mask in (takes, asked))
        raise ValueError(f"--size and --mask: {type(generator).__name__} takes {expected}, got {got}")
    images = open_images(options.data, "heldout")
    measured = images.spread(options.heldout_pictures)
    captions = None
    if generator.reads_captions:
        encoder = load_caption_encoder(options.weights)
        if encoder is None:
            raise FileNotFoundError(f"{options.weights}: its run's vocabulary or sentence vectors are expected there")
        captions = encoder(captions_for(measured, options.data))
    heldout = heldout_crops(
        measured,
        per_image=options.heldout_crops,
        size=options.size,
        crop=options.crop,
        mask=options.mask,
        captions=captions,
    )
    evaluation = Evaluation(heldout)
    torch.manual_seed(0)  # of the noise that some generators want in the hole
    metrics, picture = evaluation(partial(complete_batch, generator))
    print(f"{images.summary()}, {len(evaluation.heldout.image)} crops")
    name = printable(Path(os.path.realpath(options.weights)).stem)
    print(table({name: metrics, **evaluation.fill_metrics}))
    if options.picture:
        write_png(options.picture, picture)
        print(f"picture: {printable(options.picture)}")
    return 0
