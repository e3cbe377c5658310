"""Parts of a kernel, each held against the roofline of what it needs: the frame of `benchmarks/parts.py`.

A part needs multiply-adds or additions, roots, bytes of each level of the memory. Each of these numbers, divided by the
rate that the machine was measured to reach (benchmarks/machine.py), is a time; what is read from a level, copied and
updated there adds up. The longest of the times is the part's roofline, and its share of the roofline this time divided
by its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import ClassVar, Literal

import torch

from inpaint_fast import _extension
from inpaint_fast.benchmarks import harness, machine
from inpaint_fast.benchmarks.counters import EVENTS, counted

CPU = torch.device("cpu")
REST = "rest"
"""What is no stage of a call: the way to the kernel, memory, threads that wait."""
AMOUNTS = ("multiply_adds", "roots", *(f"{level}_bytes" for level in machine.LEVELS))
COUNTED_CALLS = 10
PEERS = {"torch_mm": "multiply_adds", "torch_copy": "dram_copy"}
"""PyTorch's loop -> ours that it is held against."""
HEADING = ("part", "backend", "median ms", "(q25-q75)", "of call", "rate", "roofline", "its rate", "share")

Needs = Mapping[str, float]
"""A loop of benchmarks/machine.py -> bytes, multiply-adds or roots."""


@dataclass(frozen=True)
class Part(harness.Implementation):
    """A call that is timed as a whole, and by the stages that its kernel tells of.

    `needs` answers what the call, by the part's name, and its stages need; it is asked after `prepare`.
    """

    needs: Callable[[], Mapping[str, Needs]] = dict


@dataclass
class Row(harness.Result):
    """A part or a stage. `ceiling` is its roofline's rate; `amounts`: those of AMOUNTS and EVENTS that are known."""

    columns: ClassVar[tuple[str, ...]] = (*harness.COLUMNS, "roofline", "roofline_rate", *AMOUNTS, *EVENTS)
    legend: ClassVar[str] = "%: the share of the roofline"
    roofline: str = ""
    uncounted: str = ""
    """Why the processor's events were not counted, where it was tried."""
    amounts: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, cells: Mapping[str, str]) -> harness.Result:
        row = super().of(cells)
        assert isinstance(row, Row)
        row.roofline = cells["roofline"]
        row.amounts = {name: float(cells[name]) for name in (*AMOUNTS, *EVENTS) if cells[name]}
        return row

    @property
    def subject(self) -> bool:
        return not self.implementation.startswith("torch_")

    @property
    def ratio(self) -> str:
        return f"{self.rate / self.ceiling:.0%} of {self.roofline}" if self.rate and self.ceiling else ""

    @property
    def cells(self) -> list[str]:
        amounts = [self.amounts.get(name) for name in (*AMOUNTS, *EVENTS)]
        return [*super().cells, self.roofline, *map(harness.number, [self.ceiling, *amounts])]

    def held(self, times: Sequence[float], needs: Needs, rates: Mapping[str, float]) -> Row:
        """The row with these times, and what it needs against the machine's rates, in units a millisecond."""
        self.quartiles = harness.quartiles_of(times)
        longest = 0.0
        for limit in dict.fromkeys(map(machine.limit_of, needs)):
            of_limit = {name: amount for name, amount in needs.items() if machine.limit_of(name) == limit}
            amount, ms = sum(of_limit.values()), sum(amount / rates[name] for name, amount in of_limit.items())
            self.amounts[f"{limit}_bytes" if limit in machine.LEVELS else limit.removesuffix("_1_thread")] = amount
            if ms > longest:
                longest, self.roofline, self.unit = ms, limit, machine.unit_of(limit)
                self.rate, self.ceiling = amount / self.quartiles[1] / 1e6, amount / ms / 1e6
        return self


