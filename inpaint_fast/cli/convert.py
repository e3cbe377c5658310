"""inpaint-fast convert"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from inpaint_fast._names import printable
from inpaint_fast.cli._options import check_output, parse
from inpaint_fast.completion.convert import from_public, to_public


@dataclass
class Convert:
    """Convert public GLCIC weights (a .pth file of GLCIC-PyTorch) to a safetensors file, or such a file back.

    The .pth file holds a state_dict, or a dictionary with one in it; prefixes of DataParallel, torch.compile or a
    larger module are left off. Nothing in it is executed. The result is written whole or not at all, and never over the
    source.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """A .pth file; or a .safetensors file, or a run's folder, to convert back."""
    out: Path
    """The file to write: .safetensors, or .pth to convert back."""
    order: Literal["act_norm", "norm_act"] = "act_norm"
    """Of the network that was trained: convolution, ReLU, norm (the public weights) or convolution, norm, ReLU."""
    mean_pixel: tuple[float, float, float] | None = None
    """RGB in [0, 1] that filled the holes in training; by default the mpv of a config.json beside the source."""
    hole: int = 96
    """Longest side, in pixels, of the holes in training."""
    entry: str | None = None
    """Which one, where the .pth file holds several networks: "generator", "ema.model"."""


def main(argv: Sequence[str]) -> int:
    """Run the command with these arguments; returns the exit code."""
    options = parse(Convert, "inpaint-fast convert", argv)
    back = options.source.is_dir() or options.source.suffix.lower() == ".safetensors"
    expected = ".pth" if back else ".safetensors"
    check_output("--out", options.out, [expected], source=options.source)
    if back:
        network = to_public(options.source, options.out)
    else:
        settings = {name: getattr(options, name) for name in ("order", "mean_pixel", "hole", "entry")}
        network = from_public(options.source, options.out, **settings)
    count = sum(parameter.numel() for parameter in network.parameters())
    print(f"{type(network).__name__}, {count:,} parameters: {printable(options.out)}")
    mean_pixel = getattr(network, "mean_pixel", None)
    if back and mean_pixel is not None:
        pixel = ", ".join(f"{value:.6f}" for value in mean_pixel.tolist())
        print(f"mean pixel, which a .pth file has no place for: {pixel}")
    return 0
