"""The guard of a run's iterations: one in which something is no number changes nothing, and is counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from inpaint_fast._graphs import runs_ahead


class Guard:
    """Skips the updates of an iteration from the first bad number on: of its batch, a loss or a gradient.

    What the iteration has changed by then besides (running statistics, gradients that are left for later) is put back
    as it was; updates that were made before, of another network, stay. The decision, `good`, and the counts are tensors
    on the device. On the CPU they are read at once and nothing is computed in vain; a GPU is not waited for: there the
    optimizers are told as `torch.amp.GradScaler` tells them, by their `found_inf`, and one that does not listen is
    undone.
    """

    def __init__(self) -> None:
        self.good: Tensor | None = None
        """Whether all was well so far in this iteration, or in the last one; bool of no dimension."""
        self.skipped = torch.zeros((), dtype=torch.int64)  # (all of them change in place)
        """Iterations with a skipped update, in all."""
        self.in_a_row = torch.zeros((), dtype=torch.int64)
        """The last ones of them that followed one another."""
        self.longest = torch.zeros((), dtype=torch.int64)
        """The most that did."""
        self.at_once: bool | None = None
        """Whether the decision is read as soon as it is made; None: on the CPU alone."""
        self._on = False

    @contextmanager
    def iteration(self, system: nn.Module, inputs: Iterable[Tensor | None]) -> Iterator[None]:
        """Inside, the iteration of a system on these inputs is guarded."""
        parameters = list(system.parameters())
        device = parameters[0].device
        self._move(device)
        self.good = torch.ones((), dtype=torch.bool, device=device)
        left = {parameter: parameter.grad.clone() for parameter in parameters if parameter.grad is not None}
        before = [(buffers, _flat(buffers)) for buffers in _by_dtype(system.buffers())]  # running statistics
        self._on = True
        self.observe(*(tensor for tensor in inputs if tensor is not None))
        try:
            yield
        finally:
            self._on = False
        if not (self._reads(device) and self.good):
            for buffers, flat in before:
                chosen = torch.where(self.good, _flat(buffers), flat).split([buffer.numel() for buffer in buffers])
                torch._foreach_copy_(buffers, [part.view(b.shape) for part, b in zip(chosen, buffers, strict=True)])
            self._put_back(parameters, left, device)
        bad = (~self.good).long()
        self.skipped += bad
        self.in_a_row.add_(bad).mul_(bad)
        torch.maximum(self.longest, self.in_a_row, out=self.longest)

    def observe(self, *tensors: Tensor) -> None:
        """See whether these are numbers, the sum of whose squares is one, too: optimizers square gradients, and what
        float32 does not hold would stay in their states for ever."""
        floats = [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
        if self._on and floats:
            self.good = self.good & get_total_norm(floats).isfinite()

    @contextmanager
    def shared(self) -> Iterator[list[Tensor]]:
        """Inside, a tensor that becomes greater than 0 where `good` is to be false, because another process says so."""
        bad = [] if self.good is None else [(~self.good).float().reshape(1)]
        yield bad
        if bad:
            self.good = self.good & (bad[0] == 0).squeeze()

    def step(self, optimizer: torch.optim.Optimizer) -> Tensor | None:
        """The optimizer's step, if all is well and its gradients are, too.

        Returns:
            Whether it was skipped, a bool on the device; None where it is known that it was not.
        """
        if not self._on:
            optimizer.step()
            return None
        params = [param for group in optimizer.param_groups for param in group["params"]]
        self.observe(*(param.grad for param in params if param.grad is not None))
        if self._reads(self.good.device):
            if self.good:
                optimizer.step()
                return None
        elif getattr(optimizer, "_step_supports_amp_scaling", False):
            vars(optimizer)["found_inf"] = (~self.good).float()
            try:
                optimizer.step()
            finally:
                del vars(optimizer)["found_inf"]
        else:
            self._step_and_undo(optimizer, params)
        return ~self.good

    def state_dict(self) -> dict[str, int]:
        """What a run that goes on needs."""
        return {"skipped": int(self.skipped), "in_a_row": int(self.in_a_row)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where `state_dict` was taken."""
        self.skipped, self.in_a_row = torch.tensor(state["skipped"]), torch.tensor(state["in_a_row"])
        self.longest = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def _step_and_undo(self, optimizer: torch.optim.Optimizer, params: list[nn.Parameter]) -> None:
        """The step of an optimizer that cannot be told to make none, which is undone where it was not to be made."""
        good = self.good
        assert good is not None  # inside of an iteration
        before = [(tensor, tensor.clone()) for tensor in _learned(optimizer, params)]
        optimizer.step()
        known = {id(tensor) for tensor, _ in before}
        made = [tensor for tensor in _learned(optimizer, params) if id(tensor) not in known]  # states: nothing before
        for tensor, old in [*before, *((tensor, torch.zeros_like(tensor)) for tensor in made)]:
            tensor.copy_(torch.where(good, tensor, old))

    def forget(self) -> None:
        """Begin to count anew those that follow one another."""
        self.in_a_row.zero_()
        self.longest.zero_()

    def _move(self, device: torch.device) -> None:
        """The counts lie on the device from now on."""
        if self.skipped.device != device:
            self.skipped, self.in_a_row, self.longest = (
                count.to(device) for count in (self.skipped, self.in_a_row, self.longest)
            )

    def _reads(self, device: torch.device) -> bool:
        return not runs_ahead(device) if self.at_once is None else self.at_once

    def _put_back(self, parameters: list[nn.Parameter], left: dict[nn.Parameter, Tensor], device: torch.device) -> None:
        """The gradients that the iteration before had left, in the place of this one's, where it was bad."""
        good = self.good
        assert good is not None  # at the end of an iteration
        for parameter in parameters:
            old, new = left.get(parameter), parameter.grad
            if self._reads(device):
                parameter.grad = old
            elif old is not None or new is not None:
                zero = torch.zeros_like(parameter)
                parameter.grad = torch.where(good, zero if new is None else new, zero if old is None else old)


def _learned(optimizer: torch.optim.Optimizer, params: Sequence[Tensor]) -> list[Tensor]:
    """Its parameters and their states, without their gradients."""
    states = [value for param in params for value in optimizer.state.get(param, {}).values()]
    return [*params, *(value for value in states if isinstance(value, Tensor))]


def _by_dtype(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    found: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        found.setdefault(tensor.dtype, []).append(tensor)
    return list(found.values())


def _flat(tensors: list[Tensor]) -> Tensor:
    """A copy of all in one row: few launches, however many tensors."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
