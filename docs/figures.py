"""The figures of README.md and docs/*.md, from the CSVs that were measured: benchmarks/results/, docs/pictures.csv.

    python docs/figures.py            writes them into the pages            (`make figures`)
    python docs/figures.py --check    exit code 1 and the difference, where a page says anything else

`FIGURES` describes each once. In one of the pages it stands between `<!-- figures: NAME -->` and `<!-- /NAME -->`,
which no page shows: a table with the two on lines of their own, a figure in a sentence inside its line (at the start of
a line the mark would end the paragraph). A new one needs its entry here and the two marks there. One whose CSV is not
there has no marks; one whose CSV is there needs them.

Every figure is rounded the same way. Times have two significant digits, from 100 ms on they are whole, and from 1 s on
in seconds. Multiples (the peer's median divided by ours) have one decimal, below 1.2 two: 0.96x and 1.02x are not 1.0x.
What was not measured is "-".

What no CSV has is not here (the figures of the demo, of precision and gradients, of GLCIC's phases, images/s, numbers
of parameters): their pages name what repeats them, or say "measured once". Python alone is needed, neither torch nor a
build.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import math
import re
import runpy
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = "benchmarks/results/amd_epyc_avx512_2_cores"
DEVICES = "benchmarks/results/*/*.csv"
PICTURES = "docs/pictures.csv"
PROCESSORS = "benchmarks/results/processors.csv"
OURS = "inpaint_fast"
MISSING = "-"

Rows = list[dict[str, str]]
"""A CSV: column -> cell."""


Render = Callable[[Rows], str] | Callable[[dict[str, Rows]], str]
"""The rows of one CSV to Markdown, or those of several, by their paths."""


class FigureError(ValueError):
    """A CSV or a page is not as it should be; says which, what came and what is expected."""


# ---- numbers as text ----


def duration(milliseconds: float | None) -> str:
    """0.083 ms, 0.70 ms, 14 ms, 565 ms, 2.0 s."""
    if milliseconds is None:
        return MISSING
    if round(milliseconds) >= 1000:
        return f"{_two_digits(milliseconds / 1000)} s"
    return f"{_two_digits(milliseconds)} ms"


def multiple(ratio: float | None) -> str:
    """0.96x, 1.02x, 1.2x, 15.2x."""
    return MISSING if ratio is None else f"{ratio:.2f}x" if ratio < 1.195 else f"{ratio:.1f}x"


def decimals(text: str) -> str:
    """A cell of the CSV with two decimals."""
    return f"{float(text):.2f}" if text else MISSING


def _two_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:#.2g}".rstrip(".")


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Markdown, with the line breaks that keep it apart from its marks."""
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n" + "".join("|" + "|".join(f" {cell} " if cell else " " for cell in row) + "|\n" for row in rows)


# ---- kinds of figures: the rows of a CSV to Markdown ----


class Medians:
    """The medians of a benchmark in milliseconds; None for what was wrong, did not run, or was not measured."""

    def __init__(self, rows: Rows) -> None:
        self._ms = {(row["case"], row["implementation"]): row["median_ms"] for row in rows}
        if len(self._ms) < len(rows):
            raise FigureError("a case has an implementation twice")

    def of(self, case: str, implementation: str) -> float | None:
        text = self._ms.get((case, implementation))
        if not text:
            return None
        try:
            ms = float(text)
        except ValueError:
            ms = math.nan
        if not 0 < ms < math.inf:
            raise FigureError(f"median_ms of {implementation} in {case}: a positive number is expected, not {text!r}")
        return ms

    def ratio(self, case: str, *peers: str) -> float | None:
        """How many times longer than ours the fastest of the peers takes; None unless all of them were measured."""
        ours, *theirs = (self.of(case, implementation) for implementation in (OURS, *peers))
        return None if None in (ours, *theirs) else min(theirs) / ours

    def least(self, case: str, implementations: Iterable[str]) -> float | None:
        """The median of the fastest of these that were measured; None where none was."""
        return min(filter(None, (self.of(case, each) for each in implementations)), default=None)

    def cases(self) -> list[str]:
        return list(dict.fromkeys(case for case, _ in self._ms))


