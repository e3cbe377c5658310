"""Builds and loads CUDA kernels as plain C++ (see README.md): the backend "emulated", for tests alone.

load("masked_l2")
OPERATORS["masked_l2"].call("emulated", "masked_l2", pred, target, mask, 1.0, 0, True)
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shlex
import subprocess
import sysconfig
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pybind11
import pytest
import torch

from inpaint_fast.ops import _dispatch
from inpaint_fast.ops._dispatch import OPERATORS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / "build" / "emulation"
SUFFIX = "_emulated"
# From this size on the kernels index with 64 bits, so that small tensors test both.
INDEX_LIMIT = 1 << 14
# Fortified headers refuse a jump from one stack to another, which is how fibers switch.
FLAGS = ["-std=c++17", "-O1", "-U_FORTIFY_SOURCE", "-fPIC", "-fvisibility=hidden"]
FLAGS += ["-Wall", "-Wno-psabi", "-Wno-unknown-pragmas"]
DEFINES = ["-DINPAINT_FAST_EMULATION", f"-DINPAINT_FAST_INDEX_LIMIT={INDEX_LIMIT}"]
DEFINES += ["-DTORCH_TARGET_VERSION=0x020b000000000000", "-DTORCH_STABLE_ONLY"]
_loaded: dict[str, ctypes.CDLL] = {}


def load(stem: str) -> None:
    """Make the backend "emulated" usable for the operator `stem` and those that share its home: built once, loaded
    once."""
    if "emulated" in OPERATORS[stem].suffixes:
        return
    home = OPERATORS[stem].home
    folder = ROOT / "csrc" / home
    path = shared_library(home, [folder / "cuda_ops.cpp", folder / "cuda" / "kernels.cu"])
    of_home = [operator for operator in OPERATORS.values() if operator.home == home]
    for operator in of_home:
        operator.suffixes["emulated"] = SUFFIX
        operator.define(SUFFIX)
    torch.ops.load_library(str(path))
    for operator in of_home:
        _loaded[operator.stem] = ctypes.CDLL(str(path))


@contextmanager
def use_emulation() -> Iterator[None]:
    """What use_backend("cuda") is on a GPU: every operator with a CUDA kernel runs it, emulated."""
    for stem, operator in OPERATORS.items():
        if "cuda" in operator.backends:
            load(stem)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_dispatch, "_forced", "emulated")
        yield


@dataclass(frozen=True)
class Launch:
    """One kernel that was started."""

    blocks: int
    threads: int
    shared_bytes: int


def launches(stem: str) -> list[Launch]:
    """The kernels of `stem` that were started since the last call, the last 1000 in order; "<home>_module": by
    `load_module`'s."""
    numbers = (ctypes.c_uint64 * 3000)()
    function = _loaded[stem].emulation_launches
    function.restype = ctypes.c_uint64
    count = function(numbers, ctypes.c_uint64(len(numbers)))
    return [Launch(*numbers[i : i + 3]) for i in range(0, count, 3)]


@functools.cache
def load_test_kernels(name: str = "test_kernels") -> ctypes.CDLL:
    """The kernels of a file beside this one, each a C function of the same name without `_kernel`."""
    return ctypes.CDLL(str(shared_library(name, [HERE / f"{name}.cu"])))


def start_test_kernel(kernels: ctypes.CDLL, name: str, *args: torch.Tensor | int) -> None:
    """Start one of them, tensors as pointers; what goes wrong is a RuntimeError."""
    function = getattr(kernels, name)
    function.restype = ctypes.c_char_p
    convert = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, torch.Tensor) else ctypes.c_int64(a) for a in args]
    error = function(*convert)
    if error is not None:
        raise RuntimeError(error.decode())


@functools.cache
def load_module(home: str) -> ModuleType:
    """The functions that csrc/<home>/cuda_python.cpp gives the module, for CPU tensors."""
    folder = ROOT / "csrc" / home
    sources = [HERE / "module.cpp", folder / "cuda_python.cpp", folder / "cuda" / "kernels.cu"]
    python = [sysconfig.get_paths()["include"], pybind11.get_include()]  # before torch's own copy of it
    path = shared_library(f"{home}_module", sources, [f"-I{include}" for include in python])
    _loaded[f"{home}_module"] = ctypes.CDLL(str(path))
    loader = ExtensionFileLoader("emulated", str(path))
    module = module_from_spec(spec_from_loader("emulated", loader))
    loader.exec_module(module)
    return module


def shared_library(name: str, sources: Iterable[Path], flags: Iterable[str] = ()) -> Path:
    """The path of `sources` compiled with the emulation, from the cache where nothing has changed."""
    command = [*(shlex.split(os.environ.get("CXX", "")) or ["g++"]), *FLAGS, *DEFINES, *flags]
    torch_folder = Path(torch.__file__).parent
    command += [f"-I{HERE / 'include'}", f"-I{ROOT / 'csrc'}", f"-I{torch_folder / 'include'}"]
    sources = [HERE / "block.cpp", HERE / "async.cpp", *sources]
    used = [*(ROOT / "csrc").rglob("*.h"), *HERE.rglob("*.h"), *sources]
    key = hashlib.sha256(" ".join([torch.__version__, *command]).encode())
    for path in sorted(used):
        key.update(path.read_bytes())
    library = CACHE / f"{name}-{key.hexdigest()[:16]}.so"
    if library.exists():
        return library
    CACHE.mkdir(parents=True, exist_ok=True)

    def compile_one(source: Path) -> str:
        result = library.with_name(f"{library.stem}-{source.stem}-{os.getpid()}.o")
        _run([*command, "-x", "c++", "-c", str(source), "-o", str(result)])
        return str(result)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sources))
    unfinished = library.with_name(f"{library.stem}-{os.getpid()}.so")
    link = [command[0], "-shared", *objects, "-o", str(unfinished), f"-L{torch_folder / 'lib'}", "-ltorch_cpu", "-lc10"]
    _run(link)
    for path in objects:
        os.remove(path)
    unfinished.replace(library)  # in one step: another process may build the same
    return library


def _run(command: list[str]) -> None:
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"the emulation did not compile: {shlex.join(command)}\n{ran.stderr}")
