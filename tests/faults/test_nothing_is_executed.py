"""Nothing that a file says is executed: no pickle is loaded, no text is run, no name from a file imported, anywhere."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = (
    "eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load",
    "marshal.loads", "shelve.open", "runpy.run_path", "runpy.run_module", "torch.jit.load", "numpy.load", "np.load",
    "torch.package.PackageImporter", "yaml.load", "joblib.load", "dill.load", "cloudpickle.load", "os.system",
    "os.popen", "importlib.import_module", "import_module",
)  # fmt: skip
ALLOWED = {
    ("inpaint_fast/__init__.py", "importlib.import_module"): "the package's own modules, by a list",
    ("inpaint_fast/cli/main.py", "importlib.import_module"): "commands, by a list",
    ("inpaint_fast/cli/bench.py", "importlib.import_module"): "benchmarks, by a list",
    ("inpaint_fast/ops/_dispatch.py", "importlib.import_module"): "an operator's kernels, by its definition",
    ("inpaint_fast/nn/fuse/source.py", "compile"): "compared with code that there is, and not run",
    ("inpaint_fast/data/layouts.py", "pickle.Unpickler"): "a class that refuses every name",
}


def dangers(source: str, path: str) -> Iterator[str]:
    """Calls, and base classes, that execute what they are given."""
    for node in ast.walk(ast.parse(source)):
        found = []
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            found = [name] if name in FORBIDDEN else []
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if name == "torch.load" and words.get("weights_only") != "True":
                found.append("torch.load without weights_only=True")
            if words.get("shell") == "True":
                found.append("a shell")
        elif isinstance(node, ast.ClassDef):
            found = [name for name in map(ast.unparse, node.bases) if name in FORBIDDEN]
        elif isinstance(node, ast.ImportFrom) and node.module in ("pickle", "marshal", "dill", "joblib", "runpy"):
            found = [f"from {node.module} import ..."]
        yield from (f"{path}:{node.lineno}: {each}" for each in found if (path, each) not in ALLOWED)


def test_anywhere_in_the_package() -> None:
    files = [path for folder in ("inpaint_fast", "kernels", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    found = [each for path in files for each in dangers(path.read_text(), path.relative_to(ROOT).as_posix())]
    assert len(files) > 100 and not found, "\n".join(found)


def test_what_is_allowed_is_there() -> None:
    for path, name in ALLOWED:
        assert name in (ROOT / path).read_text()


@pytest.mark.parametrize(
    "source",
    [
        "eval(text)", "x = exec(open(p).read())", "import pickle\npickle.load(f)", "torch.load(f)",
        "torch.load(f, weights_only=False)", "torch.load(f, weights_only=safe)",
        "importlib.import_module(config['name'])",
        "class Loader(pickle.Unpickler):\n    pass", "from pickle import loads", "torch.jit.load(p)",
        "subprocess.run(p, shell=True)", "__import__(name)",
    ],
)  # fmt: skip
def test_it_is_seen(source: str) -> None:
    assert list(dangers(source, "inpaint_fast/any.py"))


def test_what_is_harmless_is_not() -> None:
    assert not list(dangers("net.eval()\nre.compile(x)\ntorch.load(f, weights_only=True)", "inpaint_fast/any.py"))
