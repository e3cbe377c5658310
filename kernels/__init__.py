"""Triton kernels, one file an operator; installed as inpaint_fast.kernels and imported by an operator's first call."""

import numpy
import triton

from inpaint_fast._words import BackendError, triton_interpreted


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


# Its scalars are arrays of one number, and numpy 2.4 turns no such array into an int (triton-lang/triton#9171).
if triton_interpreted() and _release(triton.__version__) < (3, 7) and _release(numpy.__version__) >= (2, 4):
    raise BackendError(
        f"Triton's interpreter before 3.7 cannot run with numpy 2.4 and later; here are triton {triton.__version__} "
        f"and numpy {numpy.__version__}. Type: pip install 'numpy<2.4'"
    )
