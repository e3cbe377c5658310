"""Where a run is, for who watches it: a bar on a terminal, elsewhere (a file, a pipe) a plain line now and then."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from inpaint_fast._names import printable
from inpaint_fast.nn import acceleration_report
from inpaint_fast.training.recipe import Recipe
from inpaint_fast.training.run import Run


class Display:
    """Shows nothing; what shows something is made of it.

    Args:
        recipe: its steps and seconds say when the run is over.
        steps_done: before it starts.
    """

    def __init__(self, recipe: Recipe, steps_done: int) -> None:
        self.recipe, self.steps_done = recipe, steps_done

    def step(self, steps_done: int) -> None:
        """So many steps are done."""
        self.steps_done = steps_done

    def show(self, seconds: float, measured: Mapping[str, float], *, skipped: int = 0) -> None:
        """Where the run is: after how many seconds of training, what the last step measured, how many were skipped."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def close(self) -> None:
        """The run is over."""

    def losses(self, measured: Mapping[str, float]) -> list[str]:
        """Each loss with its name."""
        return [f"{name[:-5]} {value:.4f}" for name, value in measured.items() if name.endswith("_loss")]

    def rate(self, seconds: float) -> str:
        """The pictures that were trained on in a second."""
        return f"{self.steps_done * self.recipe.batch_size / max(seconds, 1e-9):.0f} images/s"

    def left(self, seconds: float) -> str:
        """How long it takes until the recipe's steps or seconds are used up."""
        rest = max(self.recipe.steps - self.steps_done, 0) * seconds / max(self.steps_done, 1)
        if self.recipe.seconds is not None:
            rest = min(rest, max(self.recipe.seconds - seconds, 0))
        return f"{tqdm.format_interval(rest)} left"


class Bar(Display):
    """A bar of steps, by tqdm; where time may end the run first, how much of it is left."""

    def __init__(self, recipe: Recipe, steps_done: int) -> None:
        super().__init__(recipe, steps_done)
        total = None if recipe.seconds else recipe.steps
        self.bar = tqdm(total=total, initial=steps_done, unit="step", dynamic_ncols=True)

    def step(self, steps_done: int) -> None:
        super().step(steps_done)
        with suppress(OSError):
            self.bar.update(steps_done - self.bar.n)

    def show(self, seconds: float, measured: Mapping[str, float], *, skipped: int = 0) -> None:
        parts = [*self.losses(measured), self.rate(seconds), *([f"{skipped} skipped"] if skipped else [])]
        if self.bar.total is None:  # else tqdm says it
            parts.append(self.left(seconds))
        self.bar.set_postfix_str(", ".join(parts), refresh=False)

    def say(self, text: str) -> None:
        with suppress(OSError):
            tqdm.write(text)

    def close(self) -> None:
        with suppress(OSError):
            self.bar.close()


class Lines(Display):
    """A line every so many seconds: no carriage return in it, and written at once, so that a file can be followed."""

    def __init__(self, recipe: Recipe, steps_done: int, *, every: float) -> None:
        super().__init__(recipe, steps_done)
        self.every, self.said = every, time.monotonic()

    def show(self, seconds: float, measured: Mapping[str, float], *, skipped: int = 0) -> None:
        if (now := time.monotonic()) - self.said >= self.every:
            self.said = now
            parts = [*self.losses(measured), self.rate(seconds), self.left(seconds)]
            if skipped:
                parts.append(f"{skipped} skipped")
            self.say(f"step {self.steps_done:6d}  {', '.join(parts)}")

    def say(self, text: str) -> None:
        say(text)


def introduce(run: Run, folder: Path) -> None:
    """Print what is trained, on what, and how."""
    name = run.recipe.name
    count = sum(parameter.numel() for parameter in run.system.parameters())
    say(f"{name}: {count:,} parameters on {run.device}; {run.images.summary()} to train on")
    heldout = run.heldout_images.summary(told=run.images.skipped)
    say(f"{name}: measured on {heldout}; {printable(folder)}/ is the run's folder")
    if run.accelerated:
        report = acceleration_report(run.system)
        total = len(report.swapped) + len(report.left)
        say(f"{name}: {len(report.swapped)} of {total} convolutions are accelerated")
    if run.started_from and run.recipe.init:
        taken = " and ".join(run.started_from)
        say(f"{name}: starts from {taken} of {printable(run.recipe.init)}")
    if run.steps_done:
        say(f"{name}: goes on after step {run.steps_done:,}")
        if run.recipe.lr_schedule != "constant":
            say(f"{name}: learning rates follow {run.recipe.lr_schedule} over {run.recipe.steps:,} steps, from here on")
    for note in run.system.notes:
        say(f"{name}: {note}")


def say(text: str) -> None:
    """Print a line, if anybody can read it: no run ends for a pipe that is closed or a log that finds no room."""
    try:
        print(text, flush=True)
    except BrokenPipeError:  # what is left of it would be written at the end, and fail again
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError:
        pass


def display(recipe: Recipe, steps_done: int, *, progress: bool, line_every: float) -> Display:
    """What shows a run: a bar where stderr is a terminal, else lines; nothing without `progress`."""
    if not progress:
        return Display(recipe, steps_done)
    if sys.stderr is not None and sys.stderr.isatty():
        return Bar(recipe, steps_done)
    return Lines(recipe, steps_done, every=line_every)
