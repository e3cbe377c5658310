"""The training loop of every recipe: batches in, steps, and now and then a look at held-out pictures."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from signal import Signals
from typing import Any, NoReturn

import torch
from torch import Tensor
from tqdm import tqdm

from inpaint_fast._names import printable
from inpaint_fast.data import Batch, Digits, ImageFolder, captions_for, prefetch
from inpaint_fast.data.batches import seed_of
from inpaint_fast.nn import accelerate, acceleration_report
from inpaint_fast.training.ending import Ended, EndSignals
from inpaint_fast.training.evaluation import evaluations_since_best
from inpaint_fast.training.health import Health, not_finite
from inpaint_fast.training.joint_norm import join_norms
from inpaint_fast.training.processes import Processes, joined
from inpaint_fast.training.recipe import Recipe, System
from inpaint_fast.training.records import Records

REFRESH_SECONDS = 0.5  # between two looks at the losses; each makes a GPU wait once


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what was kept."""


class Run:
    """Everything that a run in progress owns: its system, its place in the data, its held-out pictures.

    Args:
        recipe: the settings.
        processes: of the run; by default this one alone.

    Raises:
        ValueError, FileNotFoundError: the data or the device is not there, or a batch cannot be shared out.
    """

    def __init__(self, recipe: Recipe, processes: Processes | None = None) -> None:
        self.recipe = recipe
        self.processes = processes or Processes()
        self.device = self.processes.device(recipe.device)
        self.images, self.heldout_images = recipe.open_images("train"), recipe.open_images("heldout")
        self.caption_encoder = recipe.caption_encoder()
        batches = recipe.batches(self.images, self._captions(self.images))
        self.batches = self.processes.share(batches, recipe.batch_size)
        measured = self.heldout_images.spread(recipe.heldout_pictures)
        heldout = recipe.heldout(measured, self._captions(measured))
        self.evaluation = recipe.evaluation(_to(heldout, self.device))
        with self._draws("build", 0):
            self.system: System = recipe.build()
        self.system.prepare(self.images)
        self.system.to(self.device)
        self.system.processes = self.processes
        if recipe.sync_norm and self.processes.count > 1:
            join_norms(self.system, self.processes)
        if self.accelerated:
            accelerate(self.system.to(memory_format=torch.channels_last), tune=recipe.tune)
        self.steps_done = 0  # and the index of the next batch

    @property
    def accelerated(self) -> bool:
        """Whether the networks run by the fused operators: not measured on a GPU yet, so not there."""
        return self.recipe.accelerate and self.device.type == "cpu"

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One step on the next batch; returns what was measured, still on the device."""
        epoch = self.steps_done * self.recipe.batch_size // len(self.images)
        self.system.schedule(self.steps_done, epoch)
        with self._draws("step", self.steps_done):
            measured = self.processes.mean(self.system.step(_to(batch, self.device)))
        self.steps_done += 1
        return measured

    def evaluate(self) -> tuple[dict[str, float], Tensor]:
        """Metrics of the held-out pictures and a grid to look at; always with the same random draws."""
        with self._draws("evaluate", 0):
            return self.evaluation(self.system.complete)

    def _captions(self, images: ImageFolder | Digits) -> Tensor | None:
        return self.caption_encoder and self.caption_encoder(captions_for(images, self.recipe.data))

    @contextmanager
    def _draws(self, purpose: str, index: int) -> Iterator[None]:
        """Inside, torch's default generators are seeded from the run's seed and this place; then the caller's go on."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed_of(self.recipe.seed, purpose, index))
            yield

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
        TypeError: recipe is none.
        FileExistsError: `out` holds a run already, or weights, or another process is writing there.
        ProcessLost: another process of the run has ended.
        TrainingError: a loss, a weight, a running statistic, an optimizer's state or a held-out metric is no longer a
            number. What was saved last is kept.

    In the processes that torchrun starts each calls this alike, and takes its own rows of every batch; the first one
    measures, prints and writes. SIGINT, SIGTERM and SIGHUP, in any of them, end the step that is being made; its
    networks are saved without an evaluation, and the signal then goes to whoever handled it before.
    """
    if not isinstance(recipe, Recipe):
        raise TypeError(f"recipe: a recipe with its settings, UNetWGAN(...) or another, is expected, got {recipe!r}")
    with joined() as processes:
        run = Run(recipe, processes)
        with EndSignals() as ending:
            if processes.rank == 0:
                _lead(run, out, ending, progress)
            else:
                _follow(run, ending)
        ending.pass_on()
    return Path(out)


def _lead(run: Run, out: str | os.PathLike[str], ending: EndSignals, progress: bool) -> None:
    """What the first process does, or the only one: the steps, the looks, and all writing."""
    recipe, processes = run.recipe, run.processes
    with Records(out, recipe, run.caption_encoder) as records:
        if progress:
            _introduce(run, records.folder)
        processes.of_first(run.state_dict())
        with (
            Progress(run, records, ending, progress) as looker,
            closing(prefetch(run.batches, run.steps_done)) as batches,
        ):
            with suppress(Ended):
                looker.evaluate()
                while not ending.received and not looker.done():
                    if ending.hear(processes.agree(signal=ending.received).signal):
                        break
                    _, batch = next(batches)
                    looker.after_step(run.step(batch))
                    if run.steps_done % recipe.evaluate_every == 0 or run.steps_done in recipe.milestones:
                        looker.evaluate()
                if records.saved != run.steps_done:
                    looker.evaluate()
            if ending.received:
                looker.save(ending.received)
        processes.agree(over=True, signal=ending.received)


def _follow(run: Run, ending: EndSignals) -> None:
    """What every other process does: the same steps on its own rows, until the first one is over."""
    run.load_state_dict(run.processes.of_first(None))
    with closing(prefetch(run.batches, run.steps_done)) as batches:
        while not (said := run.processes.agree(signal=ending.received)).over:
            if not said.signal:
                run.step(next(batches)[1])
        ending.hear(said.signal)


def _introduce(run: Run, folder: Path) -> None:
    """Print what is trained, on what, and how."""
    name = run.recipe.name
    count = sum(parameter.numel() for parameter in run.system.parameters())
    print(f"{name}: {count:,} parameters on {run.device}; {run.images.summary()} to train on")
    print(f"{name}: measured on {run.heldout_images.summary()}; {printable(folder)}/ is the run's folder")
    if run.accelerated:
        report = acceleration_report(run.system)
        total = len(report.swapped) + len(report.left)
        print(f"{name}: {len(report.swapped)} of {total} convolutions are accelerated")
    for note in run.system.notes:
        print(f"{name}: {note}")


class Progress:
    """The loop's eyes: counts time and losses, draws the bar, evaluates, and says when the run is over."""

    def __init__(self, run: Run, records: Records, ending: EndSignals, show: bool) -> None:
        self.run, self.records, self.ending, self.limit = run, records, ending, run.recipe.seconds
        self.bar = tqdm(
            total=None if self.limit else run.recipe.steps, disable=not show, unit="step", dynamic_ncols=True
        )
        self.seconds = 0.0  # of training, evaluations not counted
        self.health = Health()
        self.named = set(run.images.skipped)  # files that cannot be read, by now: the summary has named them
        self.sums: dict[str, tuple[Tensor, int]] = {}  # of what was measured since the last row, on the device
        self.started = self.refreshed = time.perf_counter()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def done(self) -> bool:
        """True when the recipe's steps, seconds or patience are used up."""
        over_time = self.limit is not None and self._elapsed() >= self.limit
        return over_time or self.run.steps_done >= self.run.recipe.steps or self._out_of_patience()

    def after_step(self, measured: dict[str, Tensor]) -> None:
        """Take note of what a step measured; look at it only now and then."""
        for name, value in measured.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + value, count + 1)
        self.bar.update()
        now = time.perf_counter()
        if now - self.refreshed >= REFRESH_SECONDS:
            self.refreshed = now
            values = self._check({name: value.item() for name, value in measured.items()})
            rate = self.run.steps_done * self.run.recipe.batch_size / max(self._elapsed(), 1e-9)
            limit = f"{self._elapsed():.0f}/{self.limit:.0f}s " if self.limit else ""
            losses = {name: value for name, value in values.items() if name.endswith("_loss")}
            shown = " ".join(f"{name.removesuffix('_loss')} {value:.4f}" for name, value in losses.items())
            self.bar.set_postfix_str(f"{limit}{shown} {rate:.0f} images/s", refresh=False)

    def evaluate(self) -> None:
        """Measure on the held-out pictures, if no signal ends that, and write a row, a picture and the weights, if all
        of it is finite."""
        measured = self._check({name: total.item() / count for name, (total, count) in self.sums.items()})
        self._check_learned()
        self.seconds = self._elapsed()
        metrics, picture = self.ending.interrupts(self.run.evaluate)
        row = {
            "step": self.run.steps_done,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.run.steps_done * self.run.recipe.batch_size / max(self.seconds, 1e-9), 1),
            **measured,
            **self.run.system.counts(),
            **metrics,
        }
        for fill, fill_metrics in self.run.evaluation.fill_metrics.items():
            row |= {f"{fill}_{name}": value for name, value in fill_metrics.items()}
        self._expect_finite(row)
        if self.run.recipe.patience is not None:
            row["evaluations_since_best"] = self._since_best([*self.records.rows, row])
        self.records.add(row, picture, self.run.system)
        if not self.bar.disable:
            tqdm.write(f"step {self.run.steps_done:6d}  {self.run.evaluation.line(metrics)}")
            for path in [path for path in list(self.run.images.skipped) if path not in self.named]:
                tqdm.write(f"left out: {printable(path)}: {self.run.images.skipped[path]}")
                self.named.add(path)
            if self._out_of_patience():
                since = row["evaluations_since_best"]
                tqdm.write(f"stopped: the held-out error was smallest {since} evaluations ago, and --patience is over")
        self.sums = {}
        self.started = time.perf_counter()

    def save(self, signal: Signals) -> None:
        """Save the networks as they are, if they are finite, since this signal ends the run; and say so."""
        step = self.run.steps_done
        if self.records.saved != step:
            self._check_learned()
            self.records.save(step, self.run.system)
        with suppress(OSError):  # a terminal that has gone takes no text
            tqdm.write(
                f"{signal.name}: stopped after step {step}; its networks are in {self.records.folder}/", sys.stderr
            )

    def _since_best(self, rows: Sequence[Mapping[str, float]]) -> int:
        """Of the recipe's last phase: how many evaluations came after that with the smallest error."""
        start = max(self.run.recipe.milestones, default=0)
        return evaluations_since_best([self.run.evaluation.error(row) for row in rows if row["step"] >= start])

    def _out_of_patience(self) -> bool:
        patience, rows = self.run.recipe.patience, self.records.rows
        return patience is not None and bool(rows) and rows[-1]["evaluations_since_best"] >= patience

    def _elapsed(self) -> float:
        return self.seconds + time.perf_counter() - self.started

    def _check(self, measured: dict[str, float]) -> dict[str, float]:
        """Stop at what is no number; say what has gone wrong more quietly."""
        self._expect_finite(measured)
        for warning in self.health.look(self.run.steps_done, measured):
            self.records.warn(warning)
            if not self.bar.disable:
                tqdm.write(warning)
        return measured

    def _expect_finite(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                self._stop(f"{name} is {value}")

    def _check_learned(self) -> None:
        if (name := not_finite(self.run.system.learned())) is not None:
            self._stop(f"{name} holds a value that is not finite")

    def _stop(self, reason: str) -> NoReturn:
        folder, saved = self.records.folder, self.records.saved
        kept = f"No weights are in {folder}" if saved is None else f"The weights in {folder} are those of step {saved}"
        raise TrainingError(
            f"{reason} near step {self.run.steps_done}: training stopped. {kept}. A smaller --lr is the usual cure."
        )


def _to(batch: Batch, device: torch.device) -> Batch:
    return batch if device.type == "cpu" else batch.map(lambda part: part.to(device, non_blocking=True))
