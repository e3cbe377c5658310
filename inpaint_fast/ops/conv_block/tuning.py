"""Which of two ways to run a convolution is faster: measured on the tensors of a call, as they lie in a network.

There the input has just been written, and what belongs to the layer was last read a whole network ago.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

ROUNDS = 5  # of both ways in turn, after one that is not counted
LEAST_GAIN = 0.97  # of PyTorch's time, above which its own operators stay
EVICTED = 64 << 20  # bytes that are read and written before each run, so that the caches hold nothing of the layer

clock = time.perf_counter


class Measured(NamedTuple):
    """What was measured for calls of one kind.

    Attributes:
        shape: of the input.
        ours, plain: milliseconds of the kernel's way and of PyTorch's own operators; with gradients where these are
            wanted.
    """

    shape: torch.Size
    ours: float
    plain: float

    @property
    def ours_runs(self) -> bool:
        """The kernel's way is the faster one."""
        return self.ours < LEAST_GAIN * self.plain

    def __str__(self) -> str:
        chosen = "ours" if self.ours_runs else "PyTorch's"
        return (
            f"{'x'.join(map(str, self.shape))}: ours {self.ours:.3g} ms, PyTorch's {self.plain:.3g} ms; {chosen} runs"
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
