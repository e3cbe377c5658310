"""The benchmark harness on a benchmark small enough to foretell: a clock that only the implementations move."""

import contextlib
import csv
import importlib
import math
import os
import sys
import types
from functools import partial
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"
HEADER = (
    "case,implementation,backend,median_ms,q25_ms,q75_ms,rate,rate_unit,"
    "ceiling_share,error,device,threads,torch,version,gpu_ms"
)


@pytest.fixture
def harness(monkeypatch):
    """The harness as scripts import it, from a package of which only the version and its files are there."""
    for name in [name for name in sys.modules if name.split(".")[0] == "inpaint_fast"]:
        monkeypatch.delitem(sys.modules, name)
    package, benchmarks = types.ModuleType("inpaint_fast"), types.ModuleType("inpaint_fast.benchmarks")
    package.__version__, package.__path__, benchmarks.__path__ = "1.2.3", [], [str(FOLDER)]
    package.__path__.append(str(FOLDER.parent / "inpaint_fast"))
    monkeypatch.setitem(sys.modules, "inpaint_fast", package)
    monkeypatch.setitem(sys.modules, "inpaint_fast.benchmarks", benchmarks)
    yield importlib.import_module("inpaint_fast.benchmarks.harness")
    for name in [name for name in sys.modules if name.startswith("inpaint_fast.benchmarks.")]:
        del sys.modules[name]


