"""The pictures and figures of the README's systems: a short run of every recipe on the photographs that come with it.

    python docs/pictures.py [RECIPE ...]        (`make pictures` runs all of them: about an hour and a half on one core)

From the root of the repository. Each run is `inpaint-fast train RECIPE` with the settings of `RUNS`, and leaves
docs/RECIPE.png (held-out examples from left to right; from top to bottom what the generator sees, what it makes of it,
the truth; or pictures from noise) and its row of docs/pictures.csv.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from inpaint_fast.cli.train import recipe_of
from inpaint_fast.completion.weights import copy_weights
from inpaint_fast.data import to_uint8
from inpaint_fast.data.folder import evenly
from inpaint_fast.training import Run, train
from inpaint_fast.training.evaluation import Generation

DOCS, FOLDER = Path(__file__).parent, Path("runs/pictures")
SHORT = "--batch-size 16"
RUNS = {
    "unet_l2": f"{SHORT} --steps 1000",
    "unet_wgan": f"{SHORT} --steps 500 --pretrained {FOLDER}/unet_l2 --adversarial-weight 0.14 --lr 5e-4",
    "unet_wgan_caption": f"{SHORT} --steps 1500 --adversarial-weight 0.14",
    "context_cnn": f"{SHORT} --steps 600",
    "context_cnn_bow1": f"{SHORT} --steps 600",
    "context_cnn_bow5": f"{SHORT} --steps 600",
    "context_cnn_lstm": f"{SHORT} --steps 600",
    "context_cnn_gru": f"{SHORT} --steps 600",
    "context_cnn_caption_bias": f"{SHORT} --steps 600",
    "context_gan": f"{SHORT} --steps 300 --pretrained {FOLDER}/context_cnn",
    "context_wgan": f"{SHORT} --steps 200 --pretrained {FOLDER}/context_cnn",
    "noise_gan": f"{SHORT} --steps 1000 --filters 128 --critic-filters 32",
    "conv_autoencoder": f"{SHORT} --steps 600",
    "latent_gan": f"{SHORT} --steps 1000 --width 32",
    "glcic": f"{SHORT} --micro-batch 4 --steps 100 --channels 16",
    "glcic_places2": f"{SHORT} --micro-batch 4 --steps 100 --channels 16",
    "glcic_small": "",
    "mlp_gan": "--steps 4000",
    "dcgan": f"{SHORT} --steps 1500 --width 32",
}
GAP = 4  # pixels between tiles
FIGURES = ("psnr", "ring_mean_psnr", "ssim", "sharpness", "diversity")


def main(names: list[str]) -> None:
    """Run these recipes, or all."""
    if unknown := [name for name in names if name not in RUNS]:
        raise SystemExit(f"{unknown[0]!r} is no recipe; one of {', '.join(RUNS)} is expected")
    for name in names or RUNS:
        shutil.rmtree(FOLDER / name, ignore_errors=True)
        recipe, folder = recipe_of(name, [*RUNS[name].split(), "--out", str(FOLDER / name)])
        train(recipe, folder)
        run = Run(recipe)
        copy_weights(folder, run.system.generator)
        save(DOCS / f"{name}.png", sheet(run))
        last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
        row = {"recipe": name, "settings": RUNS[name], "steps": last["step"], "seconds": round(last["seconds"])}
        keep(row | {figure: round(last[figure], 3) for figure in FIGURES if figure in last})


def sheet(run: Run) -> Tensor:
    """Rows of tiles, (rows, columns, 3, side, side): inputs, completed, truths; or pictures from noise alone."""
    evaluation, heldout = run.evaluation, run.evaluation.heldout
    torch.manual_seed(0)
    made = run.system.complete(heldout)
    side = made.shape[-1]
    if isinstance(evaluation, Generation):
        columns = 5 if side == 64 else 10
        tiles = made[evenly(len(made), 3 * columns)].unflatten(0, (3, columns))
    else:
        rows = evenly(len(made), 5 if side == 64 else 3)
        tiles = torch.stack([x[rows] for x in (heldout.image.masked_fill(heldout.mask, 0.5), made, heldout.image)])
    if side <= 64:
        return tiles.repeat_interleave(2, -1).repeat_interleave(2, -2)
    return F.interpolate(tiles.flatten(0, 1), size=(128, 128), mode="area").unflatten(0, tiles.shape[:2])


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
        writer = csv.DictWriter(file, ("recipe", "settings", "steps", "seconds", *FIGURES), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name] for name in RUNS if name in rows)


if __name__ == "__main__":
    main(sys.argv[1:])
