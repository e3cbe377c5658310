"""What every benchmark script stands on: check the outputs, time the peers interleaved, print, save and plot.

A script names its cases and says how each is built; the command line, the clock and the tables are here:

    from inpaint_fast.benchmarks import harness

    def main(argv=None):
        return harness.main(argv, {"clip 1M float32": build_clip}, "Critic weight clipping against torch.")

Units: times in milliseconds per call, `work` in bytes or floating-point operations per call, rates in 1e9 per second.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import importlib.util
import io
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
from tqdm import tqdm

from inpaint_fast import _processor

Run = Callable[[], Any]  # one call; answers a tensor (or array) or a list or tuple of them
T = TypeVar("T")

SUBJECT = "inpaint_fast"  # the implementation that every speed-up is about
COLUMNS = ("case", "implementation", "backend", "median_ms", "q25_ms", "q75_ms", "rate", "rate_unit",
           "ceiling_share", "error", "device", "threads", "torch", "version", "gpu_ms")  # fmt: skip
SAMPLE_MS = 1.0  # shorter calls are timed in batches at least this long
WARM_UP = 3  # rounds whose times are thrown away
FLUSH_BYTES = 256 << 20  # several times the last-level cache of any current CPU or GPU
COPY_BYTES = 128 << 20  # largest ceiling buffer: far outside the caches, size no longer matters
# What limits PyTorch, its oneDNN and inpaint_fast to an instruction set. All of them read it once, at the start.
ISA_LIMITS = {
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "INPAINT_FAST_CPU_CAPABILITY": "avx2"},
}


@dataclass(frozen=True)
class Implementation:
    """One way to do the work of a case.

    `prepare` is never timed: it imports, compiles, packs weights, clones what `run` will overwrite, and returns
    `run`. Whatever `prepare` or the first call raises becomes "not run: <reason>" in the table.
    `backend` tells what really ran, and is asked after the first call.
    `graphed`: on a GPU the call is also captured and replayed as a CUDA graph; not where it replays graphs of its own.
    """

    name: str
    prepare: Callable[[], Run]
    backend: str | Callable[[], str] = "pytorch"
    graphed: bool = True


@dataclass(frozen=True)
class Case:
    """Implementations that do the same work, and what is right and possible for that work.

    `reference` answers the right outputs in float64; it is called before any implementation is prepared.
    `bound` is the largest relative error |output - reference| / |reference| (2-norms) that still counts as right.
    `work` is what one call cannot avoid: bytes read and written for "GB/s", floating-point operations for "GFLOP/s".
    `dtype` is the type of the matmul ceiling. `cold` empties the caches before every call. `note` is printed as is.
    `memory`: where results on the CPU come from, see `set_memory`; "" leaves that to chance.
    """

    implementations: Sequence[Implementation]
    reference: Run
    bound: float
    work: float
    unit: Literal["GB/s", "GFLOP/s"]
    device: str | torch.device = "cpu"
    dtype: torch.dtype = torch.float32
    cold: bool = False
    memory: Literal["", "fresh", "reused"] = ""
    note: str = ""

    @property
    def row(self) -> type[Result]:
        """What its rows are."""
        return Result

    def measure(self, name: str, repeats: int, clock: Callable[[], int]) -> Sequence[Result]:
        """The rows of the case, of that name: see `measure`."""
        return measure(name, self, repeats, clock)

    def table(self, results: Sequence[Result]) -> str:
        """These rows for a reader: see `table`."""
        return table(results, self)


Cases = Mapping[str, Callable[[], Case]]


@dataclass
class Result:
    """One row: an implementation in a case. `problem` is empty if and only if it was timed."""

    columns: ClassVar[tuple[str, ...]] = COLUMNS
    legend: ClassVar[str] = "ratio: how many times faster inpaint_fast is"
    case: str
    implementation: str
    device: str
    unit: str
    backend: str = ""
    error: float | None = None
    quartiles: tuple[float, float, float] | None = None  # q25, median, q75 in ms
    rate: float | None = None
    ceiling: float | None = None
    gpu_ms: float | None = None  # the GPU's own median time: of the call as a captured graph that is replayed
    speed_up: float | None = None  # how many times faster inpaint_fast is than this peer, by medians; < 1: it is slower
    problem: str = ""

    @classmethod
    def of(cls, cells: Mapping[str, str]) -> Result:
        """The row, without its figures, that a CSV has."""
        return cls(cells["case"], cells["implementation"], cells["device"], cells["rate_unit"], cells["backend"])

    @property
    def subject(self) -> bool:
        return self.implementation == SUBJECT

    @property
    def wrong(self) -> bool:
        return self.problem.startswith("WRONG")

    @property
    def ratio(self) -> str:
        """`speed_up` as the table and the plot show it."""
        return "" if self.speed_up is None else f"{self.speed_up:.2f}x" + (", peer faster" if self.speed_up < 1 else "")

    @property
    def cells(self) -> list[str]:
        """The row of a CSV, under `columns`."""
        from inpaint_fast import __version__

        q25, median, q75 = self.quartiles or (None, None, None)
        share = self.rate / self.ceiling if self.rate and self.ceiling else None
        numbers = [number(x) for x in (median, q25, q75, self.rate, share, self.error)]
        backend = self.problem if self.problem and not self.wrong else self.backend
        return [self.case, self.implementation, backend, *numbers[:4], self.unit, *numbers[4:], self.device,
                str(torch.get_num_threads()), torch.__version__, __version__, number(self.gpu_ms)]  # fmt: skip


def main(argv: Sequence[str] | None, cases: Cases | Callable[[str], Cases], description: str | None = None,
         clock: Callable[[], int] = time.perf_counter_ns, *, module: str = "__main__") -> int:  # fmt: skip
    """Run a benchmark's command line. `cases` maps a name to the function that allocates and returns that case.

    Or `cases("cpu")` and `cases("cuda")` answer that; otherwise the cases are all for the CPU.

    Returns 0, or 1 if an implementation was wrong or inpaint_fast did not run; a bad argument exits with 2.
    `clock` answers nanoseconds and is what CPU cases are timed with; `module` is the benchmark's, by which the help
    calls it.
    """
    stem = module.rpartition(".")[2]
    prog = None if stem == "__main__" else f"inpaint-fast bench {stem}"  # or a file that was run as it is
    options, chosen = _arguments(argv, cases, argparse.ArgumentParser(prog, description=description))
    if options.list:
        print(*chosen, sep="\n")
        return 0
    limits = ISA_LIMITS.get(options.isa, {})
    if os.environ | limits != os.environ:
        return subprocess.run([sys.executable, *sys.orig_argv[1:]], env=os.environ | limits).returncode
    if options.threads:
        torch.set_num_threads(options.threads)
    results: list[Result] = []
    for name, build in chosen.items():
        torch.manual_seed(0)  # the same inputs whichever cases are selected
        case = build()
        if options.without is not None:
            kept = [each for each in case.implementations if not options.without.search(each.name)]
            case = replace(case, implementations=kept)
        if options.processes > 1:
            from inpaint_fast.benchmarks import processes

            rows = processes.measure(name, options.processes, case.row)
            case = replace(case, note=f"medians of {options.processes} processes. {case.note}".strip())
        else:
            rows = case.measure(name, options.repeats, clock)
        print(case.table(rows), end="\n\n", flush=True)
        results += rows
        if options.csv:
            write_csv(results, options.csv)  # after every case, so that an interrupted run keeps what it measured
    if options.plot:
        from inpaint_fast.benchmarks.plot import plot

        plot(results, options.plot)
    failures = [r for r in results if r.wrong or (r.problem and r.subject)]
    for result in failures:
        print(f"{result.case}: {result.implementation}: {result.problem}", file=sys.stderr)
    return 1 if failures else 0


def measure(name: str, case: Case, repeats: int, clock: Callable[[], int] = time.perf_counter_ns) -> list[Result]:
    """Check every implementation of a case, then time the right ones and the ceiling interleaved, A B C B C A ..."""
    timer = Timer(torch.device(case.device), case.cold, clock)
    set_memory(case.memory)
    wanted = tensors_of(case.reference())
    if any(tensor.dtype != torch.float64 for tensor in wanted):
        raise TypeError(f"case {name!r}: the reference must answer float64 tensors")

    results, timed, entrants, replays = [], [], [], []
    for implementation in tqdm(case.implementations, f"check {name}", leave=False, disable=None, delay=1):
        result = Result(name, implementation.name, device_name(timer.device), case.unit)
        results.append(result)
        try:
            run = implementation.prepare()
            result.error = relative_error(tensors_of(run()), wanted)
            backend = implementation.backend
            result.backend = backend() if callable(backend) else backend
            if not result.error <= case.bound:  # so that NaN is wrong, too
                result.problem = f"WRONG: error {result.error:.1e} above {case.bound:.1e}"
                continue
            entrants.append((run, timer.calls_per_sample(run)))
            timed.append(result)
            replays.append(captured(run, timer.device) if implementation.graphed else None)
        except Exception as reason:
            result.problem = not_run(reason)
    if not timed:
        return results

    limit, limit_work = _ceiling(case)
    entrants.append((limit, timer.calls_per_sample(limit)))
    entrants += [(replay, timer.calls_per_sample(replay)) for replay in replays if replay is not None]
    quartiles = [quartiles_of(times) for times in
                 interleaved([partial(timer.sample, *entrant) for entrant in entrants], repeats, name)]  # fmt: skip
    limit_ms, of_replays = quartiles[len(timed)][1], iter(quartiles[len(timed) + 1 :])
    quartiles = quartiles[: len(timed)]
    own_ms = next((median for result, (_, median, _) in zip(timed, quartiles, strict=True) if result.subject), None)
    for result, times, replay in zip(timed, quartiles, replays, strict=True):
        result.quartiles = times
        result.gpu_ms = None if replay is None else next(of_replays)[1]
        result.rate = case.work / times[1] / 1e6
        result.ceiling = limit_work / limit_ms / 1e6
        result.speed_up = None if result.subject or not own_ms else times[1] / own_ms
    return results


def not_run(reason: Exception) -> str:
    """The problem of what raised it."""
    return f"not run: {type(reason).__name__}: {' '.join(str(reason).split())[:150]}".rstrip(": ")


def interleaved(samplers: Sequence[Callable[[], T]], repeats: int, name: str) -> list[list[T]]:
    """What each of them answers in so many rounds after the warm-up, A B C, B C A, ...; `name`: of the case."""
    samples: list[list[T]] = [[] for _ in samplers]
    for round_ in tqdm(range(WARM_UP + repeats), f"time {name}", leave=False, disable=None, delay=1):
        for turn in range(len(samplers)):
            index = (turn + round_) % len(samplers)  # rotated, so that nobody is always first
            samples[index].append(samplers[index]())
    return [answers[WARM_UP:] for answers in samples]


def captured(run: Run, device: torch.device) -> Run | None:
    """The call as a CUDA graph, which takes the GPU's own time; None where it cannot be one, or there is no GPU."""
    from inpaint_fast import _graphs

    if not _graphs.runs_ahead(device):
        return None
    stream = _graphs.capture_stream(device)
    stream.wait_stream(_graphs.cuda.current_stream(device))
    with _graphs.cuda.stream(stream):
        for _ in range(WARM_UP):
            run()
    _graphs.cuda.current_stream(device).wait_stream(stream)
    try:
        return _graphs.Graph(run, device).replay
    except _graphs.NotCaptured:
        return None


