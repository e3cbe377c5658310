"""What `--adapt` gains: the tables of docs/completing.md, measured.

    python docs/adapting.py [PICTURE ...] [--weights sharp smooth] [--steps 120]

A quarter of each picture is the hole: squares of 40 pixels (16 in a texture) or brush strokes. Prints the PSNR in dB in
the true hole, whose truth the adaptation does not see: of the harmonic fill, of the weights as they are, of the adapted
weights without the texture fill, and with it. The pictures are the package's: three textures, or those held out. Steps
are counted, not seconds, so that what else the machine does changes nothing. Pictures of more than a megapixel get no
texture fill; the last two columns are the same there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import tyro
from torch import Generator, Tensor

import inpaint_fast as ipf
from inpaint_fast.completion import adapt_to_picture, load_network
from inpaint_fast.data import free_form, samples

TEXTURES = ("brick_wall", "gravel", "grass")
SIDE = 40  # of a square hole, in pixels; so far apart, too


@dataclass
class Options:
    """Measure what adaptation gains."""

    pictures: Annotated[tuple[str, ...], tyro.conf.Positional] = TEXTURES
    """Names of the package's photographs, without the suffix; "heldout" for all that are held out."""
    weights: tuple[str, ...] = ("sharp", "smooth")
    steps: int = 120
    """Of the training; 0.064 s each on two quiet cores of an AMD EPYC, where 20 seconds have room for more."""


def main() -> None:
    options = tyro.cli(Options)
    pictures = {path.stem: picture for split in ("train", "heldout") for path, picture in pairs(split)}
    names = [name for given in options.pictures for name in (held_out() if given == "heldout" else [given])]
    print("| picture, hole | weights | `harmonic` | as they are | adapted, weights alone | adapted |")
    print("| --- " * 6 + "|")
    for name in names:
        for kind, draw in (("squares", squares), ("strokes", strokes)):
            for weights in options.weights:
                found = measured(pictures[name], draw(*pictures[name].shape[1:]), weights, options.steps)
                print(f"| {name}, {kind} | `{weights}` | {' | '.join(f'{each:.2f}' for each in found)} |", flush=True)


def measured(picture: Tensor, mask: Tensor, weights: str, steps: int) -> list[float]:
    """PSNR in the hole: of the harmonic fill, the weights as they are, adapted without the texture fill, with it."""
    generator = load_network(weights)
    network = adapt_to_picture(generator, picture, mask, seconds=1e9, steps=steps).network
    fills = [
        {"fill": "harmonic"},
        *({"weights": each} for each in (generator, getattr(network, "network", network), network)),
    ]
    return [psnr(ipf.complete(picture, mask, **fill), picture, mask) for fill in fills]


def psnr(completed: Tensor, picture: Tensor, mask: Tensor) -> float:
    error = (completed.double() - picture)[:, mask[0]] / 255
    return -10 * math.log10(error.square().mean().item())


def squares(height: int, width: int) -> Tensor:
    """Squares of `SIDE` pixels, as far apart: a quarter of the picture."""
    rows, columns = ((torch.arange(length) - SIDE // 2) % (2 * SIDE) < SIDE for length in (height, width))
    return (rows[:, None] & columns)[None]


def strokes(height: int, width: int) -> Tensor:
    """Brush strokes until the next would cover more than a quarter of the picture; always the same."""
    draws = Generator().manual_seed(0)
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    while (more := mask | free_form(height, width, draws, strokes=(1, 1), brush=(0.03, 0.08))).float().mean() <= 1 / 4:
        mask = more
    return mask if mask.any() else more


def pairs(split: str) -> list[tuple]:
    photographs = samples(split)
    return list(zip(photographs.paths, photographs, strict=True))


def held_out() -> list[str]:
    return [path.stem for path, _ in pairs("heldout")]


if __name__ == "__main__":
    main()