def speeds(rows: Rows, about: str, peers: dict[str, str], cases: dict[str, str]) -> str:
    """Our time, and how many times longer the peers take.

    Args:
        rows: a benchmark's CSV.
        about: the first column's heading.
        peers: heading -> implementation.
        cases: what a row says -> case.
    """
    medians = Medians(rows)
    return table(
        [about, "ours", *peers],
        (
            [label, duration(medians.of(case, OURS)), *(multiple(medians.ratio(case, peer)) for peer in peers.values())]
            for label, case in cases.items()
        ),
    )


def grid(rows: Rows, about: str, columns: dict[str, tuple[str, ...]], lines: dict[str, str]) -> str:
    """How many times longer than ours the better layout of eager PyTorch takes, by two dimensions.

    Args:
        rows: a benchmark's CSV.
        about: the first column's heading.
        columns: heading -> the cases of a cell, in which {} stands for the line.
        lines: what a line says -> what it puts there.
    """
    medians = Medians(rows)

    def cell(cases: list[str]) -> str:
        figures = [multiple(medians.ratio(case, "eager", "eager_channels_last")) for case in cases]
        return MISSING if set(figures) == {MISSING} else ", ".join(figures)

    return table(
        [about, *columns],
        (
            [label, *(cell([case.format(line) for case in cases]) for cases in columns.values())]
            for label, line in lines.items()
        ),
    )


def span(rows: Rows, peer: str) -> str:
    """The least and the most that a peer takes against ours, over all cases that have it."""
    medians = Medians(rows)
    ratios = [ratio for case in medians.cases() if (ratio := medians.ratio(case, peer)) is not None]
    if not ratios:
        raise FigureError(f"no case has both {OURS} and {peer}")
    return f"{multiple(min(ratios))} to {multiple(max(ratios))}"


def processors(rows: Rows, only: str = "") -> str:
    """Two processors side by side: multiples, or shares in percent; `only`: a pattern of what was measured so."""
    found = [row for row in rows if re.search(only, row["measured"])]

    def figures(row: dict[str, str]) -> list[str]:
        cells = row["amd_epyc"], row["intel_xeon"]
        return [f"{cell} %" if row["unit"] == "%" else multiple(float(cell)) for cell in cells]

    return table(["", "AMD EPYC", "Intel Xeon"], ([row["measured"], *figures(row)] for row in found))


def ring_mean(rows: Rows) -> str:
    """The PSNR of the mean colour round the hole, as most recipes meet it."""
    return decimals(statistics.mode(row["ring_mean_psnr"] for row in rows if row["ring_mean_psnr"]))


def pictures(rows: Rows) -> str:
    """A row a recipe; behind its PSNR the ring's mean colour in brackets, where that is not `ring_mean`."""

    def line(row: dict[str, str]) -> list[str]:
        psnr, ring = decimals(row["psnr"]), decimals(row["ring_mean_psnr"])
        return [
            f"`{row['recipe']} {row['settings']}`".replace(" `", "`"),
            row["cpu_seconds"],
            psnr if ring in (MISSING, usual) else f"{psnr} ({ring})",
            decimals(row["sharpness"]),
            f'<img src="{row["recipe"]}.png" width="330">',
        ]

    usual = ring_mean(rows)
    return table(["`inpaint-fast train ...`", "seconds", "PSNR dB", "sharpness", ""], map(line, rows))


def devices(csvs: dict[str, Rows]) -> str:
    """A table for each folder of results, of the cases in `HEADLINES` that were measured there."""
    folders: dict[str, dict[str, Rows]] = {}
    for path, rows in csvs.items():
        folders.setdefault(Path(path).parent.name, {})[Path(path).stem] = rows
    return "".join(text for _, results in sorted(folders.items()) if (text := device(results)))


def device(results: dict[str, Rows]) -> str:
    """The headlines of one device; "" where none was measured.

    Args:
        results: benchmark -> the rows of its CSV.
    """
    lines = []
    for (stem, case), label in HEADLINES.items():
        medians = Medians(results.get(stem, []))
        if (ours := medians.of(case, OURS)) is not None:
            peers = medians.least(case, EAGER), medians.least(case, COMPILERS)
            lines.append([label, duration(ours), *(multiple(peer and peer / ours) for peer in peers)])
    if not lines:
        return ""
    row = next(iter(results.values()))[0]
    threads = "" if row["device"].startswith("NVIDIA") else f", {row['threads']} cores"
    about = f"{row['device']}{threads}, torch {row['torch'].partition('+')[0]}"
    return table([f"**{about}**", "ours", "eager PyTorch, its best", "torch.compile, its best"], lines)


