"""The parity book: docs/parity.md, written from the tests that bear the mark `proves`.

    python docs/parity.py            writes it                         (`make figures`)
    python docs/parity.py --check    exit code 1 and the difference, where it says anything else

A test says what it proves where it stands:

    @pytest.mark.proves("masked_l2", equals="the reference in float64, with both gradients")

All else is read from its source, and nothing is run: where it stands, on which implementations and dtypes it runs, and
how close it asks to be, from the comparisons that it makes itself or by functions of its module. `source=` names what
was published; `within=` and `dtypes=` are for what cannot be read off. Python alone is needed.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import runpy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = "docs/parity.md"
HEAD = """# The parity book

What each operator, network and system is proved equal to, by which test. `python docs/parity.py` writes this page from
the tests (`make figures`), and a test compares it with them.

*As good as PyTorch*: the error against float64 is at most twice that of the same expression in plain PyTorch and the
same dtype, plus a few units in the last place. *PyTorch's tolerance*: `torch.testing.assert_close` as it comes, a
relative 1.3e-6 and an absolute 1e-5 in float32, 1e-7 both in float64. *Every implementation*: reference, C++ by each
instruction set, the CUDA source emulated on a CPU, Triton interpreted; and CUDA and Triton on a GPU where there is one.
*Every kernel*: all of these but the reference.
"""
ALL_DTYPES = "float32, float64, float16, bfloat16"
RUNS_ON = {
    "implementation": "every implementation",
    "kernel": "every kernel",
    "mode": "CUDA's source, by each of its codes",
    "half": "CUDA's source for sm_90a",
}
PARTS = {
    "ops": "Operators", "optim": "Optimizers", "nn": "Networks, accelerated", "losses": "Losses", "models": "Networks",
    "data": "Data", "completion": "Completion", "training": "Systems", "benchmarks": "Published networks",
}  # fmt: skip


class ParityError(ValueError):
    """A mark is not as it should be; says which and what is expected."""


class Proof(NamedTuple):
    """A row of the book."""

    part: str
    subjects: tuple[str, ...]
    equals: str
    source: str
    on: str
    dtypes: str
    within: str
    test: str

    def row(self) -> str:
        about = f"{self.equals} ({self.source})" if self.source else self.equals
        names = ", ".join(f"`{name}`" for name in self.subjects)
        cells = (names, about, self.on, self.dtypes, self.within, f"[`{self.test.partition('::')[2]}`]"
                 f"(../{self.test.partition('::')[0]})")  # fmt: skip
        return "| " + " | ".join(cells) + " |"


# ---- reading a test ----


def proofs(root: Path = ROOT) -> list[Proof]:
    """All that is proved, in the order of PARTS, then of the files."""
    found = [proof for path in sorted((root / "tests").rglob("test_*.py")) for proof in proofs_of(path, root)]
    return sorted(found, key=lambda proof: list(PARTS).index(proof.part))


def proofs_of(path: Path, root: Path = ROOT) -> Iterator[Proof]:
    """The proofs of a file. Raises ParityError, which names the test."""
    text = path.read_text(encoding="utf-8")
    if "mark.proves(" not in text:
        return
    tree = ast.parse(text)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    numbers = {
        ast.unparse(node.targets[0]): ast.unparse(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    }
    for function in functions.values():
        for mark in (each for each in function.decorator_list if _is_call(each, "pytest.mark.proves")):
            yield _proof(mark, function, path.relative_to(root).as_posix(), _tolerance(function, functions, numbers))


def _proof(mark: ast.Call, function: ast.FunctionDef, file: str, tolerance: str) -> Proof:
    name, words = f"{file}::{function.name}", {each.arg: ast.literal_eval(each.value) for each in mark.keywords}
    subjects = tuple(ast.literal_eval(each) for each in mark.args)
    part = Path(file).parts[1]
    if not subjects or "equals" not in words or words.keys() - {"equals", "source", "within", "dtypes"}:
        raise ParityError(f"{name}: proves(SUBJECT, ..., equals=, source=, within=, dtypes=) is expected")
    if part not in PARTS:
        raise ParityError(f"{name}: a test in one of {', '.join(PARTS)} is expected")
    within = words.get("within") or tolerance
    if not within:
        raise ParityError(f"{name}: it compares by nothing that is known; within= is expected to say how close")
    arguments = {argument.arg for argument in function.args.args}
    on = next((text for argument, text in RUNS_ON.items() if argument in arguments), "as it runs unasked")
    return Proof(part, subjects, words["equals"], words.get("source", ""), on,
                 words.get("dtypes") or _dtypes(function), within, name)  # fmt: skip


def _dtypes(function: ast.FunctionDef) -> str:
    """What `dtype` is parametrised by; else PyTorch's own, float32."""
    for each in function.decorator_list:
        if _is_call(each, "pytest.mark.parametrize") and ast.literal_eval(each.args[0]) == "dtype":
            text = ast.unparse(each.args[1])
            return ALL_DTYPES if text == "DTYPES" else ", ".join(
                ast.unparse(element).removeprefix("torch.") for element in each.args[1].elts
            )  # fmt: skip
    return "float32"


