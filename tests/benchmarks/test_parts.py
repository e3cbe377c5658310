"""The benchmark of the parts of kernels: rooflines told from formulas, stages that the kernels tell, counters."""

from __future__ import annotations

import csv
import dataclasses
import os
import time
from pathlib import Path

import pytest
import torch

from inpaint_fast import _extension
from inpaint_fast.benchmarks import counters, harness, machine, parts, processes, rooflines, weight_clip
from inpaint_fast.benchmarks.rooflines import Row
from inpaint_fast.ops._plans import forget_plans

STAGES = ("gather", "product", "inverse")


@pytest.fixture
def module():
    if _extension.module is None:
        pytest.skip("the extension is not built")
    return _extension.module


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """No perf, and little memory: what is timed here is not looked at."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(machine, "DRAM_BYTES", 1 << 20)
    monkeypatch.setattr(machine, "CALL_BYTES", 1 << 18)


# ---- the machine ----


def processor(folder: Path, *caches: tuple[str, str, str, str]) -> Path:
    for number, texts in enumerate(caches):
        index = folder / "cpu0" / "cache" / f"index{number}"
        index.mkdir(parents=True)
        for name, text in zip(("level", "type", "size", "shared_cpu_list"), texts, strict=True):
            (index / name).write_text(text + "\n")
    return folder


L1 = [("1", "Data", "48K", "0,16"), ("1", "Instruction", "32K", "0,16")]


def test_caches_are_those_of_a_thread(tmp_path: Path) -> None:
    """Eight cores of two hardware threads share 32 MB of L3."""
    cpus = processor(tmp_path, *L1, ("2", "Unified", "2048K", "0,16"), ("3", "Unified", "32768K", "0-7,16-23"))
    assert machine.caches(16, cpus) == (2 << 20, 4 << 20, True)
    assert machine.caches(2, cpus) == (2 << 20, 16 << 20, True)


def test_caches_that_are_not_told_are_assumed(tmp_path: Path) -> None:
    assert not machine.caches(2, tmp_path).told
    assert not machine.caches(2, processor(tmp_path, *L1)).told


@pytest.mark.parametrize(("number", "text"), [(2, "much"), (1, ""), (1, "0K"), (3, "x-y")])
def test_what_the_system_tells_wrongly_is_assumed(tmp_path: Path, number: int, text: str) -> None:
    l2, l3 = ["2", "Unified", "2048K", "0"], ["3", "Unified", "32768K", "0-7"]
    (l2 if number < 3 else l3)[2 if number < 3 else 3] = text
    assert machine.caches(2, processor(tmp_path, *L1, tuple(l2), tuple(l3))) == machine.caches(2, tmp_path)


def test_bytes_come_from_the_smallest_level_that_holds_them() -> None:
    caches = machine.Caches(1 << 20, 8 << 20)
    assert [caches.level(size * 2**20, 2) for size in (2, 2.1, 16, 16.1)] == ["l2", "l3", "l3", "dram"]


def test_every_roofline_does_the_work_that_it_tells(module) -> None:
    threads = torch.get_num_threads()
    loops = machine.loops(machine.NAMES)
    assert tuple(loops) == machine.NAMES
    for name, loop in loops.items():
        assert loop.work > 0 and (name in rooflines.PEERS or loop.run() == loop.work)
    assert loops["multiply_adds"].work == threads * loops["multiply_adds_1_thread"].work
    assert loops["dram_read"].work == loops["dram_copy"].work == machine.DRAM_BYTES // threads // 1024 * 1024 * threads


@pytest.mark.parametrize("capability", _extension.module.cpu_capabilities() if _extension.module else [])
def test_passes_leave_the_numbers_as_they_are(module, capability: str) -> None:
    """And a copy is one: memory that is read and written is what the caller says."""
    own = module.cpu_capability()
    module.set_cpu_capability(capability)
    try:
        read, *written = (torch.randn(1024 * torch.get_num_threads()).numpy() for _ in range(4))
        before = [array.copy() for array in written]
        for way in ("plain", *parts.WAYS):
            assert module.roofline_pass([read], written, 2, way) == 2 * read.nbytes * 7
            assert module.roofline_pass([read], written[:2], 1, way) == read.nbytes * 5
            assert all((a == b).all() for a, b in zip(written, before, strict=True))
        assert module.roofline_pass([read, *written], [], 1) == read.nbytes * 4
        assert module.roofline_copy(read, written[0], 1) == read.nbytes * 2
        assert (written[0] == read).all()
    finally:
        module.set_cpu_capability(own)


# ---- the kernels ----


def stages(module, run) -> dict[str, tuple[int, int]]:
    """Nanoseconds and times of the stages of one call."""
    before = module.stage_times()
    run()
    return {name: (ns - before[name][0], times - before[name][1]) for name, (ns, times) in module.stage_times().items()}


@pytest.mark.parametrize("layout", [parts.CHANNELS_LAST, parts.NCHW])
@pytest.mark.parametrize("tile", [4, 6])
def test_a_block_tells_its_stages_once_a_task_and_block_of_channels(module, tile: int, layout) -> None:
    module.force_winograd_tile(tile)
    forget_plans()
    try:
        run = parts.block(2, 64, 30, 3, layout).implementations[0].prepare()
        run()
        assert not any(times for _, times in stages(module, run).values())  # the clock stands still
        with rooflines.stages_timed():
            told = stages(module, run)
        found = module.winograd_tasks(2, 64, 64, 30, 30, 3, 3, layout == parts.CHANNELS_LAST, tile)
    finally:
        module.force_winograd_tile(0)
        forget_plans()
    assert sum(tiles * rows * columns for _, _, tiles, rows, columns in found) >= 2 * 30 * 30
    tasks = sum(each[0] for each in found)
    assert [told[stage][1] for stage in STAGES] == [tasks, 2 * tasks, 2 * tasks]
    assert all(told[stage][0] > 0 for stage in STAGES)
    assert not any(times for stage, (_, times) in told.items() if stage not in STAGES)


def test_what_a_block_needs_is_what_winograds_algorithm_does() -> None:
    """F(4x4, 3x3) takes 36 products where the definition takes 144; here no tile reaches over the edge."""
    if _extension.module is None:
        pytest.skip("the extension is not built")
    block = parts.Winograd(1, 32, 32, 2, channels_last=False, kept=True)
    assert block.tile == 4
    needed = block.block()
    definition = 9 * 32 * 32 * 32 * 32
    assert needed["call"] == {"multiply_adds": definition / 4}
    assert needed["product"]["multiply_adds"] == definition / 4
    tiles, pictures = 64, 4 * 32 * 32 * 32
    assert needed["gather"]["multiply_adds"] == 32 * tiles * 12 * 12
    assert needed["inverse"]["multiply_adds"] == 32 * tiles * (10 * 10 + 16 * parts.EPILOGUE)
    level = parts.level(2 * pictures + 4 * 36 * 32 * 32)
    moved = 2 * 4 * 36 * 32 * tiles
    assert sum(amount for name, amount in needed["gather"].items() if name != "multiply_adds") == moved + pictures
    assert level == "l2" or needed["gather"][f"{level}_read"] == pictures


def test_stages_and_what_is_none_of_them_are_the_call(module) -> None:
    case = parts.gradient(1, 32, 24, 2)
    rows = case.measure("small", 3, time.perf_counter_ns)
    call, *others = rows
    assert [row.implementation for row in others] == [*(f"gradient_{stage}" for stage in STAGES), rooflines.REST]
    assert not any(row.problem for row in rows) and call.error < case.bound
    assert call.backend.endswith("winograd, F(4x4)") and call.roofline == "multiply_adds"
    assert call.rate == pytest.approx(9 * 32 * 32 * 24 * 24 / 4 / call.quartiles[1] / 1e6)
    assert others[-1].amounts == {} and others[-1].ratio == ""
    printed = case.table(rows).splitlines()
    assert [line.split()[0] for line in printed[3:-1]] == [row.implementation for row in rows]
    assert printed[-1].endswith("not counted: perf is not installed")


def test_no_thread_is_longer_in_its_stages_than_the_call_takes(module) -> None:
    part = parts.gradient(1, 32, 24, 2).implementations[0]
    with rooflines.stages_timed():
        times = rooflines._sample("call", part.prepare(), 3, time.perf_counter_ns, part.needs())
    assert times["call"] == pytest.approx(sum(ms for name, ms in times.items() if name != "call"))
    assert min(times.values()) >= 0


def test_a_kernel_that_is_wrong_is_not_timed(module) -> None:
    case = parts.gradient(1, 32, 24, 2)
    (row,) = dataclasses.replace(case, reference=lambda: case.reference() + 1).measure("small", 1, time.perf_counter_ns)
    assert row.wrong and row.quartiles is None


# ---- the optimizers ----


@pytest.mark.parametrize("rule", parts.RULES)
def test_a_step_is_held_against_its_traffic(module, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(weight_clip.SHAPES, "few", [(100, 64), (32, 40)])
    rows = {row.implementation: row for row in parts.step(rule, "few").measure("few", 1, time.perf_counter_ns)}
    ways = [f"reads_writes_{way}" for way in parts.WAYS]
    assert list(rows) == ["step", "reads", "reads_writes", *ways, "arithmetic"]
    assert all(rows[way].amounts == rows["reads_writes"].amounts for way in ways)
    assert not any(row.problem for row in rows.values())
    reads, writes, operations, roots = parts.RULES[rule]
    assert reads + writes == weight_clip.RULES[rule][-1]
    count = 100 * 64 + 32 * 40
    read, moved = rows["reads"].amounts, rows["reads_writes"].amounts
    assert sum(read.values()) == 4 * reads * count and sum(moved.values()) == 4 * (reads + writes) * count
    assert rows["step"].amounts == moved | {"multiply_adds": operations * count} | ({"roots": count} if roots else {})


# ---- what is written ----


def test_the_rows_of_several_processes_are_rows(module, tmp_path: Path) -> None:
    rows = parts.gradient(1, 32, 24, 2).measure("small", 2, time.perf_counter_ns)
    rows[0].amounts["cycles"] = 1e6
    harness.write_csv(rows, tmp_path / "parts.csv")
    cells = list(csv.DictReader((tmp_path / "parts.csv").open()))
    assert tuple(cells[0]) == Row.columns
    again = processes.together([cells, cells], Row)
    assert [row.cells[:13] for row in again] == [row.cells[:13] for row in rows]
    for row, told in zip(rows, again, strict=True):
        assert isinstance(told, Row)
        assert (told.roofline, told.amounts) == (row.roofline, pytest.approx(row.amounts, rel=1e-5))


def test_the_cases_and_the_machine(module, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parts.main(["--list"]) == 0
    names = capsys.readouterr().out.split()
    assert {"machine", "block_b4_c256_64x64_d8", "gradient_b4_c256_64x64_d2", "adam_50m", "sgd_critic"} <= set(names)
    path, picture = tmp_path / "machine.csv", tmp_path / "machine.png"
    assert parts.main(["--case", "machine", "--repeats", "1", "--csv", str(path), "--plot", str(picture)]) == 0
    cells = {row["implementation"]: row for row in csv.DictReader(path.open())}
    assert tuple(cells) == machine.NAMES and picture.stat().st_size > 1000
    assert cells["torch_mm"]["roofline"] == "multiply_adds" and cells["torch_mm"]["backend"] == "pytorch"
    assert all(any(row[amount] for amount in rooflines.AMOUNTS) for row in cells.values())
    assert all(row["ceiling_share"] == "1" for name, row in cells.items() if name not in rooflines.PEERS)


def test_what_is_not_built_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(_extension, "module", None)
    assert parts.main(["--case", "machine"]) == 1
    assert "not run: ImportError: the extension" in capsys.readouterr().err


# ---- the processor's counters ----


def perf(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "perf"
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.defpath}")


def test_events_that_perf_counts_are_those_of_a_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = "4000;;cycles:u;1;100.00;;\\n<not supported>;;instructions;0;100.00;;\\n6;;cache-misses;1;50.00;;\\n"
    perf(tmp_path, monkeypatch, f"trap 'printf \"{says}\" >&2; exit 0' INT\nwhile :; do sleep 0.01; done\n")
    assert counters.counted(lambda: None, 4) == ({"cycles": 1000.0, "cache-misses": 1.5}, "")


def test_where_perf_counts_nothing_it_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    perf(tmp_path, monkeypatch, "echo No permission to enable cycles event. >&2; exit 255\n")
    assert counters.counted(lambda: None, 4) == ({}, "perf stat says 'No permission to enable cycles event.'")
    says = "".join(f"<not supported>;;{event};0;100.00;;\\n" for event in counters.EVENTS)
    perf(tmp_path, monkeypatch, f"trap 'printf \"{says}\" >&2; exit 0' INT\nwhile :; do sleep 0.01; done\n")
    assert counters.counted(lambda: None, 4) == ({}, "perf stat says '<not supported>'")
