"""Which way to run a convolution is the fastest: measured on the tensors of a call, as they lie in a network.

There the input has just been written, and what belongs to the layer was last read a whole network ago.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

ROUNDS = 5  # of all ways in turn, after one that is not counted
LEAST_GAIN = 0.97  # of PyTorch's time, above which its own operators stay
EVICTED = 64 << 20  # bytes that are read and written before each run, so that the caches hold nothing of the layer

clock = time.perf_counter


class Measured(NamedTuple):
    """What was measured for calls of one kind.

    Attributes:
        shape: of the input.
        ours, plain: milliseconds of the kernel's way and of PyTorch's own operators; with gradients where these are
            wanted.
        amx: of the kernel's way on AMX; None where that is not there, or not to be used.
    """

    shape: torch.Size
    ours: float
    plain: float
    amx: float | None = None

    @property
    def ours_runs(self) -> bool:
        """A kernel's way is the fastest one."""
        return self.way != "plain"

    @property
    def way(self) -> str:
        """The fastest one: "ours", "amx" or "plain"."""
        best, way = self.ours, "ours"
        if self.amx is not None and self.amx < self.ours:
            best, way = self.amx, "amx"
        return way if best < LEAST_GAIN * self.plain else "plain"

    def __str__(self) -> str:
        on_amx = "" if self.amx is None else f", on AMX {self.amx:.3g} ms"
        chosen = {"ours": "ours", "amx": "ours on AMX", "plain": "PyTorch's"}[self.way]
        return (
            f"{'x'.join(map(str, self.shape))}: ours {self.ours:.3g} ms{on_amx}, PyTorch's {self.plain:.3g} ms; "
            f"{chosen} runs"
        )


class Tuning:
    """What was measured for one layer. A copy starts empty: it may be for another machine."""

    def __init__(self) -> None:
        self.measured: dict[Hashable, Measured] = {}

    def __reduce__(self) -> tuple:
        return Tuning, ()


def race(ways: list[Callable[[], object]], input: Tensor) -> list[float]:
    """Milliseconds that each of these calls takes: medians of `ROUNDS`, interleaved.

    Args:
        ways: calls that may be made any number of times.
        input: what they read that is in the caches.
    """
    wait = torch.cuda.synchronize if input.is_cuda else lambda: None
    evicted = torch.zeros(EVICTED // 4, device=input.device)
    times: list[list[float]] = [[] for _ in ways]
    for way in ways:
        way()
    for _ in range(ROUNDS):
        for way, taken in zip(ways, times, strict=True):
            evicted += 1  # zeros alone would be written past the caches
            input.detach().sum()
            wait()
            start = clock()
            way()
            wait()
            taken.append(1e3 * (clock() - start))
    return [median(taken) for taken in times]
