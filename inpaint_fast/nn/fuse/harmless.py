"""Functions that call none of a network's modules, whatever they are given: what checks a shape, say, and raises."""

from __future__ import annotations

import ast
import builtins
from types import FunctionType

import torch

from inpaint_fast.nn.fuse.proof import Function
from inpaint_fast.nn.fuse.source import PythonFunction, Unproved, definition_of
from inpaint_fast.nn.fuse.values import is_torch

# Of Python's own: what calls nothing that it is given.
BUILTINS = frozenset((
    "len", "list", "tuple", "reversed", "enumerate", "zip", "print", "isinstance", "float", "int", "bool", "str", "abs",
    "min", "max", "sum", "round", "slice", "range", "type", "id", "any", "all", "repr",
))  # fmt: skip
_FORBIDDEN = (
    ast.Lambda, ast.AsyncFunctionDef, ast.ClassDef, ast.Yield, ast.YieldFrom, ast.Await, ast.With, ast.AsyncWith,
    ast.Try, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal, ast.Delete, ast.NamedExpr,
)  # fmt: skip
DEEPEST = 4


def is_tensor_method(name: str) -> bool:
    """Such a method of a tensor calls nothing that it is given."""
    return hasattr(torch.Tensor, name) and not name.endswith("apply_")


def grounds_of(name: str, user: PythonFunction, function: PythonFunction, depth: int = 0) -> list[Function] | None:
    """What it rests on that this function, so called by `user`, calls nobody's modules; None: it may."""
    if depth >= DEEPEST or function.__closure__:
        return None
    try:
        definition = definition_of(function)
    except Unproved:
        return None
    grounds = [Function(name, user, function)]
    for node in ast.walk(definition):
        if isinstance(node, _FORBIDDEN) or (isinstance(node, ast.FunctionDef) and node is not definition):
            return None
        if isinstance(node, ast.Call):
            found = _of_call(node, function, depth)
            if found is None:
                return None
            grounds += found
    return grounds


def _of_call(node: ast.Call, function: PythonFunction, depth: int) -> list[Function] | None:
    """What it rests on that this call in `function` is harmless; None: it may not be."""
    callee, names = node.func, function.__globals__
    if isinstance(callee, ast.Attribute):
        if isinstance(callee.value, ast.Constant):  # a text's method
            return []
        return [] if is_tensor_method(callee.attr) or _is_of_torch(callee, function) else None
    if not isinstance(callee, ast.Name) or callee.id in function.__code__.co_varnames:
        return None
    found = names.get(callee.id, getattr(builtins, callee.id, None))
    if isinstance(found, FunctionType) and not is_torch(found):
        return grounds_of(callee.id, function, found, depth + 1)
    if callee.id in names:
        return [] if is_torch(found) else None
    if callee.id == "map":  # of one of Python's own
        first = node.args[0] if node.args else None
        own = isinstance(first, ast.Name) and first.id in BUILTINS and first.id not in names
        return [] if own else None
    return [] if callee.id in BUILTINS or (isinstance(found, type) and issubclass(found, BaseException)) else None


def _is_of_torch(node: ast.expr, function: PythonFunction) -> bool:
    """It is an attribute of PyTorch's modules, by the names in the source."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return (
        isinstance(node, ast.Name)
        and node.id not in function.__code__.co_varnames
        and is_torch(function.__globals__.get(node.id))
    )