# ---- the figures ----

LAYOUTS = {"eager": "eager", "eager, channels_last": "eager_channels_last"}
COMPILED = {**LAYOUTS, "torch.compile": "compile"}
EAGER = (*LAYOUTS.values(), "foreach_loop_clamp", "foreach_foreach_clamp", "fused_loop_clamp", "loop", "foreach")
COMPILERS = ("compile", "compile_freezing", "compile_default", "compile_max-autotune", "compile_reduce-overhead")
DEPLOYED = {"torch.compile, frozen": "compile_freezing", "OpenVINO": "openvino", "ONNX Runtime": "onnxruntime"}
RESAMPLING = {"inference": ("infer_{}",), "training": ("train_{}",)}
SIDES = (28, 56, 100, 128)
TRAINED = ("context_cnn", "context_gan", "context_wgan", "conv_autoencoder", "noise_gan", "dcgan", "unet_l2")
NETWORKS = (
    ("resnet18", 2, 112), ("resnet18", 1, 224), ("resnet50", 2, 112), ("resnet50", 1, 224),
    ("vgg11_bn", 2, 112), ("vgg11_bn", 1, 224), ("hrnet_w18_small", 2, 128), ("hrnet_w18_small", 1, 256),
    ("unet", 1, 128), ("unet", 1, 256), ("deeplab_head", 1, 28), ("deeplab_head", 2, 14),
    ("cyclegan", 1, 128), ("cyclegan", 1, 256), ("lama", 1, 128), ("lama", 1, 256),
)  # fmt: skip
HALF = ("resnet18", 2, 112), ("resnet50", 2, 112), ("hrnet_w18_small", 2, 128), ("unet", 1, 128), ("cyclegan", 1, 128)

HEADLINES = {
    ("masked_l2", "train_16x3x256x256"): "masked L2 and its gradient, 16x3x256x256, fresh memory",
    ("masked_l2", "train_16x3x256x256_reused"): "masked L2 and its gradient, 16x3x256x256, reused memory",
    ("masked_l2", "fp32_train_16x3x256x256"): "masked L2 and its gradient, 16x3x256x256",
    ("masked_l2", "bf16_train_16x3x256x256"): "masked L2 and its gradient, 16x3x256x256, bf16",
    ("weight_clip", "rmsprop_50m"): "RMSprop and clip, 50 M parameters",
    ("weight_clip", "adam_critic"): "Adam and clip, the critic of `unet_wgan`",
    ("dilated_block", "infer_b1_c256_64x64_d4"): "dilated block, inference, 256 channels, 64x64, d = 4",
    ("dilated_block", "bf16_infer_b1_c256_64x64_d4"): "dilated block, inference, 256 channels, 64x64, d = 4, bf16",
    ("dilated_block", "train_b4_c256_64x64_d2"): "dilated block, forward + backward, batch 4, d = 2",
    ("dilated_block", "bf16_train_b16_c256_64x64_d2"): "dilated block, forward + backward, batch 16, d = 2, bf16",
    ("networks", "cyclegan_1_256"): "CycleGAN's generator accelerated, 256x256",
    ("glcic", "infer_b1_256"): "GLCIC completes 256x256",
    ("glcic", "bf16_infer_b1_256"): "GLCIC completes 256x256, bf16",
    ("glcic", "train_completion_b4_256"): "GLCIC, training step of phase 1, 4 of 256x256",
    ("glcic", "train_completion_b16_256"): "GLCIC, training step of phase 1, 16 of 256x256",
    ("training", "context_gan"): "`context_gan`, training step, 32 of 64x64",
    ("training", "unet_wgan"): "`unet_wgan`, training step, 32 of 64x64",
}
"""(benchmark, case) -> what the table of a device calls it; devices have cases of their own."""


def measured(stem: str, kind: Callable[..., str], **description: object) -> tuple[str, Callable[[Rows], str]]:
    """A figure of one of the kinds above, from a benchmark's CSV."""
    return f"{RESULTS}/{stem}.csv", partial(kind, **description)


