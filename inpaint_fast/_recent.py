"""Values that are dear to make, kept by their keys up to so many bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Anything that says how many bytes it holds: a tensor, an array."""

    @property
    def nbytes(self) -> int: ...


Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value", bound=Sized)


class Recent(Generic[Key, Value]):
    """Values by key, the least recently used dropped where they would take more than `capacity` bytes.

    May be used from several threads at once; a copy sent to another process is empty.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._bytes = 0
        self._kept: OrderedDict[Key, Value] = OrderedDict()
        self._lock = Lock()

    def __reduce__(self) -> tuple[type[Recent], tuple[int]]:
        return type(self), (self.capacity,)

    def get(self, key: Key, make: Callable[[Key], Value]) -> Value:
        """The value of this key: kept, or made now, and kept if it is not too large for that."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        value = make(key)  # outside the lock: threads make different ones side by side
        with self._lock:
            if key not in self._kept and value.nbytes <= self.capacity:
                self._kept[key] = value
                self._bytes += value.nbytes
                while self._bytes > self.capacity:
                    self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return value
