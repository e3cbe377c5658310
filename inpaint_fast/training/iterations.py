"""A run's iterations; on a GPU each kind of them is one CUDA graph, as soon as it can be.

An iteration is all that a step does with a batch: passes, losses, gradients, updates, clip, what is measured. The first
WARM of a kind run as they are, the last of them under the eyes of `inpaint_fast._graphs.Obstacles`; then it is captured
and replayed. What it changes must lie in tensors that stay where they are, which is looked at before the first replay,
and after iterations that were not replayed: parameters, buffers, the optimizers' states and counts, the average, the
guard's counts. Learning rates are tensors on the device then, which `System.schedule` fills. A kind is a batch's shapes
and dtypes and the system's phase.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import torch
from torch import Tensor

from inpaint_fast import _graphs
from inpaint_fast._graphs import Graph, NotCaptured, Obstacles
from inpaint_fast._trees import Tree
from inpaint_fast.data import Batch
from inpaint_fast.training.recipe import System

WARM = 3
NEW_EACH_TIME = ("good", "_per_optimizer_states")  # what an iteration leaves in attributes for those who look, or empty


class Iterations:
    """Makes a system's iterations.

    Args:
        system: on its device.
        device: where its batches go.
        wanted: they may be captured.

    Attributes:
        reasons: why a kind of iterations is not captured; empty where nobody wants it or all are.
    """

    def __init__(self, system: System, device: torch.device, *, wanted: bool = True) -> None:
        self.system, self.device = system, device
        self.reasons: list[str] = []
        self.wanted = wanted and device.type == _graphs.DEVICE
        if self.wanted and system.processes.count > 1:
            self._refuse("several processes share a batch")
        if self.wanted:
            system.move_numbers(device)
        self._seen: dict[Hashable, int] = {}
        self._graphs: dict[Hashable, _Captured | None] = {}
        self._pool: Any = None
        self._others = False  # an iteration of another kind, or one that was not replayed, came last

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """One iteration on a batch, from anywhere; returns what was measured, on the device."""
        if not self.wanted:
            return self._as_it_is(batch)
        tree = Tree(batch)
        kind = tree.kind, self.system.phase
        captured = self._graphs.get(kind)
        if captured is not None and self._others and not captured.stands():
            captured = None
            self.forget()
        self._others = False
        if captured is None and kind not in self._graphs:
            seen = self._seen[kind] = self._seen.get(kind, 0) + 1
            if seen < WARM:
                return self._as_it_is(batch)
            if seen == WARM:
                return self._watched(kind, batch)
            captured = self._capture(kind, tree)
        return self._as_it_is(batch) if captured is None else captured.replay(tree.tensors)

    def forget(self) -> None:
        """Drop all graphs; kinds that were captured are so again at their next batch."""
        self._graphs = {kind: captured for kind, captured in self._graphs.items() if captured is None}

    def news(self) -> list[str]:
        """Reasons that were not asked for before."""
        reasons, self.reasons = self.reasons, []
        return reasons

    def _refuse(self, reason: str, kind: Hashable = None) -> None:
        self.reasons.append(f"steps are not captured as CUDA graphs: {reason}")
        if kind is None:
            self.wanted = False
        else:
            self._graphs[kind] = None

    def _as_it_is(self, batch: Batch) -> dict[str, Tensor]:
        self._others = True
        if self.device.type != "cpu":
            batch = batch.map(lambda part: part.to(self.device, non_blocking=True))
        return self._iterate(batch)

    def _iterate(self, batch: Batch) -> dict[str, Tensor]:
        system = self.system
        with system.guard.iteration(system, batch):
            measured = system.processes.mean(system.step(batch))
        system.precision.forget_statistics()
        return measured

    def _watched(self, kind: Hashable, batch: Batch) -> dict[str, Tensor]:
        with Obstacles(self.device.type) as obstacles:
            batch = batch.map(lambda part: part.to(self.device))
            obstacles.found.clear()
            measured = self._iterate(batch)
        if obstacles.found:
            self._refuse(str(obstacles), kind)
        return measured

    def _capture(self, kind: Hashable, tree: Tree) -> _Captured | None:
        self._pool = self._pool or _graphs.pool()
        before = _References(self.system)
        try:
            captured = self._graphs[kind] = _Captured(self, tree, before)
        except NotCaptured as reason:
            before.put_back()
            self._refuse(str(reason), kind)
            return None
        return captured


class _Captured:
    """The graph of one kind of iterations."""

    def __init__(self, owner: Iterations, tree: Tree, before: _References) -> None:
        self._system = system = owner.system
        tree.check_constants()
        self._inputs = [torch.empty_like(tensor, device=owner.device).copy_(tensor) for tensor in tree.tensors]
        batch = tree.filled(self._inputs)

        def iteration() -> tuple[list[str], Tensor]:
            measured = owner._iterate(batch)
            before.keep_gradients()
            return list(measured), torch.stack([value.float() for value in measured.values()])

        self._graph = Graph(iteration, owner.device, owner._pool)
        self._good = system.guard.good
        self._references = _References(system)
        if (changed := before.difference(self._references)) is not None:
            raise NotCaptured(f"a step replaces or counts {changed} on the host")

    def stands(self) -> bool:
        """What the graph reads and writes is what the system holds."""
        return self._references.difference(_References(self._system)) is None

    def replay(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        for ours, given in zip(self._inputs, inputs, strict=True):
            ours.copy_(given, non_blocking=True)
        self._graph.replay()
        self._system.guard.good = self._good
        names, values = self._graph.result
        return dict(zip(names, values.clone().unbind(), strict=True))


class _References:
    """What a system holds between two iterations: its tensors, by what and under which name, and its numbers."""

    def __init__(self, system: System) -> None:
        self.system = system
        self._parameters = list(system.parameters())
        self._gradients = [parameter.grad for parameter in self._parameters]
        self._holders = [(name, holder, dict(holder)) for name, holder in _holders(system)]
        self._pointers = [value.data_ptr() for _, _, values in self._holders for value in _tensors(values)]

    def keep_gradients(self) -> None:
        """Gradients that an iteration leaves lie where those lay that it found."""
        for parameter, old in zip(self._parameters, self._gradients, strict=True):
            if old is not None and parameter.grad is not None and parameter.grad is not old:
                parameter.grad = old.copy_(parameter.grad)

    def put_back(self) -> None:
        """All is held that was held."""
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        for _, holder, values in self._holders:
            holder.clear()
            holder.update(values)
        if (scaler := self.system.precision.scaler) is not None:
            scaler._per_optimizer_states.clear()

    def difference(self, other: _References) -> str | None:
        """The name of something that the other holds otherwise."""
        for parameter, one, another in zip(self._parameters, self._gradients, other._gradients, strict=True):
            if one is not another:
                return f"a gradient of shape {tuple(parameter.shape)}"
        if len(self._holders) != len(other._holders):
            return "an optimizer's states"
        for (name, _, before), (_, _, after) in zip(self._holders, other._holders, strict=True):
            for key in {**before, **after}:
                if key not in NEW_EACH_TIME and not _same(before.get(key), after.get(key)):
                    return f"{key} of {name}"
        return None if self._pointers == other._pointers else "the memory of a tensor"


def _holders(system: System) -> Iterator[tuple[str, dict]]:
    """The dictionaries in which a system keeps its state, each with the name of whose it is."""
    for each in (system, system.guard, system.precision, system.precision.scaler, system.average):
        if each is not None:
            yield type(each).__name__, vars(each)
    networks = [system] if system.average is None else [system, system.average.network]
    for network in networks:
        for name, module in network.named_modules():
            yield f"{name or type(module).__name__}", module._buffers
            yield f"{name or type(module).__name__}", module._parameters
    for name, optimizer in system.optimizers.items():
        for group in optimizer.param_groups:
            yield f"the {name}'s optimizer", group
            for parameter in group["params"]:
                if parameter in optimizer.state:
                    yield f"the {name}'s optimizer", optimizer.state[parameter]


def _tensors(values: dict[str, Any]) -> Iterator[Tensor]:
    yield from (value for key, value in values.items() if isinstance(value, Tensor) and key not in NEW_EACH_TIME)


def _same(one: Any, another: Any) -> bool:
    """The same object, or equal numbers."""
    return one is another or (type(one) is type(another) and type(one) in (int, float, bool, str) and one == another)
