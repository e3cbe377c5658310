"""A case in several processes: where memory happens to lie may make a whole process slower than the next."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from inpaint_fast.benchmarks.harness import SUBJECT, Result


def measure(name: str, count: int, row: type[Result] = Result) -> list[Result]:
    """The rows of a case by the command line that runs now, started again in `count` processes, one after the other.

    Times and ceilings are the medians of theirs, rates those of the times, the error is the largest; an implementation
    that was wrong in one of them, or did not run there, counts as such.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.csv" for i in range(count)]
        for path in paths:
            words = ["--processes", "1", "--case", f"^{re.escape(name)}$", "--csv", str(path)]
            command = [sys.executable, *sys.orig_argv[1:], *words]
            ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            if not path.exists():
                raise RuntimeError(f"{name}: a process of the benchmark ended without figures:\n{ended.stderr}")
        tables = []
        for path in paths:
            with open(path, newline="", encoding="utf-8") as file:
                tables.append(list(csv.DictReader(file)))
    return together(tables, row)


def together(tables: Sequence[Sequence[dict[str, str]]], row: type[Result] = Result) -> list[Result]:
    """One case's rows, of that kind, from those of several processes, as `write_csv` writes them."""
    results = []
    for rows in zip(*tables, strict=True):
        first = rows[0]
        result = row.of(first)
        results.append(result)
        if errors := [float(row["error"]) for row in rows if row["error"]]:
            result.error = max(errors)
        if untimed := [row for row in rows if not row["median_ms"]]:
            error = untimed[0]["error"]
            result.problem = f"WRONG: error {float(error):.1e}" if error else untimed[0]["backend"]
            continue

        def middle(column: str, rows: Sequence[dict[str, str]] = rows) -> float:
            return median(float(row[column]) for row in rows)

        result.quartiles = middle("q25_ms"), middle("median_ms"), middle("q75_ms")
        if first["rate"]:
            work = float(first["rate"]) * float(first["median_ms"])
            result.rate = work / result.quartiles[1]
            result.ceiling = median(float(cells["rate"]) / float(cells["ceiling_share"]) for cells in rows)
        result.gpu_ms = middle("gpu_ms") if all(row["gpu_ms"] for row in rows) else None
    own = next((r.quartiles[1] for r in results if r.implementation == SUBJECT and r.quartiles), None)
    for result in results:
        if own and result.quartiles and not result.subject:
            result.speed_up = result.quartiles[1] / own
    return results
