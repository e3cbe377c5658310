"""The compiled module inpaint_fast._C: loaded once, its absence explained and never hidden."""

from __future__ import annotations

import os
import warnings
from types import ModuleType

import torch  # noqa: F401  (first: the module is linked with the libraries that this loads)

CPU_CAPABILITIES = ("baseline", "avx2", "avx512")


def _load() -> tuple[ModuleType | None, ImportError | None]:
    wish = os.environ.get("INPAINT_FAST_CPU_CAPABILITY", "")
    if wish not in ("", *CPU_CAPABILITIES):
        expected = ", ".join(CPU_CAPABILITIES)
        raise ValueError(f"INPAINT_FAST_CPU_CAPABILITY: {expected} or nothing is expected, got {wish!r}")
    try:
        from inpaint_fast import _C
    except ImportError as error:
        warnings.warn(
            f"the compiled operators of inpaint_fast could not be loaded ({error}); the reference implementations run "
            "instead, right but slower. To build them: pip install --no-build-isolation . "
            "(more: inpaint-fast info)",
            RuntimeWarning,
            stacklevel=2,
        )
        return None, error
    return _C, None


# The module, or None and the ImportError that says why not.
module, error = _load()


def build_info() -> dict[str, str]:
    """Facts of the build: torch, compiler, CUDA and its architectures, instruction sets, commit. Empty without one."""
    return dict(module.build_info()) if module else {}


def cpu_capability() -> str:
    """The instruction set that the CPU kernels use: 'baseline', 'avx2' or 'avx512'; 'none' without the extension."""
    return module.cpu_capability() if module else "none"
