"""A picture of benchmark results: needs matplotlib, which nothing else in the benchmarks does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from inpaint_fast.benchmarks.harness import Result

SUBJECT, PEER, WRONG, INK = "#0b7285", "#b8c0c8", "#c92a2a", "#343a40"


def plot(results: Sequence[Result], path: Path) -> None:
    """Write a PNG with a panel per case and a bar per implementation: median ms, whiskers from q25 to q75."""
    panels = {case: [r for r in results if r.case == case] for case in dict.fromkeys(r.case for r in results)}
    rows = [len(panel) for panel in panels.values()]
    figure = Figure(figsize=(9, 0.35 * sum(rows) + 0.8 * len(rows) + 0.5), dpi=150, layout="constrained")
    axes = figure.subplots(len(rows), squeeze=False, height_ratios=[count + 0.6 for count in rows])[:, 0]
    for axis, (case, panel) in zip(axes, panels.items(), strict=True):
        longest = max((r.quartiles[2] for r in panel if r.quartiles), default=1.0)
        for y, result in enumerate(panel):
            q25, median, q75 = result.quartiles or (0.0, 0.0, 0.0)
            label = result.problem[:90]
            if result.quartiles:
                whiskers = {"xerr": [[median - q25], [q75 - median]], "capsize": 3, "ecolor": INK}
                axis.barh(y, median, 0.7, color=SUBJECT if result.subject else PEER, **whiskers)
                label = f"{median:.4g} ms   {result.ratio}"
            color = WRONG if result.wrong else INK
            axis.text(q75 + longest / 80, y, label, va="center", fontsize=9, color=color)
        axis.set_yticks(range(len(panel)), [result.implementation for result in panel])
        axis.set_ylim(len(panel) - 0.5, -0.5)  # the first implementation on top
        axis.set_xlim(0, longest * 1.35)  # room for the label of the longest bar
        axis.set_title(case, loc="left", fontsize=10, fontweight="bold")
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel(f"median ms per call, whiskers q25 to q75; {results[0].legend}")
    devices = " / ".join(dict.fromkeys(result.device for result in results))
    figure.suptitle(f"{devices}, {torch.get_num_threads()} threads, torch {torch.__version__}", fontsize=9)
    figure.savefig(path, format="png")
