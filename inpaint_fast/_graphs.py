"""CUDA graphs: work that is captured once and then replayed, and what keeps work from being captured.

A graph repeats what the device did while it was captured, on the same memory: tensors are read where they lie at each
replay, numbers of the host stay what they were, and no Python runs. So work is captured that reads nothing of the
device, has shapes that no value decides, and keeps its state in tensors that it changes in place.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

cuda: Any = torch.cuda  # tests put a double here, and its device below
DEVICE = "cuda"
_streams: dict[torch.device, Any] = {}  # the one that captures on a device: graphs that share memory share it
_failed: list[Any] = []  # graphs whose capture broke off: PyTorch's allocator may still ask them


class NotCaptured(RuntimeError):
    """Work cannot be captured; the message says why, without a full stop."""


class Graph:
    """Work as a CUDA graph.

    Args:
        work: called once; what it does on the device is not done then, but at each `replay`. It was done before, so
            that nothing is chosen, loaded or measured during the capture.
        device: where it does it.
        pool: memory that several graphs share (`pool()`): one must be done, and its results copied, before another
            is replayed.

    Attributes:
        result: what `work` returned; each replay leaves its results in the tensors of it.

    Raises:
        NotCaptured: it does what a graph cannot, or there is no memory for it.
    """

    def __init__(self, work: Callable[[], Any], device: torch.device, pool: Any = None) -> None:
        self._graph, self.device = cuda.CUDAGraph(), device
        self.result: Any = None
        pool = cuda.graph_pool_handle() if pool is None else pool
        with cuda.device(device), _random_numbers_go_on(device):
            stream = capture_stream(device)
            cuda.synchronize()
            stream.wait_stream(cuda.current_stream())
            with cuda.stream(stream):
                error = self._capture(work, pool)
            cuda.current_stream().wait_stream(stream)
            if error is not None:
                self.result = None
                _failed.append(self._graph)
                with suppress(Exception):  # it may have been let go
                    torch._C._cuda_endAllocateToPool(device.index or 0, pool)
                raise NotCaptured(_first_line(error)) from error

    def _capture(self, work: Callable[[], Any], pool: Any) -> Exception | None:
        """The first error, if there is one; the capture has ended then, too."""
        error: Exception | None = None
        try:
            # A thread that loads pictures may go on as it likes.
            self._graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            self.result = work()
        except Exception as reason:
            error = reason
        try:
            self._graph.capture_end()
        except Exception as reason:
            error = error or reason
        return error

    def replay(self) -> None:
        """Do the work, on the current stream."""
        self._graph.replay()


def pool() -> Any:
    """Memory for graphs to share."""
    return cuda.graph_pool_handle()


def capture_stream(device: torch.device) -> Any:
    """The stream on which graphs of a device are captured, and on which work runs for the last time before that."""
    if device not in _streams:
        _streams[device] = cuda.Stream(device)
    return _streams[device]


def runs_ahead(device: torch.device) -> bool:
    """The device works on its own, so that the host would have to wait for a value."""
    return device.type == DEVICE


def is_capturing() -> bool:
    """Work of the current stream becomes part of a graph, this package's or another."""
    return cuda.is_available() and cuda.is_current_stream_capturing()


@contextmanager
def _random_numbers_go_on(device: torch.device) -> Iterator[None]:
    """A capture that fails inside leaves the device's generator as it found it; otherwise it would draw no more."""
    generator = cuda.default_generators[device.index or 0]
    before = generator.clone_state()
    try:
        yield
    except NotCaptured:
        generator.graphsafe_set_state(before)
        raise


def _first_line(error: Exception) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# ---- what a graph cannot hold ----

_READS = ("_local_scalar_dense", "item", "is_nonzero", "equal", "allclose", "_assert_async")
_SHAPES = (
    "nonzero", "nonzero_static", "argwhere", "masked_select", "unique", "unique_dim", "unique_consecutive",
    "unique_dim_consecutive", "_unique", "_unique2", "bincount", "histc", "repeat_interleave", "combinations",
)  # fmt: skip


class Obstacles(TorchDispatchMode):
    """Inside, notes what a graph cannot hold: values that the host reads, shapes that values decide, copies to and from
    the host, random numbers of the host.

    Args:
        device: type of the device that the work belongs to.

    Attributes:
        found: a sentence each, without a full stop, with the line of code; each once.
    """

    def __init__(self, device: str = DEVICE) -> None:
        super().__init__()
        self.device = device
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        why = self._why(func, args, result)
        if why is not None and (sentence := f"{why}{_place()}") not in self.found:
            self.found.append(sentence)
        return result

    def __str__(self) -> str:
        """The first two, and how many more there are."""
        more = len(self.found) - 2
        return "; ".join(self.found[:2] + ([f"and {more} more"] if more > 0 else []))

    def _why(self, func: Any, args: Any, result: Any) -> str | None:
        name = func._schema.name.rpartition("::")[2]
        given, made = _tensors(args), _tensors((result,))
        if name in _READS and any(tensor.device.type == self.device for tensor in given):
            return f"the host reads a tensor ({name})"
        if name in _SHAPES and not (
            name == "repeat_interleave" and len(made) == len(given) == 1 and given[0].dim() > 1
        ):
            return f"values decide a shape ({name})"
        if name in ("index", "index_put", "index_put_") and any(
            each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1]
        ):
            return f"values decide a shape ({name} by a mask)"
        kinds = {tensor.device.type for tensor in (*given, *made) if tensor.dim() or name in ("_to_copy", "copy_")}
        if len(kinds) > 1:
            return f"a copy between {' and '.join(sorted(kinds))} ({name})"
        if self.device not in kinds and torch.Tag.nondeterministic_seeded in func.tags and made:
            return f"a random draw on the host ({name})"
        return None


def _tensors(values: Any) -> list[Tensor]:
    """All tensors in nested lists and tuples."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(value)
    return found


def _place() -> str:
    """The innermost line of code outside of PyTorch and of this file."""
    for frame in reversed(traceback.extract_stack()):
        if frame.filename != __file__ and "/torch/" not in frame.filename.replace("\\", "/"):
            return f", {frame.filename.rpartition('/')[2]}:{frame.lineno}"
    return ""