class Timer:
    """Times calls on one device: by the wall clock on a CPU, by events on its stream on a GPU."""

    def __init__(self, device: torch.device, cold: bool, clock: Callable[[], int]) -> None:
        self.device, self.clock = device, clock
        self.flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=device) if cold else None

    def sample(self, run: Run, calls: int) -> float:
        """Milliseconds per call over `calls` calls in a row."""
        if self.device.type != "cuda":
            if self.flush is None:
                run()  # what ran before it has filled the caches, and its threads may still wait awake
            else:
                self.flush.zero_()
            start = self.clock()
            for _ in range(calls):
                run()
            return (self.clock() - start) / calls / 1e6
        with torch.cuda.device(self.device):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            if self.flush is not None:
                self.flush.zero_()  # and while the GPU is busy with this, the launch of `run` costs no GPU time
            begin.record()
            for _ in range(calls):
                run()
            end.record()
            end.synchronize()
        return begin.elapsed_time(end) / calls

    def calls_per_sample(self, run: Run) -> int:
        """How many calls make a sample of at least SAMPLE_MS; one if the caches must be cold for every call."""
        calls = 1
        self.sample(run, calls)  # may still allocate or choose an algorithm
        while self.flush is None and min(self.sample(run, calls) for _ in range(2)) * calls < SAMPLE_MS:
            calls *= 2  # the shorter of two samples, because one may have been held up
        return calls


