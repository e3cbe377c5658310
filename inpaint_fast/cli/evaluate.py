"""inpaint-fast evaluate"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from inpaint_fast.completion import load_network
from inpaint_fast.data import captions_for, heldout_crops, load_caption_encoder, open_images, write_png
from inpaint_fast.models import CentreGenerator
from inpaint_fast.training import Evaluation, table
from inpaint_fast.training.centre import complete_centres


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
    picture: Path | None = None
    """Also write a grid of some completions to this PNG file."""


def main(argv: Sequence[str]) -> int:
    """Run the command with these arguments; returns the exit code."""
    options = tyro.cli(Evaluate, prog="inpaint-fast evaluate", args=argv)
    if options.picture and options.picture.suffix.lower() != ".png":
        raise ValueError(f"--picture: a .png file is expected, got {options.picture}")
    generator = load_network(options.weights)
    if not isinstance(generator, CentreGenerator):
        raise ValueError(f"{options.weights}: {type(generator).__name__} completes no pictures")
    images = open_images(options.data, "heldout")
    captions = None
    if generator.reads_captions:
        encoder = load_caption_encoder(options.weights if options.weights.is_dir() else options.weights.parent)
        if encoder is None:
            raise FileNotFoundError(
                f"{options.weights}: its run's vocabulary or sentence vectors are expected beside it"
            )
        captions = encoder(captions_for(images, options.data))
    heldout = heldout_crops(images, per_image=options.heldout_crops, crop=options.crop, captions=captions)
    evaluation = Evaluation(heldout)
    torch.manual_seed(0)  # of the noise that some generators want in the hole
    metrics, picture = evaluation(lambda batch: complete_centres(generator, batch))
    print(f"{images.summary()}, {len(evaluation.heldout.image)} crops")
    print(table({options.weights.resolve().stem: metrics, **evaluation.fill_metrics}))
    if options.picture:
        write_png(options.picture, picture)
        print(f"picture: {options.picture}")
    return 0
