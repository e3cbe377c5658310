"""The floors of the house: who may import whom. Every import of every file is read, those inside functions too.

    0  _words, _names, _files, _pickles, _layout, ...           words that several floors use
    1  kernels                                                   numbers in, numbers out
    2  ops                                                       functional operators
    3  nn, optim                                                 modules and optimizers over them
    4  losses, models, data                                      objectives, networks, batches
    5  completion                                                weights, picture and mask to a picture
    6  training, serve                                           recipes and the loop; the page with a brush
    7  cli, benchmarks, __main__, and inpaint_fast/__init__.py   what people call

A floor imports from itself and from below, and a package from no other on its own floor but those in SIBLINGS.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "inpaint_fast"
DOOR = "__init__"  # inpaint_fast/__init__.py, which opens most of its rooms when they are asked for
FLOORS = {
    name: floor
    for floor, names in enumerate(
        [
            [
                "_words",
                "_graphs",
                "_trees",
                "_layout",
                "_files",
                "_manifest",
                "_names",
                "_pickles",
                "_processor",
                "_version",
                "_devices",
                "_extension",
                "_recent",
            ],
            ["kernels"],
            ["ops"],
            ["nn", "optim"],
            ["losses", "models", "data"],
            ["completion"],
            ["training", "serve"],
            ["cli", "benchmarks", "__main__", DOOR],
        ]
    )
    for name in names
}
SIBLINGS = {
    ("__main__", "cli"): "python -m inpaint_fast is the command line",
    ("cli", "benchmarks"): "inpaint-fast bench runs them",
    ("cli", DOOR): "the version",
    ("benchmarks", DOOR): "what is measured is called as users call it",
}
COMPILED = f"{PACKAGE}._C"
FOLDERS = {PACKAGE: "inpaint_fast", f"{PACKAGE}.kernels": "kernels", f"{PACKAGE}.benchmarks": "benchmarks"}
SOURCES = {".py", ".cpp", ".h", ".cu", ".cuh", ".sh"}
LONGEST = 500  # lines


class Import(NamedTuple):
    """One module imports another."""

    importer: str
    imported: str
    place: str
    """File and line."""
    text: str
    """The statement."""
    at_load: bool
    """It runs when the importer is loaded, not when a function is called or types are checked."""

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


# ---- reading ----


def files(folder: Path) -> Iterator[Path]:
    """Files in a folder; what a link leads to is elsewhere."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        yield from (Path(place, name) for name in sorted(names))


def modules() -> dict[str, Path]:
    """Module -> its file."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in files(ROOT / folder):
            if path.suffix == ".py":
                parts = path.relative_to(ROOT / folder).with_suffix("").parts
                found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


def imports_of(module: str, source: str, known: Iterable[str], path: str, *, package: bool = False) -> list[Import]:
    """What a module imports of the package.

    Args:
        module: its name.
        source: its text.
        known: all modules: `from inpaint_fast.ops import _dispatch` names one, `... import masked_l2` may not.
        path: of its file, for messages.
        package: it is an __init__.py.
    """
    known, found = set(known), []

    def add(node: ast.AST, name: str, at_load: bool) -> None:
        if name.split(".")[0] == PACKAGE and name != COMPILED:
            text = " ".join(ast.get_source_segment(source, node).split())
            found.append(Import(module, name, f"{path}:{node.lineno}", text, at_load))

    def walk(node: ast.AST, at_load: bool) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                add(node, alias.name, at_load)
        elif isinstance(node, ast.ImportFrom):
            home = module.split(".")[: None if package and node.level == 1 else -node.level + package]
            start = ".".join([*(home if node.level else []), *([node.module] if node.module else [])])
            for alias in node.names:
                inside = f"{start}.{alias.name}"
                add(node, inside if inside in known or inside == COMPILED else start, at_load)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            name = node.args[0]
            while isinstance(name, ast.JoinedStr):  # of f"inpaint_fast.cli.{stem}" the package is known
                name = name.values[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                add(node, name.value.rstrip("."), at_load)
        inside_load = at_load and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for field, value in ast.iter_fields(node):
            typing = isinstance(node, ast.If) and field == "body" and "TYPE_CHECKING" in ast.unparse(node.test)
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    walk(child, inside_load and not typing)

    walk(ast.parse(source), True)
    return found


def all_imports() -> list[Import]:
    found, known = [], modules()
    for module, path in known.items():
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
        found += imports_of(module, text, known, name, package=path.stem == "__init__")
    return found


def part_of(module: str) -> str:
    """What stands on a floor: "ops" of inpaint_fast.ops.masked_l2."""
    return ([*module.split("."), DOOR])[1]


# ---- judging ----


def climbing(imports: Iterable[Import]) -> list[str]:
    """Imports from a higher floor, or from a package beside that is not in SIBLINGS."""
    wrong = []
    for each in imports:
        here, there = part_of(each.importer), part_of(each.imported)
        for name in (here, there):
            assert name in FLOORS, f"{each}: {PACKAGE}.{name} stands on no floor; tests/test_floors.py lists them"
        if FLOORS[there] > FLOORS[here]:
            wrong.append(f"{each}   ({here} is on floor {FLOORS[here]}, {there} above it, on {FLOORS[there]})")
        elif FLOORS[there] == FLOORS[here] > 0 and here != there and (here, there) not in SIBLINGS:
            wrong.append(f"{each}   ({here} and {there} stand side by side on floor {FLOORS[here]})")
    return wrong


def circle(edges: Mapping[tuple[str, str], Import]) -> list[str]:
    """The imports along one circle, if there is one."""
    after: dict[str, list[str]] = {}
    for here, there in edges:
        after.setdefault(here, []).append(there)
    done: set[str] = set()

    def search(name: str, path: list[str]) -> list[str]:
        if name in path:
            way = [*path[path.index(name) :], name]
            return [str(edges[pair]) for pair in zip(way, way[1:], strict=False)]
        if name in done:
            return []
        for following in after.get(name, []):
            if found := search(following, [*path, name]):
                return found
        done.add(name)
        return []

    return next(filter(None, (search(name, []) for name in after)), [])


def between_modules(imports: Iterable[Import]) -> dict[tuple[str, str], Import]:
    """What runs as modules are loaded."""
    return {(each.importer, each.imported): each for each in imports if each.at_load}


def between_packages(imports: Iterable[Import], known: Mapping[str, Path]) -> dict[tuple[str, str], Import]:
    """Whatever runs when; a package and one inside it are no pair."""

    def package_of(module: str) -> str:
        is_package = module in known and known[module].stem == "__init__"
        return module if is_package or module.count(".") == 1 else module.rpartition(".")[0]

    pairs = {(package_of(each.importer), package_of(each.imported)): each for each in imports}
    return {
        (here, there): each
        for (here, there), each in pairs.items()
        if not f"{here}.".startswith(f"{there}.") and not f"{there}.".startswith(f"{here}.")
    }


def includes() -> Iterator[tuple[Path, int, Path]]:
    """(file of csrc, line, file that it includes), those of the project alone."""
    for path in files(ROOT / "csrc"):
        if path.suffix in SOURCES:
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if match := re.match(r'\s*#\s*include\s+"([^"]+)"', line):
                    places = (ROOT / "csrc" / match[1], path.parent / match[1])
                    yield path, number, next((place for place in places if place.exists()), places[0])


def stem_of(path: Path) -> str:
    """The folder of csrc that a file lies in; "" for those above all of them."""
    parts = path.resolve().relative_to(ROOT / "csrc").parts
    return parts[0] if len(parts) > 1 else ""


# ---- the tests ----


def test_a_floor_imports_only_from_below() -> None:
    assert not (wrong := climbing(all_imports())), "\n" + "\n".join(wrong)


def test_no_circle_of_modules_as_they_are_loaded() -> None:
    assert not (found := circle(between_modules(all_imports()))), "\n" + "\n".join(found)


def test_no_circle_of_packages() -> None:
    assert not (found := circle(between_packages(all_imports(), modules()))), "\n" + "\n".join(found)


def test_a_stem_of_csrc_includes_its_own_and_what_is_common() -> None:
    """And what is common includes no stem's. The files of csrc itself, which make the module, may include all."""
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: includes {included.relative_to(ROOT)}"
        for path, number, included in includes()
        if stem_of(path) and stem_of(included) not in (stem_of(path), "common")
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_no_file_is_longer_than_it_can_be_read() -> None:
    folders = ("inpaint_fast", "kernels", "csrc", "benchmarks", "tests", "docs")
    found = [path for folder in folders for path in files(ROOT / folder)] + sorted(ROOT.glob("*"))
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in found
        if path.suffix in SOURCES
    }
    long = [f"{name}: {length} lines" for name, length in lengths.items() if length > LONGEST]
    assert not long, f"over {LONGEST} lines; split by idea:\n" + "\n".join(long)


