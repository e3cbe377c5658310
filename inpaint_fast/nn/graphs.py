"""A network's calls on a GPU as CUDA graphs, one for each kind of call: the GPU waits for no Python.

`accelerate(net.eval(), inference=True)` puts a `Graphed` before the network's forward. A graph reads parameters and
buffers where they lie, so what changes in them in place is seen; what the convolutions keep of them is dropped with the
graph when they change. Facts about the network (`inpaint_fast.nn.fuse.facts`) stand at every replay, or it is captured
anew: its modules, their settings and attributes, hooks, and where its tensors lie.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from operator import attrgetter
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling

from inpaint_fast import _graphs
from inpaint_fast._graphs import Graph, NotCaptured, Obstacles
from inpaint_fast._trees import Tree
from inpaint_fast.nn.fuse.facts import Facts, all_of, items_are, own_empty, own_is, stand, type_is
from inpaint_fast.ops._dispatch import elsewhere
from inpaint_fast.ops._torch_private import has_dispatch_mode, is_watched
from inpaint_fast.ops.conv_block import kept

KEPT = 8  # graphs of a network; the one that was not used for longest goes
COUNTED = 256  # kinds of calls whose number is known
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_DICTS = ("_parameters", "_buffers", "_modules")
# What modules note of their own runs; it decides how, never what they compute.
_NOTES = {"forward", "_plain_for", "_alone", "_found", "_passes_on", "_tuning", "_acceleration_report"}
_version, _pointer = attrgetter("_version"), Tensor.data_ptr


class Graphed:
    """The forward of a network, whose calls on CUDA tensors without gradients are replayed.

    The first call of a kind (shapes, layouts, dtypes, device, other arguments; autocast, backend) runs as it is, the
    second is captured; of KEPT kinds the graphs are kept. Results are the caller's own. A copy, or what is unpickled,
    begins anew.

    Attributes:
        network: whose.
        refused: why calls of a kind run as they are.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.refused: dict[tuple[Hashable, ...], str] = {}
        self._captured: OrderedDict[Hashable, _Captured] = OrderedDict()
        self._calls: dict[Hashable, int] = {}
        self._wait = 1  # calls of a kind before it is captured; more for a network that changes all the time
        self._lock = RLock()
        self._pool: Any = None
        self._stream: Any = None  # of the last replay, or capture

    def __reduce__(self) -> tuple:
        return Graphed, (self.network,)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = None if is_compiling() else self._call(args, kwargs)
        if call is not None:
            with self._lock:
                captured = self._captured_for(call)
                if captured is not None:
                    return captured.run(call.tensors)
        return type(self.network).forward(self.network, *args, **kwargs)

    def __str__(self) -> str:
        kinds = [f"  {captured}" for captured in self._captured.values()]
        why = [f"  {key[0]} runs as it is: {reason}" for key, reason in self.refused.items()]
        return "\n".join([f"CUDA graphs of {len(kinds)} kinds of calls", *kinds, *why])

    def forget(self) -> None:
        """Drop every graph."""
        with self._lock:
            self._captured.clear()
            self._calls.clear()
            self.refused.clear()
            self._pool = None

    def _call(self, args: tuple, kwargs: dict[str, Any]) -> Tree | None:
        """The arguments, if this is a call that may be a graph."""
        if torch.is_grad_enabled() or self.network.training or is_watched() or has_dispatch_mode():
            return None
        call = Tree((args, kwargs))
        if not any(tensor.device.type == _graphs.DEVICE for tensor in call.tensors) or _graphs.is_capturing():
            return None
        return call

    def _captured_for(self, call: Tree) -> _Captured | None:
        """The graph of such calls, captured now if it is time; None: they run as they are."""
        forced, transformed = elsewhere()
        if transformed:
            return None
        key = call.kind, forced, *_circumstances()
        captured = self._captured.get(key)
        if captured is not None and not captured.stands():
            self._captured.clear()  # what has changed was in all of them
            self._calls.clear()
            self._wait = min(2 * self._wait, 1024)
            captured = None
        if captured is None:
            if key in self.refused or not self._is_time(key):
                return None
            try:
                captured = self._capture(call)
            except NotCaptured as reason:
                self.refused[key] = str(reason)
                return None
            self._captured[key] = captured
            if len(self._captured) > KEPT:
                self._captured.popitem(last=False)
        self._captured.move_to_end(key)
        return captured

    def _is_time(self, key: Hashable) -> bool:
        if len(self._calls) >= COUNTED:
            self._calls.clear()
        self._calls[key] = count = self._calls.get(key, -1) + 1
        return count >= self._wait

    def _capture(self, call: Tree) -> _Captured:
        if self._pool is None:
            self._pool = _graphs.pool()
        return _Captured(self, call)

    def on_stream(self, stream: Any) -> None:
        """What a replay on this stream reads and overwrites has been done with."""
        if self._stream is not None and self._stream != stream:
            stream.wait_stream(self._stream)
        self._stream = stream


