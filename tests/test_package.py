"""The package as it is installed: light to import, whole without its extension, nothing hidden."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

import inpaint_fast as ipf
import inpaint_fast.kernels

ROOT = Path(__file__).resolve().parent.parent
LICENSES = ("LICENSE", "inpaint_fast/data/samples/photos/LICENSES.md", "inpaint_fast/data/samples/digits/LICENSE.md")


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, cwd="/"
    )


def test_import_loads_nothing_heavy() -> None:
    ran = python(
        "import torch, sys; before = set(sys.modules); import inpaint_fast; new = set(sys.modules) - before;"
        "print([name for name in new if name.split('.')[0] in ('PIL', 'triton', 'tyro', 'tqdm', 'safetensors')]);"
        "print([name for name in new if name.startswith('inpaint_fast.') and name.split('.')[1] in "
        "('data', 'models', 'training', 'completion', 'cli', 'kernels')])"
    )
    assert ran.stdout.split("\n")[:2] == ["[]", "[]"], ran.stderr


def test_completing_does_not_load_the_compiler() -> None:
    """torch._dynamo takes as long to import as PyTorch itself, and a picture less than either."""
    ran = python(
        "import sys, torch, inpaint_fast as ipf; from inpaint_fast.cli.main import main;"
        "ipf.complete(torch.zeros(3, 96, 96, dtype=torch.uint8), ipf.data.box(96, 96, 30, 30, 20, 20));"
        "net = torch.nn.Sequential(torch.nn.Conv2d(32, 32, 3), torch.nn.ReLU()).eval();"
        "ipf.accelerate(net, inference=True)(torch.zeros(1, 32, 40, 40));"
        "print([name for name in ('torch._dynamo', 'torch._inductor', 'sympy') if name in sys.modules])"
    )
    assert ran.stdout == "[]\n", ran.stdout + ran.stderr


def test_every_public_name_is_there() -> None:
    for name in ipf.__all__:
        assert getattr(ipf, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = ipf.nonsense


def test_what_is_installed_is_every_package() -> None:
    """An editable install finds folders that nobody has named; a wheel does not."""
    settings = (ROOT / "pyproject.toml").read_text()
    named = re.findall(r'^  "(inpaint_fast[\w.]*)",$', settings, re.MULTILINE)
    found = {
        ".".join(("inpaint_fast", *(folder if top == "inpaint_fast" else (top, *folder))))
        for top in ("inpaint_fast", "kernels", "benchmarks")
        for path in (ROOT / top).rglob("__init__.py")
        for folder in [path.relative_to(ROOT / top).parent.parts]
    }
    samples = ROOT / "inpaint_fast/data/samples"
    found |= {
        ".".join(path.parent.relative_to(ROOT).parts) for path in samples.rglob("*") if path.is_file()
    }  # folders of data alone are packages to setuptools, too
    assert set(named) == found and named == sorted(named)


def test_without_the_extension_the_reference_runs_and_the_reason_is_shown() -> None:
    ran = python(
        "import sys; sys.modules['inpaint_fast._C'] = None\n"
        "import torch, inpaint_fast as ipf\n"
        "from inpaint_fast.ops import backend_of\n"
        "print(backend_of('masked_l2'), ipf.masked_l2(torch.ones(2, 3), torch.zeros(2, 3)).item())\n"
        "try: ipf.masked_l2(torch.ones(2, 3), torch.zeros(2, 3), backend='cpp')\n"
        "except ipf.BackendError as error: print(error)\n"
        "from inpaint_fast.cli.info import report; print(report())"
    )
    assert ran.stdout.startswith("reference 1.0\n"), ran.stderr
    assert ran.stderr.count("could not be loaded") == 1
    assert "backend 'cpp' cannot run" in ran.stdout and "pip install" in ran.stdout
    assert "CPU kernels: none" in ran.stdout


@pytest.mark.parametrize("interpreted, triton, numpy, runs", [
    ("1", "3.6.0", "2.3.5", True), ("1", "3.6.0", "2.4.0", False), ("1", "3.7.0", "2.10.0", True),
    ("0", "3.6.0", "2.4.0", True),
])  # fmt: skip
def test_an_interpreter_that_fails_with_this_numpy_is_named(monkeypatch, interpreted, triton, numpy, runs) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", interpreted)
    monkeypatch.setattr("triton.__version__", triton)
    monkeypatch.setattr("numpy.__version__", numpy)
    found = inpaint_fast.kernels.interpreter_fault()
    assert found is None if runs else f"triton {triton} and numpy {numpy}" in found


def test_that_interpreter_is_an_error_at_the_call_and_nowhere_before(monkeypatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr("triton.__version__", "3.6.0")
    monkeypatch.setattr("numpy.__version__", "2.5.2")
    importlib.reload(inpaint_fast.kernels)
    pred, target = torch.ones(2, 3), torch.zeros(2, 3)
    assert ipf.masked_l2(pred, target).item() == 1
    with pytest.raises(ipf.BackendError, match="'triton' cannot run on cpu tensors: .*pip install 'numpy<2.4'"):
        ipf.masked_l2(pred, target, backend="triton")
    with pytest.raises(ipf.BackendError, match="masked_l2: .*pip install 'numpy<2.4'"):
        torch.ops.inpaint_fast.masked_l2_triton(pred, target, None, 1.0, 1, False)


@pytest.mark.skipif(ipf._extension.module is None, reason="the extension is not built")
def test_the_instruction_set_can_be_lowered_and_a_wrong_one_is_named() -> None:
    code = "import inpaint_fast; print(inpaint_fast._extension.cpu_capability())"
    assert python(code, INPAINT_FAST_CPU_CAPABILITY="baseline").stdout.strip() == "baseline"
    assert "fastest" in python(code, INPAINT_FAST_CPU_CAPABILITY="fastest").stderr
    with pytest.raises(ValueError, match="'sse9'.*baseline, avx2 or avx512"):
        ipf._extension.module.set_cpu_capability("sse9")


@pytest.mark.skipif(ipf._extension.module is None, reason="the extension is not built")
def test_amx_where_there_is_none_and_a_wrong_wish_are_named() -> None:
    ran = python("import inpaint_fast", INPAINT_FAST_AMX="yes")
    assert "INPAINT_FAST_AMX: 0, 1 or nothing is expected, got 'yes'" in ran.stderr
    ran = python("import inpaint_fast", INPAINT_FAST_AMX="1", INPAINT_FAST_CPU_CAPABILITY="baseline")
    assert "INPAINT_FAST_AMX: 0 or nothing is expected where there is no AMX, got '1'" in ran.stderr
    assert python("import inpaint_fast", INPAINT_FAST_AMX="0").returncode == 0


def test_a_wrong_cuda_capability_is_named() -> None:
    for name in ("INPAINT_FAST_CUDA_CAPABILITY", "INPAINT_FAST_CUDA_WEIGHT_GRADIENT"):
        assert python("import inpaint_fast", **{name: "sm_80"}).returncode == 0
        ran = python("import inpaint_fast", **{name: "sm_90"})
        assert f"{name}: sm_80, sm_90a or nothing is expected, got 'sm_90'" in ran.stderr


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"INPAINT_FAST_CUDA": "1", "CUDA_HOME": "/nowhere", "PATH": "/nowhere"}, ["nvcc", "CUDA_HOME"]),
        ({"INPAINT_FAST_CUDA": "yes"}, ["INPAINT_FAST_CUDA", "'yes'"]),
        ({"INPAINT_FAST_EXTENSION": "yes"}, ["INPAINT_FAST_EXTENSION", "'yes'"]),
        ({"INPAINT_FAST_EXTENSION": "1", "INPAINT_FAST_CUDA": "0", "PATH": "/nowhere"}, ["apt-get install g++"]),
        ({"INPAINT_FAST_CUDA": "0", "CXX": "no-such-compiler"}, ["no-such-compiler", "apt-get install g++"]),
        ({"TORCH_HIDDEN": "1"}, ["pip install 'torch>=2.11'"]),
    ],
)
def test_the_build_says_in_a_sentence_what_is_missing(tmp_path, environment, words) -> None:
    import os

    if environment.get("INPAINT_FAST_CUDA") == "1" and Path("/usr/local/cuda/bin/nvcc").exists():
        environment = {**environment, "INPAINT_FAST_NVCC_HIDDEN": "1"}
    code = (
        "import importlib.util, pathlib, runpy, sys, os\n"
        "find, exists = importlib.util.find_spec, pathlib.Path.exists\n"
        "if os.environ.get('TORCH_HIDDEN'):\n"
        "    importlib.util.find_spec = lambda name, *rest: None if name == 'torch' else find(name, *rest)\n"
        "if os.environ.get('INPAINT_FAST_NVCC_HIDDEN'):\n"
        "    pathlib.Path.exists = lambda path: path.name != 'nvcc' and exists(path)\n"
        f"sys.argv = ['setup.py', 'build_ext', '--build-temp', {str(tmp_path)!r}, '--build-lib', {str(tmp_path)!r}]\n"
        "runpy.run_path('setup.py', run_name='__main__')"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment}
    )
    assert ran.returncode != 0
    for word in words:
        assert word in ran.stderr, ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("environment", "words"),
    [({"PATH": "/nowhere"}, "the C++ compiler g++ was not found"), ({"INPAINT_FAST_EXTENSION": "0"}, "_EXTENSION=0")],
)
def test_without_a_compiler_nothing_is_compiled_and_the_build_says_so(tmp_path, environment, words) -> None:
    import os

    folders = ["--build-temp", str(tmp_path), "--build-lib", str(tmp_path)]
    inherited = {name: value for name, value in os.environ.items() if name not in ("CXX", "INPAINT_FAST_CUDA")}
    ran = subprocess.run(
        [sys.executable, "setup.py", "build_ext", *folders], capture_output=True, text=True, cwd=ROOT,
        env=inherited | environment,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("nothing is compiled") == 1 and words in ran.stderr
    assert [path.name for path in (tmp_path / "inpaint_fast").iterdir()] == ["_not_compiled.txt"]


@pytest.mark.parametrize("place", ["build", "beside the sources"])
def test_why_nothing_was_compiled_is_said_until_something_is(tmp_path, monkeypatch, place) -> None:
    import os

    sources, note = tmp_path / "sources", ipf._extension.NOTE.name
    for name in ("setup.py", "pyproject.toml", "README.md", "inpaint_fast/_version.py", *LICENSES):
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, sources / name)
    folders = ["--build-temp", str(tmp_path / "temp"), "--build-lib", str(tmp_path / "lib")]
    options = folders if place == "build" else [*folders, "--inplace"]
    package = (tmp_path / "lib" if place == "build" else sources) / "inpaint_fast"

    def build(**environment: str) -> None:
        command = [sys.executable, "setup.py", "build_ext", *options]
        settings = os.environ | {"INPAINT_FAST_CUDA": "0"} | environment
        subprocess.run(command, check=True, capture_output=True, cwd=sources, env=settings)

    build(INPAINT_FAST_EXTENSION="0")
    monkeypatch.setattr(ipf._extension, "NOTE", package / note)
    if ipf._extension.module is not None:
        assert ipf._extension._why_nothing_was_compiled() is None
    monkeypatch.delattr(ipf, "_C", raising=False)
    monkeypatch.setitem(sys.modules, "inpaint_fast._C", None)
    with pytest.warns(RuntimeWarning, match="nothing was compiled, as INPAINT_FAST_EXTENSION=0 asks"):
        module, error = ipf._extension._load()
    assert module is None and str(error) == "nothing was compiled, as INPAINT_FAST_EXTENSION=0 asks"
    module = package / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    build(INPAINT_FAST_EXTENSION="1", CXX="true")  # a compiler that is always content, and writes nothing
    assert not (package / note).exists()
    module.touch()
    build(INPAINT_FAST_EXTENSION="0")
    assert (package / note).exists() and not module.exists()
