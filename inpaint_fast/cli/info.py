"""inpaint-fast info"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from inpaint_fast import __version__, _extension
from inpaint_fast.cli._options import parse
from inpaint_fast.ops._dispatch import BACKENDS, OPERATORS, PREFERENCE, why_not
from inpaint_fast.ops.conv_block import blocking


@dataclass
class Info:
    """Print versions, facts of the build, and for every operator which implementation runs and why others do not."""


def main(argv: Sequence[str]) -> int:
    """Run the command with these arguments; returns the exit code."""
    parse(Info, "inpaint-fast info", argv)
    print(report())
    return 0


def _cuda_code() -> str:
    def said(ask: Callable[[], str]) -> str:
        try:
            return ask()
        except RuntimeError as error:
            return str(error)

    convolution, gradient = said(_extension.cuda_capability), said(_extension.cuda_weight_gradient)
    return f"CUDA code of dilated_block's convolution: {convolution}; of its weights' gradient: {gradient}"


def _amx() -> str:
    if not _extension.has_amx():
        return "there is none"
    return {
        "1": "multiplies float32 in convolutions, as INPAINT_FAST_AMX=1 asks",
        "0": "there, and unused, as INPAINT_FAST_AMX=0 asks",
        "": "there, for float32 convolutions where accelerate(net, tune=True) measures that it is the fastest; "
        "INPAINT_FAST_AMX=1 takes it for all, 0 for none",
    }[_extension.amx_wish]


def report() -> str:
    """The whole report as text."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none that PyTorch sees"
    lines = [
        f"inpaint_fast {__version__}   torch {torch.__version__}   python {platform.python_version()}",
        f"CPU kernels: {_extension.cpu_capability()}   threads: {torch.get_num_threads()}   GPU: {gpu}",
        f"tasks of the CPU's convolutions: {blocking.note()}",
        f"AMX: {_amx()}",
        *([_cuda_code()] if torch.cuda.is_available() else []),
        "",
        "build:",
    ]
    facts = _extension.build_info()
    lines += [f"  {key:16}  {value or '-'}" for key, value in facts.items()]
    if _extension.error is not None:
        lines.append(f"  the extension could not be loaded: {_extension.error}")
    for device in PREFERENCE:
        absent = " (there is no GPU here; what would run)" if device == "cuda" and not torch.cuda.is_available() else ""
        lines += ["", f"operators on {device} tensors{absent}:"]
        for stem, operator in OPERATORS.items():
            lines.append(f"  {stem}: {operator.describe(torch.device(device))}")
            for backend in BACKENDS:
                reason = why_not(stem, backend, device)
                lines.append(f"    {backend:10} {'available' if reason is None else 'no: ' + reason}")
    return "\n".join(lines)
