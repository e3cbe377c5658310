"""What is kept of parameters from call to call, and under which promise.

Nothing is, unless the user has promised that parameters change only in ways that PyTorch can see:
`accelerate(net.eval(), inference=True)` for a network's convolutions, `prepare(weight)` for a weight of one's own. Then
a change drops what was kept of the old values: in-place operations, ordinary optimizers, load_state_dict, `.to`,
another tensor. What changes memory behind PyTorch's back is not seen: fused optimizers, `tensor.data`, NumPy views,
other processes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.compiler import is_compiling

from inpaint_fast._graphs import is_capturing
from inpaint_fast.ops._plans import check_tensor
from inpaint_fast.ops._torch_private import is_ordinary

Value = TypeVar("Value")


_ABSENT = (None, 0, 0, (), None)  # the state of a tensor that is not there


class Kept:
    """Values that are derived from tensors, until one of these changes. A copy starts empty: its tensors are others."""

    def __init__(self) -> None:
        # name -> (the tensors and their states, the value)
        self._values: dict[Hashable, tuple[list[tuple], Any]] = {}

    def __reduce__(self) -> tuple:
        return Kept, ()

    def get(self, name: Hashable, tensors: tuple[Tensor | None, ...], make: Callable[[], Value]) -> Value:
        """make(), or what it made of these tensors in the state that they are in now."""
        if is_compiling() or not is_ordinary():
            return make()  # for this call alone
        found = self._values.get(name)
        if found is not None and len(found[0]) == len(tensors):
            for t, (same, version, pointer, strides, _) in zip(tensors, found[0], strict=True):
                if t is not same:
                    break
                if t is not None and (t._version != version or t.data_ptr() != pointer or t.stride() != strides):
                    break
            else:
                if _noted is not None:
                    _noted.append(found)
                return found[1]
        present = [t for t in tensors if t is not None]
        if not is_ordinary(*present) or any(t.is_inference() for t in present):  # which have no version
            return make()
        if is_capturing():  # a graph makes it anew at each replay, and there is nothing yet
            return make()
        with torch.inference_mode(False), torch.no_grad():
            # The alias holds the memory, so that no other tensor can come to lie at the same address.
            states = [_ABSENT if t is None else (t, t._version, t.data_ptr(), t.stride(), t.detach()) for t in tensors]
            found = states, make()
        self._values[name] = found
        return found[1]


_noted: list[tuple[list[tuple], Any]] | None = None


@contextmanager
def noted() -> Generator[list[tuple[list[tuple], Any]], None, None]:
    """Inside, notes what is kept and used: (the tensors that it was made of, each with its state, and the value)."""
    global _noted
    before, _noted = _noted, []
    try:
        yield _noted
    finally:
        _noted = before


# id of a weight -> the weight, which keeps the id its own, and what is kept of it.
_prepared: dict[int, tuple[Tensor, Kept]] = {}


def prepare(weight: Tensor) -> None:
    """Promise that this weight changes only in ways that PyTorch can see, until `forget(weight)`.

    `dilated_block`, `strided_block` and `transposed_block` then keep it transformed from call to call, where no
    gradient is wanted. The weight lives until it is forgotten.

    Args:
        weight: of any shape that they take: (C_out, C_in, 3, 3), or with 4x4 or 5x5 taps.

    Raises:
        TypeError: weight is no tensor.
    """
    check_tensor("weight", weight)
    _prepared.setdefault(id(weight), (weight, Kept()))


def forget(weight: Tensor) -> None:
    """Take the promise of `prepare` back, and drop what was kept of this weight.

    Args:
        weight: of any shape; one that was never prepared is none that is forgotten.
    """
    _prepared.pop(id(weight), None)


def prepared(weight: Tensor) -> Kept | None:
    """What is kept of a weight under `prepare`."""
    return _prepared[id(weight)][1] if _prepared and id(weight) in _prepared else None