def set_memory(memory: str) -> None:
    """Fix where the C library takes the memory of large results from; it decides as much as the code that is timed.

    "fresh": from the system, page by page, each time (glibc's state at start, which lasts while all large results
    have one size). "reused": from memory that the process holds already. Left alone, glibc drifts from the one to the
    other by the sizes that happen to be freed. Other C libraries are left as they are.
    """
    if memory and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        trim_threshold, mmap_threshold, limit = -1, -3, 1 << 30
        libc.mallopt(mmap_threshold, 128 << 10 if memory == "fresh" else limit)
        libc.mallopt(trim_threshold, 128 << 10 if memory == "fresh" else limit)


def relative_error(outputs: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> float:
    """Largest |output - wanted| / |wanted| over the outputs; infinite where their number or a shape differs."""
    if [output.shape for output in outputs] != [want.shape for want in wanted]:
        return math.inf
    pairs = zip(outputs, wanted, strict=True)
    norm = torch.linalg.vector_norm
    errors = [norm(output.detach().to(want) - want) / (norm(want) or 1.0) for output, want in pairs]
    return torch.stack(errors).max().item()  # a NaN stays one


def table(results: Sequence[Result], case: Case) -> str:
    """The results of one case as aligned plain text."""
    on_gpu = any(result.gpu_ms is not None for result in results)
    heading = ("implementation", "backend", "median ms", "(q25-q75)", case.unit, "of ceiling", "error", "speed-up")
    rows = [heading[:4] + (("GPU ms",) if on_gpu else ()) + heading[4:]]
    for result in results:
        if result.quartiles is None or result.rate is None or result.ceiling is None:
            rows.append((result.implementation, result.problem))
            continue
        low, median, high = map(digits, result.quartiles)
        gpu = () if not on_gpu else ("-" if result.gpu_ms is None else digits(result.gpu_ms),)
        rows.append((result.implementation, result.backend, median, f"({low}-{high})", *gpu, digits(result.rate),
                     f"{result.rate / result.ceiling:.0%}", f"{result.error:.1e}", result.ratio))  # fmt: skip
    lines = [results[0].case, f"  {results[0].device}, {torch.get_num_threads()} threads"]
    kind = "copy" if case.unit == "GB/s" else f"{str(case.dtype).removeprefix('torch.')} matmul"
    ceiling = next((f"{kind} {digits(r.ceiling)} {case.unit}" for r in results if r.ceiling), "not measured")
    state = f"{'cold' if case.cold else 'warm'} caches" + (f", {case.memory} memory" if case.memory else "")
    lines.append(f"  ceiling: {ceiling}; {state}; right: error <= {case.bound:.1e}")
    lines += [f"  {case.note}"] if case.note else []
    return "\n".join(lines + aligned(rows))


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines of a table, from its heading and its rows; of a row of two cells the second is free text: a problem."""
    full = [row for row in rows if len(row) == len(rows[0])]  # a problem is free text and sets no column's width
    widths = [max(len(row[column]) for row in full) for column in range(len(rows[0]))]
    widths[0] = max(len(row[0]) for row in rows)
    lines = []
    for row in rows:
        cells = [text.rjust(width) for text, width in zip(row, widths, strict=False)]
        cells[:2] = [text.ljust(width) for text, width in zip(row[:2], widths, strict=False)]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines


def write_csv(results: Sequence[Result], path: Path) -> None:
    """Write all results to `path` in one step: a reader sees the old file or the whole new one.

    What was wrong has no times; what did not run has none either, and gives its reason as its backend.
    """
    from inpaint_fast._files import write_whole

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(results[0].columns if results else COLUMNS)
    writer.writerows(result.cells for result in results)
    write_whole(path, lambda file: file.write(text.getvalue().encode()))


def device_name(device: torch.device) -> str:
    """A name that a reader of the CSV knows, such as "AMD EPYC 9R14 (AVX512)" or "NVIDIA H100 80GB HBM3"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor.name()} ({torch.backends.cpu.get_cpu_capability()})"