KNOWN = {
    f"{PACKAGE}.{name}": Path(f"{name.replace('.', '/')}{'' if '.' in name else '/__init__'}.py")
    for name in ("kernels", "ops", "ops.a", "ops.b", "models", "data", "training", "nn", "nn.c")
}


@pytest.mark.parametrize(
    ("module", "source", "seen"),
    [
        ("kernels.k", "def run():\n    from inpaint_fast.ops import a", "k.py:2: from inpaint_fast.ops import a   ("),
        ("kernels.k", "from inpaint_fast import ops", "k.py:1: from inpaint_fast import ops   (kernels is on floor 1"),
        ("ops.a", "import inpaint_fast", "k.py:1: import inpaint_fast   (ops is on floor 2, __init__ above it, on 7)"),
        ("ops.a", "import importlib\nimportlib.import_module(f'inpaint_fast.nn.{1}')", "k.py:2: importlib.import"),
        ("ops.a", "from ..nn import c", "k.py:1: from ..nn import c"),
        ("models.m", "from inpaint_fast.data import Batch", "(models and data stand side by side on floor 4)"),
        ("completion.x", "if TYPE_CHECKING:\n    from inpaint_fast.training import Run", "k.py:2: from inpaint"),
        ("ops.a", "from inpaint_fast import _C\nfrom . import b\nimport torch.nn", ""),
        ("training.t", "from inpaint_fast.models import ContextCNN", ""),
    ],
)  # fmt: skip
def test_an_import_that_climbs_is_seen(module: str, source: str, seen: str) -> None:
    found = "".join(climbing(imports_of(f"{PACKAGE}.{module}", source, KNOWN, "k.py")))
    assert seen in found if seen else not found


def test_circles_are_seen() -> None:
    sources = {
        "ops.a": "from inpaint_fast.ops import b",
        "ops.b": "def f():\n    from inpaint_fast.ops import a",
        "models": "from inpaint_fast.data import Batch",
        "data": "def f():\n    from inpaint_fast import models",
    }
    imports = [
        each
        for name, source in sources.items()
        for each in imports_of(f"{PACKAGE}.{name}", source, KNOWN, f"{name}.py", package="." not in name)
    ]
    assert not circle(between_modules(imports))
    loaded = [each._replace(at_load=True) for each in imports]
    assert circle(between_modules(loaded)) == ["ops.a.py:1: from inpaint_fast.ops import b", "ops.b.py:2: from inpaint_fast.ops import a"]  # fmt: skip  # noqa: E501
    assert len(circle(between_packages(imports, KNOWN))) == 2
