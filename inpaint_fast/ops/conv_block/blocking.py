"""To how much of a core's cache the CPU kernels cut their tasks: what the system tells, or what was measured.

What the system calls a core's cache may be shared with a hardware thread that others use, or be slower than the size
of a task pays for (csrc/conv_block/cpu/blocking.h). So `accelerate(net, tune=True)` measures it, once for a machine.
"""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from inpaint_fast import _extension, _processor
from inpaint_fast._files import write_whole
from inpaint_fast._version import __version__
from inpaint_fast.ops.conv_block.call import call
from inpaint_fast.ops.conv_block.geometry import DILATED, Geometry
from inpaint_fast.ops.conv_block.kept import prepare
from inpaint_fast.ops.conv_block.plan import Epilogue
from inpaint_fast.ops.conv_block.tuning import race

TIMES = (0.5, 1.0, 2.0)  # of the size that the system tells
LEAST_GAIN = 0.97  # of the time with that size, above which it stays
MOST_BYTES = 1 << 20  # of the file
CHANNELS, SIDE, DILATIONS = 256, 64, (1, 8)  # of the convolutions that are timed: by F(6x6) and by F(4x4)


class Fit(NamedTuple):
    """What was measured.

    Attributes:
        core: bytes of a core's cache that tasks are cut to.
        milliseconds: what two convolutions took, by such bytes.
        kept: in a file, for other processes.
    """

    core: int
    milliseconds: dict[int, float]
    kept: bool = True

    def __str__(self) -> str:
        times = ", ".join(f"{size >> 10} KB {time:.3g} ms" for size, time in self.milliseconds.items())
        where = f"kept in {file()}" if self.kept else f"for this process alone: {file()} could not be written"
        return f"for {self.core >> 10} KB of cache a core, as measured ({times}; {where})"


_fitted: Fit | None = None


def file() -> Path:
    """Where measured sizes are kept: in the user's folder of caches (XDG_CACHE_HOME, an absolute path, or ~/.cache)."""
    folder = os.environ.get("XDG_CACHE_HOME", "")
    return Path(folder if os.path.isabs(folder) else os.path.expanduser("~/.cache")) / "inpaint_fast" / "caches.json"


def machine() -> str:
    """For what a measurement holds."""
    threads, told = torch.get_num_threads(), _processor.caches().l2
    return f"inpaint_fast {__version__}, {_processor.name()}, {told} bytes of L2, {threads} threads"


def fit() -> None:
    """Have the kernels cut their tasks to what is fastest here: as `file` says, or measured now, in half a second.

    Once in a process; without the extension nothing.
    """
    global _fitted
    if _fitted is not None or _extension.module is None:
        return
    kept = _read()
    found = _fit_of(kept.get(machine()))
    if found is None:
        found = _measure()
        try:
            _write({**kept, machine(): {"core": found.core, "milliseconds": found.milliseconds}})
        except OSError:
            found = found._replace(kept=False)
    _cut_to(found.core)
    _fitted = found


def is_measured() -> bool:
    """Whether tasks are cut to what was measured."""
    return _fitted is not None


def note() -> str:
    """To what the tasks of the CPU kernels are cut, and why."""
    if _fitted is not None:
        return str(_fitted)
    found = _processor.caches()
    return f"for {found.l2 >> 10} KB of cache a core, {'as the system tells' if found.told else 'assumed'}"


def _cut_to(core: int) -> None:
    assert _extension.module is not None
    _extension.module.set_caches(core, _processor.caches().l3)


def _sizes() -> list[int]:
    """Those between which is measured."""
    return [int(_processor.caches().l2 * times) for times in TIMES]


@torch.no_grad()
def _measure() -> Fit:
    told, sizes = _processor.caches().l2, _sizes()
    input = torch.ones(1, CHANNELS, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    weight = torch.ones(CHANNELS, CHANNELS, 3, 3)
    prepare(weight)

    def run(size: int) -> None:
        _cut_to(size)
        for dilation in DILATIONS:
            call(DILATED, Geometry.of(dilation, None), input, weight, None, None, None, Epilogue(), "fast", "cpp")

    try:
        with torch.autocast("cpu", enabled=False):
            taken = dict(zip(sizes, race([partial(run, size) for size in sizes], input), strict=True))
    finally:
        _cut_to(told)
    best = min(sizes, key=taken.__getitem__)
    return Fit(best if taken[best] < LEAST_GAIN * taken[told] else told, taken)


def _read() -> dict[str, Any]:
    """What the file says, of this machine and of others; nothing where it is none of ours."""
    try:
        if not file().is_file() or file().stat().st_size > MOST_BYTES:
            return {}
        found = json.loads(file().read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _fit_of(entry: Any) -> Fit | None:
    """What an entry of the file says; None where it says nothing that was measured here."""
    try:
        times = {int(size): float(time) for size, time in entry["milliseconds"].items()}
        core = entry["core"]
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
        return None
    return Fit(core, times) if type(core) is int and core in times and sorted(times) == _sizes() else None


def _write(entries: dict[str, Any]) -> None:
    file().parent.mkdir(parents=True, exist_ok=True)
    write_whole(file(), lambda out: out.write(json.dumps(entries, indent=1).encode()))
