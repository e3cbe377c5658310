"""Held-out measurements: a completing network beside the fills that learn nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from inpaint_fast.completion.fills import FILLS
from inpaint_fast.data import Batch
from inpaint_fast.data.folder import evenly
from inpaint_fast.training.metrics import METRICS, generation_metrics, hole_metrics
from inpaint_fast.training.pictures import grid


class Evaluation:
    """Fixed held-out pictures with their holes; the no-learning fills are measured once, here.

    Args:
        heldout: the batch to measure on, on the device of the network that will be measured.
        shown: how many of its pictures a sample grid shows, spread evenly over them.
    """

    def __init__(self, heldout: Batch, *, shown: int = 8) -> None:
        self.heldout = heldout
        self.fills = {name: fill(heldout.image, heldout.mask) for name, fill in FILLS.items()}
        self.fill_metrics = {name: self.measure(filled) for name, filled in self.fills.items()}
        self.rows = evenly(len(heldout.image), shown)

    def __call__(self, complete: Callable[[Batch], Tensor]) -> tuple[dict[str, float], Tensor]:
        """Metrics of `complete` (a function batch -> completed pictures), and a grid to look at."""
        completed = complete(self.heldout)
        return self.measure(completed), grid(self.columns(completed))

    def line(self, metrics: dict[str, float]) -> str:
        """The metrics in a line, beside the fills that learn nothing."""
        fills = ", ".join(f"{name} {m['psnr']:.2f}" for name, m in self.fill_metrics.items())
        psnr, ssim, sharpness = (metrics[name] for name in ("psnr", "ssim", "sharpness"))
        return f"held out: PSNR {psnr:.2f} dB ({fills}), SSIM {ssim:.3f}, sharpness {sharpness:.2f}"

    def measure(self, completed: Tensor, rows: Tensor | slice = slice(None)) -> dict[str, float]:
        """`hole_metrics` of completed held-out pictures, or of these rows of them, as numbers."""
        metrics = hole_metrics(completed[rows], self.heldout.image[rows], self.heldout.mask[rows])
        return {name: value.item() for name, value in metrics.items()}

    def areas(self) -> dict[str, Tensor]:
        """The rows of the held-out pictures by how much of them is hole: "20-30 %" -> rows. Tenths without a picture
        are left out."""
        mask = self.heldout.mask
        tenths = (mask.sum(dim=(1, 2, 3)) * 10 // mask[0].numel()).clamp(max=9)
        rows = {f"{10 * tenth}-{10 * tenth + 10} %": (tenths == tenth).nonzero()[:, 0] for tenth in range(10)}
        return {area: some for area, some in rows.items() if len(some)}

    def error(self, metrics: Mapping[str, float]) -> float:
        """What a run that has patience wants to see fall."""
        return metrics["l2"]

    def columns(self, completed: Tensor) -> dict[str, Tensor]:
        """What is shown of completed held-out pictures: heading -> (shown, 3, H, W) in [0, 1]."""
        image, mask = self.heldout.image[self.rows], self.heldout.mask[self.rows]
        return {
            "input": image.masked_fill(mask, 0.5),
            "completed": completed[self.rows],
            **{name: filled[self.rows] for name, filled in self.fills.items()},
            "truth": image,
        }


class Generation(Evaluation):
    """Pictures made from nothing: held-out ones say how sharp and how unlike each other real ones are.

    Args: as `Evaluation`; the holes are the whole pictures.
    """

    def __init__(self, heldout: Batch, *, shown: int = 8) -> None:
        self.heldout, self.fills, self.fill_metrics = heldout, {}, {}
        self.rows = evenly(len(heldout.image), shown)

    def line(self, metrics: dict[str, float]) -> str:
        return f"generated: sharpness {metrics['sharpness']:.2f}, diversity {metrics['diversity']:.2f} (real: 1)"

    def measure(self, completed: Tensor) -> dict[str, float]:
        """`generation_metrics` of so many pictures, as numbers."""
        metrics = generation_metrics(completed, self.heldout.image)
        return {name: value.item() for name, value in metrics.items()}

    def error(self, metrics: Mapping[str, float]) -> float:
        """How far sharpness and diversity are from those of real pictures, which are 1."""
        return abs(metrics["sharpness"] - 1) + abs(metrics["diversity"] - 1)

    def columns(self, completed: Tensor) -> dict[str, Tensor]:
        """What is shown: new pictures beside real ones."""
        return {"generated": completed[self.rows], "real": self.heldout.image[self.rows]}


def evaluations_since_best(errors: Sequence[float]) -> int:
    """How many of these errors came after the smallest one, the earliest of equals."""
    return len(errors) - 1 - errors.index(min(errors)) if errors else 0


def table(rows: dict[str, dict[str, float]]) -> str:
    """Metrics as aligned text.

    Args:
        rows: name -> metrics of `hole_metrics`, and any others after them.
    """
    width = max(len(name) for name in ("in the hole", *rows))
    others = list(dict.fromkeys(key for metrics in rows.values() for key in metrics if key not in METRICS))
    head = f"{'in the hole':{width}}  {'PSNR dB':>8}  {'SSIM':>6}  {'L1':>6}  {'L2':>7}  {'sharpness':>9}"
    lines = [head + "".join(f"  {key.upper():>8}" for key in others)]
    for name, metrics in rows.items():
        psnr, ssim, l1, l2, sharpness = (metrics[key] for key in METRICS)
        line = f"{name:{width}}  {psnr:8.2f}  {ssim:6.3f}  {l1:6.4f}  {l2:7.5f}  {sharpness:9.2f}"
        lines.append(line + "".join(f"  {metrics[key]:8.4g}" for key in others))
    return "\n".join(lines)


def area_table(metrics: dict[str, dict[str, dict[str, float]]], counts: dict[str, int]) -> str:
    """The PSNR by the area of the hole, as aligned text.

    Args:
        metrics: area of the holes -> name -> metrics of `hole_metrics`.
        counts: area -> number of pictures.
    """
    names = list(next(iter(metrics.values())))
    lines = ["  ".join(["PSNR dB by area of the hole", "pictures", *(f"{name:>10}" for name in names)])]
    for area, some in metrics.items():
        figures = (f"{some[name]['psnr']:{max(10, len(name))}.2f}" for name in names)
        lines.append("  ".join([f"{area:>27}", f"{counts[area]:8}", *figures]))
    return "\n".join(lines)