def _tolerance(function: ast.FunctionDef, functions: dict[str, ast.FunctionDef], numbers: dict[str, str]) -> str:
    """How close the comparisons of a test, and of the functions that it calls, ask to be."""
    found: dict[str, None] = {}
    for node in _nodes(function, functions, set()):
        if isinstance(node, ast.Compare) and _is_call(node.left, "relative_error"):
            limit = ast.unparse(node.comparators[0])
            found[f"relative error {numbers.get(limit, limit)}"] = None
        elif _is_call(node, "assert_as_good"):
            found["as good as PyTorch"] = None
        elif _is_call(node, "torch.equal"):
            found["bit for bit"] = None
        elif _is_call(node, "torch.testing.assert_close"):
            limits = {each.arg: ast.unparse(each.value) for each in node.keywords if each.arg in ("rtol", "atol")}
            exact = limits and set(limits.values()) <= {"0", "0.0"}
            words = ", ".join(f"{key} {value}" for key, value in limits.items()) or "PyTorch's tolerance"
            found["bit for bit" if exact else words] = None
    return "; ".join(found)


def _nodes(function: ast.FunctionDef, functions: dict[str, ast.FunctionDef], seen: set[str]) -> Iterator[ast.AST]:
    """What stands in a function and in those of its module that it names."""
    seen.add(function.name)
    for node in ast.walk(ast.Module(function.body, [])):
        yield node
        if isinstance(node, ast.Name) and node.id in functions and node.id not in seen:
            yield from _nodes(functions[node.id], functions, seen)


def _is_call(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == name


# ---- writing the page ----


def page(found: Sequence[Proof]) -> str:
    """docs/parity.md."""
    parts = [HEAD]
    for part, title in PARTS.items():
        if rows := [proof.row() for proof in found if proof.part == part]:
            head = "| | is equal to | on | dtypes | within | test |\n| --- | --- | --- | --- | --- | --- |"
            parts.append("\n".join([f"## {title}", "", head, *rows]) + "\n")
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 and the difference, if any")
    options = parser.parse_args(argv)
    path = root / PAGE
    try:
        new = page(proofs(root))
    except ParityError as error:
        print(error, file=sys.stderr)
        return 1
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    if options.check:
        lines = (text.splitlines(keepends=True) for text in (old, new))
        sys.stdout.writelines(difflib.unified_diff(*lines, PAGE, f"{PAGE}, by the tests", n=0))
        return int(old != new)
    if old != new:
        write_whole = runpy.run_path(str(ROOT / "inpaint_fast/_files.py"))["write_whole"]  # the package loads torch
        write_whole(path, lambda file: file.write(new.encode()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
