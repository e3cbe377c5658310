"""Sums of what steps measured: means by name, of good steps alone, however names come together, and when a run goes
on."""

from __future__ import annotations

import torch

from inpaint_fast.training.sums import Sums

CPU = torch.device("cpu")


def tensors(**values: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def test_means_of_good_steps() -> None:
    sums = Sums()
    assert sums.means() == {}
    good, bad = torch.tensor(True), torch.tensor(False)
    sums.add(tensors(loss=1.0, spread=4.0), good)
    sums.add(tensors(loss=float("nan"), spread=9.0), bad)
    sums.add(tensors(loss=3.0, spread=6.0), good)
    sums.add({}, good)
    sums.add(tensors(loss=8.0), good)  # another phase
    sums.add(tensors(other=float("inf")), bad)
    assert sums.means() == {"loss": 4.0, "spread": 5.0}
    sums.clear()
    assert sums.means() == {}


def test_going_on_is_the_same_to_the_bit() -> None:
    torch.manual_seed(0)
    values = [tensors(a=x, b=1 / x) for x in torch.rand(40).add(0.1).tolist()]
    straight, first, second = Sums(), Sums(), Sums()
    for each in values:
        straight.add(each, torch.tensor(True))
    for each in values[:17]:
        first.add(each, torch.tensor(True))
    second.load_state_dict(first.state_dict(), CPU)
    kept = first.means()
    for each in values[17:]:
        second.add(each, torch.tensor(True))
    assert second.means() == straight.means() and first.means() == kept
    second.load_state_dict({"a": (torch.tensor(6.0), torch.tensor(3))}, CPU)  # as it was saved once
    assert second.means() == {"a": 2.0}
