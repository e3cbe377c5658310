"""The tests that run on a GPU, read: their tensors lie there. No machine without one would notice.

A test with the fixture `implementation` or `kernel` runs on each device that there is, so it asks for `.device`, itself
or in a function that it hands the fixture to. In a test marked `gpu` each tensor that is made names its device, or is
moved.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FIXTURES = {"implementation", "kernel"}
FACTORIES = {
    "arange", "empty", "eye", "full", "linspace", "ones", "rand", "randint", "randn", "randperm", "tensor", "zeros",
}  # fmt: skip
MOVES = {"cuda", "to"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions_of(tree: ast.Module) -> dict[str, Function]:
    return {node.name: node for node in tree.body if isinstance(node, Function)}


def calls_in(function: Function) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(function) if isinstance(node, ast.Call))


def asks_for_device(function: Function, name: str, functions: dict[str, Function], deeper: int = 3) -> bool:
    """Whether a function reads `<name>.device`, or hands <name> to one that does."""
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and node.attr == "device" and ast.unparse(node.value) == name:
            return True
    for call in calls_in(function):
        called = functions.get(ast.unparse(call.func)) if deeper else None
        if called is None:
            continue
        names = [argument.arg for argument in (*called.args.posonlyargs, *called.args.args)]
        handed = [own for own, given in zip(names, call.args, strict=False) if ast.unparse(given) == name]
        handed += [each.arg for each in call.keywords if each.arg and ast.unparse(each.value) == name]
        if any(asks_for_device(called, own, functions, deeper - 1) for own in handed):
            return True
    return False


def is_marked(node: Function | ast.ClassDef) -> bool:
    return any("mark.gpu" in ast.unparse(decorator) for decorator in node.decorator_list)


def left_behind(function: Function) -> Iterator[ast.Call]:
    """Calls that make a tensor on the CPU and leave it there, as far as their expression tells."""
    moved = {
        id(inside)
        for call in calls_in(function)
        if isinstance(call.func, ast.Attribute) and call.func.attr in MOVES
        for inside in ast.walk(call.func.value)
    }
    for call in calls_in(function):
        name = ast.unparse(call.func)
        is_factory = name.startswith("torch.") and name.removeprefix("torch.") in FACTORIES
        if is_factory and id(call) not in moved and not any(each.arg in ("device", None) for each in call.keywords):
            yield call


def faults_of(source: str, helpers: dict[str, Function] | None = None) -> list[str]:
    """Line and what is wrong there."""
    tree = ast.parse(source)
    functions = (helpers or {}) | functions_of(tree)
    everywhere = any("pytestmark" in ast.unparse(node) and "mark.gpu" in ast.unparse(node) for node in tree.body)
    found = []
    for function in functions_of(tree).values():
        if not function.name.startswith("test_"):
            continue
        for name in sorted(FIXTURES & {argument.arg for argument in function.args.args}):
            if not asks_for_device(function, name, functions):
                found.append(f"{function.lineno}: {function.name} never asks for {name}.device")
        if everywhere or is_marked(function):
            found += [f"{call.lineno}: {ast.unparse(call)} stays on the CPU" for call in left_behind(function)]
    return found


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=lambda path: path.relative_to(TESTS).as_posix())
def test_tensors_lie_on_the_device(path: Path) -> None:
    helpers: dict[str, Function] = {}
    for beside in (TESTS / "support.py", *path.parent.glob("*.py")):
        if not beside.name.startswith("test_"):
            helpers |= functions_of(ast.parse(beside.read_text(encoding="utf-8")))
    faults = faults_of(path.read_text(encoding="utf-8"), helpers)
    assert not faults, "\n".join(f"{path.relative_to(TESTS)}:{fault}" for fault in faults)


MADE = """
import pytest, torch
def made(implementation, n): return torch.ones(n, device=implementation.device)
def small(implementation): return 2 if implementation.slow else 3
def test_right(implementation): torch.ones(2, device=implementation.device)
def test_right_by_another(kernel): made(kernel, 3)
def test_wrong(implementation): torch.ones(small(implementation))
@pytest.mark.gpu
def test_marked():
    torch.ones(2, device="cuda"); torch.ones(2).cuda(); (2 * torch.ones(2)).to("cuda"); torch.zeros_like(x)
    torch.randn(3)
def test_not_marked(): torch.randn(3)
"""


def test_the_reader() -> None:
    assert faults_of(MADE) == [
        "7: test_wrong never asks for implementation.device",
        "11: torch.randn(3) stays on the CPU",
    ]
