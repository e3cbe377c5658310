"""What a forward does with its modules, read from its source and proved for every call.

Nothing of the user's is run: a forward is read as an interpreter would run it, with values that are known (constants,
modules, the owner's own settings) and values that are not (tensors, arguments, whatever else). What it calls, in which
order, and on what must follow from what is known; a condition, a loop or a callee that does not is the end of the
proof, and `Unproved` names its line.

Known are constants, and of the owner's own attributes: those that are bool, int, str or None, modules compared by
identity, `self.training`. They are the *grounds* of the proof; whoever relies on it asks them again at each call.
"""

from __future__ import annotations

import ast
from dataclasses import Field, dataclass, field
from typing import Any, ClassVar, Protocol

from torch import nn

from inpaint_fast.nn.fuse.facts import (
    Facts,
    all_of,
    class_is,
    dict_is,
    dict_lacks,
    function_is,
    items_are,
    own_is,
    own_lacks,
)
from inpaint_fast.nn.fuse.source import PythonFunction
from inpaint_fast.nn.graphs import Graphed

PLAIN = (bool, int, str, type(None))  # values of these types are compared, all others only by identity
MISSING = object()


# ---- the grounds ----


class Ground(Protocol):
    """Something that a proof rests on: a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def holds(self, owner: nn.Module) -> bool: ...

    def facts(self, owner: nn.Module) -> Facts | None:
        """What it follows from, where it holds now; None: it has to be asked itself."""


@dataclass(frozen=True, eq=False)
class Setting:
    """An attribute of the owner is what it was."""

    name: str
    value: object

    def holds(self, owner: nn.Module) -> bool:
        value = attribute(owner, self.name)
        # Nobody's __eq__ is called.
        same = type(value) is type(self.value) and type(value) in PLAIN and value == self.value
        return value is self.value or same

    def facts(self, owner: nn.Module) -> Facts | None:
        if self.name not in owner.__dict__ or hasattr(getattr(type(owner), self.name, None), "__set__"):
            return None
        return all_of(class_is(type(owner), self.name), own_is(owner, self.name))


@dataclass(frozen=True, eq=False)
class Child:
    """A module has this child by this name."""

    parent: nn.Module
    name: str
    child: nn.Module

    def holds(self, owner: nn.Module) -> bool:
        return self.parent._modules.get(self.name) is self.child

    def facts(self, owner: nn.Module) -> Facts:
        return all_of(own_is(self.parent, "_modules"), dict_is(self.parent._modules, self.name))


@dataclass(frozen=True, eq=False)
class Contents:
    """A container has these modules, in this order."""

    container: nn.Module
    modules: tuple[tuple[str, nn.Module | None], ...]

    def holds(self, owner: nn.Module) -> bool:
        now = self.container._modules.items()
        return len(now) == len(self.modules) and all(
            name == same and module is known for (name, module), (same, known) in zip(now, self.modules, strict=True)
        )

    def facts(self, owner: nn.Module) -> Facts:
        return all_of(own_is(self.container, "_modules"), items_are(self.container._modules))


class _OfFunction:
    """What both have that rest on a function; no field of theirs, since two that are alike have it each."""

    parts: tuple[object, ...]
    """Of the function, when it was read."""


@dataclass(frozen=True, eq=False)
class Method(_OfFunction):
    """Such a method of the owner is this function: as the owner has it, or as this class of its has it."""

    name: str
    function: PythonFunction
    cls: type | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", _parts(self.function))

    def __reduce__(self) -> tuple:
        return Method, (self.name, self.function, self.cls)

    def holds(self, owner: nn.Module) -> bool:
        name = self.name
        if self.cls is not None:
            found = self.cls.__dict__.get(name)
        elif has_own(owner, name):
            found = attribute(owner, name)
        else:  # the usual case, without the questions of the others
            found = MISSING
            for cls in type(owner).__mro__:
                of_class = cls.__dict__
                if name in of_class:
                    found = of_class[name]
                    break
        return found is self.function and _is_as_it_was(self.function, self.parts)

    def facts(self, owner: nn.Module) -> Facts | None:
        if len(self.parts) > 2 or (self.cls is None and has_own(owner, self.name)):
            return None
        if self.cls is not None:
            return all_of(class_is(self.cls, self.name), function_is(self.function))
        of_class = class_is(type(owner), self.name)
        own = own_is if self.name in owner.__dict__ else own_lacks
        return all_of(own(owner, self.name), of_class, function_is(self.function))


@dataclass(frozen=True, eq=False)
class BuiltinName:
    """A function's module has no variable of this name, so that it is Python's own."""

    name: str
    function: PythonFunction

    def holds(self, owner: nn.Module) -> bool:
        return self.name not in self.function.__globals__

    def facts(self, owner: nn.Module) -> Facts:
        return dict_lacks(self.function.__globals__, self.name)


@dataclass(frozen=True, eq=False)
class Function(_OfFunction):
    """A variable of a function's module is this function."""

    name: str
    user: PythonFunction
    function: PythonFunction

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", _parts(self.function))

    def __reduce__(self) -> tuple:
        return Function, (self.name, self.user, self.function)

    def holds(self, owner: nn.Module) -> bool:
        found = self.user.__globals__.get(self.name)
        return found is self.function and _is_as_it_was(self.function, self.parts)

    def facts(self, owner: nn.Module) -> Facts | None:
        if len(self.parts) > 2:
            return None
        return all_of(dict_is(self.user.__globals__, self.name), function_is(self.function))


