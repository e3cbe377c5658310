"""inpaint-fast complete"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from torch import Tensor
from tqdm import tqdm

from inpaint_fast._devices import device_of
from inpaint_fast.cli._options import parse
from inpaint_fast.completion import complete, load_network
from inpaint_fast.completion.picture import encoded_captions
from inpaint_fast.data import ImageError, ImageFolder, box, load_caption_encoder, read_image, read_mask, write_png
from inpaint_fast.data.images import readable_suffixes


@dataclass
class Complete:
    """Fill the holes of a picture, or of every picture in a folder, and write PNG files.

    Every pixel outside the hole is written exactly as it was read. Pictures are read upright (EXIF) and as 8-bit sRGB;
    transparency is laid on white. No picture to complete and no mask is ever written over; former results are.
    """

    image: Annotated[Path, tyro.conf.Positional]
    """A picture, or a folder of pictures (searched recursively)."""
    weights: Path | None = None
    """A run's folder or its generator.safetensors."""
    fill: Literal["harmonic", "ring_mean"] | None = None
    """Instead of weights: Laplace's equation from the border of the hole, or the mean colour of the pixels round it."""
    mask: Path | None = None
    """The holes: a picture of the same size, white (or transparent) in the hole; or a folder of masks named as the
    pictures are, whatever their suffix."""
    box: tuple[int, int, int, int] | None = None
    """One rectangular hole instead of a mask: left, top, width, height in pixels."""
    out: Path = Path("completed")
    """A PNG file for a picture, or a folder for either."""
    invert_mask: bool = False
    """Black is the hole."""
    caption: tuple[str, ...] = ()
    """What the picture shows, one or several sentences; for generators that read captions."""
    blend: bool = False
    """Draw the completion into the colours round each hole (Poisson blending)."""
    device: str = "cpu"
    """Where the generator or the fill runs: "auto" (the first GPU if there is one), "cpu", "cuda", "cuda:1"."""


def main(argv: Sequence[str]) -> int:
    """Run the command with these arguments; returns the exit code."""
    options = parse(Complete, "inpaint-fast complete", argv)
    if (options.mask is None) == (options.box is None):
        raise ValueError("--mask or --box is expected, one of them: where the hole is")
    settings = completion_settings(options)
    jobs, left_out = plan(options.image, options.out)
    check_targets(jobs, left_out, options.mask)
    failed: list[str] = []
    for source, target in tqdm(jobs, unit="picture", disable=len(jobs) == 1):
        try:
            picture = read_image(source)
            mask = mask_of(options, source, picture)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_png(target, complete(picture, mask, **settings))
        except (ValueError, OSError) as error:
            text = str(error)
            failed.append(text if str(source) in text else f"{source}: {text}")
    done = len(jobs) - len(failed)
    if done:
        print(f"{done} completed: {jobs[0][1] if len(jobs) == 1 else str(options.out) + '/'}")
    for failure in failed:
        print(f"not completed: {failure}", file=sys.stderr)
    return 0 if not failed else 2 if len(jobs) == 1 else 1


def completion_settings(options: Complete) -> dict[str, Any]:
    """What `complete` is given for every picture; what is wrong for all of them is said here, once."""
    if (options.weights is None) == (options.fill is None):
        raise ValueError(
            "--weights or --fill is expected, one of them: a run's folder or its generator.safetensors; or harmonic or "
            "ring_mean, which need no weights"
        )
    device, caption = device_of(options.device), options.caption or None
    if options.weights is None:
        if caption is not None:
            raise ValueError(f"--caption: --fill {options.fill} reads none")
        return {"fill": options.fill, "blend": options.blend, "device": device}
    generator = load_network(options.weights).to(device)
    encoder = load_caption_encoder(options.weights)
    encoded_captions(generator, caption, encoder)
    return {"weights": generator, "blend": options.blend, "caption": caption, "caption_encoder": encoder}


def plan(image: Path, out: Path) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """(picture, PNG file to write) for everything that was asked for, and the files that cannot be read."""
    if image.is_dir():
        if out.suffix.lower() == ".png" and not out.is_dir():
            raise ValueError(f"--out: a folder is expected for a folder of pictures, got {out}")
        folder = ImageFolder(image)
        for path, reason in folder.skipped.items():
            print(f"left out: {path}: {reason}", file=sys.stderr)
        names = [path.relative_to(image) for path in folder.paths]
        stems = [name.with_suffix("") for name in names]
        # a.jpg and a.png would both be a.png: then the whole name is kept
        targets = [
            name.with_suffix(".png") if stems.count(stem) == 1 else name.with_name(name.name + ".png")
            for name, stem in zip(names, stems, strict=True)
        ]
        return [(image / name, out / target) for name, target in zip(names, targets, strict=True)], [*folder.skipped]
    if not image.exists():
        raise ImageError(image, "no such file or folder")
    if out.is_dir():
        return [(image, out / image.with_suffix(".png").name)], []
    if out.suffix.lower() in readable_suffixes() - {".png"}:
        raise ValueError(f"--out: a .png file or a folder is expected, got {out} (only PNG keeps every pixel)")
    return [(image, out if out.suffix.lower() == ".png" else out / image.with_suffix(".png").name)], []


def check_targets(jobs: list[tuple[Path, Path]], left_out: list[Path], mask: Path | None) -> None:
    """Refuse, before anything is written, to write over a source, a mask or another result.

    Raises:
        ValueError: names the file.
    """
    kept = {source.resolve(): "a picture to complete" for source in (*left_out, *(source for source, _ in jobs))}
    if mask is not None:
        masks = [path for path in mask.rglob("*") if path.is_file()] if mask.is_dir() else [mask]
        kept |= {path.resolve(): "a mask" for path in masks}
    for _, target in jobs:
        if (place := target.resolve()) in kept:
            raise ValueError(f"--out: {target} would be written over {kept[place]}; name another folder or file")
        kept[place] = "another result"


def mask_of(options: Complete, source: Path, picture: Tensor) -> Tensor:
    """The hole of one picture, bool (1, H, W)."""
    height, width = picture.shape[1:]
    if options.box is not None:
        return box(height, width, *options.box)
    path = options.mask
    if path.is_dir():
        inside = source.relative_to(options.image) if options.image.is_dir() else Path(source.name)
        folder, suffixes = path / inside.parent, readable_suffixes()
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        found = [file for file in files if file.stem == inside.stem and file.suffix.lower() in suffixes]
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            raise ValueError(f"one mask named {inside.with_suffix('.*')} is expected in {path}, got {names}")
        path = found[0]
    return read_mask(path, (height, width), invert=options.invert_mask)
