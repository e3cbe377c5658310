"""Plots of images a second that each recipe trains, ours beside the peers: one a device, from its training.csv.

    python docs/rates.py

writes benchmarks/results/<device>/rates.png; README.md shows them. Needs matplotlib.
"""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

from matplotlib.figure import Figure

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
BATCH = 32  # of every recipe in training.csv
BARS = {  # implementation -> its name, its colour
    "inpaint_fast": ("inpaint_fast", "#0b7285"),
    "eager": ("PyTorch, eager", "#adb5bd"),
    "eager_channels_last": ("eager, channels_last", "#868e96"),
    "compile": ("torch.compile", "#d9a441"),
}


def fingerprint(table: Path) -> str:
    """By which a plot names the figures that it was made of."""
    return f"{table.name}, SHA-256 {hashlib.sha256(table.read_bytes()).hexdigest()}"


def rates(table: Path) -> tuple[str, dict[str, dict[str, float]]]:
    """The device, and recipe -> implementation -> images a second, the quickest recipe of ours first."""
    with table.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["implementation"] in BARS]
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        found.setdefault(row["case"], {})[row["implementation"]] = 1e3 * BATCH / float(row["median_ms"])
    first = rows[0]
    device = f"{first['device']}, {first['threads']} threads, torch {first['torch']}"
    return device, dict(sorted(found.items(), key=lambda recipe: -recipe[1]["inpaint_fast"]))


def plot(table: Path, path: Path) -> None:
    """The bars of one device, as a PNG."""
    device, found = rates(table)
    figure = Figure(figsize=(10, 2.9), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(found))
    for panel, (recipe, bars) in zip(panels, found.items(), strict=True):
        for place, (implementation, (name, colour)) in enumerate(BARS.items()):
            rate = bars[implementation]
            panel.bar(place, rate, 0.9, color=colour, label=name)
            panel.text(place, rate, f"{rate:.0f}", ha="center", va="bottom", fontsize=7)
        panel.set_title(recipe.replace("_", "\n", 1).replace("_", " "), fontsize=8)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[["top", "right", "left"]].set_visible(False)
    figure.suptitle(f"Training, images a second in batches of {BATCH}: {device}", fontsize=9)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", fontsize=8, frameon=False, ncols=4
    )
    figure.savefig(path, metadata={"Source": fingerprint(table)})


if __name__ == "__main__":
    for table in sorted(RESULTS.glob("*/training.csv")):
        plot(table, table.with_name("rates.png"))
