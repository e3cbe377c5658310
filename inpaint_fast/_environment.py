"""The environment variables that are read when the package is used: their values, and what a wrong one is told."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

VARIABLES = {
    "INPAINT_FAST_CPU_CAPABILITY": ("baseline", "avx2", "avx512"),
    "INPAINT_FAST_CUDA_CAPABILITY": ("sm_80", "sm_90a"),
    "INPAINT_FAST_CUDA_WEIGHT_GRADIENT": ("sm_80", "sm_90a"),
    "INPAINT_FAST_AMX": ("0", "1"),
    "INPAINT_FAST_TRACEBACK": ("0", "1"),
}
"""Name -> the values it takes; unset and empty are one (docs/install.md says what they do)."""


class EnvironmentVariableError(ValueError):
    """An environment variable has a value that is none, or that this machine has not; the message says which."""


def variable(name: str) -> str:
    """The value of one of VARIABLES, "" where it is unset.

    Raises:
        EnvironmentVariableError: it is none that the variable takes.
    """
    value, known = os.environ.get(name, ""), VARIABLES[name]
    if value not in ("", *known):
        raise EnvironmentVariableError(f"{name}: {', '.join(known)} or nothing is expected, got {value!r}")
    return value


def check_variables() -> None:
    """Ask for all of them.

    Raises:
        EnvironmentVariableError: the first that is wrong.
    """
    for name in VARIABLES:
        variable(name)


def fail(error: EnvironmentVariableError) -> NoReturn:
    """End the command line with a sentence, as it says its other errors; raise the error for everybody else.

    The variables are asked for when the package is imported, and `inpaint-fast` and `python -m inpaint_fast` import it
    before a line of theirs runs. So whether this is one of them is asked of the words that started Python.
    """
    program = Path(sys.argv[0]).stem if getattr(sys, "argv", None) else ""
    if program == "-m":  # so it is until Python has found the module, for which it imports the package
        program = "inpaint-fast" if any(word.split(".")[0] == "inpaint_fast" for word in sys.orig_argv) else ""
    if program != "inpaint-fast" or os.environ.get("INPAINT_FAST_TRACEBACK") == "1":
        raise error
    print(f"inpaint-fast: {error}", file=sys.stderr)
    raise SystemExit(2)