class _Captured:
    """The graph of calls of one kind, and what it rests on."""

    def __init__(self, owner: Graphed, call: Tree) -> None:
        self._owner, self._kind = owner, call.kind
        network = owner.network
        modules = list(network.modules())
        devices = {tensor.device for tensor in (*call.tensors, *network.parameters(), *network.buffers())}
        if len(devices) > 1:
            raise NotCaptured(f"its tensors lie on {' and '.join(sorted(map(str, devices)))}")
        call.check_constants()
        (device,) = devices
        stream = _graphs.cuda.current_stream(device)
        owner.on_stream(stream)
        # No tensor of inference mode: those cannot be overwritten outside of it. What autocast keeps of its caller's
        # region ends with that.
        cached = torch.is_autocast_cache_enabled()
        with torch.inference_mode(False), torch.no_grad():
            torch.set_autocast_cache_enabled(False)
            try:
                self._inputs = [torch.empty_like(t).copy_(t) for t in call.tensors]
                args, kwargs = call.filled(self._inputs)
                self._facts = _facts(modules)

                def forward() -> Tree:
                    return Tree(type(network).forward(network, *args, **kwargs))

                _rehearse(forward, stream, device)
                if not stand(self._facts):
                    raise NotCaptured("its forward changes attributes of its modules")
                with kept.noted() as self._kept:
                    self._graph = Graph(forward, device, owner._pool)
                if not stand(self._facts):
                    raise NotCaptured("its forward changes attributes of its modules")
            finally:
                torch.set_autocast_cache_enabled(cached)
        self._outputs: Tree = self._graph.result
        self._tensors = [t for module in modules for t in _own_tensors(module)]
        self._pointers = [*map(_pointer, self._tensors)]
        self._sources = [source[0] for sources, _ in self._kept for source in sources if source[0] is not None]
        self._versions = [*map(_version, self._sources)]

    def __str__(self) -> str:
        return str(self._kind)

    def stands(self) -> bool:
        """All that the graph rests on is as it was."""
        if not stand(self._facts) or [*map(_pointer, self._tensors)] != self._pointers:
            return False
        return [*map(_version, self._sources)] == self._versions

    def run(self, inputs: list[Tensor]) -> Any:
        """What the network answers to these."""
        with _graphs.cuda.device(self._graph.device), torch.no_grad():
            self._owner.on_stream(_graphs.cuda.current_stream())
            for ours, given in zip(self._inputs, inputs, strict=True):
                ours.copy_(given)
            self._graph.replay()
            return self._outputs.filled([tensor.clone() for tensor in self._outputs.tensors])


def _rehearse(forward: Any, stream: Any, device: torch.device) -> None:
    """Run the forward on the stream that will capture it, and look for what a graph cannot hold."""
    side = _graphs.capture_stream(device)
    side.wait_stream(stream)
    with _graphs.cuda.stream(side):
        forward()  # what is loaded, chosen and kept is there from now on
        with Obstacles(_graphs.DEVICE) as obstacles:
            result = forward()
    stream.wait_stream(side)
    if obstacles.found:
        raise NotCaptured(str(obstacles))
    result.check_constants()
    if any(tensor.device != device for tensor in result.tensors):
        raise NotCaptured(f"a result does not lie on {device}")


def _circumstances() -> tuple:
    """What else decides how a call runs."""
    half = torch.get_autocast_dtype(_graphs.DEVICE) if torch.is_autocast_enabled(_graphs.DEVICE) else None
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    convolutions = cudnn.conv.fp32_precision  # pyright: ignore[reportAttributeAccessIssue]  (made when it is imported)
    return (
        half, cudnn.enabled, convolutions, matmul.fp32_precision, cudnn.deterministic,
        torch.are_deterministic_algorithms_enabled(),
    )  # fmt: skip


def _facts(modules: list[nn.Module]) -> Facts:
    """From which it follows that the modules would compute what they do now, from tensors that lie where they do."""
    found: list[Facts] = []
    for module in modules:
        own = vars(module)
        if isinstance(module, torch.jit.ScriptModule):
            raise NotCaptured("it holds a ScriptModule")
        if any(own[name] for name in _HOOKS):
            raise NotCaptured(f"a {type(module).__name__} of it has hooks")
        found += [type_is(module), *(own_empty(module, name) for name in _HOOKS)]
        found += [items_are(own[name]) for name in _DICTS]
        found += [own_is(module, name) for name in own if name not in (*_NOTES, *_HOOKS)]
    return all_of(*found)


def _own_tensors(module: nn.Module) -> Iterator[Tensor]:
    for values in (module._parameters, module._buffers, vars(module)):
        yield from (value for value in values.values() if isinstance(value, Tensor))
