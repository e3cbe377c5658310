"""What a machine can do at most: loops that `inpaint-fast bench parts` times beside the parts of a kernel.

`multiply_adds`: fused multiply-adds of float32 on registers; `roots`: divisions by a square root. `read`, `copy` and
`update`: bytes from and to the caches `l2` and `l3` and the memory `dram`, by a loop that adds, by the C library's
memcpy and by a loop that writes what it has read to its place; bytes are those read and those written. Half of a cache
is filled, of the memory 256 MB; each thread has its share. All threads run, but for `multiply_adds_1_thread`. The loops
are this package's own (csrc/rooflines), in the instruction set that its kernels use; `torch_mm` and `torch_copy` are
PyTorch's, to compare.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from inpaint_fast import _extension, _processor
from inpaint_fast.benchmarks.harness import Run

LEVELS = ("l2", "l3", "dram")
NAMES = (
    "multiply_adds_1_thread",
    "multiply_adds",
    "torch_mm",
    "roots",
    *(f"{level}_{kind}" for level in LEVELS for kind in ("read", "copy", "update")),
    "torch_copy",
)
DRAM_BYTES = 256 << 20
CALL_BYTES = 32 << 20  # of one call, at least: it takes far longer than the way to its loop
SIDE = 1024  # of torch_mm's matrices


class Caches(NamedTuple):
    """Bytes of the L2 and L3 caches for each thread."""

    l2: int
    l3: int
    told: bool = True
    """By the system; otherwise assumed."""

    def level(self, size: float, threads: int) -> str:
        """From where so many bytes come, used again by all threads together."""
        return "l2" if size <= self.l2 * threads else "l3" if size <= self.l3 * threads else "dram"


def caches(threads: int, cpus: Path = _processor.CPUS) -> Caches:
    """Those of the first processor, where each thread has a core of its own."""
    found = _processor.caches(cpus)
    return Caches(found.l2, found.l3 // min(found.cores, threads), found.told)


class Loop(NamedTuple):
    run: Run
    work: float
    """Of a call: bytes, multiply-adds or roots."""


def limit_of(name: str) -> str:
    """What such a loop is limited by: a level of the memory, or what it computes."""
    level = name.partition("_")[0]
    return level if level in LEVELS else name


def unit_of(limit: str) -> str:
    """Of its rate, in 1e9 a second."""
    return "GB/s" if limit in LEVELS else "Groot/s" if limit == "roots" else "GFMA/s"


def loops(names: Collection[str]) -> dict[str, Loop]:
    """Those of NAMES, in their order, ready to be timed on as many threads as torch has.

    Raises:
        ImportError: the extension is not built.
    """
    threads = torch.get_num_threads()
    return {name: _loop(name, threads, caches(threads)) for name in NAMES if name in names}


def _loop(name: str, threads: int, sizes: Caches) -> Loop:
    if name == "torch_mm":
        a, b, out = (torch.ones(SIDE, SIDE) for _ in range(3))
        return Loop(partial(torch.mm, a, b, out=out), float(SIDE**3))
    if name == "torch_copy":
        source, target = (torch.ones(DRAM_BYTES // 8) for _ in range(2))  # written, hence mapped
        return Loop(partial(target.copy_, source), float(DRAM_BYTES))
    run = _own(name, threads, sizes)
    return Loop(run, float(run()))


def _own(name: str, threads: int, sizes: Caches) -> Run:
    """A call of the extension, which answers its work."""
    module = _extension.module
    if module is None:
        raise ImportError(f"the extension measures {name}, and it is not there: {_extension.error}")
    if name.startswith("multiply_adds"):
        return partial(module.roofline_multiply_adds, threads if name == "multiply_adds" else 1, 100_000)
    if name == "roots":
        return partial(module.roofline_roots, threads, 10_000)
    level, kind = name.split("_")
    size = DRAM_BYTES if level == "dram" else getattr(sizes, level) * threads // 2
    rounds = max(CALL_BYTES // size, 1)
    if kind == "read":
        return partial(module.roofline_pass, [torch.ones(size // 4).numpy()], [], rounds)
    if kind == "update":
        return partial(module.roofline_pass, [], [torch.ones(size // 4).numpy()], rounds)
    source, target = (torch.ones(size // 8).numpy() for _ in range(2))
    return partial(module.roofline_copy, source, target, rounds)
