"""`accelerate`: the fused operators in any network, in place.

Nothing is replaced: modules change their class, so that parameters, buffers, names and hooks stay where they are.

    nn.Conv2d that dilated_block can run   -> AcceleratedConv2d, nn.ConvTranspose2d -> AcceleratedConvTranspose2d
    nn.Sequential with a chain in it       -> FusedSequential, which finds its chains at every call
    a chain in a forward of another class  -> a `Fusion`: the convolution computes all of it, the norm and the
                                              activation pass on what they are given

The last needs to know what the forward does: it is traced by torch.fx, alone, its modules opaque, once in training and
once in eval mode. What cannot be traced, or uses a value between the modules in any other way, is not fused.
"""

from __future__ import annotations

import copy
import weakref
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node, Proxy, Tracer

from inpaint_fast._words import check_precision
from inpaint_fast.nn.blocks import (
    CONVOLUTIONS,
    PLAIN,
    Chain,
    Folded,
    FusedSequential,
    find_chain,
    prepare,
    undisturbed,
    why_not,
)

# ---- the modules ----


class Fusion:
    """A chain whose modules are called one by one, by a forward that was traced.

    It holds while every module stands where it stood, nobody looks at what passes between them, and the settings that
    the forward may branch on are what they were. Asked anew by each module at each call, so that a hook, a replaced
    norm or a copy of one module alone are met with plain computation.

    Args:
        chain: the modules; each gets a reference to this.
        places: for each module the one that has it as a child, and the name of that child.
        owner: the module whose forward calls them.
        settings: its attributes that are plain values.
    """

    def __init__(
        self, chain: Chain, places: list[tuple[nn.Module, str]], owner: nn.Module, settings: dict[str, Any]
    ) -> None:
        self.chain, self.places, self.owner, self.settings = chain, places, owner, settings
        for module in chain.modules:
            module._fusion = self

    def __reduce__(self) -> tuple:
        return Fusion, (self.chain, self.places, self.owner, self.settings)  # a copy is tied to copies of the modules

    def holds(self, module: nn.Module) -> bool:
        modules, attributes = self.chain.modules, self.owner.__dict__
        return (
            any(module is member for member in modules)
            and all(name in attributes and attributes[name] == value for name, value in self.settings.items())
            and why_not(self.chain.conv) is None
            and all(
                parent._modules.get(name) is member and type(member) in PLAIN and undisturbed(member)
                for member, (parent, name) in zip(modules, self.places, strict=True)
            )
        )


class _Member:
    """What modules that may be in a `Fusion` share. A copy of one alone is in none; a copy of its owner makes anew."""

    _fusion: Fusion | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_fusion"}

    def _fused(self) -> bool:
        return self._fusion is not None and self._fusion.holds(self)


class AcceleratedConv2d(_Member, nn.Conv2d):
    """An nn.Conv2d computed by `inpaint_fast.dilated_block`, with the norm and the activation that it is fused with."""

    precision = "fast"

    def forward(self, input: Tensor) -> Tensor:
        if self._fused():
            return self._fusion.chain(input, self.precision)
        if why_not(self) is None:
            return Chain(self)(input, self.precision)
        return super().forward(input)  # its stride, say, was changed after it was accelerated


class AcceleratedConvTranspose2d(_Member, nn.ConvTranspose2d):
    """An nn.ConvTranspose2d computed by `inpaint_fast.transposed_block`, with the norm and the activation after it."""

    precision = "fast"

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is None and self._fused():
            return self._fusion.chain(input, self.precision)
        if output_size is None and why_not(self) is None:
            return Chain(self)(input, self.precision)
        return super().forward(input, output_size)


class _PassesOn(_Member):
    """A norm or activation that the convolution before it has computed already; by itself it is what it was."""

    def forward(self, input: Tensor) -> Tensor:
        return input if self._fused() else super().forward(input)


class FusedBatchNorm2d(_PassesOn, nn.BatchNorm2d):
    """An nn.BatchNorm2d that the convolution before it may have computed already."""


class FusedReLU(_PassesOn, nn.ReLU):
    """An nn.ReLU that the convolution before it may have computed already."""


class FusedLeakyReLU(_PassesOn, nn.LeakyReLU):
    """An nn.LeakyReLU that the convolution before it may have computed already."""


class FusedELU(_PassesOn, nn.ELU):
    """An nn.ELU that the convolution before it may have computed already."""


class FusedSigmoid(_PassesOn, nn.Sigmoid):
    """An nn.Sigmoid that the convolution before it may have computed already."""


