"""inpaint-fast demo"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from inpaint_fast._devices import device_of
from inpaint_fast._names import printable
from inpaint_fast.cli._options import parse
from inpaint_fast.completion import FILLS, complete, complete_batch, load_network
from inpaint_fast.completion.generators import placed
from inpaint_fast.completion.weights import SHIPPED
from inpaint_fast.data import center_square, heldout_crops, samples, to_float, write_png
from inpaint_fast.training import Evaluation, UNetL2, UNetWGAN, table, train
from inpaint_fast.training.pictures import grid

SIDE = 256  # of the photographs that are shown, in pixels


@dataclass
class Demo:
    """Complete photographs that no network has seen: by the weights of the package, and by two systems that are
    trained here.

    The package's generators complete them in the first seconds (shipped.png). Then, on the photographs that come with
    the package, the U-Net-like generator is trained on squared error alone (recipe unet_l2), and the same generator,
    from those weights on, with a Wasserstein critic (unet_wgan). All are shown beside two fills that learn nothing.
    """

    out: Path = Path("demo")
    """Folder for the runs and the pictures; must not hold a demo already."""
    seconds: float = 90
    """Training time of each system; unet_wgan ends at 300 steps if it gets there sooner."""
    hole: int = 96
    """Side of the hole in the photographs, in pixels."""


def main(argv: Sequence[str]) -> int:
    """Run the command with these arguments; returns the exit code."""
    options = parse(Demo, "inpaint-fast demo", argv)
    out = options.out
    center_square(SIDE, SIDE, options.hole)  # raises what is wrong with it now, not after the training
    expect_new(out)
    device = device_of("auto")
    shipped = {name: placed(load_network(name), device) for name in SHIPPED}
    out.mkdir(parents=True, exist_ok=True)
    write_png(out / "shipped.png", photographs(shipped, options.hole))
    print(f"completed by the weights of the package: {printable(out / 'shipped.png')}\n", flush=True)
    l2 = train(UNetL2(seconds=options.seconds), out / "unet_l2")
    # A minute and a half is short: the critic starts on a generator that knows colours already, weighs little and steps
    # slowly. With the published weight and rate the first minutes are noise.
    adversarial = UNetWGAN(
        seconds=options.seconds, steps=300, evaluate_every=100, init=str(l2), adversarial_weight=0.14, lr=5e-4
    )
    wgan = train(adversarial, out / "unet_wgan")
    generators = {name: placed(load_network(folder), device) for name, folder in (("unet_l2", l2), ("unet_wgan", wgan))}

    heldout = heldout_crops(samples("heldout"), per_image=16)
    evaluation, there = Evaluation(heldout), heldout.map(lambda part: part.to(device))
    generators = shipped | generators
    completed = {name: complete_batch(generator, there).cpu() for name, generator in generators.items()}
    crops = {"input": evaluation.heldout.image.masked_fill(evaluation.heldout.mask, 0.5)}
    crops |= evaluation.fills | completed | {"truth": evaluation.heldout.image}
    write_png(out / "crops.png", grid({name: pictures[evaluation.rows] for name, pictures in crops.items()}))
    write_png(out / "photographs.png", photographs(generators, options.hole))

    print(f"\n{len(evaluation.heldout.image)} crops of {len(samples('heldout'))} photographs that were held out:\n")
    print(table({**evaluation.fill_metrics, **{name: evaluation.measure(c) for name, c in completed.items()}}))
    print("\nsharpness 1: as sharp as the truth. Pictures to look at:")
    for name in ("shipped.png", "crops.png", "photographs.png"):
        print(f"  {printable(out / name)}")
    print(f"runs: {printable(l2)}/ and {printable(wgan)}/")
    return 0


def expect_new(out: Path) -> None:
    """Raise FileExistsError where the folder holds a demo already."""
    for name in ("unet_l2", "unet_wgan", "shipped.png"):
        if (out / name).exists():
            raise FileExistsError(f"--out: a folder without a demo is expected, got {out}, which holds {name}")


def photographs(generators: dict[str, torch.nn.Module], hole: int, *, side: int = SIDE) -> Tensor:
    """The middle of each held-out photograph with a central hole, completed by every fill and generator; uint8 grid."""
    pictures = torch.stack([middle(photograph, side) for photograph in samples("heldout")])
    mask = center_square(side, side, hole)
    floats = to_float(pictures)
    columns = {"input": floats.masked_fill(mask, 0.5)}
    columns |= {name: fill(floats, mask[None]) for name, fill in FILLS.items()}
    for name, generator in generators.items():
        columns[name] = to_float(torch.stack([complete(picture, mask, weights=generator) for picture in pictures]))
    return grid({**columns, "truth": floats}, zoom=1)


def middle(picture: Tensor, side: int) -> Tensor:
    """The central square of a picture (3, H, W), side pixels wide."""
    top, left = (picture.shape[1] - side) // 2, (picture.shape[2] - side) // 2
    return picture[:, top : top + side, left : left + side]
