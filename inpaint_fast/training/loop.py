"""The training loop of every recipe: batches in, steps, and now and then a look at held-out pictures."""

from __future__ import annotations

import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from signal import Signals
from typing import Any, NamedTuple, NoReturn, TextIO

import torch
from torch import Tensor
from tqdm import tqdm

from inpaint_fast._names import printable
from inpaint_fast._words import check_number
from inpaint_fast.completion.weights import WeightsError
from inpaint_fast.data import prefetch
from inpaint_fast.training.config import expect_settings, settings_of
from inpaint_fast.training.display import Display, display, introduce, say
from inpaint_fast.training.ending import Ended, EndSignals
from inpaint_fast.training.evaluation import evaluations_since_best
from inpaint_fast.training.health import Health, not_finite
from inpaint_fast.training.processes import Processes, Said, joined
from inpaint_fast.training.recipe import Recipe
from inpaint_fast.training.records import Records
from inpaint_fast.training.run import Run
from inpaint_fast.training.sums import Sums
from inpaint_fast.training.tensorboard import EventLog, expect_tensorboard

TIDYING = "generator and list of checkpoints"
NONE = "a batch, a loss or a gradient that is no number"
REFRESH_SECONDS = 0.5  # between two looks at the losses; each makes a GPU wait once


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what was kept."""


def train(
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    progress: bool = True,
    line_every: float = 30,
    tensorboard: bool = False,
) -> Path:
    """Train by a recipe and leave everything worth keeping in a folder.

    Args:
        recipe: e.g. `UNetWGAN(data="photos/", seconds=600)`.
        out: the run's folder; what it will hold is described in `inpaint_fast.training.records`.
        resume: go on with the run in `out` from its newest checkpoint, as if it had never stopped: on a CPU the result
            is that of an undisturbed run, bit for bit. The recipe is the run's (`read_recipe(out)`), but for the
            settings in `Recipe.free`. A run that is over is left as it is, unless the recipe has more steps for it.
        progress: print what is trained on, and losses, images/s and the time left.
        line_every: seconds between two lines that say so where no terminal shows a bar.
        tensorboard: also write what `tensorboard --logdir out` shows (the extra [log]).

    Returns:
        The folder.

    Raises:
        TypeError: recipe is none, or line_every no number.
        ValueError: line_every is less than 0.
        ImportError: tensorboard is asked for and not installed.
        FileExistsError: `out` holds a run already, or weights, or another process is writing there.
        FileNotFoundError, ValueError: with `resume`: `out` holds no run, no whole checkpoint, or a run with another
            recipe or other pictures.
        ProcessLost: another process of the run has ended.
        RuntimeError: it is called under torch.no_grad, inference_mode or autocast, or PyTorch's default dtype is not
            float32.
        TrainingError: a weight, a running statistic, an optimizer's state or a held-out metric is no longer a number,
            or too many steps in a row had to be skipped; what was saved last is kept. Or the end could not be saved.

    A step in which a loss, a gradient or the batch is no number is skipped. A disk that fails is said, and the run goes
    on. SIGINT, SIGTERM and SIGHUP end the step that is being made; a checkpoint is saved without an evaluation, and the
    signal then goes to whoever handled it before. SIGUSR1 has a checkpoint saved, and the run goes on.

    In the processes that torchrun starts each calls this alike, and takes its own rows of every batch; the first one
    measures, prints and writes. A signal to any of them ends all.
    """
    if not isinstance(recipe, Recipe):
        raise TypeError(f"recipe: a recipe with its settings, UNetWGAN(...) or another, is expected, got {recipe!r}")
    if not check_number("line_every", line_every) >= 0:
        raise ValueError(f"line_every: a time of at least 0 is expected, got {line_every}")
    if tensorboard:
        expect_tensorboard()
    _expect_plain_modes()
    with joined() as processes:
        if processes.rank == 0:
            _lead(recipe, out, processes, resume, Watching(progress, line_every, tensorboard))
        else:
            _follow(Run(recipe, processes))
    return Path(out)


def _expect_plain_modes() -> None:
    """Raise RuntimeError where a mode of PyTorch that the caller is in would reach into the run."""
    modes = {
        "torch.inference_mode()": torch.is_inference_mode_enabled(),
        "torch.no_grad()": not torch.is_grad_enabled(),
        **{f"torch.autocast({device!r})": torch.is_autocast_enabled(device) for device in ("cpu", "cuda")},
        f"torch.set_default_dtype({torch.get_default_dtype()})": torch.get_default_dtype() != torch.float32,
    }
    for mode, on in modes.items():
        if on:
            raise RuntimeError(f"train: it is called under {mode}, which it does not take; call it outside of that")


class Watching(NamedTuple):
    """What `train` shows of a run while it goes on."""

    progress: bool
    line_every: float
    tensorboard: bool


def _lead(recipe: Recipe, out: str | os.PathLike[str], processes: Processes, resume: bool, watching: Watching) -> None:
    """What the first process does, or the only one: the steps, the looks, and all writing."""
    progress, line_every, tensorboard = watching
    if resume:
        run, records, state = _reopened(recipe, out, processes)
        if run is None:
            if progress:
                say(_over(recipe, out, state))
            processes.of_first(None)
            return
    else:
        run = Run(recipe, processes)
        records, state = Records(out, recipe, run.caption_encoder), None
    with EndSignals() as ending, records:
        if progress:
            introduce(run, records.folder)
        processes.of_first(run.state_dict())
        with (
            closing(display(recipe, run.steps_done, progress=progress, line_every=line_every)) as shown,
            closing(EventLog(records.folder, after=run.steps_done)) if tensorboard else nullcontext() as events,
        ):
            looker = Progress(run, records, ending, shown, events)
            if state is not None:
                looker.go_back(state)
                state = None  # as large as all that is trained
            with suppress(Ended):
                looker.evaluate_if_due()
                while not ending.received and not looker.done():
                    _go_on(run, looker, ending)
                if not ending.received:
                    looker.finish()
            if ending.received:
                looker.save_for(ending.received)
        processes.agree(over=True, signal=ending.received)
    ending.pass_on()


def _follow(run: Run) -> None:
    """What every other process does: the same steps on its own rows, until the first one is over."""
    state = run.processes.of_first(None)
    if state is None:
        return
    with EndSignals() as ending:
        said = Said(over=False, signal=None)
        while not said.over:
            run.load_state_dict(state)
            with closing(prefetch(run.batches, run.steps_done, device=run.device)) as batches:
                while not ((said := run.processes.agree(**ending.news())).over or said.back):
                    if not said.signal:
                        run.step(next(batches)[1])
            if said.back:
                state = run.processes.of_first(None)
        ending.hear(said.signal)
    ending.pass_on()


def _go_on(run: Run, looker: Progress, ending: EndSignals) -> None:
    """Steps, until the run is over, is ended by a signal, or has gone back to a checkpoint."""
    with closing(prefetch(run.batches, run.steps_done, device=run.device)) as batches:
        while not ending.received and not looker.done():
            said = run.processes.agree(**ending.news())
            if ending.hear(said.signal, said.asked):
                return
            _, batch = next(batches)
            if looker.after_step(run.step(batch)):
                return
            looker.evaluate_if_due()
            looker.save_if_due()


def _reopened(
    recipe: Recipe, out: str | os.PathLike[str], processes: Processes
) -> tuple[Run | None, Records, dict[str, Any]]:
    """The run in a folder, its records, and the state to go back to; no run where it is over. Nothing has changed."""
    records = Records(out, recipe, resume=True)
    try:
        state = records.newest_state()
        expect_settings(recipe, state.get("settings", {}), records.folder)  # config.toml may have been edited
        if is_over(recipe, state):
            records.give_back()
            return None, records, state
        run = Run(recipe, processes)
        if state["data"] != run.data:
            raise ValueError(
                f"data: the pictures or captions in {recipe.data} are not those of the run in {records.folder}: other "
                f"names, sizes, order or texts. Give it the same, or start a new run from its networks: --init {out}"
            )
        try:
            run.load_state_dict(state["run"])
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise WeightsError(records.folder, f"its checkpoint does not fit its config.toml ({error})") from error
    except BaseException:
        records.give_back()
        raise
    return run, records, state


def is_over(recipe: Recipe, state: dict[str, Any]) -> bool:
    """Whether a run with this state has made all steps of the recipe, and was measured at its end."""
    step, rows = state["run"]["steps_done"], state["records"]["rows"]
    over_time = recipe.seconds is not None and state["seconds"] >= recipe.seconds
    over_time = over_time or _is_out_of_patience(recipe, rows)
    return (over_time or step >= recipe.steps) and bool(rows) and rows[-1]["step"] == step


def _is_out_of_patience(recipe: Recipe, rows: Sequence[Mapping[str, float]]) -> bool:
    """Whether the last of these rows says so."""
    since = rows[-1].get("evaluations_since_best", 0) if rows else 0
    return recipe.patience is not None and since >= recipe.patience


def _over(recipe: Recipe, out: str | os.PathLike[str], state: dict[str, Any]) -> str:
    more = "--steps" if recipe.seconds is None else "--steps and --seconds"
    step = state["run"]["steps_done"]
    return f"{recipe.name}: the run in {printable(out)} is finished, at step {step:,}; it goes on with larger {more}"


class Progress:
    """The loop's eyes: counts time and losses, evaluates, saves, and says when the run is over."""

    def __init__(self, run: Run, records: Records, ending: EndSignals, shown: Display, events: EventLog | None) -> None:
        self.run, self.records, self.ending, self.shown, self.events = run, records, ending, shown, events
        self.limit = run.recipe.seconds
        self.seconds = 0.0  # of training, evaluations and checkpoints not counted, until the clock was started
        self.health = Health()
        self.named = set(run.images.skipped)  # files that cannot be read, by now: the summary has named them
        self.sums = Sums()  # of what was measured since the last row
        self.unwritten: dict[str, OSError] = {}  # what could not be written when that was tried last
        self.has_gone_back = False
        self.started = self.refreshed = self.tried = time.perf_counter()
        self.stopped = False  # the clock

    def done(self) -> bool:
        """True when the recipe's steps, seconds or patience are used up."""
        over_time = self.limit is not None and self._elapsed() >= self.limit
        return over_time or self.run.steps_done >= self.run.recipe.steps or self._out_of_patience()

    def after_step(self, measured: dict[str, Tensor]) -> bool:
        """Take note of what a step measured, and look at it now and then.

        Returns:
            Whether the run goes on from an earlier step, since too many in a row were skipped.
        """
        guard = self.run.system.guard
        assert guard.good is not None  # of the step
        self.sums.add(measured, guard.good)
        self.shown.step(self.run.steps_done)
        for note in self.run.iterate.news():
            self.shown.say(note)
        if look := time.perf_counter() - self.refreshed >= REFRESH_SECONDS:
            self.refreshed = time.perf_counter()
            values = self._check({name: value.item() for name, value in measured.items()}) if guard.good else {}
            self.shown.show(self._elapsed(), values, skipped=int(guard.skipped))
        if (look or self.run.device.type == "cpu") and guard.longest >= self.run.recipe.max_skipped:
            self._undo(f"{guard.longest} steps in a row had {NONE}")
            return True
        return False

    def evaluate_if_due(self) -> None:
        """An evaluation, if one belongs to this step and there was none."""
        step, recipe = self.run.steps_done, self.run.recipe
        if (step % recipe.evaluate_every == 0 or step in recipe.milestones) and not self._measured():
            self._evaluate()

    def save_if_due(self) -> None:
        """A checkpoint, if its step or its time has come, or a signal asked for one."""
        step, every, minutes = self.run.steps_done, self.run.recipe.checkpoint_every, self.run.recipe.checkpoint_minutes
        due = every is not None and step % every == 0
        due = due or (minutes is not None and time.perf_counter() - self.tried >= 60 * minutes)
        asked, self.ending.asked = self.ending.asked, False
        if (asked or due) and not self.done() and self.records.saved != step:
            self._save()
        if asked:
            self._say(f"SIGUSR1: {self._kept()}")

    def finish(self) -> None:
        """The evaluation and the checkpoint of the last step, if they are not there."""
        if 0 < self.run.steps_done == self.run.system.guard.skipped:
            self._stop(f"each of the {self.run.steps_done} steps had {NONE}")
        for warning in self.run.system.precision.unmoved():
            self._warn(warning, sys.stderr)
        if not self._measured():
            self._evaluate()
        if self.records.saved != self.run.steps_done:
            self._save()
        for what, write in ((TIDYING, self.records.tidy), ("rows of metrics", self.records.write_rows)):
            if what in self.unwritten:
                self._write(what, write)
        if self.unwritten:
            *others, last = self.unwritten
            what = f"{', '.join(others)} and {last}" if others else last
            error = next(iter(self.unwritten.values()))
            raise TrainingError(f"the run is over, but its {what} could not be written ({error}). {self._kept()}")

    def save_for(self, signal: Signals) -> None:
        """A checkpoint, since this signal ends the run; and say how it can go on."""
        if self.records.saved != self.run.steps_done:
            self._save()
        folder = shlex.quote(str(self.records.folder))
        how = "" if self.records.saved is None else f"; to go on: inpaint-fast train --resume {folder}"
        self._say(f"{signal.name}: stopped after step {self.run.steps_done}. {self._kept()}{how}")

    def go_back(self, state: dict[str, Any]) -> None:
        """Be what this was when the state was saved. The run has done so; later rows, warnings and pictures go."""
        self.records.go_back(self.run.steps_done, state["records"])
        self.seconds, self.started = state["seconds"], time.perf_counter()
        self.sums.load_state_dict(state["sums"], self.run.device)
        self.health.load_state_dict(state["health"])
        self.shown.step(self.run.steps_done)
        if self.events:
            self.events.go_on(self.run.steps_done)

    def _state_dict(self) -> dict[str, Any]:
        """All that a run goes on from."""
        return {
            "data": self.run.data,
            "settings": settings_of(self.run.recipe),
            "run": self.run.state_dict(),
            "seconds": self.seconds,
            "sums": self.sums.state_dict(),
            "health": self.health.state_dict(),
            "records": self.records.state_dict(),
        }

    def _measured(self) -> bool:
        return bool(self.records.rows) and self.records.rows[-1]["step"] == self.run.steps_done

    def _evaluate(self) -> None:
        """Measure on the held-out pictures, if no signal ends that, and write a row, a picture and, where one is due,
        a checkpoint, if all of it is finite."""
        with self._clock_stopped():
            measured = self.sums.means()
            self._check(measured)
            self._check_learned()
            metrics, picture = self.ending.interrupts(self.run.evaluate)
            seconds, step, recipe = self.seconds, self.run.steps_done, self.run.recipe
            row = {
                "step": step,
                "seconds": round(seconds, 3),
                "images_per_second": round(step * recipe.batch_size / max(seconds, 1e-9), 1),
                "skipped": self.run.system.guard.skipped.item(),
                **self.run.system.counts(),
                **measured,
                **metrics,
            }
            for fill, fill_metrics in self.run.evaluation.fill_metrics.items():
                row |= {f"{fill}_{name}": value for name, value in fill_metrics.items()}
            self._expect_finite(row)
            if recipe.patience is not None:
                row["evaluations_since_best"] = self._since_best([*self.records.rows, row])
            every, best = recipe.checkpoint_every, self.records.is_best(row)
            self.records.rows.append(row)
            self.sums.clear()
            self._write("picture", self.records.write_picture, step, picture)
            if self.records.saved != step and (every is None or best or step % every == 0):
                self._save()  # before the rows: none without its weights
            self._write("rows of metrics", self.records.write_rows)
            if self.events:
                self.events.add(row, picture, self.run.system)
        self.shown.say(f"step {step:6d}  {self.run.evaluation.line(metrics)}")
        for path in [path for path in list(self.run.images.skipped) if path not in self.named]:
            self.shown.say(f"left out: {printable(path)}: {self.run.images.skipped[path]}")
            self.named.add(path)
        if self._out_of_patience():
            since = row["evaluations_since_best"]
            self.shown.say(f"stopped: the held-out error was smallest {since} evaluations ago, and --patience is over")

    def _save(self) -> None:
        """A checkpoint, if what was learned is finite."""
        self._check_learned()
        with self._clock_stopped():
            self._write("checkpoint", self.records.save, self.run.steps_done, self.run.system, self._state_dict())
            if "checkpoint" not in self.unwritten:
                self._write(TIDYING, self.records.tidy)
        self.tried = time.perf_counter()

    def _write(self, what: str, write: Callable[..., object], *args: object) -> None:
        """Write, if the disk takes it; otherwise say so, and leave it for the next time."""
        try:
            write(*args)
        except OSError as error:
            self.unwritten[what] = error
            step = self.run.steps_done
            self._warn(
                f"warning: the {what} of step {step} could not be written ({error}); the run goes on", sys.stderr
            )
        else:
            self.unwritten.pop(what, None)
            if "warnings" in self.unwritten:
                self._write_warnings()

    def _write_warnings(self) -> None:
        try:
            self.records.write_warnings()
        except OSError as error:
            self.unwritten["warnings"] = error
        else:
            self.unwritten.pop("warnings", None)

    def _kept(self) -> str:
        """What the folder has of the run, in a sentence without its full stop."""
        saved, folder = self.records.saved, printable(self.records.folder)
        if saved is None:
            return f"No checkpoint is in {folder}/"
        return f"The newest checkpoint in {folder}/ is that of step {saved}"

    def _undo(self, reason: str) -> None:
        """Go back to the last checkpoint, the first time."""
        step, run = self.run.steps_done, self.run
        if self.has_gone_back or self.records.saved is None:
            self._stop(f"{reason}{', again' if self.has_gone_back else ''}")
        self.has_gone_back = True
        state = self.records.newest_state()
        run.load_state_dict(state["run"])
        run.system.guard.forget()
        run.processes.agree(back=True)
        run.processes.of_first(run.state_dict())
        self.go_back(state)
        self._warn(f"warning: {reason} near step {step}: the run goes back to step {run.steps_done}", sys.stderr)

    @contextmanager
    def _clock_stopped(self) -> Iterator[None]:
        """Inside, no time of training passes."""
        if self.stopped:
            yield
            return
        self.seconds, self.stopped = self._elapsed(), True
        try:
            yield
        finally:
            self.started, self.stopped = time.perf_counter(), False

    def _since_best(self, rows: Sequence[Mapping[str, float]]) -> int:
        """Of the recipe's last phase: how many evaluations came after that with the smallest error."""
        start = max(self.run.recipe.milestones, default=0)
        return evaluations_since_best([self.run.evaluation.error(row) for row in rows if row["step"] >= start])

    def _out_of_patience(self) -> bool:
        return _is_out_of_patience(self.run.recipe, self.records.rows)

    def _elapsed(self) -> float:
        return self.seconds if self.stopped else self.seconds + time.perf_counter() - self.started

    def _check(self, measured: dict[str, float]) -> dict[str, float]:
        """Stop at what is no number; say what has gone wrong more quietly."""
        self._expect_finite(measured)
        for warning in self.health.look(self.run.steps_done, measured | self.run.system.precision.signals()):
            self._warn(warning, None)
            self.shown.say(warning)
        return measured

    def _warn(self, text: str, stream: TextIO | None) -> None:
        """Keep a warning in health.txt, if the disk takes it, and show it."""
        self.records.warnings.append(text)
        self._write_warnings()
        if stream is not None:
            self._say(text, stream)

    def _say(self, text: str, stream: TextIO | None = None) -> None:
        if (stream := stream or sys.stderr) is not None:
            with suppress(OSError):  # a terminal that has gone takes no text
                tqdm.write(text, stream)

    def _expect_finite(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                self._stop(f"{name} is {value}")

    def _check_learned(self) -> None:
        if (name := not_finite(self.run.system.learned())) is not None:
            self._stop(f"{name} holds a value that is not finite")

    def _stop(self, reason: str) -> NoReturn:
        what = f"{reason} near step {self.run.steps_done}: training stopped. {self._kept()}"
        raise TrainingError(f"{what}. A smaller --lr is the usual cure.")