def _parts(function: PythonFunction) -> tuple[object, ...]:
    """What of a function can be exchanged in place: its code, and the values that its arguments have by default."""
    code, named = function.__code__, function.__kwdefaults__ or {}
    keywords = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    return code, function.__defaults__, *(named.get(name, MISSING) for name in keywords)


def _is_as_it_was(function: PythonFunction, parts: tuple[object, ...]) -> bool:
    if function.__code__ is not parts[0] or function.__defaults__ is not parts[1]:
        return False
    # The same code has as many arguments by keyword alone.
    return len(parts) == 2 or all(one is another for one, another in zip(parts, _parts(function), strict=True))


def has_own(owner: nn.Module, name: str) -> bool:
    """The owner has an attribute of its own by this name. A `Graphed` forward is none: it calls that of the class."""
    own = owner.__dict__
    return name in own and type(own[name]) is not Graphed


def attribute(owner: nn.Module, name: str) -> object:
    """What owner.<name> would be looked up as, without running any code of theirs; MISSING where there is none."""
    own = owner.__dict__
    of_class = next((cls.__dict__[name] for cls in type(owner).__mro__ if name in cls.__dict__), MISSING)
    if hasattr(type(of_class), "__set__"):
        return of_class  # a property goes before everything
    if has_own(owner, name):
        return own[name]
    if of_class is not MISSING:
        return of_class
    places = (own.get(place, {}) for place in ("_parameters", "_buffers", "_modules"))
    return next((place[name] for place in places if name in place), MISSING)


# ---- what was read ----


@dataclass(eq=False)
class Call:
    """A module was called by this function, as the `place`-th of all calls and writes, in these `with` statements."""

    module: nn.Module
    caller: PythonFunction
    invocations: tuple[int, ...]  # of the functions that were being read, outermost first
    place: int
    within: tuple[ast.With, ...]
    path: tuple[Child, ...]  # from the owner to the module
    result: Result = field(init=False)


@dataclass(eq=False)
class Result:
    """A value that is not known: of an argument, a call, an expression.

    Attributes:
        uses: what was done with it: the call that it alone was given to, or words.
    """

    uses: list[Call | str] = field(default_factory=list)


@dataclass
class Reading:
    """What a forward does, in training or in eval mode.

    Attributes:
        calls: of modules, in order.
        grounds: what this rests on.
    """

    calls: list[Call] = field(default_factory=list)
    grounds: list[Ground] = field(default_factory=list)

    def of(self, module: nn.Module) -> list[Call]:
        return [call for call in self.calls if call.module is module]

    def following(self, call: Call, first: Call) -> Call | str:
        """The call that takes this one's result, alone and at once; or why there is none.

        first: whoever calls the function that makes this call gets that one, too.
        """
        uses = call.result.uses
        if len(uses) != 1:
            return f"what it returns is used {len(uses)} times"
        use = uses[0]
        if isinstance(use, str):
            return use
        if use.invocations[: len(first.invocations)] != first.invocations:
            return f"the {type(use.module).__name__} that follows is called by another function"
        if use.place != call.place + 1 or use.within != call.within:
            return f"something is called or written before the {type(use.module).__name__} that follows"
        return use
