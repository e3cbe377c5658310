"""Where the time of a training step goes, phase by phase, and a trace of it for a viewer.

Nothing of this is in the training code: for the time of a profile the methods that a step goes through are wrapped, so
that a run that is not profiled pays nothing.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, record_function
from torch.profiler import profile as torch_profile

from inpaint_fast._files import write_whole
from inpaint_fast.data import prefetch
from inpaint_fast.training.recipe import Recipe, System
from inpaint_fast.training.run import Run

PHASES = {
    "data": "making the batch; in a run a thread does that beside the steps",
    "generator": "its passes, gradients and losses",
    "critic": "the same of the critic or discriminator",
    "optimizer": "the updates of all parameters",
    "clip": "where it is not in the optimizer's own pass over them",
    "metrics": "whether batch, losses and gradients are numbers; means over processes",
    "other": "everything else",
}
CRITICS = ("critic", "discriminator")  # networks of these names; all others count as the generator's
WARM_UP, TRACED = 3, 2  # steps before anything is timed, and in the trace


@dataclass
class Profile:
    """What a profile has found; all times in seconds."""

    recipe: str
    device: str
    threads: int
    """Of the CPU."""
    batch_size: int
    steps: int
    """That were timed, once undisturbed and once by phases."""
    step: float
    """A step as in a run, the mean."""
    images_per_second: float
    phases: dict[str, float]
    """The same by phases, one after another and so that a GPU is waited for after each: their sum may be more."""
    evaluation: float
    """One evaluation, with metrics and picture."""
    peak_bytes: int
    """On a GPU of its memory in these steps; on a CPU of the process's, which began before."""
    trace: str | None
    """The trace's file."""


def profile(recipe: Recipe, *, steps: int = 10, trace: str | os.PathLike[str] | None = None) -> Profile:
    """Train a few steps by a recipe, time them, and throw away what was learned.

    Args:
        recipe: as for `train`.
        steps: to time; 10.
        trace: the file of a trace, of some steps more, in Chrome's format (ui.perfetto.dev or chrome://tracing show
            it); the phases are ranges in it. None writes none.

    Raises:
        ValueError: steps is less than 1; or as `train`, where the data is not there. OSError: the trace cannot be
            written.
    """
    if steps < 1:
        raise ValueError(f"steps: at least 1 is expected, got {steps}")
    run = Run(recipe)
    with closing(prefetch(run.batches, 0, device=run.device)) as batches:
        for _ in range(WARM_UP):
            run.step(next(batches)[1])
        if run.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(run.device)
        start = _now(run.device)
        for _ in range(steps):
            run.step(next(batches)[1])
        step = (_now(run.device) - start) / steps
    watch = Stopwatch(run.device)
    for _ in range(steps):
        _watched_step(run, watch)
    peak = _peak_bytes(run.device)
    start = _now(run.device)
    run.evaluate()
    evaluation = _now(run.device) - start
    if trace is not None:
        _write_trace(run, Path(trace))
    return Profile(
        recipe=recipe.name,
        device=str(run.device),
        threads=torch.get_num_threads(),
        batch_size=recipe.batch_size,
        steps=steps,
        step=step,
        images_per_second=recipe.batch_size / step,
        phases={name: watch.seconds.get(name, 0.0) / steps for name in PHASES},
        evaluation=evaluation,
        peak_bytes=peak,
        trace=None if trace is None else os.fspath(trace),
    )


class Stopwatch:
    """Seconds by phase. It runs for one phase at a time, the innermost."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self._running: list[str] = []
        self._since = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Inside, time is that of this phase, and so is a range of the trace."""
        self._lap()
        self._running.append(name)
        try:
            with record_function(name):
                yield
        finally:
            self._lap()
            self._running.pop()

    def rename(self, name: str, into: str) -> None:
        """Let what one phase has taken be another's."""
        self._lap()
        self.seconds[into] = self.seconds.get(into, 0.0) + self.seconds.pop(name, 0.0)

    def _lap(self) -> None:
        now = _now(self.device)
        if self._running:
            self.seconds[self._running[-1]] = self.seconds.get(self._running[-1], 0.0) + now - self._since
        self._since = now


def _watched_step(run: Run, watch: Stopwatch) -> None:
    """One step, its batch made in the open."""
    with watch.phase("data"):
        batch = run.batches[run.steps_done].map(lambda part: part.to(run.device))
    with _watched(run.system, watch), watch.phase("other"):
        run.step(batch)


@contextmanager
def _watched(system: System, watch: Stopwatch) -> Iterator[None]:
    """Inside, the parts of the system's step count as phases. What is computed between them, losses and their
    gradients, belongs to the network that is updated next."""
    critics = {module for name, network in system.named_children() if name in CRITICS for module in network.modules()}

    def passed(network: nn.Module, *_: Any, **__: Any) -> str:
        return "critic" if network in critics else "generator"

    def updated(name: str) -> str:
        watch.rename("other", "critic" if name in CRITICS else "generator")
        return "optimizer"

    with ExitStack() as wrapped:
        wrap = lambda owner, method, phase: wrapped.enter_context(_wrapped(owner, method, phase, watch))  # noqa: E731
        wrap(system, "through", passed)
        wrap(system, "gradient", lambda *_: "critic" if critics else "generator")
        wrap(system, "update", updated)
        wrap(system.guard, "observe", lambda *_: "metrics")
        wrap(system.processes, "mean", lambda *_: "metrics")
        for optimizer in system.optimizers.values():
            if hasattr(optimizer, "clip_group"):
                wrap(optimizer, "clip_group", lambda *_: "clip")
        yield


@contextmanager
def _wrapped(owner: Any, method: str, phase_of: Callable[..., str], watch: Stopwatch) -> Iterator[None]:
    """Inside, each call of this object's method is the phase that its arguments say."""
    plain = getattr(owner, method)

    def timed(*args: Any, **options: Any) -> Any:
        with watch.phase(phase_of(*args, **options)):
            return plain(*args, **options)

    owner.__dict__[method] = timed
    try:
        yield
    finally:
        del owner.__dict__[method]


def _write_trace(run: Run, path: Path) -> None:
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (run.device.type == "cuda")
    watch = Stopwatch(run.device)
    with torch_profile(activities=activities) as recorded:
        for _ in range(TRACED):
            with record_function(f"step {run.steps_done}"):
                _watched_step(run, watch)
    with tempfile.TemporaryDirectory() as folder:
        recorded.export_chrome_trace(os.path.join(folder, "trace.json"))
        content = Path(folder, "trace.json").read_bytes()
    write_whole(path, lambda file: file.write(content))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