class Clock:
    """Nanoseconds that pass when an implementation works, and 1 ms at each reading."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        self.now += 1_000_000
        return self.now

    def work(self, milliseconds, answer):
        self.now += int(milliseconds * 1e6)
        return answer()


@pytest.fixture
def clock():
    return Clock()


def unavailable():
    raise ModuleNotFoundError("No module named 'openvino'")


@pytest.fixture
def script(harness, clock):
    """`main(argv)` of a benchmark of torch.add: ours takes 5 ms, a peer 20 ms, a faster peer 2.5 ms."""

    def timed(milliseconds, answer):
        return lambda: partial(clock.work, milliseconds - 1, answer)  # the reading adds the other millisecond

    def add(extra=()):
        a, b = torch.rand(2, 64, 64)
        return harness.Case(
            implementations=[
                harness.Implementation("inpaint_fast", timed(5, lambda: torch.add(a, b)), lambda: "cpp"),
                harness.Implementation("eager", timed(20, lambda: a + b)),
                harness.Implementation("sooner", timed(2.5, lambda: [(a + b).numpy()])),
                harness.Implementation("openvino", unavailable, "openvino"),
                *extra,
            ],
            reference=lambda: a.double() + b.double(),
            bound=1e-6,
            work=3 * 4 * 64 * 64,
            unit="GB/s",
        )

    def add_wrong():
        peers = [
            harness.Implementation("shifted", lambda: lambda: torch.full((64, 64), 5.0)),
            harness.Implementation("nan", lambda: lambda: torch.full((64, 64), math.nan)),
            harness.Implementation("cropped", lambda: lambda: torch.zeros(63, 64)),
        ]
        return add(peers)

    def subject_missing():
        case = add()
        broken = harness.Implementation("inpaint_fast", unavailable)
        return harness.Case([broken, case.implementations[1]], case.reference, 1e-6, 1e6, "GFLOP/s", note="One note.")

    def must_not_be_built():
        raise AssertionError("a case that was not selected was built")

    cases = {"add 64x64": add, "wrong 64x64": add_wrong, "missing": subject_missing, "unselected": must_not_be_built}
    return lambda *argv: harness.main(argv, cases, "Addition.", clock)


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def exit_sentence(capsys, call):
    with pytest.raises(SystemExit) as exit_:
        call()
    assert exit_.value.code == 2
    return capsys.readouterr().err


def test_csv_says_what_ran_how_fast_and_how_right(script, tmp_path):
    path = tmp_path / "add.csv"
    path.write_text("an older file")
    assert script("--case", "add", "--repeats", "4", "--csv", str(path)) == 0
    rows = read(path)
    assert path.read_text().splitlines()[0] == HEADER
    ours, eager, sooner, openvino = rows
    assert [row["implementation"] for row in rows] == ["inpaint_fast", "eager", "sooner", "openvino"]
    assert [row["backend"] for row in rows[:3]] == ["cpp", "pytorch", "pytorch"]
    assert (ours["median_ms"], ours["q25_ms"], ours["q75_ms"]) == ("5", "5", "5")
    assert (eager["median_ms"], sooner["median_ms"]) == ("20", "2.5")
    assert float(ours["rate"]) == pytest.approx(3 * 4 * 64 * 64 / 5e-3 / 1e9)
    assert float(ours["ceiling_share"]) / float(eager["ceiling_share"]) == pytest.approx(4, rel=1e-4)
    assert 0 < float(ours["ceiling_share"]) < 1
    assert float(ours["error"]) < 1e-6
    assert {row["rate_unit"] for row in rows} == {"GB/s"}
    assert ours["threads"] == str(torch.get_num_threads())
    assert (ours["torch"], ours["version"]) == (torch.__version__, "1.2.3")
    assert torch.backends.cpu.get_cpu_capability() in ours["device"]
    assert openvino["backend"] == "not run: ModuleNotFoundError: No module named 'openvino'"
    assert openvino["median_ms"] == openvino["rate"] == openvino["error"] == ""
    assert list(tmp_path.iterdir()) == [path]  # no temporary file stays


def test_table_shows_ratios_both_ways_and_every_reason(script, capsys):
    assert script("--case", "add", "--repeats", "2") == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert lines["eager"].endswith("4.00x")
    assert lines["sooner"].endswith("0.50x, peer faster")
    assert "x" not in lines["inpaint_fast"]
    assert "5.00  (5.00-5.00)" in lines["inpaint_fast"]
    assert lines["openvino"].endswith("not run: ModuleNotFoundError: No module named 'openvino'")
    assert "copy" in lines["ceiling:"] and "1.0e-06" in lines["ceiling:"]


def test_wrong_implementations_are_not_timed_and_fail_the_run(script, capsys, tmp_path):
    path = tmp_path / "wrong.csv"
    assert script("--case", "wrong", "--repeats", "1", "--csv", str(path)) == 1
    rows = {row["implementation"]: row for row in read(path)}
    assert float(rows["shifted"]["error"]) > 1
    assert (rows["nan"]["error"], rows["cropped"]["error"]) == ("nan", "inf")
    for name in ("shifted", "nan", "cropped"):
        assert rows[name]["median_ms"] == rows[name]["ceiling_share"] == ""
        assert rows[name]["backend"] == "pytorch"
    assert rows["eager"]["median_ms"] == "20"  # the right ones are still timed
    captured = capsys.readouterr()
    assert captured.out.count("WRONG") == captured.err.count("WRONG") == 3


def test_a_run_without_inpaint_fast_fails_but_shows_the_peers(script, capsys):
    assert script("--case", "missing", "--repeats", "1") == 1
    captured = capsys.readouterr()
    assert "missing: inpaint_fast: not run: ModuleNotFoundError" in captured.err
    assert "float32 matmul" in captured.out and "20.0" in captured.out and "One note." in captured.out


def test_list_and_regex_build_nothing(script, capsys):
    assert script("--list") == 0
    assert capsys.readouterr().out.splitlines() == ["add 64x64", "wrong 64x64", "missing", "unselected"]
    assert script("--list", "--case", "64x64$") == 0
    assert capsys.readouterr().out.splitlines() == ["add 64x64", "wrong 64x64"]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--case", "nothing"], "'nothing' matches none of: add 64x64, wrong 64x64, missing, unselected"),
        (["--case", "("], "is not a regular expression"),
        (["--repeats", "0"], "'0' is not a whole number above 0"),
        (["--threads", "two"], "'two' is not a whole number above 0"),
        (["--csv", "no/such/folder/a.csv"], "name a file in a folder that exists"),
        (["--sizes", "3"], "unrecognized arguments"),
    ],
)
def test_bad_arguments_end_in_a_sentence(script, capsys, argv, sentence):
    assert sentence in exit_sentence(capsys, lambda: script(*argv))


def test_plot_without_matplotlib_is_said_before_anything_runs(script, capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    sentence = exit_sentence(capsys, lambda: script("--case", "unselected", "--plot", str(tmp_path / "a.png")))
    assert "pip install matplotlib" in sentence


def test_plot_writes_a_png(script, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "add.png"
    assert script("--case", "64x64", "--repeats", "2", "--plot", str(path)) == 1
    assert path.read_bytes().startswith(b"\x89PNG")


def test_threads_are_set(script, tmp_path):
    before = torch.get_num_threads()
    try:
        script("--case", "add", "--repeats", "1", "--threads", "1", "--csv", str(tmp_path / "a.csv"))
        assert {row["threads"] for row in read(tmp_path / "a.csv")} == {"1"}
    finally:
        torch.set_num_threads(before)


LIMITS = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "INPAINT_FAST_CPU_CAPABILITY": "avx2"}


def test_a_limit_of_the_instruction_set_starts_the_command_line_again(harness, script, monkeypatch):
    started = []

    def start(command, env):
        started.append((command, env))
        return types.SimpleNamespace(returncode=7)

    for name in LIMITS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(harness.subprocess, "run", start)
    argv = ["--case", "avx2_add", "--isa", "avx2"]
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "add", *argv])
    assert script(*argv) == 7
    ((command, env),) = started
    assert command == [sys.executable, "-m", "add", *argv]
    assert {name: env[name] for name in LIMITS} == LIMITS and env.items() >= os.environ.items()


def test_the_process_with_the_limit_runs_and_names_its_cases_by_it(script, monkeypatch, tmp_path):
    for name, value in LIMITS.items():
        monkeypatch.setenv(name, value)
    argv = ["--case", "^avx2_add", "--isa", "avx2", "--repeats", "1", "--csv", str(tmp_path / "a.csv")]
    monkeypatch.setattr(sys, "orig_argv", ["python", *argv])
    assert script(*argv) == 0
    assert {row["case"] for row in read(tmp_path / "a.csv")} == {"avx2_add 64x64"}


def test_a_limit_needs_the_command_line_that_is_to_start_again(script, capsys):
    assert "are not from there" in exit_sentence(capsys, lambda: script("--isa", "avx2"))


def test_a_case_in_several_processes(harness, script, monkeypatch, tmp_path, capsys):
    times, started = iter([(4.0, 8.0), (2.0, 10.0), (3.0, 30.0)]), []

    def start(command, **kwargs):
        started.append(command)
        rows = [
            harness.Result("add 64x64", name, "cpu", "GB/s", error=1e-7 * len(started), rate=6 / time, ceiling=12.0,
                           quartiles=(time - 1, time, time + 1))
            for name, time in zip(("inpaint_fast", "eager"), next(times), strict=True)
        ]  # fmt: skip
        harness.write_csv(rows, Path(command[-1]))
        return types.SimpleNamespace(stderr="")

    argv = ["--case", "^add", "--processes", "3", "--csv", str(tmp_path / "a.csv")]
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "add", *argv])
    monkeypatch.setattr(importlib.import_module("inpaint_fast.benchmarks.processes").subprocess, "run", start)
    assert script(*argv) == 0
    again = ["-m", "add", *argv, "--processes", "1", "--case", r"^add\ 64x64$", "--csv"]
    assert [command[:-1] for command in started] == [[sys.executable, *again]] * 3
    ours, eager = read(tmp_path / "a.csv")
    assert [float(ours[name]) for name in ("median_ms", "q25_ms", "rate", "error")] == [3.0, 2.0, 2.0, 3e-7]
    assert [float(eager[name]) for name in ("median_ms", "q75_ms", "rate", "ceiling_share")] == [10.0, 11.0, 0.6, 0.05]
    out = capsys.readouterr().out
    assert "3.33x" in out and "medians of 3 processes" in out


@pytest.mark.parametrize(
    ("columns", "problem"), [({"error": "1"}, "WRONG: error 1.0e+00"), ({"backend": "not run: no"}, "not run: no")]
)
def test_what_failed_in_one_of_the_processes_has_failed(harness, columns, problem):
    processes = importlib.import_module("inpaint_fast.benchmarks.processes")
    right = dict.fromkeys(harness.COLUMNS, "2") | {"implementation": "inpaint_fast", "gpu_ms": ""}
    failed = dict.fromkeys(harness.COLUMNS, "") | {"implementation": "inpaint_fast"} | columns
    (result,) = processes.together([[right], [failed]])
    assert result.problem == problem and result.quartiles is None


def test_peers_take_turns_in_rotating_order(harness, clock):
    order = []

    def enter(name):
        return harness.Implementation(name, lambda: lambda: order.append(name) or clock.work(3, lambda: torch.ones(1)))

    reference = torch.ones(1, dtype=torch.float64)
    case = harness.Case([enter("a"), enter("b")], lambda: reference, 1e-6, 8, "GB/s")
    harness.measure("turns", case, 3, clock)
    # An untimed call before each timed one; with the ceiling between them: ab. b.a .ab
    assert "".join(order[-12:]) == "aabbbbaaaabb"


def test_short_calls_are_batched_and_cold_calls_are_not(harness):
    now = 0

    def run():
        nonlocal now
        now += 100_000

    timer = harness.Timer(torch.device("cpu"), False, lambda: now)
    assert timer.calls_per_sample(run) == 16  # 16 * 0.1 ms is the first power of two past 1 ms
    assert timer.sample(run, 16) == pytest.approx(0.1)
    timer.flush = torch.ones(8)
    assert timer.calls_per_sample(run) == 1
    assert not timer.flush.any()


def test_cuda_times_between_events_after_the_flush(harness, monkeypatch):
    log = []

    class Event:
        def __init__(self, enable_timing):
            self.record = lambda: log.append("event")
            self.synchronize = lambda: log.append("wait")

        def elapsed_time(self, end):
            return 6.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: log.append("idle"))
    timer = harness.Timer(torch.device("cpu"), False, None)
    timer.device = torch.device("cuda", 0)
    timer.flush = types.SimpleNamespace(zero_=lambda: log.append("flush"))
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    assert timer.sample(lambda: log.append("run"), 2) == 3.0
    assert log == ["idle", "flush", "event", "run", "run", "event", "wait"]


def test_relative_error_is_the_worst_output(harness):
    wanted = [torch.tensor([3.0, 4.0]).double(), torch.zeros(2).double()]
    assert harness.relative_error([torch.tensor([3.0, 4.5]), torch.zeros(2)], wanted) == pytest.approx(0.1)
    assert harness.relative_error([wanted[0], torch.tensor([0.0, 0.3])], wanted) == pytest.approx(0.3)
    assert math.isnan(harness.relative_error([torch.tensor([math.nan, 4.0]), torch.ones(2)], wanted))
    assert harness.relative_error(wanted[:1], wanted) == math.inf


def test_reference_must_be_float64(harness, clock):
    with pytest.raises(TypeError, match="'single'.*float64"):
        harness.measure("single", harness.Case([], lambda: torch.ones(1), 1e-6, 1, "GB/s"), 1, clock)


def test_on_a_gpu_the_device_s_own_time_stands_beside_that_of_the_call(harness, clock, capsys, monkeypatch, tmp_path):
    """By a double of torch.cuda, whose replays call the operators and nothing else."""
    from recorded_cuda import RecordedCuda

    graphs = importlib.import_module("inpaint_fast._graphs")
    monkeypatch.setattr(graphs, "cuda", RecordedCuda())
    monkeypatch.setattr(graphs, "DEVICE", "cpu")
    a, b = torch.rand(64, 64), torch.rand(64, 64)

    def case():
        def reads():
            return clock.work(20, lambda: a + b * float(b.sum() == b.sum()))

        return harness.Case(
            [
                harness.Implementation("inpaint_fast", lambda: lambda: clock.work(5, lambda: a + b), "cpp"),
                harness.Implementation("eager", lambda: reads),
                harness.Implementation("compile", lambda: lambda: clock.work(9, lambda: a + b), graphed=False),
            ],
            reference=lambda: a.double() + b.double(),
            bound=1e-5,
            work=3.0 * a.nbytes,
            unit="GB/s",
        )

    path = tmp_path / "add.csv"
    assert harness.main(["--repeats", "2", "--csv", str(path)], {"add": case}, None, clock) == 0
    ours, eager, compiled = read(path)
    assert float(ours["gpu_ms"]) < 2 < float(ours["median_ms"])
    assert eager["gpu_ms"] == compiled["gpu_ms"] == ""
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "GPU" in lines["implementation"] and lines["eager"][4] == "-" and float(lines["inpaint_fast"][4]) < 2
    assert (
        harness.main(["--without", "compile|eager", "--repeats", "1", "--csv", str(path)], {"add": case}, None, clock)
        == 0
    )
    assert [row["implementation"] for row in read(path)] == ["inpaint_fast"]