FIGURES: dict[str, tuple[str, Render]] = {
    "masked_l2": measured(
        "masked_l2",
        speeds,
        about="masked L2, 16x3x256x256",
        peers=COMPILED,
        cases={
            "forward + backward, fresh memory": "train_16x3x256x256",
            "forward + backward, reused memory": "train_16x3x256x256_reused",
            "forward": "forward_16x3x256x256",
        },
    ),
    "step_and_clip": measured(
        "weight_clip",
        speeds,
        about="step and clip",
        peers={
            "foreach, loop of clamps": "foreach_loop_clamp",
            "foreach, foreach clamps": "foreach_foreach_clamp",
            "torch.compile": "compile",
            "fused, loop of clamps": "fused_loop_clamp",
            "fused, **no clip**": "fused_no_clip",
        },
        cases={
            "Adam, the critic of `unet_wgan` (0.33 M)": "adam_critic",
            "Adam, 50 M": "adam_50m",
            "RMSprop, 50 M": "rmsprop_50m",
            "RMSprop, 60 tensors of 64x64": "rmsprop_60_small",
        },
    ),
    "clip": measured(
        "weight_clip",
        speeds,
        about="clip alone",
        peers={"loop of clamps": "loop", "foreach clamps": "foreach"},
        cases={"20 tensors of 1 M": "clip_20x1m", "1000 tensors of 256": "clip_1000_small"},
    ),
    "block_inference": measured(
        "dilated_block",
        speeds,
        about="",
        peers=LAYOUTS | DEPLOYED,
        cases={
            **{f"batch 1, d = {d}": f"infer_b1_c256_64x64_d{d}" for d in (1, 2, 4, 8, 16)},
            "batch 4, d = 2": "infer_b4_c256_64x64_d2",
            **{f"bfloat16, batch 1, d = {d}": f"bf16_infer_b1_c256_64x64_d{d}" for d in (1, 2, 8)},
            **{f"AVX2 at most, batch 1, d = {d}": f"avx2_infer_b1_c256_64x64_d{d}" for d in (2, 8)},
        },
    ),
    "block_training": measured(
        "dilated_block",
        speeds,
        about="forward + backward, batch 4, norm in training mode",
        peers=COMPILED,
        cases={
            "d = 2": "train_b4_c256_64x64_d2",
            "d = 8": "train_b4_c256_64x64_d8",
            "AVX2 at most, d = 2": "avx2_train_b4_c256_64x64_d2",
            "bfloat16, d = 2": "bf16_train_b4_c256_64x64_d2",
        },
    ),
    "block_nchw": measured("dilated_block", span, peer="inpaint_fast_nchw"),
    "block_sizes": measured(
        "dilated_block",
        grid,
        about="channels",
        columns={f"{s}x{s}": tuple(f"infer_b1_c{{}}_{s}x{s}_d{d}" for d in (1, 2)) for s in SIDES},
        lines={channels: channels for channels in ("64", "128", "256", "512")},
    ),
    "transposed_block": measured(
        "transposed_block",
        grid,
        about="`transposed_block`",
        columns=RESAMPLING,
        lines={
            "256 to 128 channels, 64x64": "b1_c256_128_64x64",
            "256 to 128 channels, 4 of 64x64": "b4_c256_128_64x64",
            "128 to 64 channels, 128x128": "b1_c128_64_128x128",
            "512 to 256 channels, 16 of 8x8": "b16_c512_256_8x8",
        },
    ),
    "strided_block": measured(
        "strided_block",
        grid,
        about="`strided_block`",
        columns=RESAMPLING,
        lines={
            "64 to 128 channels, 256x256": "b1_c64_128_256x256",
            "128 to 256 channels, 128x128": "b1_c128_256_128x128",
            "128 to 256 channels, 4 of 128x128": "b4_c128_256_128x128",
            "256 to 512 channels, 16 of 16x16": "b16_c256_512_16x16",
        },
    ),
    "glcic": measured(
        "glcic",
        speeds,
        about="",
        peers={"eager, NCHW": "eager", "eager, channels_last": "eager_channels_last", **DEPLOYED},
        cases={
            "complete 256x256": "infer_b1_256",
            "complete 160x160": "infer_b1_160",
            "complete 4 of 256x256": "infer_b4_256",
            "training step, phase 1, 4 of 256x256": "train_completion_b4_256",
            "training step, phase 1, 4 of 160x160": "train_completion_b4_160",
            "training step, phase 3, 4 of 160x160": "train_joint_b4_160",
        },
    ),
    "training": measured(
        "training",
        speeds,
        about="",
        peers=COMPILED | {"our loop, PyTorch's networks": "shared_pass"},
        cases={
            **{f"`{recipe}`": recipe for recipe in TRAINED},
            "`unet_wgan`, 5 critic steps": "unet_wgan",
            "`unet_wgan_caption`, 5 critic steps": "unet_wgan_caption",
            "`latent_gan`": "latent_gan",
        },
    ),
    "networks": measured(
        "networks",
        speeds,
        about="",
        peers={"`tune=True`": "tuned", "without the promise": "unpromised", "eager": "eager"},
        cases={f"`{name}`, {n} of {side}x{side}": f"{name}_{n}_{side}" for name, n, side in NETWORKS}
        | {f"`{name}`, {n} of {side}x{side}, bfloat16": f"{name}_{n}_{side}_bf16" for name, n, side in HALF},
    ),
    "processors": (PROCESSORS, processors),
    "side_by_side": (PROCESSORS, partial(processors, only="d = 1$|d = 16|training, d = 2|products")),
    "ring_mean": (PICTURES, ring_mean),
    "pictures": (PICTURES, pictures),
    "devices": (DEVICES, devices),  # last: of what is wrong in a CSV, those that read it alone name it
}


