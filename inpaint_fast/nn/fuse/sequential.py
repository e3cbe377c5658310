"""`FusedSequential`: an nn.Sequential that runs its chains as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.compiler import is_compiling

from inpaint_fast.nn.fuse.chain import Chain, find_chain, plain_class, undisturbed
from inpaint_fast.nn.fuse.facts import UNWATCHED, Facts, all_of, items_are, own_is, stand, type_is, undisturbed_now
from inpaint_fast.ops._torch_private import is_watched


class FusedSequential(nn.Sequential):
    """An nn.Sequential of PyTorch's that runs each chain among its modules by the fused operators.

    `accelerate` makes one of a container, in place; `restore` undoes it. Takes any shape that its modules take.

    Modules may be replaced, get hooks, be called by themselves or be shared: at every call it is asked whether the
    chains are still those that were found, and a module that cannot be fused runs as it is. `precision`: as in
    `inpaint_fast.dilated_block`.
    """

    _inpaint_fast_computes = nn.Sequential
    precision = "fast"

    def forward(self, input: Tensor) -> Tensor:
        modules = self.__dict__["_modules"]
        found: _Found | None = self.__dict__.get("_found")
        of_tensor = isinstance(input, Tensor)
        if found is not None and found.facts and of_tensor and not is_compiling() and stand(found.facts):
            steps: Sequence[Any] = found.steps
        elif is_watched() or not of_tensor:  # torch.fx looks on
            steps = tuple(modules.values())
        elif is_compiling():
            steps = _steps(tuple(modules.values()))
        else:
            if found is None or not found.holds(modules):
                found = self.__dict__["_found"] = _Found(self)
            steps = found.steps
        for step in steps:
            input = step.run(input, self.precision) if type(step) is Chain else step(input)
        return input

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_found"}  # of other modules

    def __getitem__(self, index: slice | int) -> nn.Module:
        """A module, or for a slice an nn.Sequential of the same modules, fused too."""
        if not isinstance(index, slice):
            return super().__getitem__(index)
        part = FusedSequential()
        part.precision = self.precision
        for name, module in list(self._modules.items())[index]:
            part.add_module(name, module)
        return part


class _Found:
    """The chains that were found among modules, and whether they would be found again."""

    def __init__(self, sequential: nn.Sequential) -> None:
        modules = tuple(sequential._modules.values())
        self.steps = _steps(modules)
        # Only of modules that a chain can have is it asked whether they are undisturbed.
        self.modules = [
            (module, type(module), None if plain_class(module) is None else undisturbed(module)) for module in modules
        ]
        # From which it follows that they would, and that nobody watches; none where one is disturbed and may be freed.
        self.facts: Facts = ()
        if not any(free is False for _, _, free in self.modules):
            self.facts = all_of(
                UNWATCHED, own_is(sequential, "_modules"), items_are(sequential._modules),
                *(type_is(module) for module in modules),
                *(undisturbed_now(module) for module, _, free in self.modules if free),
            )  # fmt: skip

    def holds(self, modules: dict[str, nn.Module]) -> bool:
        if len(modules) != len(self.modules):
            return False
        known = iter(self.modules)
        for module in modules.values():
            same, cls, free = next(known)
            if module is not same or type(module) is not cls or (free is not None and undisturbed(module) is not free):
                return False
        return True


def chains_of(sequential: nn.Sequential) -> list[Chain]:
    """The chains that an nn.Sequential of these modules would run."""
    return [step for step in _steps(tuple(sequential)) if isinstance(step, Chain)]


def _steps(modules: tuple[nn.Module, ...]) -> list[Chain | nn.Module]:
    steps: list[Chain | nn.Module] = []
    at = 0
    while at < len(modules):
        chain = find_chain(modules, at)
        steps.append(modules[at] if chain is None else chain)
        at += 1 if chain is None else len(chain.modules)
    return steps
