"""docs/parity.py: the book says what the tests prove, and leaves out no operator, network and system."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import inpaint_fast as ipf
from inpaint_fast.models import NETWORKS
from inpaint_fast.training import RECIPES

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "docs" / "parity.py"
book = SimpleNamespace(**runpy.run_path(str(SCRIPT)))
PROVED = {subject for proof in book.proofs() for subject in proof.subjects}


def test_the_book_says_what_the_tests_say_and_python_alone_tells() -> None:
    bare = subprocess.run([sys.executable, "-I", "-S", SCRIPT, "--check"], capture_output=True, text=True)
    assert (bare.returncode, bare.stdout, bare.stderr) == (0, "", "")


def test_no_operator_network_or_system_is_left_out() -> None:
    operators = {name for name in ipf.ops.__all__ if hasattr(ipf, name)} - {"BackendError", "use_backend"}
    modules = {"DilatedConvBlock", "accelerate", "restore"}
    assert operators | modules | set(ipf.optim.__all__) | set(NETWORKS) <= PROVED
    assert "every recipe" in PROVED and PROVED & set(RECIPES)


def test_nothing_is_proved_of_what_is_not_there() -> None:
    modules = (ipf, ipf.optim, ipf.nn, ipf.losses, ipf.models, ipf.completion, ipf.training, ipf.data)
    public = {name for module in modules for name in module.__all__}
    assert public | set(RECIPES) | {"every recipe"} >= PROVED


SOURCE = """
import pytest
BOUND = 1e-5

def close(a, b):
    assert relative_error(a, b) < BOUND

@pytest.mark.proves({mark})
@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
def test_it(implementation, dtype):
    close(1, 2)
    torch.testing.assert_close(a, b, rtol=1e-3, atol=0)
"""


def written(root: Path, mark: str) -> Path:
    """A project of one test that bears this mark."""
    (root / "tests" / "ops").mkdir(parents=True)
    (root / "docs").mkdir()
    (root / "tests" / "ops" / "test_one.py").write_text(SOURCE.replace("{mark}", mark))
    return root


def test_what_a_test_asks_for_is_read_from_it(tmp_path: Path) -> None:
    (proof,) = book.proofs(written(tmp_path, '"op", equals="the truth", source="Them (2017)"'))
    cells = [cell.strip() for cell in proof.row().split("|")[1:-1]]
    assert cells[:4] == ["`op`", "the truth (Them (2017))", "every implementation", "float16, bfloat16"]
    assert set(cells[4].split("; ")) == {"relative error 1e-05", "rtol 0.001, atol 0"}
    assert cells[5] == "[`test_it`](../tests/ops/test_one.py)"


@pytest.mark.parametrize("mark", ['equals="the truth"', '"op"', '"op", equals="the truth", unknown="x"'])
def test_a_mark_that_says_too_little_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], mark: str) -> None:
    assert book.main([], written(tmp_path, mark)) == 1
    assert "tests/ops/test_one.py::test_it: proves(SUBJECT" in capsys.readouterr().err


def test_a_change_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(ROOT / "tests" / "losses", tmp_path / "tests" / "losses")
    (tmp_path / "docs").mkdir()
    assert book.main(["--check"], tmp_path) == 1
    assert "+| `hole_l2` |" in capsys.readouterr().out
    assert book.main([], tmp_path) == book.main(["--check"], tmp_path) == 0
