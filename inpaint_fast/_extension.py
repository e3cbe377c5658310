"""The compiled module inpaint_fast._C: loaded once, its absence explained and never hidden."""

from __future__ import annotations

import importlib.util
import os
import warnings
from pathlib import Path
from types import ModuleType

import torch  # (first: the module is linked with the libraries that this loads)

from inpaint_fast import _processor

CPU_CAPABILITIES = ("baseline", "avx2", "avx512")
CUDA_CAPABILITIES = ("sm_80", "sm_90a")
AMX_WISHES = ("0", "1")


NOTE = Path(__file__).with_name("_not_compiled.txt")
"""What setup.py writes where it builds no module: the reason."""


def _why_nothing_was_compiled() -> ImportError | None:
    """None where there is a module, or nobody said why there is none."""
    if importlib.util.find_spec("inpaint_fast._C") is None and NOTE.exists():
        return ImportError(f"nothing was compiled, {NOTE.read_text()}")
    return None


def _load() -> tuple[ModuleType | None, ImportError | None]:
    for name, known in (
        ("INPAINT_FAST_CPU_CAPABILITY", CPU_CAPABILITIES), ("INPAINT_FAST_CUDA_CAPABILITY", CUDA_CAPABILITIES),
        ("INPAINT_FAST_CUDA_WEIGHT_GRADIENT", CUDA_CAPABILITIES), ("INPAINT_FAST_AMX", AMX_WISHES),
    ):  # fmt: skip
        wish = os.environ.get(name, "")
        if wish not in ("", *known):
            raise ValueError(f"{name}: {', '.join(known)} or nothing is expected, got {wish!r}")
    try:
        from inpaint_fast import _C
    except ImportError as failed:
        error = _why_nothing_was_compiled() or failed
        warnings.warn(
            f"the compiled operators of inpaint_fast could not be loaded ({error}); the reference implementations run "
            "instead, right but slower. To build them: pip install --no-build-isolation . "
            "(more: inpaint-fast info)",
            RuntimeWarning,
            stacklevel=2,
        )
        return None, error
    if os.environ.get("INPAINT_FAST_AMX") == "1" and _C.amx() == "none":
        raise ValueError("INPAINT_FAST_AMX: 0 or nothing is expected where there is no AMX, got '1'")
    caches = _processor.caches()
    _C.set_caches(caches.l2, caches.l3)
    return _C, None


# The module, or None and the ImportError that says why not.
module, error = _load()
# Whether float32 convolutions run on AMX: "1", where a kernel of ours runs them; "0", never; "", where it was measured.
amx_wish = os.environ.get("INPAINT_FAST_AMX", "") if module else ""


def build_info() -> dict[str, str]:
    """Facts of the build: torch, compiler, CUDA and its architectures, instruction sets, commit. Empty without one."""
    return dict(module.build_info()) if module else {}


def cpu_capability() -> str:
    """The instruction set that the CPU kernels use: 'baseline', 'avx2' or 'avx512'; 'none' without the extension."""
    return module.cpu_capability() if module else "none"


def has_amx() -> bool:
    """Whether the processor has AMX for bfloat16, the system lets us use it and the CPU kernels may."""
    return module is not None and module.amx() != "none"


def cuda_capability() -> str:
    """Whose code dilated_block's convolution runs on the current CUDA device: 'sm_80' or 'sm_90a'; 'none' without CUDA
    kernels or a device.

    Raises:
        RuntimeError: INPAINT_FAST_CUDA_CAPABILITY asks for what this device or this build does not have.
    """
    return module.dilated_block_cuda_capability() if _has_cuda_kernels() else "none"


def cuda_weight_gradient() -> str:
    """The same of its weights' gradient, in float16 and bfloat16; float32 has sm_80's everywhere.

    Raises:
        RuntimeError: INPAINT_FAST_CUDA_WEIGHT_GRADIENT asks for what this device or this build does not have.
    """
    return module.dilated_block_cuda_weight_gradient() if _has_cuda_kernels() else "none"


def _has_cuda_kernels() -> bool:
    return module is not None and bool(build_info()["cuda"]) and torch.cuda.is_available()
