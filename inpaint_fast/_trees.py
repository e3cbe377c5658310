"""Tensors in nested tuples, lists and dictionaries, as functions take and return them: what they are, and others put in
their places."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from inpaint_fast._graphs import NotCaptured

CONSTANTS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)


class Kind(tuple):
    """What a tree is but for its tensors' values, as a key of dictionaries; for a reader its tensors alone."""

    def __str__(self) -> str:
        return ", ".join(_described(self)) or "no tensors"


class Tree:
    """Values nested in tuples, lists and dictionaries, whose leaves are tensors and constants.

    Attributes:
        kind: its form, constants, and the tensors' shapes, strides, dtypes and devices.
        tensors: in their order.
    """

    def __init__(self, value: Any) -> None:
        self.tensors: list[Tensor] = []
        self._others: list[object] = []
        self.kind = Kind(self._kind_of(value))

    def check_constants(self) -> None:
        """Raise NotCaptured where a leaf is neither a tensor nor a constant."""
        if self._others:
            names = ", ".join(sorted({type(other).__name__ for other in self._others}))
            raise NotCaptured(f"an argument or a result is of another type than tensors and constants: {names}")

    def filled(self, tensors: Iterable[Tensor]) -> Any:
        """The value with these tensors in the places of its own."""
        return _filled(self.kind, iter(tensors))

    def _kind_of(self, value: Any) -> tuple:
        if isinstance(value, Tensor):
            if type(value) not in (Tensor, torch.nn.Parameter) or value.layout is not torch.strided:
                self._others.append(value)
            self.tensors.append(value)
            return Tensor, value.shape, value.stride(), value.dtype, value.device
        cls = type(value)
        if cls is dict:
            return dict, tuple(value), *map(self._kind_of, value.values())
        if cls in (tuple, list) or (isinstance(value, tuple) and hasattr(cls, "_fields")):
            return cls, *map(self._kind_of, value)
        if not isinstance(value, CONSTANTS):
            self._others.append(value)
            return object, id(value)
        return None, cls, value


def _filled(kind: tuple, tensors: Iterator[Tensor]) -> Any:
    cls = kind[0]
    if cls is Tensor:
        return next(tensors)
    if cls is None:
        return kind[2]
    if cls is dict:
        return {name: _filled(inside, tensors) for name, inside in zip(kind[1], kind[2:], strict=True)}
    values = [_filled(inside, tensors) for inside in kind[1:]]
    return cls(values) if cls in (tuple, list) else cls(*values)


def _described(kind: Hashable) -> Iterator[str]:
    if isinstance(kind, tuple) and kind:
        if kind[0] is Tensor:
            yield f"{str(kind[3]).removeprefix('torch.')} {'x'.join(map(str, kind[1])) or 'number'}"
        elif kind[0] is not None:
            for inside in kind[2 if kind[0] is dict else 1 :]:
                yield from _described(inside)