def _arguments(argv: Sequence[str] | None, cases: Cases | Callable[[str], Cases], parser: argparse.ArgumentParser
               ) -> tuple[argparse.Namespace, dict[str, Callable[[], Case]]]:  # fmt: skip
    """The parsed options and the selected cases."""
    parser.add_argument("--case", type=_regex, default="", metavar="REGEX", help="only cases whose name matches")
    parser.add_argument("--without", type=_regex, metavar="REGEX", help="leave out implementations whose name matches")
    parser.add_argument("--repeats", type=_positive, default=30, metavar="N", help="timed rounds (default: 30)")
    parser.add_argument("--processes", type=_positive, default=1, metavar="N", help="medians of so many processes, one "
                        "after the other (default: 1)")  # fmt: skip
    parser.add_argument("--csv", type=_file, metavar="FILE", help="write the results as CSV")
    parser.add_argument("--plot", type=_file, metavar="FILE", help="draw the results as PNG (needs matplotlib)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU where there is one and cases for it")
    parser.add_argument("--threads", type=_positive, metavar="N", help="CPU threads (default: torch's choice)")
    parser.add_argument("--isa", choices=ISA_LIMITS, help="at most this instruction set, in a process of its own; "
                        "the names of the cases begin with it")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list the cases and stop")
    options = parser.parse_args(argv)
    if options.device is None:
        options.device = "cuda" if callable(cases) and torch.cuda.is_available() and not options.isa else "cpu"
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a GPU, and a PyTorch built for it; there is none")
    if options.device == "cuda" and not callable(cases):
        parser.error("--device cuda: this benchmark has cases for the CPU alone")
    if callable(cases):
        cases = cases(options.device)
    if options.isa:
        cases = {f"{options.isa}_{name}": build for name, build in cases.items()}
    again = "--isa" if options.isa else "--processes" if options.processes > 1 else None
    if again and argv and sys.orig_argv[-len(argv) :] != list(argv):
        parser.error(f"{again} starts the command line once more, and these arguments are not from there")
    chosen = {name: build for name, build in cases.items() if options.case.search(name)}
    if not chosen:
        parser.error(f"--case {options.case.pattern!r} matches none of: {', '.join(cases)}")
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib: pip install matplotlib")
    return options, chosen


