"""The pictures and figures of docs/systems.md: a short run of every recipe on the photographs that come with it.

    python docs/pictures.py [RECIPE ...]        (`make pictures` runs all of them: half an hour on one core)

From the root of the repository. Each run is `inpaint-fast train RECIPE` with the settings of `RUNS`, and leaves
docs/RECIPE.png (held-out examples side by side: the input, below it the completion, the truth; or pictures from noise)
and its row of docs/pictures.csv. One with --init starts from another's run, which has to be made before it.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import sys
import time
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from inpaint_fast.cli.train import recipe_of
from inpaint_fast.completion.weights import copy_networks
from inpaint_fast.data import to_uint8
from inpaint_fast.data.folder import evenly
from inpaint_fast.training import Run, train
from inpaint_fast.training.evaluation import Generation

DOCS, FOLDER = Path(__file__).parent, Path("runs/pictures")
NARROW = "--batch-size 16 --filters 16"
SETTLED = f"{NARROW} --lr-decay 0.99 --steps 300"  # the photographs are 18: an epoch is little more than a batch
RUNS = {
    "unet_l2": "--batch-size 16 --steps 1000",
    "unet_wgan": f"--batch-size 16 --steps 500 --init {FOLDER}/unet_l2 --adversarial-weight 0.14 --lr 5e-4",
    "unet_wgan_caption": "--batch-size 16 --steps 400 --adversarial-weight 0.05",
    "context_cnn": f"{NARROW} --lr-decay 0.995 --steps 600",
    "context_cnn_bow1": SETTLED,
    "context_cnn_bow5": SETTLED,
    "context_cnn_lstm": SETTLED,
    "context_cnn_gru": SETTLED,
    "context_cnn_caption_bias": SETTLED,
    "context_gan": f"{NARROW} --steps 300 --init {FOLDER}/context_cnn --critic-filters 16",
    "context_wgan": f"{NARROW} --steps 300 --lr 3e-4 --init {FOLDER}/context_cnn --critic-filters 16",
    "noise_gan": "--batch-size 16 --steps 500 --filters 128 --critic-filters 32",
    "conv_autoencoder": "--batch-size 16 --filters 32 --steps 400",
    "latent_gan": "--batch-size 16 --width 16 --autoencoder-steps 400 --steps 3400",
    "glcic": "--batch-size 8 --channels 16 --completion-steps 500 --settle 250 --steps 500",
    "glcic_places2": "--batch-size 4 --channels 16 --completion-steps 400 --settle 300 --steps 400",
    "glcic_small": "",
    "mlp_gan": "--steps 2500",
    "dcgan": "--batch-size 16 --width 32 --steps 2000",
}
GAP = 4  # pixels between tiles
FIGURES = ("psnr", "ring_mean_psnr", "ssim", "sharpness", "diversity")


def main(names: list[str]) -> None:
    """Run these recipes, or all."""
    if unknown := [name for name in names if name not in RUNS]:
        raise SystemExit(f"{unknown[0]!r} is no recipe; one of {', '.join(RUNS)} is expected")
    for name in names or RUNS:
        shutil.rmtree(FOLDER / name, ignore_errors=True)
        recipe, options = recipe_of(name, [*RUNS[name].split(), "--out", str(FOLDER / name)])
        started = time.process_time()
        folder = train(recipe, options.out)
        seconds = round(time.process_time() - started)
        run = Run(recipe)
        copy_networks(folder, {"generator": run.system.generator})
        save(DOCS / f"{name}.png", sheet(run))
        last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
        row = {"recipe": name, "settings": RUNS[name], "steps": last["step"], "cpu_seconds": seconds}
        keep(row | {figure: round(last[figure], 3) for figure in FIGURES if figure in last})


def sheet(run: Run) -> Tensor:
    """Rows of tiles, (rows, columns, 3, side, side): inputs, completed, truths; or pictures from noise alone."""
    evaluation, heldout = run.evaluation, run.evaluation.heldout
    torch.manual_seed(0)
    made = run.system.complete(heldout)
    side = made.shape[-1]
    if isinstance(evaluation, Generation):
        shape = (2, 5) if side == 64 else (3, 10)
        tiles = made[evenly(len(made), math.prod(shape))].unflatten(0, shape)
    else:
        rows = evenly(len(made), 5 if side == 64 else 3)
        tiles = torch.stack([x[rows] for x in (heldout.image.masked_fill(heldout.mask, 0.5), made, heldout.image)])
    if side <= 64:
        return tiles.repeat_interleave(2, -1).repeat_interleave(2, -2)
    return F.interpolate(tiles.flatten(0, 1), size=(96, 96), mode="area").unflatten(0, tiles.shape[:2])


def save(path: Path, tiles: Tensor) -> None:
    """Write a sheet on white, in 256 colours that suit it: a third of the bytes."""
    rows, columns, _, side, _ = tiles.shape
    page = torch.full((3, rows * (side + GAP) - GAP, columns * (side + GAP) - GAP), 255, dtype=torch.uint8)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (side + GAP), column * (side + GAP)
            page[:, top : top + side, left : left + side] = to_uint8(tiles[row, column])
    picture = Image.fromarray(page.permute(1, 2, 0).contiguous().numpy())
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def keep(row: dict[str, object]) -> None:
    """Put a recipe's row into the table, in the place of its last one."""
    path = DOCS / "pictures.csv"
    with open(path, newline="") as file:
        rows = {each["recipe"]: each for each in csv.DictReader(file)}
    rows[row["recipe"]] = row
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ("recipe", "settings", "steps", "cpu_seconds", *FIGURES), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name] for name in RUNS if name in rows)


if __name__ == "__main__":
    main(sys.argv[1:])
