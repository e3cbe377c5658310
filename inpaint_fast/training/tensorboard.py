"""A run as TensorBoard shows it: curves, held-out pictures, and the weights that are clipped with their bounds."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, linspace
from tqdm import tqdm

from inpaint_fast.ops.weight_clip import limits
from inpaint_fast.training.columns import columns_of
from inpaint_fast.training.recipe import System

BINS = 64  # of a histogram of weights


def expect_tensorboard() -> None:
    """Raise ImportError where the extra [log] is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise ImportError(f"tensorboard needs {error.name}: pip install 'inpaint_fast[log]'") from error


class EventLog:
    """Writes the folder tensorboard/ of a run: `tensorboard --logdir run/`. On the disk after every row.

    Args:
        run: the run's folder.
        after: the step that the run starts or goes on after. What a run that ended there has logged of later steps is
            not shown any more.

    Raises:
        ImportError: the extra [log] is not installed.
    """

    def __init__(self, run: str | os.PathLike[str], *, after: int) -> None:
        expect_tensorboard()
        self.folder, self.writer = str(Path(run) / "tensorboard"), None
        self.go_on(after)

    def go_on(self, after: int) -> None:
        """Write what comes after this step; what was logged of later ones is not shown any more."""
        from torch.utils.tensorboard import SummaryWriter

        self.close()
        self.writer = SummaryWriter(self.folder, purge_step=after + 1)

    def add(self, row: Mapping[str, float], picture: Tensor, system: System) -> None:
        """One evaluation, as `Records.add` has it. Where it cannot be written, that is said, and no more are: the run
        itself goes on."""
        if self.writer is None:
            return
        try:
            self._add_row(row)
            self.writer.add_image("held-out pictures", picture, int(row["step"]))
            self._add_clipped(int(row["step"]), system)
            self.writer.flush()
        except OSError as error:
            self.writer = None
            tqdm.write(f"tensorboard: {error}; nothing more is written for it", sys.stderr)

    def close(self) -> None:
        """No more rows come."""
        if self.writer is not None:
            self.writer.close()

    def _add_row(self, row: Mapping[str, float]) -> None:
        columns = columns_of(row)
        tags = {name: f"{name}/completed" for name in columns.heldout}
        tags |= {name: f"{metric}/{fill}" for name, (fill, metric) in columns.fills.items()}
        tags |= {name: f"losses/{name.removesuffix('_loss')}" for name in columns.losses}
        tags |= {name: f"signals/{name}" for name in columns.signals}
        for name, tag in tags.items():
            self.writer.add_scalar(tag, row[name], int(row["step"]))

    def _add_clipped(self, step: int, system: System) -> None:
        """Histograms, from bound to bound, of the parameters that an optimizer clips, and how many are at a bound."""
        names = {parameter: name for name, parameter in system.named_parameters()}
        for network, optimizer in system.optimizers.items():
            at_bound = count = 0
            for group in optimizer.param_groups:
                if (bound := group.get("clip")) is None:
                    continue
                low, high = limits(bound, "clip")
                for parameter in group["params"]:
                    weights = parameter.detach().float().flatten().cpu()
                    edges = linspace(min(low, weights.min().item()), max(high, weights.max().item()), BINS + 1)
                    name, bins = f"clipped/{names[parameter]}", edges.numpy()
                    # The documented edges of bins are missing in its annotations.
                    self.writer.add_histogram(name, weights, step, bins=bins)  # pyright: ignore[reportArgumentType]
                    at_bound += ((weights <= low) | (weights >= high)).sum().item()
                    count += len(weights)
                self.writer.add_scalar(f"clip/{network} lower bound", low, step)
                self.writer.add_scalar(f"clip/{network} upper bound", high, step)
            if count:
                self.writer.add_scalar(f"clip/{network} at a bound", at_bound / count, step)
