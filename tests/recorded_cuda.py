"""A double of torch.cuda on the CPU, as far as graphs go: a capture records the operators that are called, a replay
calls them again on the same memory.

It is as strict as the device: a capture does nothing (what it wrote is put back), a host read in it is an error,
numbers of the host stay what they were, and no Python of the captured work runs in a replay.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from inpaint_fast import _graphs

READS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal")


class Recording(TorchDispatchMode):
    """The operators called inside, and what tensors from outside held before."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}  # address of memory -> all of it, and what it held
        self.made: set[int] = set()
        self.keep: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.name in READS:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        for tensor in _tensors((args, kwargs)):
            address = tensor.untyped_storage().data_ptr()
            if address not in self.before and address not in self.made:
                whole = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
                self.before[address] = whole, whole.clone()
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            address = tensor.untyped_storage().data_ptr()
            if address not in self.before:
                self.made.add(address)
        # Detached: what autograd saved of a call is nothing that a replay needs.
        self.calls.append((func, *tree_map(_alias, (args, kwargs, result))))
        return result

    def put_back(self) -> None:
        for whole, value in self.before.values():
            whole.copy_(value)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, result in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(_tensors(result), _tensors(again), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def _alias(value: Any) -> Any:
    with torch.utils._python_dispatch._disable_current_modes():
        return value.detach() if isinstance(value, Tensor) else value


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


class Stream:
    """Work on it is done at once; that others wait for it is counted."""

    def __init__(self, device: Any = None) -> None:
        self.waited_for: list[Stream] = []

    def wait_stream(self, other: Stream) -> None:
        self.waited_for.append(other)


class Generator:
    """The state of torch's default generator."""

    def clone_state(self) -> Tensor:
        return torch.get_rng_state()

    def graphsafe_set_state(self, state: Tensor) -> None:
        torch.set_rng_state(state)


class RecordedCuda:
    """What `inpaint_fast._graphs` uses of torch.cuda.

    Attributes:
        captures, replays: how many there were.
        fails: the next captures break off with this.
    """

    def __init__(self) -> None:
        self.captures = self.replays = 0
        self.fails: Exception | None = None
        self.capturing = False
        self.default_generators = [Generator()]
        self._stream = Stream()
        outer = self

        class CUDAGraph:
            def capture_begin(self, pool: Any, capture_error_mode: str) -> None:
                assert not outer.capturing
                self.recording, self.random = Recording(), torch.get_rng_state()
                outer.capturing = True
                self.recording.__enter__()

            def capture_end(self) -> None:
                self.recording.__exit__(None, None, None)
                outer.capturing = False
                self.recording.put_back()
                torch.set_rng_state(self.random)
                if outer.fails is not None:
                    raise outer.fails
                outer.captures += 1

            def replay(self) -> None:
                outer.replays += 1
                self.recording.replay()

        self.CUDAGraph = CUDAGraph
        self.Stream = Stream

    def is_available(self) -> bool:
        return True

    def is_current_stream_capturing(self) -> bool:
        return self.capturing

    def graph_pool_handle(self) -> object:
        return object()

    def device(self, device: Any) -> Any:
        return nullcontext()

    def synchronize(self) -> None:
        pass

    def current_stream(self, device: Any = None) -> Stream:
        return self._stream

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self._stream = self._stream, stream
        try:
            yield
        finally:
            self._stream = before


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> RecordedCuda:
    """The CPU is a GPU for `inpaint_fast._graphs`."""
    double = RecordedCuda()
    monkeypatch.setattr(_graphs, "cuda", double)
    monkeypatch.setattr(_graphs, "DEVICE", "cpu")
    monkeypatch.setattr(_graphs, "_streams", {})
    return double
