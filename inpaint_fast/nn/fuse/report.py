"""What `accelerate` did to a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import nn

from inpaint_fast.nn.fuse.modules import AcceleratedConv2d, AcceleratedConvTranspose2d
from inpaint_fast.nn.fuse.sequential import FusedSequential, chains_of
from inpaint_fast.nn.graphs import Graphed
from inpaint_fast.ops.conv_block import Measured, blocking


@dataclass(frozen=True)
class Swapped:
    """A convolution that was swapped.

    Attributes:
        name: as in model.named_modules().
        fused: the names of the norm and the activation fused with it, as they are called.
        note: why not more was fused; empty where norm and activation are.
    """

    name: str
    fused: tuple[str, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        return " + ".join((self.name, *self.fused)) + (f"   ({self.note})" if self.note else "")


@dataclass(frozen=True)
class Left:
    """A convolution that was left as it is, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass
class Report:
    """What `accelerate` did to a model: `str(report)` is for reading."""

    swapped: list[Swapped] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    measured: dict[str, list[Measured]] = field(default_factory=dict)
    """With `tune=True`, for each convolution that was called: what was measured, for each kind of call."""
    tasks: str = ""
    """With `tune=True`, after a call on the CPU: to which size of a core's cache the kernels cut their tasks."""
    graphs: str = ""
    """With `inference=True`, on a GPU: which kinds of calls are CUDA graphs, and why others are none."""

    def __str__(self) -> str:
        lines = [f"{len(self.swapped)} of {len(self.swapped) + len(self.left)} convolutions swapped"]
        for entry in self.swapped:
            lines += [f"  {entry}", *(f"    {times}" for times in self.measured.get(entry.name, []))]
        if self.left:
            lines += ["left as they are:", *(f"  {entry}" for entry in self.left)]
        return "\n".join([*lines, *filter(None, [self.tasks, self.graphs])])


def acceleration_report(model: nn.Module) -> Report:
    """What `accelerate` did to this model, and what of it holds now.

    What is no longer fused, since hooks were added, modules were replaced or what was read of a forward has changed, is
    not shown as fused, and a note says so; `accelerate(model)` looks anew.

    Raises:
        ValueError: the model was not accelerated.
    """
    found = vars(model).get("_acceleration_report")
    if found is None:
        raise ValueError(f"model: this {type(model).__name__} was not accelerated; call accelerate(model)")
    modules = dict(model.named_modules())
    names = {module: name for name, module in modules.items()}
    in_sequentials: dict[nn.Module, tuple[str, ...]] = {
        chain.conv: tuple(names[each] for each in chain.modules[1:])
        for module in modules.values()
        if isinstance(module, FusedSequential)
        for chain in chains_of(module)
    }
    report = Report([_as_it_is(entry, modules.get(entry.name), in_sequentials) for entry in found.swapped], found.left)
    for name, module in modules.items():
        if (tuning := vars(module).get("_tuning")) and tuning.measured:
            report.measured[name] = list(tuning.measured.values())
    if report.measured and blocking.is_measured():
        report.tasks = f"tasks of the CPU's convolutions: {blocking.note()}"
    graphed = vars(model).get("forward")
    report.graphs = str(graphed) if isinstance(graphed, Graphed) else ""
    return report


def _as_it_is(entry: Swapped, conv: nn.Module | None, in_sequentials: Mapping[nn.Module, tuple[str, ...]]) -> Swapped:
    """What was swapped, as calls find it now; conv: what has the name of the convolution now."""
    if isinstance(conv, (AcceleratedConv2d, AcceleratedConvTranspose2d)) and conv._fusion is not None:
        fused = entry.fused if conv._fused() else ()
    else:
        fused = () if conv is None else in_sequentials.get(conv, ())
    if len(fused) == len(entry.fused):
        return replace(entry, fused=fused)
    lost = ", ".join(entry.fused[len(fused) :])
    why = "hooks, modules or what was read of a forward have changed"
    return replace(entry, fused=fused, note=f"not fused any more: {lost}; {why}" if lost else "")
