"""What the steps of a run measured since the last row of metrics, added up on the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Sums:
    """Sums by name. A step adds all that it measured in a few launches, however many names there are."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], tuple[Tensor, Tensor]] = {}  # names that are measured together -> sums, steps

    def add(self, measured: Mapping[str, Tensor], good: Tensor) -> None:
        """Add what a step measured, scalars on the device, if it was good, a bool there."""
        if not measured:
            return
        values = torch.where(good, torch.stack([*measured.values()]), 0.0)
        names = tuple(measured)
        if names in self._sums:
            total, count = self._sums[names]
            total += values
            count += good
        else:
            self._sums[names] = values, good.long()

    def means(self) -> dict[str, float]:
        """Of each name that a good step has measured; of several sets of names it is in all. A GPU is waited for."""
        found: dict[str, tuple[float, int]] = {}
        for names, (total, count) in self._sums.items():
            for name, value in zip(names, total.tolist(), strict=True):
                before = found.get(name, (0.0, 0))
                found[name] = before[0] + value, before[1] + int(count)
        return {name: total / count for name, (total, count) in found.items() if count}

    def state_dict(self) -> dict[str, tuple[Tensor, Tensor]]:
        """What `load_state_dict` needs to go on."""
        return {",".join(names): sums for names, sums in self._sums.items()}

    def load_state_dict(self, state: dict[str, tuple[Tensor, Tensor]], device: torch.device) -> None:
        """Go on where `state_dict` was taken."""
        self._sums = {
            tuple(names.split(",")): (total.to(device).reshape(-1).clone(), count.to(device).clone())
            for names, (total, count) in state.items()
        }

    def clear(self) -> None:
        """Begin anew."""
        self._sums = {}
