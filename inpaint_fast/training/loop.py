"""The training loop of every recipe: batches in, steps, and now and then a look at held-out pictures."""

from __future__ import annotations

import math
import os
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from inpaint_fast._devices import device_of
from inpaint_fast.data import Batch, ImageFolder, open_images, prefetch
from inpaint_fast.training.evaluation import Evaluation
from inpaint_fast.training.recipe import Recipe, System
from inpaint_fast.training.records import Records

REFRESH_SECONDS = 0.5  # between two looks at the losses; each makes a GPU wait once


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what was kept."""


class Run:
    """Everything that a run in progress owns: its system, its place in the data, its held-out pictures.

    Args:
        recipe: the settings.

    Raises:
        ValueError, FileNotFoundError: the data or the device is not there.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.device = device_of(recipe.device)
        self.images = open_images(recipe.data, "train")
        self.heldout_images = open_images(recipe.data, "heldout")
        self.batches = recipe.batches(self.images)
        measured = _spread(self.heldout_images, recipe.heldout_pictures)
        self.evaluation = Evaluation(_to(recipe.heldout(measured), self.device))
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers are not ours
            torch.manual_seed(recipe.seed)
            self.system: System = recipe.build()
        self.system.prepare(self.images)
        self.system.to(self.device)
        self.steps_done = 0  # and the index of the next batch

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One step on the next batch; returns the losses, still on the device."""
        losses = self.system.step(_to(batch, self.device))
        self.steps_done += 1
        return losses

    def state_dict(self) -> dict[str, Any]:
        """What it takes to go on: the next batch is known from the steps done, since a batch is made of its index."""
        return {"steps_done": self.steps_done, "system": self.system.training_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.system.load_training_state(state["system"])
        self.steps_done = state["steps_done"]


def train(recipe: Recipe, out: str | os.PathLike[str], *, progress: bool = True) -> Path:
    """Train by a recipe and leave everything worth keeping in a folder.

    Args:
        recipe: e.g. `UNetWGAN(data="photos/", seconds=600)`.
        out: the run's folder; what it will hold is described in `inpaint_fast.training.records`.
        progress: print what is trained on, and a bar with losses and images/s.

    Returns:
        The folder.

    Raises:
        FileExistsError: `out` holds a run already.
        TrainingError: a loss is no longer a number. The weights of the last evaluation are kept.
    """
    run = Run(recipe)
    records = Records(out, recipe)
    if progress:
        count = sum(parameter.numel() for parameter in run.system.parameters())
        print(f"{recipe.name}: {count:,} parameters on {run.device}; {run.images.summary()} to train on")
        print(f"{recipe.name}: {run.heldout_images.summary()} held out; {Path(out)}/ is the run's folder")
        for note in run.system.notes:
            print(f"{recipe.name}: {note}")
    with Progress(run, records, progress) as looker:
        looker.evaluate()
        with closing(prefetch(run.batches, run.steps_done)) as batches:
            while not looker.done():
                _, batch = next(batches)
                looker.after_step(run.step(batch))
                if run.steps_done % recipe.evaluate_every == 0 or run.steps_done in recipe.milestones:
                    looker.evaluate()
        if records.rows[-1]["step"] != run.steps_done:
            looker.evaluate()
    return Path(out)


class Progress:
    """The loop's eyes: counts time and losses, draws the bar, evaluates, and says when the run is over."""

    def __init__(self, run: Run, records: Records, show: bool) -> None:
        self.run, self.records, self.limit = run, records, run.recipe.seconds
        self.bar = tqdm(
            total=None if self.limit else run.recipe.steps, disable=not show, unit="step", dynamic_ncols=True
        )
        self.seconds = 0.0  # of training, evaluations not counted
        self.sums: dict[str, Tensor] = {}  # of the losses since the last row, on the device
        self.count = 0
        self.started = self.refreshed = time.perf_counter()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def done(self) -> bool:
        """True when the recipe's steps or seconds are used up."""
        over_time = self.limit is not None and self._elapsed() >= self.limit
        return over_time or self.run.steps_done >= self.run.recipe.steps

    def after_step(self, losses: dict[str, Tensor]) -> None:
        """Take note of a step's losses; look at them only now and then."""
        for name, loss in losses.items():
            self.sums[name] = self.sums[name] + loss if name in self.sums else loss
        self.count += 1
        self.bar.update()
        now = time.perf_counter()
        if now - self.refreshed >= REFRESH_SECONDS:
            self.refreshed = now
            values = self._check({name: loss.item() for name, loss in losses.items()})
            rate = self.run.steps_done * self.run.recipe.batch_size / max(self._elapsed(), 1e-9)
            limit = f"{self._elapsed():.0f}/{self.limit:.0f}s " if self.limit else ""
            shown = " ".join(f"{name.removesuffix('_loss')} {value:.4f}" for name, value in values.items())
            self.bar.set_postfix_str(f"{limit}{shown} {rate:.0f} images/s", refresh=False)

    def evaluate(self) -> None:
        """Measure on the held-out pictures and write a row, a picture and the weights."""
        losses = {name: (total / self.count).item() for name, total in self.sums.items()}
        self._check(losses)
        self.seconds = self._elapsed()
        metrics, picture = self.run.evaluation(self.run.system.complete)
        row = {
            "step": self.run.steps_done,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.run.steps_done * self.run.recipe.batch_size / max(self.seconds, 1e-9), 1),
            **losses,
            **metrics,
        }
        for fill, fill_metrics in self.run.evaluation.fill_metrics.items():
            row |= {f"{fill}_{name}": value for name, value in fill_metrics.items()}
        self.records.add(row, picture, self.run.system)
        if not self.bar.disable:
            fills = ", ".join(f"{name} {m['psnr']:.2f}" for name, m in self.run.evaluation.fill_metrics.items())
            tqdm.write(
                f"step {self.run.steps_done:6d}  held out: PSNR {metrics['psnr']:.2f} dB ({fills}), "
                f"SSIM {metrics['ssim']:.3f}, sharpness {metrics['sharpness']:.2f}"
            )
        self.sums, self.count = {}, 0
        self.started = time.perf_counter()

    def _elapsed(self) -> float:
        return self.seconds + time.perf_counter() - self.started

    def _check(self, losses: dict[str, float]) -> dict[str, float]:
        for name, value in losses.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"{name} is {value} near step {self.run.steps_done}: training stopped. The weights in "
                    f"{self.records.folder} are those of step {int(self.records.rows[-1]['step'])}. "
                    "A smaller --lr is the usual cure."
                )
        return losses


def _to(batch: Batch, device: torch.device) -> Batch:
    return batch if device.type == "cpu" else type(batch)(*(part.to(device, non_blocking=True) for part in batch))


def _spread(images: ImageFolder, count: int) -> ImageFolder:
    """At most `count` of the pictures, spread evenly over all of them."""
    chosen = torch.linspace(0, len(images) - 1, min(count, len(images)), dtype=torch.float64).round().long().tolist()
    return images.only(images.paths[i] for i in chosen)
