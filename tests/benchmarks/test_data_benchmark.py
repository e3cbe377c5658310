"""The benchmark of the loaders: each makes the same first batch, and has its row."""

from __future__ import annotations

import csv

from inpaint_fast.benchmarks import data


def test_every_case_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(data, "PICTURES", 12)
    assert data.main(["--repeats", "1", "--device", "cpu", "--csv", str(tmp_path / "data.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "data.csv").open()))
    assert [row["case"] for row in rows] == [name for name in data.SIZES for _ in range(3)]
    assert all(row["median_ms"] and row["error"] == "0" for row in rows)
