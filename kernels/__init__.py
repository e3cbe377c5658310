"""Triton kernels, a file or folder an operator, imported by its first call; installed as inpaint_fast.kernels.

Files that begin with an underscore are what several of them share.
"""

import torch

from inpaint_fast._words import triton_interpreted


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


@torch.compiler.assume_constant_result  # what is installed is nothing to trace
def interpreter_fault() -> str | None:
    """Why Triton's interpreter cannot run here; None where it can, and where it is not asked to."""
    if not triton_interpreted():
        return None
    import numpy
    import triton  # costs seconds that an import of this package must not

    # Its scalars are arrays of one number, and numpy 2.4 turns no such array into an int (triton-lang/triton#9171).
    if _release(triton.__version__) < (3, 7) and _release(numpy.__version__) >= (2, 4):
        return (
            "Triton's interpreter before 3.7 cannot run with numpy 2.4 and later; here are triton "
            f"{triton.__version__} and numpy {numpy.__version__}. Type: pip install 'numpy<2.4'"
        )
    return None
