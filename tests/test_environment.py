"""The variables of the environment: every one that is read is known, a wrong value of any is named in a sentence."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from inpaint_fast import _extension
from inpaint_fast._environment import VARIABLES

ROOT = Path(__file__).resolve().parent.parent
OF_THE_BUILD = {"INPAINT_FAST_EXTENSION", "INPAINT_FAST_CUDA", "INPAINT_FAST_CPU_FLAGS"}  # test_package.py has these
NAMES = re.compile(r"\"(INPAINT_FAST_\w+)\"")


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=inherited | environment, cwd="/"
    )


def read(*patterns: str) -> set[str]:
    """The variables whose names are values in these sources, which is what reading them takes."""
    return {
        name for pattern in patterns for path in ROOT.glob(pattern) for name in NAMES.findall(path.read_text("utf-8"))
    }


def test_every_variable_that_is_read_is_known_and_documented() -> None:
    package = read("inpaint_fast/**/*.py", "kernels/**/*.py", "benchmarks/**/*.py", "csrc/**/*.[ch]*")
    assert package == set(VARIABLES)
    assert read("setup.py") == OF_THE_BUILD
    rows = re.findall(r"^\| `(INPAINT_FAST_\w+)` \|", (ROOT / "docs/install.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(package | OF_THE_BUILD)


def expected(name: str, value: str) -> str:
    return f"{name}: {', '.join(VARIABLES[name])} or nothing is expected, got {value!r}"


@pytest.mark.parametrize("name", VARIABLES)
def test_a_wrong_value_ends_a_command_with_one_sentence(name) -> None:
    value = "non\nsense"
    ran = python("-m", "inpaint_fast", "info", **{name: value})
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", f"inpaint-fast: {expected(name, value)}\n")


def test_so_it_does_when_the_command_is_installed(tmp_path) -> None:
    script = tmp_path / "inpaint-fast"  # as pip writes it
    script.write_text("import sys\nfrom inpaint_fast.cli.main import main\nsys.exit(main())\n")
    ran = python(str(script), "info", INPAINT_FAST_AMX="yes", PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    assert (ran.returncode, ran.stderr) == (2, f"inpaint-fast: {expected('INPAINT_FAST_AMX', 'yes')}\n")
    ran = python(str(script), "info", INPAINT_FAST_AMX="yes", INPAINT_FAST_TRACEBACK="1",
                 PYTHONPATH=os.pathsep.join(filter(None, sys.path)))  # fmt: skip
    assert ran.returncode == 1 and "Traceback" in ran.stderr


def test_an_import_raises_it() -> None:
    code = (
        "import os\n"
        f"for name in {list(VARIABLES)}:\n"
        "    os.environ[name] = 'nonsense'\n"
        "    try: import inpaint_fast\n"
        "    except ValueError as error: print(error)\n"
        "    os.environ[name] = ''\n"
        "import inpaint_fast"
    )
    ran = python("-c", code)
    assert (ran.returncode, ran.stdout.splitlines()) == (0, [expected(name, "nonsense") for name in VARIABLES])


def test_every_value_that_is_there_is_taken() -> None:
    ran = python("-c", "import inpaint_fast", INPAINT_FAST_CUDA_CAPABILITY="sm_80", INPAINT_FAST_AMX="0")
    assert ran.returncode == 0, ran.stderr
    if _extension.module is None:
        return
    code = "import inpaint_fast; print(inpaint_fast._extension.cpu_capability())"
    for capability in _extension.module.cpu_capabilities():
        assert python("-c", code, INPAINT_FAST_CPU_CAPABILITY=capability).stdout.strip() == capability


@pytest.mark.skipif(_extension.module is None, reason="the extension is not built")
def test_what_this_machine_has_not_is_named() -> None:
    ran = python("-m", "inpaint_fast", "info", INPAINT_FAST_AMX="1", INPAINT_FAST_CPU_CAPABILITY="baseline")
    words = "INPAINT_FAST_AMX: 0 or nothing is expected where there is no AMX, got '1'"
    assert (ran.returncode, ran.stderr) == (2, f"inpaint-fast: {words}\n")
    with pytest.raises(ValueError, match="'sse9'.*baseline, avx2 or avx512"):
        _extension.module.set_cpu_capability("sse9")


def test_an_instruction_set_that_the_processor_has_not_is_no_reason_to_run_the_reference(monkeypatch) -> None:
    words = "CPU capability avx512 is not there: this build on this processor has up to avx2"

    class OfAnOlderProcessor:
        def find_spec(self, name: str, *rest: object) -> None:
            if name == "inpaint_fast._C":
                raise ImportError(words)

    monkeypatch.setattr(sys, "meta_path", [OfAnOlderProcessor(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "inpaint_fast._C", raising=False)
    monkeypatch.delattr("inpaint_fast._C", raising=False)
    monkeypatch.setenv("INPAINT_FAST_CPU_CAPABILITY", "avx512")
    with pytest.raises(ValueError, match=f"^INPAINT_FAST_CPU_CAPABILITY: {words}$"):
        _extension._load()
