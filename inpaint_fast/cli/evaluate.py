"""inpaint-fast evaluate"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor, nn

from inpaint_fast._devices import device_of
from inpaint_fast._files import write_whole
from inpaint_fast._names import printable
from inpaint_fast._version import __version__
from inpaint_fast.cli._options import check_output, check_seed, parse
from inpaint_fast.completion import complete_batch, load_network
from inpaint_fast.completion.generators import kind_of, placed
from inpaint_fast.data import captions_for, heldout_crops, load_caption_encoder, open_images, write_png
from inpaint_fast.data.images import software_of
from inpaint_fast.training import Evaluation, area_table, table
from inpaint_fast.training.perceptual import Perceptual
from inpaint_fast.training.pictures import grid
from inpaint_fast.training.recipe import MOST_PICTURES

Mask = Literal["center", "rectangle", "free_form"]
SOFTWARE = "inpaint-fast evaluate"
"""What stands in the header of a picture that the command wrote, before the version."""
STARTS = {"csv": b"size,mask,area,pictures,completed_by,", "json": b'{\n "inpaint_fast": '}
"""How the other files begin that it writes."""


@dataclass
class Evaluate:
    """Measure a trained generator on held-out crops, beside the fills that learn nothing.

    PSNR, SSIM, L1, L2 and sharpness inside the hole (sharpness 1: as sharp as the truth), for all crops and by how much
    of them is hole.
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
    size: tuple[int, ...] = (64,)
    """Side that the crops are scaled to, in pixels: that of the training pictures; or several sides."""
    mask: tuple[Mask, ...] = ("center",)
    """The holes, or several kinds of them; a network that fills central squares alone takes "center"."""
    seed: int = 0
    """Of the crops, the holes, and the noise that some generators want in the hole."""
    device: str = "auto"
    """Where to complete: "auto" (the first GPU if there is one), "cpu", "cuda", "cuda:1"."""
    csv: Path | None = None
    """Also write all figures to this CSV file: a line for each size, mask, tenth of hole area, and fill. Of these three
    files nothing is written over but what this command wrote."""
    json: Path | None = None
    """Also write all figures, with the settings that they hold for, to this JSON file."""
    metrics: tuple[Literal["fid", "kid", "lpips"], ...] = ()
    """Besides, of whole pictures: FID and KID, how far the set of completed pictures is from that of true ones (FID
    wants thousands), and LPIPS, how far each is from its truth; 0 is best. pip install 'inpaint_fast[metrics]'."""
    metrics_weights: Path | None = None
    """Folder with the weights for --metrics as they are published, weights-inception-2015-12-05-6726825d.pth of
    torch-fidelity for fid and kid, alexnet-owt-7be5be79.pth of torchvision for lpips. Nothing is downloaded."""
    picture: Path | None = None
    """Also write a grid of some completions to this PNG file, of the first size and mask."""


def main(argv: Sequence[str]) -> int:
    """Run the command with these arguments; returns the exit code."""
    options = parse(Evaluate, "inpaint-fast evaluate", argv)
    _check(options)
    generator = load_network(options.weights)
    _check_takes(generator, options)
    device = device_of(options.device)
    generator = placed(generator, device)
    perceptual = None
    if options.metrics and options.metrics_weights:
        perceptual = Perceptual(options.metrics, options.metrics_weights, device)
    images = open_images(options.data, "heldout")
    measured = images.spread(options.heldout_pictures)
    captions = None
    if generator.reads_captions:
        encoder = load_caption_encoder(options.weights)
        if encoder is None:
            raise FileNotFoundError(f"{options.weights}: its run's vocabulary or sentence vectors are expected there")
        captions = encoder(captions_for(measured, options.data))
    name = printable(Path(os.path.realpath(options.weights)).stem)
    rows, grids = [], []
    for size, mask in product(options.size, options.mask):
        heldout = heldout_crops(
            measured,
            per_image=options.heldout_crops,
            size=size,
            crop=options.crop,
            mask=mask,
            seed=options.seed,
            captions=captions,
        )
        evaluation = Evaluation(heldout.map(lambda part: part.to(device)))
        torch.manual_seed(options.seed)  # of the noise that some generators want in the hole
        completed = complete_batch(generator, evaluation.heldout)
        if not completed.isfinite().all():
            raise ValueError(f"{options.weights}: its answers are not finite")
        several = f", {size}x{size}, {mask}" if len(options.size) * len(options.mask) > 1 else ""
        print(f"{images.summary()}, {len(completed)} crops{several}")
        everything = {name: completed, **evaluation.fills}
        metrics, counts = by_area(evaluation, everything)
        if perceptual:
            for by, pictures in everything.items():
                metrics["all"][by] |= perceptual(pictures, evaluation.heldout.image)
        print(table(metrics["all"]))
        if len(counts) > 2:  # holes of one area alone are all holes
            print(area_table({area: some for area, some in metrics.items() if area != "all"}, counts))
        place = {"size": size, "mask": mask}
        rows += [
            {**place, "area": area, "pictures": counts[area], "completed_by": by, **figures}
            for area, some in metrics.items()
            for by, figures in some.items()
        ]
        grids.append(grid(evaluation.columns(completed)))
    _write(options, rows, grids[0])
    return 0