class FusedTanh(_PassesOn, nn.Tanh):
    """An nn.Tanh that the convolution before it may have computed already."""


REPLACEMENT = {
    nn.Conv2d: AcceleratedConv2d,
    nn.ConvTranspose2d: AcceleratedConvTranspose2d,
    nn.BatchNorm2d: FusedBatchNorm2d,
    nn.ReLU: FusedReLU,
    nn.LeakyReLU: FusedLeakyReLU,
    nn.ELU: FusedELU,
    nn.Sigmoid: FusedSigmoid,
    nn.Tanh: FusedTanh,
}
ACCELERATED = (AcceleratedConv2d, AcceleratedConvTranspose2d)
PLAIN.update({replacement: plain for plain, replacement in REPLACEMENT.items()})


# ---- the report ----


@dataclass(frozen=True)
class Swapped:
    """A convolution that was swapped.

    Attributes:
        name: as in model.named_modules().
        fused: the names of the norm and the activation fused with it, as they are called.
        note: why not more was fused; empty where norm and activation are.
    """

    name: str
    fused: tuple[str, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        return " + ".join((self.name, *self.fused)) + (f"   ({self.note})" if self.note else "")


@dataclass(frozen=True)
class Left:
    """A convolution that was left as it is, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass
class Report:
    """What `accelerate` did to a model: `str(report)` is for reading."""

    swapped: list[Swapped] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{len(self.swapped)} of {len(self.swapped) + len(self.left)} convolutions swapped"]
        lines += [f"  {entry}" for entry in self.swapped]
        if self.left:
            lines += ["left as they are:", *(f"  {entry}" for entry in self.left)]
        return "\n".join(lines)


# ---- the public functions ----


def accelerate(model: nn.Module, *, inference: bool = False, precision: str = "fast") -> nn.Module:
    """Run the convolutions of a network by the fused operators, with the norm and activation after them.

    In place. What is swapped, with one group and zero padding:

        nn.Conv2d, 3x3, stride 1, any dilation and padding       by dilated_block
        nn.Conv2d, 3x3 or 4x4, stride 2, padding 1               by strided_block
        nn.ConvTranspose2d, 4x4, stride 2, padding 1             by transposed_block
        nn.ConvTranspose2d, 3x3, the same and output_padding 1   by transposed_block

    An nn.BatchNorm2d and an nn.ReLU, LeakyReLU, ELU, Sigmoid or Tanh after it, in either order, are fused with it where
    the forward shows that nothing else uses what passes between them. Outputs, gradients, running statistics,
    state_dict, parameter objects (an optimizer made before stays valid) and `isinstance(module, nn.Conv2d)` stay.

    Accelerate the module that you call, last: after layers were replaced, before torch.compile and
    DistributedDataParallel; torch.export takes it, torch.fx.symbolic_trace and torch.jit.script do not. Called again it
    looks anew. Outside an nn.Sequential a fused convolution called by itself returns what its whole chain does, as
    after torch.ao.quantization.fuse_modules. With a hook on it, on the norm or on the activation, with one of them
    replaced, or with another value in an attribute of the module whose forward calls them, the three are computed one
    by one.

    Args:
        model: any nn.Module.
        inference: weights are transformed now and not at the first call, and the scale and shift of each norm are kept
            from call to call. They are computed anew after load_state_dict, `.to`, an optimizer's step or any other
            change that PyTorch's version counters see, and dropped in training. An in-place operation on `tensor.data`
            is seen by nobody: call accelerate again after one.
        precision: "fast" (Winograd, an error of about 1e-5 of the output's scale in float32) or "exact".

    Returns:
        model. `print(acceleration_report(model))` shows what was swapped, and why the rest was left.

    Raises:
        TypeError: model is no nn.Module.
        ValueError: precision has no such value, or the model is in training mode and inference is asked for.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: a torch.nn.Module is expected, got {type(model).__name__}")
    check_precision(precision)
    if inference and model.training:
        raise ValueError("inference: a model in eval mode is expected, got one in training mode; call model.eval()")

    names = {module: name for name, module in model.named_modules()}
    report = Report()
    for module, name in names.items():
        vars(module).pop("_fusions", None)
        vars(module).pop("_fusion", None)
        vars(module).pop("_folded", None)
        if not isinstance(module, CONVOLUTIONS):
            continue
        reason = why_not(module)
        if reason is None:
            module.__class__ = REPLACEMENT[PLAIN[type(module)]]
            module.precision = precision
        else:
            report.left.append(Left(name, reason))

    calls = _Calls(model, names)
    for conv in (module for module in names if isinstance(module, ACCELERATED)):
        chain, note = calls.chain_of(conv)
        report.swapped.append(Swapped(names[conv], tuple(names[module] for module in chain.modules[1:]), note))
        if inference:
            prepare(conv)
            if chain.norm is not None:
                chain.norm._folded = Folded()
    for module in names:
        if type(module) is nn.Sequential and any(len(chain.modules) > 1 for chain in _chains(module)):
            module.__class__ = FusedSequential
        if type(module) is FusedSequential:
            module.precision = precision
    vars(model)["_acceleration_report"] = report
    return model


def acceleration_report(model: nn.Module) -> Report:
    """What `accelerate` did to this model.

    Raises:
        ValueError: the model was not accelerated.
    """
    report = vars(model).get("_acceleration_report")
    if report is None:
        raise ValueError(f"model: this {type(model).__name__} was not accelerated; call accelerate(model)")
    return report


# ---- what the forwards do ----

_OWN = frozenset(vars(nn.Module()))  # the attributes of every module


def _is_plain(value: Any) -> bool:
    """A value that a forward may branch on."""
    if isinstance(value, (tuple, list, set)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))


class _Trace(Tracer):
    """What one forward does with the modules that it calls, in training or in eval mode.

    Attributes:
        nodes: module -> its calls.
        module: the call -> its module.
        kept: calls whose result outlived the forward: it was put into an attribute, a list, ...
    """

    proxy_buffer_attributes = True  # else an in-place operation on a buffer would happen while tracing

    def __init__(self, owner: nn.Module, training: bool) -> None:
        super().__init__()
        self.nodes: dict[nn.Module, list[Node]] = defaultdict(list)
        self.module: dict[Node, nn.Module] = {}
        self._proxies: dict[Node, weakref.ref] = {}
        stand_in = copy.copy(owner)  # takes what the forward writes to its attributes
        for name, value in vars(stand_in).items():
            if isinstance(value, (dict, list, set)):
                vars(stand_in)[name] = copy.copy(value)
        vars(stand_in)["training"] = training
        with torch.random.fork_rng(devices=[]):
            self.trace(stand_in)
        self.kept = {node for node, proxy in self._proxies.items() if proxy() is not None}

    def settings(self) -> dict[str, Any]:
        """Plain values among the attributes of the module, as the forward left them."""
        attributes = vars(self.root).items()
        return {name: copy.copy(value) for name, value in attributes if name not in _OWN and _is_plain(value)}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def call_module(self, m: nn.Module, forward: Any, args: tuple, kwargs: dict) -> Proxy:
        proxy = super().call_module(m, forward, args, kwargs)
        self.nodes[m].append(proxy.node)
        self.module[proxy.node] = m
        return proxy

    def proxy(self, node: Node) -> Proxy:
        proxy = super().proxy(node)
        self._proxies[node] = weakref.ref(proxy)
        return proxy

    def follow(self, conv: nn.Module) -> tuple[list[nn.Module], str]:
        """The modules that can be fused from this convolution on, and why no more."""
        chain, node = Chain(conv), self.nodes[conv][0]
        while True:
            if len(chain.modules) == 3:
                return list(chain.modules), ""
            if node in self.kept:
                return list(chain.modules), "the forward keeps what it returns"
            users = list(node.users)
            if len(users) != 1:
                return list(chain.modules), f"what it returns is used {len(users)} times"
            user, module = users[0], self.module.get(users[0])
            if module is None or user.args != (node,) or user.kwargs:
                return list(chain.modules), _named(user)
            if len(self.nodes[module]) != 1:
                return list(chain.modules), f"the {type(module).__name__} that follows is called several times"
            if not chain.take(module):
                return list(chain.modules), _left_beside(module)
            node = user


class _Calls:
    """All calls among the modules of a model, as far as forwards can be traced."""

    def __init__(self, model: nn.Module, names: dict[nn.Module, str]) -> None:
        self.names = names
        self.places: dict[nn.Module, list[tuple[nn.Module, str]]] = defaultdict(list)
        self.traces: dict[nn.Module, list[_Trace]] = {}
        self.failed: dict[nn.Module, str] = {}
        self.count: Counter[nn.Module] = Counter()
        for module in names:
            for name, child in module._modules.items():
                if child is not None:
                    self.places[child].append((module, name))
            if _has_forward(module) and any(isinstance(m, ACCELERATED) for m in module.modules()):
                self._trace(module)
        for module in names:  # from the outside in
            if _is_sequential(module) and (module is model or self.count[module]):
                self.count.update(module)

    def _trace(self, module: nn.Module) -> None:
        try:
            traces = [_Trace(module, training) for training in (True, False)]
        except Exception as error:  # a forward is anybody's code
            reason = (str(error) or type(error).__name__).splitlines()[0]
            self.failed[module] = f"the forward of {self.names[module] or 'the model'} cannot be traced: {reason:.80}"
            return
        self.traces[module] = traces
        for child in {child for trace in traces for child in trace.nodes}:
            self.count[child] += max(len(trace.nodes[child]) for trace in traces)

    def chain_of(self, conv: nn.Module) -> tuple[Chain, str]:
        """The chain that this convolution begins, tied together if it has to be, and why it is no longer."""
        owners = [owner for owner, traces in self.traces.items() if any(trace.nodes[conv] for trace in traces)]
        parents = [parent for parent, _ in self.places[conv]]
        sequential = next((parent for parent in parents if _is_sequential(parent)), None)
        if sequential is not None and not owners:
            chain = next((chain for chain in _chains(sequential) if chain.conv is conv), None)
            return (Chain(conv), "it has hooks") if chain is None else (chain, _after(chain, list(sequential)))
        if not owners:
            return Chain(conv), self._why_unseen(conv)
        if self.count[conv] != 1 or len(parents) != 1:
            return Chain(conv), f"it is called {max(self.count[conv], len(parents))} times"
        if not undisturbed(conv):
            return Chain(conv), "it has hooks"
        return self._fuse(conv, owners[0])

    def _fuse(self, conv: nn.Module, owner: nn.Module) -> tuple[Chain, str]:
        """Follow the convolution in training and in eval mode, and tie together what is the same in both."""
        traces = self.traces[owner]
        followed = [trace.follow(conv) for trace in traces if trace.nodes[conv]]
        shortest, note = min(followed, key=lambda result: len(result[0]))
        chain = Chain(conv)
        for i, module in enumerate(shortest[1:], 1):
            same = all(modules[i] is module for modules, _ in followed)
            apart = any(bool(trace.nodes[conv]) != bool(trace.nodes[module]) for trace in traces)
            if not same or apart or self.count[module] != 1 or len(self.places[module]) != 1:
                note = f"the {type(module).__name__} that follows is called elsewhere too"
                break
            chain.take(module)
        if len(chain.modules) > 1:
            for module in chain.modules[1:]:
                module.__class__ = REPLACEMENT[PLAIN[type(module)]]
            settings = {name: value for name, value in traces[0].settings().items() if vars(owner).get(name) == value}
            places = [self.places[module][0] for module in chain.modules]
            vars(owner).setdefault("_fusions", []).append(Fusion(chain, places, owner, settings))
        return chain, note

    def _why_unseen(self, conv: nn.Module) -> str:
        name = self.names[conv]
        modules = {name: module for module, name in self.names.items()}
        while name:
            name = name.rpartition(".")[0]
            if modules.get(name) in self.failed:
                return self.failed[modules[name]]
        return ""


def _is_sequential(module: nn.Module) -> bool:
    return type(module) is nn.Sequential or isinstance(module, FusedSequential)


def _has_forward(module: nn.Module) -> bool:
    """It is a user's module that may call others, not a container and none of torch.nn's own."""
    own = type(module).forward is not nn.Module.forward and not type(module).__module__.startswith("torch.nn.")
    return own and not _is_sequential(module) and bool(module._modules)


def _chains(sequential: nn.Sequential) -> list[Chain]:
    children = list(sequential)
    found = [find_chain(children[i:]) for i in range(len(children))]
    return [chain for chain in found if chain is not None]


# ---- why a chain ends ----


def _after(chain: Chain, children: list[nn.Module]) -> str:
    if len(chain.modules) == 3:
        return ""
    end = children.index(chain.conv) + len(chain.modules)
    return _left_beside(children[end]) if end < len(children) else "it ends its nn.Sequential"


def _left_beside(module: nn.Module) -> str:
    name = type(module).__name__
    return f"the {name} that follows has hooks" if not undisturbed(module) else f"a {name} follows"


def _named(user: Node) -> str:
    """What follows, where it is no module."""
    if user.op == "output":
        return "it ends the forward"
    name = user.target if isinstance(user.target, str) else getattr(user.target, "__name__", str(user.target))
    return f"the function {name} follows, and only modules are fused" if user.op != "call_module" else f"{name} follows"
