"""inpaint_fast: PyTorch operators, models and training for GAN image inpainting.

    import inpaint_fast as ipf

    loss = ipf.masked_l2(pred, target, mask)   # F.mse_loss(pred * mask, target * mask), one pass

Operators are here; models, losses, data, training and completion are in the modules of those names, imported when used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from inpaint_fast import _environment

try:  # first: it says so when the compiled operators are missing
    from inpaint_fast import _extension  # noqa: F401
except _environment.EnvironmentVariableError as error:
    _environment.fail(error)
from inpaint_fast import ops as ops  # public, though nobody here asks for it
from inpaint_fast._version import __version__
from inpaint_fast.ops import (
    BackendError,
    clip_weights_,
    dilated_block,
    masked_l2,
    masked_l2_composite,
    norm_act,
    strided_block,
    transposed_block,
    use_backend,
)

if TYPE_CHECKING:  # what __getattr__ imports when it is used
    from inpaint_fast import completion, data, losses, models, nn, optim, training
    from inpaint_fast.completion import complete
    from inpaint_fast.nn import accelerate, restore

_MODULES = ("completion", "data", "losses", "models", "nn", "optim", "training")
__all__ = [
    "BackendError", "__version__", "accelerate", "clip_weights_", "complete", "completion", "data", "dilated_block",
    "losses", "masked_l2", "masked_l2_composite", "models", "nn", "norm_act", "ops", "optim", "restore",
    "strided_block", "training", "transposed_block", "use_backend",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"inpaint_fast.{name}")
    if name == "complete":
        return importlib.import_module("inpaint_fast.completion").complete
    if name in ("accelerate", "restore"):
        return getattr(importlib.import_module("inpaint_fast.nn"), name)
    raise AttributeError(f"module 'inpaint_fast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