@dataclass(frozen=True)
class Parts(harness.Case):
    """Of `implementations`, which are parts, the first is the kernel as it is called, and is checked.

    `loops`, of the machine, are rows themselves.
    """

    work: float = 0.0  # each row has its own, and its own unit
    unit: Literal["GB/s", "GFLOP/s"] = "GB/s"
    memory: Literal["", "fresh", "reused"] = "reused"
    loops: Sequence[str] = ()

    @property
    def row(self) -> type[harness.Result]:
        return Row

    def measure(self, name: str, repeats: int, clock: Callable[[], int]) -> list[Row]:
        """The parts, their stages and, interleaved with them, the rooflines that they are held against."""
        harness.set_memory(self.memory)
        parts = [part for part in self.implementations if isinstance(part, Part)]
        row = partial(Row, name, device=harness.device_name(CPU), unit="")
        try:
            runs = {part.name: part.prepare() for part in parts}
            error = self._error(runs[parts[0].name]) if parts else 0.0
            needs = {part.name: part.needs() for part in parts}
            loops = machine.loops(
                {*self.loops, *(name for each in needs.values() for all in each.values() for name in all)}
            )
        except Exception as reason:
            return [row(parts[0].name if parts else "machine", problem=harness.not_run(reason))]
        if not error <= self.bound:  # so that NaN is wrong, too
            return [row(parts[0].name, error=error, problem=f"WRONG: error {error:.1e} above {self.bound:.1e}")]

        calls = runs | {name: loop.run for name, loop in loops.items()}
        timer = harness.Timer(CPU, False, clock)
        samplers = [partial(_sample, name, run, timer.calls_per_sample(run), clock, needs.get(name, {}))
                    for name, run in calls.items()]  # fmt: skip
        with stages_timed():
            rounds = dict(zip(calls, harness.interleaved(samplers, repeats, name), strict=True))
        rates = {name: loop.work / median(each[name] for each in rounds[name]) for name, loop in loops.items()}

        rows = []
        for part in parts:
            backend = part.backend() if callable(part.backend) else part.backend
            for stage in rounds[part.name][0]:
                times = [each[stage] for each in rounds[part.name]]
                rows.append(row(stage, backend=backend).held(times, needs[part.name].get(stage, {}), rates))
        for name in self.loops:
            backend = "pytorch" if name in PEERS else f"cpp ({_extension.cpu_capability()})"
            times, work = [each[name] for each in rounds[name]], loops[name].work
            rows.append(row(name, backend=backend).held(times, {PEERS.get(name, name): work}, rates))
        if parts:
            counts, rows[0].uncounted = counted(runs[parts[0].name], COUNTED_CALLS)
            rows[0].amounts |= counts
            rows[0].error = error
        return rows

    def _error(self, run: harness.Run) -> float:
        return harness.relative_error(harness.tensors_of(run()), harness.tensors_of(self.reference()))

    def table(self, results: Sequence[harness.Result]) -> str:
        """These rows for a reader; "of call": of the median of the first one."""
        threads, first = torch.get_num_threads(), results[0]
        caches = machine.caches(threads)
        told = "" if caches.told else " (assumed: the system does not tell)"
        sizes = f"{caches.l2 >> 10} KB of L2 and {caches.l3 >> 10} KB of L3 for each{told}"
        lines = [first.case, f"  {first.device}, {threads} threads; {sizes}"]
        lines += [f"  {self.note}"] if self.note else []
        whole = None if self.loops or first.quartiles is None else first.quartiles[1]
        lines += harness.aligned([HEADING, *(_printed(row, whole) for row in results if isinstance(row, Row))])
        if isinstance(first, Row) and first.uncounted:
            lines.append(f"  the processor's events are not counted: {first.uncounted}")
        if isinstance(first, Row) and (counts := [f"{first.amounts[e]:.3g} {e}" for e in EVENTS if e in first.amounts]):
            lines.append(f"  {first.implementation}: {', '.join(counts)}")
        return "\n".join(lines)


def _printed(row: Row, whole: float | None) -> tuple[str, ...]:
    if row.quartiles is None:
        return row.implementation, row.problem
    low, middle, high = map(harness.digits, row.quartiles)
    of_call = f"{row.quartiles[1] / whole:.0%}" if whole else ""
    held = ("", "", "", "")
    if row.rate and row.ceiling:
        held = (
            f"{harness.digits(row.rate)} {row.unit}",
            row.roofline,
            harness.digits(row.ceiling),
            f"{row.rate / row.ceiling:.0%}",
        )
    return row.implementation, row.backend, middle, f"({low}-{high})", of_call, *held


@contextmanager
def stages_timed() -> Iterator[None]:
    """Kernels tell the time of their stages."""
    assert (module := _extension.module) is not None
    module.run_stage_clock(True)
    try:
        yield
    finally:
        module.run_stage_clock(False)


def _sample(
    name: str, run: harness.Run, calls: int, clock: Callable[[], int], wanted: Iterable[str]
) -> dict[str, float]:
    """Milliseconds of one call of the mean of so many, and for each thread of its stages that are wanted."""
    assert (module := _extension.module) is not None
    run()  # as harness.Timer does, and why
    before, start = module.stage_times(), clock()
    for _ in range(calls):
        run()
    times = {name: (clock() - start) / calls / 1e6}
    after = module.stage_times()
    stages = {
        stage: (after[stage][0] - before[stage][0]) / calls / torch.get_num_threads() / 1e6
        for stage in wanted
        if stage in after
    }
    return times | stages | ({REST: times[name] - sum(stages.values())} if stages else {})
