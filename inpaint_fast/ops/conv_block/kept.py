"""What is kept of parameters from call to call, and under which promise.

Nothing is, unless the user has promised that parameters change only in ways that PyTorch can see:
`accelerate(net.eval(), inference=True)` for a network's convolutions, `prepare(weight)` for a weight of one's own. Then
a change drops what was kept of the old values: in-place operations, ordinary optimizers, load_state_dict, `.to`,
another tensor. What changes memory behind PyTorch's back is not seen: fused optimizers, `tensor.data`, NumPy views,
other processes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

import torch
from torch import Tensor

from inpaint_fast.ops._plans import check_tensor
from inpaint_fast.ops._torch_private import is_ordinary

Value = TypeVar("Value")


class Kept:
    """Values that are derived from tensors, until one of these changes. A copy starts empty: its tensors are others."""

    def __init__(self) -> None:
        # name -> (the tensors' state, aliases of them: these hold the memory, so that no other tensor can come to lie
        # at the same address, the value)
        self._values: dict[Hashable, tuple[tuple, list[Tensor | None], object]] = {}

    def __reduce__(self) -> tuple:
        return Kept, ()

    def get(self, name: Hashable, tensors: tuple[Tensor | None, ...], make: Callable[[], Value]) -> Value:
        """make(), or what it made of these tensors in the state that they are in now."""
        if torch.compiler.is_compiling() or not is_ordinary(*tensors):
            return make()  # for this call alone
        if any(t is not None and t.is_inference() for t in tensors):
            return make()  # which have no version
        state = tuple(None if t is None else (t._version, t.data_ptr(), t.dtype, t.stride()) for t in tensors)
        found = self._values.get(name)
        if found is None or found[0] != state:
            with torch.inference_mode(False), torch.no_grad():
                found = state, [None if t is None else t.detach() for t in tensors], make()
            self._values[name] = found
        return found[2]


# id of a weight -> the weight, which keeps the id its own, and what is kept of it.
_prepared: dict[int, tuple[Tensor, Kept]] = {}


def prepare(weight: Tensor) -> None:
    """Promise that this weight changes only in ways that PyTorch can see, until `forget(weight)`.

    `dilated_block`, `strided_block` and `transposed_block` then keep it transformed from call to call, where no
    gradient is wanted. The weight lives until it is forgotten.

    Raises:
        TypeError: weight is no tensor.
    """
    check_tensor("weight", weight)
    _prepared.setdefault(id(weight), (weight, Kept()))


def forget(weight: Tensor) -> None:
    """Take the promise of `prepare` back, and drop what was kept of this weight."""
    _prepared.pop(id(weight), None)


def prepared(weight: Tensor) -> Kept | None:
    """What is kept of a weight under `prepare`."""
    return _prepared[id(weight)][1] if _prepared and id(weight) in _prepared else None
