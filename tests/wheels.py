"""Wheels as a release ships them, and a trial of each in an empty environment.

    python tests/wheels.py build    dist/cpu/*.whl, and where nvcc is found dist/cuda/*.whl    (`make wheels`)
    python tests/wheels.py try      installs each and tests it outside the checkout            (`make test-wheels`)

A wheel serves one version of Python, on one system: the module is made with pybind11, which has no stable ABI of
Python; nanobind has one from 3.12 on, and would leave 3.10 and 3.11 to wheels of their own all the same. PyTorch's
stable ABI it does keep, so a wheel serves every torch from 2.11 on, and the one with CUDA kernels a CPU's torch, too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
KINDS = {"cpu": "0", "cuda": "1"}
"""Folder of dist/ -> INPAINT_FAST_CUDA."""
TORCH = "torch==2.13.0"  # what is installed here already, or small: an unpinned one may pull gigabytes of CUDA packages
TESTS = ("conftest.py", "support.py", "ops", "optim")
# What compiles: PyTorch's compilers are not what is tried, and our sources stay behind.
LEFT_OUT = "not emulated and not triton and not cuda and not compile and not spill and not sm90"


def build() -> None:
    """Make the wheels, and say what each weighs."""
    shutil.rmtree(DIST, ignore_errors=True)
    for stale in (ROOT / "build").glob("lib*"):  # setuptools would pack what an earlier version of us had
        shutil.rmtree(stale)
    for kind, cuda in KINDS.items():
        if kind == "cuda" and not has_nvcc():
            print("no wheel with CUDA kernels: nvcc was not found (CUDA_HOME says where it is)")
            continue
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w"]
        environment = os.environ | {"INPAINT_FAST_CUDA": cuda, "INPAINT_FAST_EXTENSION": "1"}
        subprocess.run([*command, str(DIST / kind), str(ROOT)], check=True, env=environment)
        for wheel in (DIST / kind).glob("*.whl"):
            print(f"{wheel.relative_to(ROOT)}   {wheel.stat().st_size / 1e6:.1f} MB")


def has_nvcc() -> bool:
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return os.environ.get("INPAINT_FAST_CUDA") != "0" and bool(shutil.which("nvcc") or Path(home, "bin/nvcc").exists())


def left_behind(folder: str, names: list[str]) -> list[str]:
    """Files of tests/ that are not copied: caches, and those that compile the CUDA sources for the emulation."""
    return [
        name
        for name in names
        if name == "__pycache__" or (name.endswith(".py") and "from emulation." in Path(folder, name).read_text())
    ]


def attempt(wheel: Path) -> None:
    """Install a wheel into an empty environment; complete a picture and run operator tests, outside the checkout."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        venv.create(folder / "venv", with_pip=True)
        scripts = folder / "venv" / "bin"
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}

        def run(*command: str | Path) -> None:
            subprocess.run(command, check=True, cwd=folder, env=environment)

        install = scripts / "pip", "install", "--quiet", TORCH
        run(*install, str(wheel))
        (folder / "tests").mkdir()
        for source in (ROOT / "tests" / name for name in TESTS):
            target = folder / "tests" / source.name
            shutil.copytree(source, target, ignore=left_behind) if source.is_dir() else shutil.copy(source, target)
        shutil.copy(ROOT / "pyproject.toml", folder)  # pytest's settings

        run(scripts / "python", "-c", "import inpaint_fast as p; assert p._extension.module, p._extension.error")
        sample = "from inpaint_fast.data import samples, write_png; write_png('photo.png', samples('heldout')[0])"
        run(scripts / "python", "-c", sample)
        run(scripts / "inpaint-fast", "complete", "photo.png", "--box", "9", "9", "20", "20", "--fill", "harmonic")
        # Not before, for nothing above may need them. Some of the tests import Triton.
        run(*install, f"{wheel}[triton]", "pytest", "hypothesis")
        run(scripts / "python", "-m", "pytest", "-q", "-m", "not long", "-k", LEFT_OUT, "tests")


def main(argv: list[str]) -> int:
    if argv not in (["build"], ["try"]):
        print(__doc__, file=sys.stderr)
        return 2
    if argv == ["build"]:
        build()
        return 0
    wheels = sorted(DIST.rglob("*.whl"))
    if not wheels:
        print("dist/ holds no wheel: make wheels", file=sys.stderr)
        return 1
    for wheel in wheels:
        print(f"{wheel.relative_to(ROOT)}:", flush=True)
        attempt(wheel)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
