"""What a call does is worked out once for each key (shapes, dtypes, layouts, devices, settings) and then only followed.

A plan depends on its key alone: never on the values of tensors, and it holds none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache, wraps
from typing import Any, NamedTuple, TypeVar, overload

import torch
from torch import Tensor
from torch.compiler import is_compiling

from inpaint_fast._words import DTYPES

Plan = TypeVar("Plan")
KEPT = 4096  # plans of each kind; the one that was not used for longest goes
_kept: list[Any] = []


class Facts(NamedTuple):
    """What plans know of a tensor."""

    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @property
    def channels_last(self) -> bool:
        """Channels lie together in memory, and the pictures are not contiguous as well (one channel, one pixel)."""
        return self._lies((0, 2, 3, 1)) and not self._lies((0, 1, 2, 3))

    def _lies(self, order: tuple[int, ...]) -> bool:
        """Elements lie one after the other, dimensions in this order."""
        expected = 1
        for d in reversed(order):
            if self.shape[d] != 1 and self.strides[d] != expected:
                return 0 in self.shape
            expected = expected * self.shape[d]
        return True

    @classmethod
    def all_of(cls, known: Iterable[tuple | None]) -> list[Any]:  # Facts, or None where there is no tensor
        """From what `facts` returned."""
        return [None if each is None else cls._make(each) for each in known]


@overload
def facts(tensor: Tensor) -> tuple: ...


@overload
def facts(tensor: None) -> None: ...


@overload
def facts(tensor: Tensor | None) -> tuple | None: ...


def facts(tensor: Tensor | None) -> tuple | None:
    """What plans know of this tensor, as a plain tuple: keys are made at every call, `Facts` of them once.

    Raises:
        AttributeError, RuntimeError: it is no tensor, or no dense one; `check_tensors` says so with its name.
    """
    if tensor is None:
        return None
    if tensor.layout is not torch.strided:
        raise RuntimeError(f"a dense tensor is expected, got layout {tensor.layout}")
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def check_tensors(**tensors: object) -> None:
    """Raises the TypeError that names what is no dense tensor, None excepted."""
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        tensor = check_tensor(name, tensor)
        if tensor.layout != torch.strided:
            raise TypeError(f"{name}: a dense tensor is expected, got layout {tensor.layout}")


def check_tensor(name: str, tensor: object) -> Tensor:
    """The tensor. Raises the TypeError that names what is none."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: a torch.Tensor is expected, got {type(tensor).__name__}")
    return tensor


def check_place(name: str, tensor: Facts, device: torch.device, of: str) -> None:
    """Raises the TypeError that says what no operator takes: another device than that of the tensor `of`."""
    if tensor.device != device:
        raise TypeError(f"{name}: it is on {tensor.device} and {of} is on {device}; one device is expected")


def check_dtype(name: str, tensor: Facts) -> None:
    """Raises the TypeError that names a tensor of another dtype than pictures have."""
    if tensor.dtype not in DTYPES:
        raise TypeError(f"{name}: float32, float64, float16 or bfloat16 is expected, got {tensor.dtype}")


def planned(make: Callable[..., Plan]) -> Callable[..., Plan]:
    """make(*key), remembered for each key.

    Not while compiling, where the plan is part of the graph, and not for a key without a hash: sizes that are symbols,
    lists where numbers are expected.
    """
    kept = lru_cache(KEPT, typed=True)(make)
    _kept.append(kept)

    @wraps(make)
    def plan(*key: Any) -> Plan:
        try:
            return make(*key) if is_compiling() else kept(*key)
        except TypeError:
            return make(*key)  # or the error was that of `make`, which says it again

    return plan


def forget_plans() -> None:
    """Work out every plan anew: for those who change what plans depend on besides their keys."""
    for kept in _kept:
        kept.cache_clear()


def wants_grad(*tensors: Tensor | None) -> bool:
    """Whether a gradient of one of them will be asked for."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
