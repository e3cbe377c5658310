"""Backends as a fixture: one test body, every implementation that this machine can run."""

from __future__ import annotations

import os
import signal
import tempfile

# A job in the background may begin with Ctrl-C ignored, and so would every process that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Before anything imports Triton: its kernels run in its interpreter, unless TRITON_INTERPRET=0 has them on a GPU.
os.environ.setdefault("TRITON_INTERPRET", "1")
# Before anything loads OpenMP: beside another job, threads that wait by spinning make everything many times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# What is measured here is not kept for those who work on this machine.
_caches = tempfile.TemporaryDirectory()
os.environ["XDG_CACHE_HOME"] = _caches.name

from collections.abc import Iterator  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402
from types import ModuleType  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402
from quick import leave_out  # noqa: E402

from inpaint_fast import _extension  # noqa: E402
from inpaint_fast._words import triton_interpreted  # noqa: E402
from inpaint_fast.kernels import interpreter_fault  # noqa: E402
from inpaint_fast.ops._dispatch import OPERATORS  # noqa: E402

if "ASAN_OPTIONS" in os.environ and b"__asan_init" not in Path(_extension.module.__file__).read_bytes():
    raise RuntimeError(f"{_extension.module.__file__}: a module that was built with AddressSanitizer is expected")
settings.register_profile("tests", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("tests")
torch.set_num_threads(2)


@dataclass(frozen=True)
class Implementation:
    """One implementation to test: what `backend=` says, on which device, with which CPU instruction set."""

    backend: str
    device: str = "cpu"
    capability: str | None = None

    @property
    def slow(self) -> bool:
        """Interpreted or emulated: small shapes only."""
        return self.interpreted or self.backend == "emulated"

    @property
    def interpreted(self) -> bool:
        """By Triton's interpreter, hundreds of times slower than the others: pairs of settings only (quick.py)."""
        return self.device == "cpu" and self.backend == "triton"

    def __str__(self) -> str:
        return "-".join(filter(None, (self.backend, self.capability, self.device if self.device != "cpu" else "")))


def stem_of(module: ModuleType) -> str:
    """The operator that a test module is about: its STEM."""
    if not hasattr(module, "STEM"):
        raise pytest.Collector.CollectError(f"{module.__file__}: STEM, the operator it is about, is missing")
    return module.STEM


def implementations(stem: str) -> list[Implementation]:
    found = [Implementation("reference"), Implementation("emulated")]
    if _extension.module:
        found += [Implementation("cpp", capability=name) for name in _extension.module.cpu_capabilities()]
    if torch.cuda.is_available():
        found += [Implementation("cuda", "cuda")]
    # In one process Triton is interpreted, for CPU tensors, or compiled, for those of a GPU.
    found += [Implementation("triton", "cpu" if triton_interpreted() else "cuda")]
    written = OPERATORS[stem].backends
    return [each for each in found if (each.backend if each.backend != "emulated" else "cuda") in written]


def marks_of(each: Implementation) -> list[pytest.MarkDecorator]:
    """What keeps an implementation from running here, though this machine has it."""
    marks = [pytest.mark.gpu] if each.device == "cuda" else []
    fault = interpreter_fault() if each.backend == "triton" else None
    return marks if fault is None else [*marks, pytest.mark.skip(reason=fault)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "implementation" in metafunc.fixturenames:
        found = implementations(stem_of(metafunc.module))
        if "kernel" in metafunc.fixturenames:
            found = [each for each in found if each.backend != "reference"]
        marked = [pytest.param(each, marks=marks_of(each)) for each in found]
        metafunc.parametrize("implementation", marked, ids=str, indirect=True)


@pytest.hookimpl(tryfirst=True)  # before `-m "not long"` is obeyed
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    leave_out(items)
    if triton_interpreted() and interpreter_fault() is None:
        from triton_interpreter import make_fast

        make_fast()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("it needs a GPU")


@pytest.fixture
def implementation(request: pytest.FixtureRequest) -> Iterator[Implementation]:
    """Each implementation in turn; its instruction set is the one in use while the test runs."""
    chosen: Implementation = request.param
    if chosen.backend == "emulated":
        from emulation.build import load

        load(stem_of(request.module))
    if chosen.capability is None:
        with pytest.MonkeyPatch.context() as patch:
            if chosen.device == "cuda":  # float32 in full: what TF32 rounds is in tests that ask for it
                patch.setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee")
            yield chosen
        return
    before = _extension.module.cpu_capability()
    _extension.module.set_cpu_capability(chosen.capability)
    yield chosen
    _extension.module.set_cpu_capability(before)


@pytest.fixture
def kernel(implementation: Implementation) -> Implementation:
    """Each implementation but the reference, for what PyTorch's own expressions do not promise."""
    return implementation


@pytest.fixture
def overflows_are_errors() -> Iterator[None]:
    """In Triton's interpreter, for the kernels of this test."""
    from triton_interpreter import overflows_are_errors

    with overflows_are_errors():
        yield
