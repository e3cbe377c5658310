"""The precision that networks train in: float32, or 16 bits under autocast; float16 with its losses scaled.

Parameters, optimizers' states, losses and gradients of parameters are float32 in each. float16 reaches no further down
than 6e-8, so its losses are multiplied before their gradients are taken (`torch.amp.GradScaler`). Where one is too
large then, the update is skipped: parameters, optimizer and running statistics stay as they were before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inpaint_fast.training.guard import Guard
from inpaint_fast.training.health import CURE_OF_OVERFLOWS as CURE

PRECISIONS: dict[str, torch.dtype | None] = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """One of PRECISIONS for a system: its passes, its losses and its optimizers' steps go through here.

    Args:
        name: "float32" changes nothing.
    """

    def __init__(self, name: str) -> None:
        self.half = PRECISIONS[name]
        self.scaler: torch.amp.GradScaler | None = None  # from the first scaled loss on
        self.skipped = torch.zeros((), dtype=torch.int64)  # updates; on the device, so that nothing waits for it
        self.updates: dict[str, Tensor] = {}
        """Optimizer -> its updates, and how many of the last ones were skipped one after the other; there, too."""
        self._statistics: Statistics | None = None

    @property
    def scales(self) -> bool:
        """Whether losses are scaled, so that an update may be skipped."""
        return self.half == torch.float16

    def through(self, network: nn.Module, *inputs: Tensor, **options: Any) -> Any:
        """What the network gives, in float32."""
        if self.half is None:
            return network(*inputs, **options)
        with torch.autocast(inputs[0].device.type, self.half):
            result = network(*inputs, **options)
        return result.float() if isinstance(result, Tensor) else type(result)(each.float() for each in result)

    def scaled(self, value: Tensor) -> Tensor:
        """A loss, or a gradient, as backward passes need it."""
        if not self.scales:
            return value
        if self.scaler is None:
            self.scaler = torch.amp.GradScaler(value.device.type)
        return self.scaler.scale(value)

    def unscaled(self, gradient: Tensor) -> Tensor:
        """The gradient of a loss, of that of the scaled loss."""
        return gradient / self._scale(gradient.device) if self.scales else gradient

    def signal(self, value: Tensor) -> Tensor:
        """A number taken of gradients; 0 where scaling made them too large, since their update is skipped."""
        return value.nan_to_num(0.0, 0.0, 0.0) if self.scales else value

    def keep_statistics(self, system: nn.Module) -> None:
        """Remember the running statistics, before the first pass, if an update may be skipped."""
        if self.scales and self._statistics is None:
            self._statistics = Statistics(list(system.buffers()))

    def step(self, name: str, optimizer: torch.optim.Optimizer, guard: Guard) -> Tensor:
        """The step of an optimizer of this name by gradients of scaled losses; returns whether it was skipped, a bool
        on the device.

        It is where one of them is too large, or where the guard has seen what is no number: that makes them so.
        """
        params = [param for group in optimizer.param_groups for param in group["params"]]
        good = guard.good
        if good is not None:
            some = next(param.grad for param in params if param.grad is not None)
            some.masked_fill_(~good, math.nan)
        device = params[0].device
        before = self._scale(device)
        self.scaler.step(optimizer)
        self.scaler.update()
        skipped = self._scale(device) < before
        if self.skipped.device != device:
            self.skipped = self.skipped.to(device)
        self.skipped += skipped if good is None else skipped & good
        counts = self.updates.setdefault(name, torch.zeros(2, dtype=torch.int64, device=device))
        counts.add_(1)[1].mul_(skipped)
        self._statistics.settle(undo=skipped)
        return skipped

    def forget_statistics(self) -> None:
        """What they are now is what they were before the next pass."""
        self._statistics = None

    def counts(self) -> dict[str, int]:
        """For a row of metrics: the updates that were skipped since the start."""
        return {"overflows": int(self.skipped)} if self.scales else {}

    def signals(self) -> dict[str, float]:
        """What `inpaint_fast.training.health` looks at: the most updates of one network that were skipped in a row."""
        return {"overflows_in_a_row": max(int(counts[1]) for counts in self.updates.values())} if self.updates else {}

    def unmoved(self) -> list[str]:
        """A warning for each network whose every update was skipped."""
        counted = {name: counts.tolist() for name, counts in self.updates.items()}
        return [
            f"warning: each of the {made} updates of the {name} overflowed in float16, and it learned nothing. {CURE}."
            for name, (made, in_a_row) in counted.items()
            if made == in_a_row
        ]

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on."""
        return {
            "scaler": self.scaler and self.scaler.state_dict(),
            "skipped": int(self.skipped),
            "updates": {name: counts.tolist() for name, counts in self.updates.items()},
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on where `state_dict` was taken."""
        self.skipped, self._statistics = torch.tensor(state["skipped"]), None
        counted = state.get("updates", {})  # which checkpoints did not always have
        self.updates = {name: torch.tensor(counts, device=device) for name, counts in counted.items()}
        self.scaler = state["scaler"] and torch.amp.GradScaler(device.type)
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])

    def _scale(self, device: torch.device) -> Tensor:
        """What losses are multiplied by; get_scale() would wait for the device."""
        return self.scaler.scale(torch.ones((), device=device))


class Statistics:
    """Buffers as they were after the last update that was not skipped.

    They are written past autograd: a graph that is kept over the update (the generator's over the critic's) has saved
    them, and in training mode makes no use of them.

    Args:
        buffers: of networks.
    """

    def __init__(self, buffers: Sequence[Tensor]) -> None:
        self.groups: list[list[Tensor]] = [
            [buffer.data for buffer in buffers if buffer.dtype == dtype]
            for dtype in dict.fromkeys(buffer.dtype for buffer in buffers)
        ]
        self.kept = [_flat(group) for group in self.groups]

    @torch.no_grad()
    def settle(self, undo: Tensor) -> None:
        """Take the buffers as they are for good; where `undo`, a bool on their device, is true, bring back the last."""
        for i, group in enumerate(self.groups):
            self.kept[i] = torch.where(undo, self.kept[i], _flat(group))
            parts = self.kept[i].split([buffer.numel() for buffer in group])
            torch._foreach_copy_(group, [part.view_as(buffer) for part, buffer in zip(parts, group, strict=True)])


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