def _regex(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as reason:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {reason}") from None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _file(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():  # said now, not after minutes of timing
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: name a file in a folder that exists")
    return path


def _ceiling(case: Case) -> tuple[Run, float]:
    """What this device can reach on work of this kind and size: a call, and the work it does."""
    if case.unit == "GB/s":
        count = max(1024, min(int(case.work / 2), COPY_BYTES) // 4)
        source, destination = (torch.ones(count, device=case.device) for _ in range(2))  # written, hence mapped
        return partial(destination.copy_, source), 8.0 * count
    side = 1024 if torch.device(case.device).type == "cpu" else 4096
    a, b, out = (torch.rand(side, side, device=case.device).to(case.dtype) for _ in range(3))
    return partial(torch.mm, a, b, out=out), 2.0 * side**3


def tensors_of(outputs: Any) -> list[torch.Tensor]:
    return [torch.as_tensor(o) for o in (outputs if isinstance(outputs, (list, tuple)) else [outputs])]


def quartiles_of(times: Sequence[float]) -> tuple[float, float, float]:
    q25, median, q75 = torch.tensor(times, dtype=torch.float64).quantile(torch.tensor([0.25, 0.5, 0.75]).double())
    return q25.item(), median.item(), q75.item()


def number(value: float | None) -> str:
    """A cell of a CSV."""
    return "" if value is None else f"{value:.6g}"


def digits(value: float) -> str:
    """Three significant digits without an exponent: 0.00123, 1.23, 1230."""
    places = 2 - math.floor(math.log10(value)) if 0 < value < math.inf else 0
    return f"{value:.{max(0, places)}f}"
