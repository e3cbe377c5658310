"""The syntax tree of a function, proved to be that of the code that runs."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator
from functools import lru_cache
from types import CellType, CodeType
from typing import Any, Protocol


class PythonFunction(Protocol):
    """A FunctionType. Attributes of classes that are declared as that are taken for methods, which ours are not."""

    __code__: CodeType
    __defaults__: tuple[Any, ...] | None
    __kwdefaults__: dict[str, Any] | None
    __name__: str
    __qualname__: str
    __module__: str

    @property
    def __globals__(self) -> dict[str, Any]: ...

    @property
    def __closure__(self) -> tuple[CellType, ...] | None: ...

    def __call__(self, *args: Any, **named: Any) -> Any: ...


class Unproved(Exception):
    """Why a forward was not proved to do what it seems to do."""


def definition_of(function: PythonFunction) -> ast.FunctionDef:
    """The definition of this function.

    Raises:
        Unproved: there is no source, or another one than that of the code that runs.
    """
    code, file = function.__code__, function.__code__.co_filename
    linecache.checkcache(file)
    text = "".join(linecache.getlines(file, function.__globals__))
    if not text:
        raise Unproved("its source cannot be read")
    try:
        tree, compiled = _parsed(file, text)
    except (SyntaxError, ValueError):
        raise Unproved("its source cannot be read") from None
    found = [
        node for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == code.co_name and _first_line(node) == code.co_firstlineno
    ]  # fmt: skip
    if len(found) != 1 or not any(other == code for other in _codes(compiled)):
        raise Unproved("its source is not what runs")
    return found[0]


@lru_cache(maxsize=64)
def _parsed(file: str, text: str) -> tuple[ast.Module, CodeType]:
    return ast.parse(text), compile(text, file, "exec", dont_inherit=True)


def _first_line(node: ast.FunctionDef) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _codes(code: CodeType) -> Iterator[CodeType]:
    """All code objects in this one."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
