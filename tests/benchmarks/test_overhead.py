"""The benchmark of what calls cost: every case runs, is right, and names what ran."""

from __future__ import annotations

import csv

import torch

from inpaint_fast.benchmarks import overhead


def test_every_case_runs_and_names_what_ran(tmp_path, capsys) -> None:
    threads, path = torch.get_num_threads(), tmp_path / "overhead.csv"
    try:
        assert overhead.main(["--repeats", "1", "--csv", str(path)]) == 0
    finally:
        torch.set_num_threads(threads)
    rows = list(csv.DictReader(path.open()))
    assert {row["case"] for row in rows} == set(overhead.CASES)
    assert all(row["median_ms"] and row["threads"] == "1" for row in rows)
    ours = [row for row in rows if row["case"].startswith("block") and row["implementation"] != "pytorch"]
    assert {row["backend"] for row in ours} == {overhead.PLANNED}
