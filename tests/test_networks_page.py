"""docs/networks.md says what the reports say."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import torch

import inpaint_fast as ipf
from inpaint_fast.benchmarks.networks import NETWORKS
from inpaint_fast.nn import acceleration_report

PAGE = (Path(__file__).parents[1] / "docs" / "networks.md").read_text()
ROWS = re.findall(r"^\| `(\w+)` \| (\d+) of (\d+) \| (\d+) \| (\d+) \|", PAGE, re.MULTILINE)


def test_every_network_has_a_row() -> None:
    assert [name for name, *_ in ROWS] == list(NETWORKS)


@pytest.mark.parametrize(("name", "swapped", "all", "both", "one"), ROWS, ids=lambda value: value)
def test_its_numbers_are_those_of_the_report(name: str, swapped: str, all: str, both: str, one: str) -> None:
    with torch.device("meta"):  # as many channels as were published, without their memory
        report = acceleration_report(ipf.accelerate(NETWORKS[name].make()))
    fused = Counter(len(entry.fused) for entry in report.swapped)
    found = len(report.swapped), len(report.swapped) + len(report.left), fused[2], fused[1]
    assert found == (int(swapped), int(all), int(both), int(one))


def test_its_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    scope: dict[str, object] = {}
    exec(code, scope)
    assert scope["completed"].shape == (1, 3, 64, 64)