def by_area(
    evaluation: Evaluation, completed: dict[str, Tensor]
) -> tuple[dict[str, dict[str, dict[str, float]]], dict[str, int]]:
    """Area of the holes, "all" first -> name -> metrics; and area -> number of pictures."""
    areas = {"all": torch.arange(len(evaluation.heldout.image)), **evaluation.areas()}
    metrics = {
        area: {name: evaluation.measure(pictures, rows) for name, pictures in completed.items()}
        for area, rows in areas.items()
    }
    return metrics, {area: len(rows) for area, rows in areas.items()}


def _check(options: Evaluate) -> None:
    """Raise ValueError or OSError for what is wrong with the options, before anything is computed."""
    for option, suffix in (("csv", ".csv"), ("json", ".json"), ("picture", ".png")):
        if path := getattr(options, option):
            check_output(f"--{option}", path, [suffix])
            if os.path.lexists(path) and not _is_former(path, option):
                raise FileExistsError(f"--{option}: {path} is none that this command wrote; name another file")
    for option in ("size", "mask"):
        if not getattr(options, option):
            raise ValueError(f"--{option}: one at least is expected, got none")
    if bool(options.metrics) != bool(options.metrics_weights):
        raise ValueError("--metrics and --metrics-weights: both or none is expected")
    for option, most in (("heldout_crops", MOST_PICTURES), ("heldout_pictures", math.inf)):
        if not 1 <= (value := getattr(options, option)) <= most:
            limit = f"1 to {most:,}" if value > most else "at least 1"
            raise ValueError(f"--{option.replace('_', '-')}: {limit} is expected, got {value:,}")
    check_seed(options.seed)


def _is_former(path: Path, option: str) -> bool:
    """Whether a file that is there was written by this command for this option; an empty one may have been."""
    if not path.is_file():
        return False
    if option == "picture":
        return path.stat().st_size == 0 or str(software_of(path)).startswith(SOFTWARE)
    with open(path, "rb") as file:
        start = file.read(len(STARTS[option]))
    return start in (b"", STARTS[option])


def _check_takes(generator: nn.Module, options: Evaluate) -> None:
    """Raise ValueError for a size and a mask that this network takes none of."""
    takes = kind_of(generator).takes
    for asked in product(options.size, options.mask):
        if takes not in (None, asked):
            expected, got = (f"{size} and {mask}" for size, mask in (takes, asked))
            raise ValueError(f"--size and --mask: {type(generator).__name__} takes {expected}, got {got}")


def _write(options: Evaluate, rows: list[dict[str, object]], picture: Tensor) -> None:
    """Write the files that are asked for, each whole."""
    if options.csv:
        table = io.StringIO()
        writer = csv.DictWriter(table, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(options.csv, lambda file: file.write(table.getvalue().encode()))
    if options.json:
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
        about = {"inpaint_fast": __version__, "torch": str(torch.__version__), "settings": settings}
        text = json.dumps({**about, "rows": rows}, indent=1, allow_nan=False) + "\n"
        write_whole(options.json, lambda file: file.write(text.encode()))
    if options.picture:
        write_png(options.picture, picture, software=f"{SOFTWARE} {__version__}")
    for option, path in (("figures", options.csv), ("figures", options.json), ("picture", options.picture)):
        if path:
            print(f"{option}: {printable(path)}")
