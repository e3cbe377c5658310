"""What the reader of forwards knows of a value; of what is a `Result` it knows nothing."""

from __future__ import annotations

from dataclasses import dataclass
from types import MethodType, ModuleType
from typing import Any, TypeGuard

from torch import nn

from inpaint_fast.nn.fuse.proof import Child
from inpaint_fast.nn.fuse.sequential import FusedSequential
from inpaint_fast.nn.fuse.source import PythonFunction

CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
# By what a container tells its modules.
ORDERING = ("__iter__", "__getitem__", "__len__", "__contains__", "values", "items", "keys", "children", "modules")


@dataclass(frozen=True, eq=False)
class Known:
    """A constant, or a setting of the owner, of a type that nobody can give another meaning."""

    value: Any


@dataclass(frozen=True, eq=False)
class Own:
    """An attribute of the owner that is neither a module nor a method."""

    name: str
    value: Any


@dataclass(frozen=True, eq=False)
class Module:
    """The owner (an empty path) or a module under it."""

    module: nn.Module
    path: tuple[Child, ...] = ()


@dataclass(eq=False)
class Several:
    """A tuple, a list, a range, or what is gone through once.

    Attributes:
        is_list: it can change.
        once: an iterator: it is empty after it was gone through.
        shared: somebody else has it, too, and may change it if it is a list.
        gone_through: a loop or an iterator goes or went through it, and would meet what is appended.
    """

    values: list[Any]
    is_list: bool = False
    once: bool = False
    shared: bool = False
    gone_through: bool = False


@dataclass(frozen=True, eq=False)
class Helper:
    """A method of the owner."""

    name: str
    function: PythonFunction


@dataclass(frozen=True, eq=False)
class Torch:
    """A module, a function or a class of PyTorch's."""

    object: Any


@dataclass(frozen=True, eq=False)
class Attribute:
    """An attribute of a container, of a list or of something unknown, not yet called."""

    of: Any
    name: str


@dataclass(frozen=True, eq=False)
class Builtin:
    """One of Python's own functions."""

    name: str


@dataclass(frozen=True, eq=False)
class Foreign:
    """Somebody else's function, class or value, by its name in the source."""

    name: str
    object: Any


class Super:
    """super()"""


def name_of(callee: Any) -> str:
    """What was called, where it is no module."""
    if isinstance(callee, Attribute):
        return f"a call of .{callee.name}"
    name = getattr(getattr(callee, "object", None), "__name__", None) or getattr(callee, "name", "something")
    return f"the function {name}"


def of_others(name: str, found: object) -> Torch | Foreign:
    """A value from outside the function: PyTorch's, or somebody else's."""
    return Torch(found) if is_torch(found) else Foreign(name, found)


def is_torch(found: object) -> bool:
    """PyTorch's, and no module or a module's method: those may be of the network."""
    if isinstance(found, nn.Module) or (isinstance(found, MethodType) and isinstance(found.__self__, nn.Module)):
        return False
    name = found.__name__ if isinstance(found, ModuleType) else getattr(found, "__module__", None)
    home = name if isinstance(name, str) else ""
    return home.partition(".")[0] == "torch" and (callable(found) or isinstance(found, ModuleType))


def is_container(module: nn.Module) -> bool:
    """A ModuleList, a ModuleDict or an nn.Sequential that names and orders its modules as these do."""
    for base in CONTAINERS:
        if isinstance(module, base):
            classes = [cls for cls in type(module).__mro__ if cls not in (*base.__mro__, FusedSequential)]
            return not any(name in cls.__dict__ for cls in classes for name in ORDERING)
    return False


def is_sequential(module: nn.Module) -> TypeGuard[nn.Sequential]:
    """It runs its modules as a FusedSequential does."""
    return isinstance(module, FusedSequential) and type(module).forward is FusedSequential.forward
