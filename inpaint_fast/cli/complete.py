"""inpaint-fast complete"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from torch import Tensor
from tqdm import tqdm

from inpaint_fast._devices import device_of
from inpaint_fast._names import printable
from inpaint_fast.cli._jobs import SOFTWARE, MaskFolder, Rest, plan
from inpaint_fast.cli._options import parse, said
from inpaint_fast.completion import complete, load_network
from inpaint_fast.completion.adapt import adapt_to_picture, expect_adaptable
from inpaint_fast.completion.generators import placed
from inpaint_fast.completion.holes import grown
from inpaint_fast.completion.originals import kept_format, write_like
from inpaint_fast.completion.picture import encoded_captions
from inpaint_fast.completion.weights import SHIPPED
from inpaint_fast.data import box, load_caption_encoder, read_image, read_mask, write_png
from inpaint_fast.data.mask_files import check_share, check_size

FILL_NAMES = {"mean": "ring_mean"}
BAR = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
"""Of one picture that takes more than a second."""


@dataclass(kw_only=True)
class Complete:
    """Fill the holes of pictures and write PNG files, or with --keep files such as the pictures are.

    Every pixel outside the hole is written exactly as it was read. Pictures are read upright (EXIF) and as 8-bit sRGB;
    transparency is laid on white; --keep gives all of it back. A picture that cannot be completed is named, and the
    others are. Nothing that exists is written over but former results, which bear a mark in their header: the same
    command makes them anew, and leaves them and the masks out where they lie among the pictures.
    """

    image: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PICTURE")]
    """A picture, or a folder of pictures (searched recursively)."""
    more: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[PICTURE ...]")] = ()
    """More of them."""
    weights: Path | None = None
    """A run's folder or its generator.safetensors; or weights of the package: "sharp" (the default) or "smooth", which
    is closer to the truth on the average and blurred."""
    fill: Literal["harmonic", "ring_mean", "mean"] | None = None
    """Instead of weights: Laplace's equation from the border of the hole, or the mean colour of the pixels round
    all holes of the picture ("ring_mean", "mean" for short)."""
    mask: Path | None = None
    """The holes: a picture of the same size, or a folder of masks named as the pictures are, whatever their suffix.
    White is the hole, or the transparent part of a file with transparency; of two colours, one of them black, the
    other. What may mean something else, no hole and nearly everything are refused."""
    box: tuple[int, int, int, int] | None = None
    """One rectangular hole instead of a mask: left, top, width, height in pixels."""
    out: Path = Path("completed")
    """A file for one picture, or a folder. A result is named as its picture: of a.jpg a.png, but a.jpg.png where there
    is another a; with --keep a.jpg."""
    keep: bool = False
    """Write each result in its picture's own format (JPEG, PNG, TIFF, WebP), mode, depth (in grey 16 bits) and
    orientation, with its transparency, ICC profile, resolution and EXIF. JPEG is compressed again, as it was before:
    there pixels outside the hole change, too, by little."""
    invert_mask: bool = False
    """The other way round: black, or opaque, is the hole."""
    grow: int = 0
    """Make the hole larger by so many pixels each way, where a mask was drawn too close to what is to go."""
    mask_by: Literal["colour", "transparency"] | None = None
    """What tells the hole in masks with transparency: transparency unless all that is opaque has one colour; then it
    must be said, since strokes may mark the hole ("colour": transparent counts as black)."""
    adapt: float | None = None
    """So many seconds, such as 20, a copy of the weights first learns from the known pixels of each picture; what that
    gains is said, and where it gains nothing the weights are used as they are. The picture's texture is mixed in where
    that gains, too, in pictures of up to a megapixel."""
    caption: tuple[str, ...] = ()
    """What the picture shows, one or several sentences; for generators that read captions."""
    blend: bool = False
    """Draw the completion into the colours round each hole (Poisson blending)."""
    device: str = "cpu"
    """Where the generator or the fill runs: "auto" (the first GPU if there is one), "cpu", "cuda", "cuda:1"."""

    @cached_property
    def masks(self) -> MaskFolder | None:
        """The folder of masks, where that is what was named."""
        return MaskFolder(self.mask) if self.mask is not None and self.mask.is_dir() else None

    @cached_property
    def one_mask(self) -> Tensor:
        """The mask of every picture, where a file was named."""
        assert self.mask is not None  # asked where there is neither a box nor a folder
        return read_mask(self.mask, invert=self.invert_mask, by=self.mask_by)


def main(argv: Sequence[str]) -> int:
    """Run the command with these arguments; returns the exit code."""
    options = parse(Complete, "inpaint-fast complete", argv)
    if (options.mask is None) == (options.box is None):
        raise ValueError("--mask or --box is expected, one of them: where the hole is")
    if options.grow < 0:
        raise ValueError(f"--grow: a number of pixels, 0 or more, is expected, got {options.grow}")
    # what is wrong for every picture is said here, once
    if options.mask is not None and options.masks is None:
        check_share(options.one_mask, options.mask)
    settings = completion_settings(options)
    jobs, rest = plan(options.image, options.out, *options.more, mask=options.mask, keep=options.keep)
    shares: dict[Path, float] = {}
    for source, target in tqdm(jobs, unit="picture", disable=len(jobs) < 2 or None):
        try:
            shares[target] = complete_file(options, settings, source, target)
        except Exception as error:  # of one picture, whatever a decoder or PyTorch raises: the others go on
            rest.refused[source] = said(error)
    for source, reason in rest.refused.items():
        name = printable(source)
        text = reason if name in reason else f"{name}: {reason}"
        print(printable(f"not completed: {text}", keep="\n"), file=sys.stderr)
    print(summary(shares, rest, options.out))
    if options.keep and (jpeg := sum(target in shares and kept_format(target) == "JPEG" for _, target in jobs)):
        which = "it is" if len(shares) == 1 else f"{jpeg} of them {'is' if jpeg == 1 else 'are'}"
        print(f"{which} JPEG, compressed again as before: pixels outside the hole have changed, too, by little")
    return 0 if shares and not rest.refused else 1 if shares else 2


def complete_file(options: Complete, settings: Mapping[str, Any], source: Path, target: Path) -> float:
    """Complete one picture and write the result; returns the fraction of it that was hole."""
    if options.keep:
        kept_format(source)
    picture = read_image(source)
    mask = mask_of(options, source, picture)
    if options.grow or options.masks is not None:
        check_share(mask)
    with tqdm(total=1.0, delay=1, leave=False, disable=None, bar_format=BAR) as bar:

        def show(doing: str, done: float) -> None:
            bar.set_description_str(f"{doing} {printable(source.name)}", refresh=False)
            bar.update(done - bar.n)

        if options.adapt is not None:
            shown = partial(show, "adapting")
            adapted = adapt_to_picture(settings["weights"], picture, mask, seconds=options.adapt, progress=shown)
            settings = {**settings, "weights": adapted.network}
            tqdm.write(f"{printable(source)}: {adapted}")
        completed = complete(picture, mask, progress=show, **settings)
    target.parent.mkdir(parents=True, exist_ok=True)
    if options.keep:
        write_like(target, completed, mask, source, software=SOFTWARE)
    else:
        write_png(target, completed, software=SOFTWARE)
    return mask.float().mean().item()


def completion_settings(options: Complete) -> dict[str, Any]:
    """What `complete` is given for every picture; what is wrong for all of them is said here, once."""
    if options.weights is not None and options.fill is not None:
        raise ValueError("--weights and --fill: one of them is expected, got both")
    device, caption = device_of(options.device), options.caption or None
    if options.fill is not None:
        if caption is not None:
            raise ValueError(f"--caption: --fill {options.fill} reads none")
        if options.adapt is not None:
            raise ValueError(f"--adapt: --fill {options.fill} learns nothing")
        return {"fill": FILL_NAMES.get(options.fill, options.fill), "blend": options.blend, "device": device}
    weights = options.weights or Path(SHIPPED[0])
    generator = placed(load_network(weights), device)
    encoder = load_caption_encoder(weights)
    encoded_captions(generator, caption, encoder)
    if options.adapt is not None:
        expect_adaptable(generator, options.adapt)
    return {"weights": generator, "blend": options.blend, "caption": caption, "caption_encoder": encoder}


def summary(shares: Mapping[Path, float], rest: Rest, out: Path) -> str:
    """The last line: how many pictures were completed, how much of them was hole, and what was not completed.

    Args:
        shares: result -> the fraction of it that was hole.
        rest: what was left out and refused.
        out: the folder of the results.
    """
    parts = [f"{len(shares)} completed"]
    if len(shares) == 1:
        (target,) = shares
        parts = [f"1 completed: {printable(target)} (hole: {100 * shares[target]:.3g}% of the picture)"]
    elif shares:
        least, most = (choose(shares, key=shares.__getitem__) for choose in (min, max))
        holes = f"{100 * shares[least]:.3g}% of each picture"
        if shares[least] < shares[most]:
            holes = f"from {100 * shares[least]:.3g}% of {printable(least.name)} to "
            holes += f"{100 * shares[most]:.3g}% of {printable(most.name)}"
        parts = [f"{len(shares)} completed: {printable(out)}/ (holes: {holes})"]
    if rest.left_out:
        kinds = (f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in sorted(rest.left_out.items()))
        parts.append(f"{rest.left_out.total()} left out ({', '.join(kinds)})")
    if rest.refused:
        parts.append(f"{len(rest.refused)} not completed")
    return "; ".join(parts)


def mask_of(options: Complete, source: Path, picture: Tensor) -> Tensor:
    """The hole of one picture, bool (1, H, W).

    Raises:
        ValueError: there is none, or it may mean more than one thing.
    """
    mask = _drawn_mask(options, source, picture)
    return grown(mask[0], options.grow)[None] if options.grow else mask


def _drawn_mask(options: Complete, source: Path, picture: Tensor) -> Tensor:
    """The hole as it was drawn."""
    height, width = picture.shape[1:]
    if options.box is not None:
        return box(height, width, *options.box)
    if options.masks is None:
        mask = options.one_mask
        assert options.mask is not None  # its file
        check_size(options.mask, (mask.shape[1], mask.shape[2]), (height, width))
        return mask
    given = (options.image, *options.more)
    inside = (source.relative_to(path) for path in given if path != source and source.is_relative_to(path))
    path = options.masks.of(source, next(inside, Path(source.name)))
    return read_mask(path, (height, width), invert=options.invert_mask, by=options.mask_by)