# ---- into the pages ----

MARKED = re.compile(r"<!-- figures: (\w+) -->(?:(?!<!--).)*<!-- /\1 -->", re.DOTALL)
"""A figure between its marks, with no comment inside: where a mark is missing, no text is taken for the figure."""


def pages(root: Path) -> dict[str, str]:
    """Name -> text, of README.md and the pages of docs/."""
    paths = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def read(path: Path) -> Rows:
    """The rows of a CSV. Raises FigureError where there are none, or one has not the cells that its head names."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise FigureError("there are no rows in it")
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise FigureError(f"row {number} has more or fewer cells than there are columns")
    return rows


def rendered(root: Path) -> dict[str, str]:
    """Name -> Markdown, of the figures whose CSV is there. Raises FigureError, which names the file."""
    texts, once = {}, cache(read)
    for name, (pattern, render) in FIGURES.items():
        found = {path.relative_to(root).as_posix(): path for path in sorted(root.glob(pattern))}
        try:
            csvs = {}
            for place, path in found.items():
                csvs[place] = once(path)
            place = pattern
            if csvs:
                texts[name] = render(csvs if "*" in pattern else csvs[pattern])
        except KeyError as error:
            raise FigureError(f"{place}: there is no column {error}") from error
        except (ValueError, csv.Error) as error:
            raise FigureError(f"{place}: {error}") from error
    return texts


def fill(texts: dict[str, str], figures: dict[str, str]) -> dict[str, str]:
    """The pages with these figures between their marks. Raises FigureError unless every figure has one pair of them."""
    opened = [(page, name) for page, text in texts.items() for name in re.findall(r"<!-- figures: (.*?) -->", text)]
    closed = [name for text in texts.values() for name in MARKED.findall(text)]
    for page, name in opened:
        if name not in FIGURES:
            raise FigureError(f"{page}: {name!r} is no figure; one of {', '.join(FIGURES)} is expected")
        if name not in figures:
            raise FigureError(f"{page} has the figures {name!r}, but {FIGURES[name][0]} is not there")
    for name in figures:
        if [name for _, name in opened].count(name) != 1 or closed.count(name) != 1:
            raise FigureError(f"<!-- figures: {name} --> and then <!-- /{name} --> are expected, once, in one page")

    def put(found: re.Match[str]) -> str:
        return f"<!-- figures: {found[1]} -->{figures[found[1]]}<!-- /{found[1]} -->"

    return {page: MARKED.sub(put, text) for page, text in texts.items()}


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 and the difference, if any")
    options = parser.parse_args(argv)
    try:
        old = pages(root)
        new = fill(old, rendered(root))
        for page in old:
            if options.check:
                lines = (text[page].splitlines(keepends=True) for text in (old, new))
                sys.stdout.writelines(difflib.unified_diff(*lines, page, f"{page}, by the CSVs", n=0))
            elif old[page] != new[page]:
                # Not imported: the package loads torch.
                write_whole = runpy.run_path(str(ROOT / "inpaint_fast/_files.py"))["write_whole"]
                write_whole(root / page, lambda file, text=new[page]: file.write(text.encode()))
        return int(options.check and old != new)
    except (FigureError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
