"""`accelerate`: which modules of a network get which class, and which chains are tied together.

Nothing is replaced: modules change their class, so that parameters, buffers, names and hooks stay where they are.

    nn.Conv2d that a block can run         -> AcceleratedConv2d, nn.ConvTranspose2d -> AcceleratedConvTranspose2d
    nn.Sequential with a chain in it       -> FusedSequential, which looks for its chains at every call
    a chain in a forward of another class  -> a `Fusion`, where the forward is proved to call it so
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import fields
from typing import TypeVar

from torch import nn
from torch.jit import ScriptModule

from inpaint_fast import _graphs
from inpaint_fast._words import check_precision
from inpaint_fast.nn.fuse.chain import CONVOLUTIONS, Chain, Conv, block_of, plain_class, undisturbed
from inpaint_fast.nn.fuse.modules import REPLACEMENT, Fusion
from inpaint_fast.nn.fuse.proof import Ground, Reading
from inpaint_fast.nn.fuse.reader import read
from inpaint_fast.nn.fuse.report import Left, Report, Swapped
from inpaint_fast.nn.fuse.sequential import FusedSequential, chains_of
from inpaint_fast.nn.fuse.source import Unproved
from inpaint_fast.nn.fuse.values import is_container, is_sequential
from inpaint_fast.nn.graphs import Graphed
from inpaint_fast.ops.conv_block import Kept, Tuning, keep_transformed

Network = TypeVar("Network", bound=nn.Module)


def accelerate(
    model: Network,
    *,
    inference: bool = False,
    precision: str = "fast",
    tune: bool = False,
    cuda_graph: bool = True,
) -> Network:
    """Run the convolutions of a network by the fused operators, with the norm and activation after them.

    In place. What is swapped, with one group:

        nn.Conv2d, 3x3, stride 1, any dilation, padding and mode by dilated_block
        nn.Conv2d, 5x5 to 11x11, stride 1, few output channels   by PyTorch's convolution, one row of taps at a time
        nn.Conv2d, 3x3 or 4x4, stride 2, padding 1 of zeros      by strided_block
        nn.Conv2d, 5x5, stride 2, padding 2 of zeros             by strided_block
        nn.ConvTranspose2d, 4x4, stride 2, padding 1             by transposed_block
        nn.ConvTranspose2d, 3x3, the same and output_padding 1   by transposed_block
        nn.ConvTranspose2d, 5x5, stride 2, padding 2, the same   by transposed_block

    An nn.BatchNorm2d and an nn.ReLU, LeakyReLU, ELU, Sigmoid or Tanh after it, in either order, are fused with it: in
    an nn.Sequential always, in another forward where its source proves that every call runs them one after the other
    and uses what passes between them for nothing else. Such a forward may depend on attributes of its own that are
    bool, int, str or None, and on which modules it has, but not on arguments; the report says which line of it ends the
    proof. With a hook on one of the modules, with one replaced, with another value in such an attribute, and for any
    other caller, the modules compute what they always did, one by one. Outputs, gradients, running statistics,
    state_dict, parameter objects (an optimizer made before stays valid) and `isinstance(module, nn.Conv2d)` stay.

    Accelerate the module that you call, last: after layers were replaced, before torch.compile and
    DistributedDataParallel. torch.export, torch.onnx.export and torch.jit.trace record the plain network;
    torch.jit.script and torch.fx refuse an accelerated one. Called again it looks anew; `restore` undoes it, before
    torch.compile, too. Under torch.utils.checkpoint without reentry PyTorch takes a segment's last batch into its
    last norm twice, since it computes the segment once more; accelerated it is taken once.

    Args:
        model: any nn.Module. TorchScript modules in it stay as they are.
        inference: promise that parameters and buffers change only in ways that PyTorch can see, until `model.train()`
            or the next `accelerate(model)`: transformed weights and folded norms are then kept from call to call, and
            made anew after load_state_dict, `.to`, an ordinary optimizer's step or any other change that PyTorch's
            version counters or another tensor tell. Fused optimizers, `tensor.data`, NumPy views, other processes and
            F.batch_norm on running statistics change memory unseen. Without the promise nothing is kept.
        precision: "fast" (Winograd, an error of about 1e-5 of the output's scale in float32) or "exact".
        tune: at the first call with each kind of tensors (shapes, dtypes, with or without gradients) time our kernel
            and PyTorch's own operators on them, some 0.2 s for a layer, and keep what is faster here; as
            torch.backends.cudnn.benchmark does; on a processor with AMX our kernel with it, too. Otherwise what was
            measured on other machines decides. Two runs may then differ by rounding. Not under torch.compile.
        cuda_graph: with inference, where there is a GPU: calls of the model on CUDA tensors without gradients are
            replayed as CUDA graphs, from the second call of a kind on (shapes, layouts, dtypes, other arguments), 8
            kinds at most; results are the caller's own. Parameters may change in place; a graph is captured anew where
            modules, settings, attributes or hooks have changed since. What a forward reads elsewhere (globals, files,
            the clock) it reads once. A model that a graph cannot hold runs as it is, and the report says why.

    Returns:
        model. `print(acceleration_report(model))` shows what was swapped, why the rest was left, what was timed, and
        which calls are graphs.

    Raises:
        TypeError: model is no nn.Module.
        ValueError: precision has no such value, or the model is in training mode and inference is asked for.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: a torch.nn.Module is expected, got {type(model).__name__}")
    check_precision(precision)
    if inference and model.training:
        raise ValueError("inference: a model in eval mode is expected, got one in training mode; call model.eval()")

    names = _names(model)
    report = Report()
    convolutions: list[Conv] = []
    for name, module in model.named_modules():
        if isinstance(module, ScriptModule) and getattr(module, "original_name", "") in ("Conv2d", "ConvTranspose2d"):
            report.left.append(Left(name, "it is in a ScriptModule, which stays as it is"))
    for module, name in names.items():
        _forget(module)
        if not isinstance(module, CONVOLUTIONS):
            continue
        found = block_of(module)
        if "precision" in module._modules:
            found = "it has a module named precision"
        if isinstance(found, str):
            report.left.append(Left(name, found))
            continue
        convolutions.append(module)
        _replace(module, precision=precision)
        if tune:
            vars(module)["_tuning"] = Tuning()
        if inference:
            kept = vars(module)["_kept"] = Kept()
            if not tune:  # which may find that nothing of it is wanted
                keep_transformed(kept, found[0], module.weight)

    calls = _Calls(model, names)
    for conv in convolutions:
        chain, note = calls.chain_of(conv)
        report.swapped.append(Swapped(names[conv], tuple(names[module] for module in chain.modules[1:]), note))
    for module in names:
        if "precision" in module._modules:
            continue
        if type(module) is nn.Sequential and any(len(chain.modules) > 1 for chain in chains_of(module)):
            module.__class__ = FusedSequential
            vars(module)["_was_sequential"] = True
        # Subclasses, DilatedConvBlock among them, have one of their own, which only a stricter one replaces.
        takes = type(module) is FusedSequential or precision == "exact"
        if isinstance(module, FusedSequential) and takes and module.precision != precision:
            module.precision = precision
    vars(model)["_acceleration_report"] = report
    if inference and cuda_graph and _graphs.cuda.is_available() and not isinstance(model, _LAYERS):
        vars(model)["forward"] = Graphed(model)
    return model


def restore(model: Network) -> Network:
    """Undo `accelerate`: every module has the class again that it had.

    In place. What torch.jit.script, torch.fx or another tool that knows torch.nn's own classes cannot take is plain
    then. Blocks that were fused from the start (`DilatedConvBlock`) stay that, in the precision that
    `accelerate` has given them. A model that was not accelerated is left alone.

    Args:
        model: any nn.Module; the one that `accelerate` was called with, or a larger or smaller one.

    Returns:
        model.

    Raises:
        TypeError: model is no nn.Module, or a module's class has changed once more since (a parametrization): undo that
            first. Nothing is changed then.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: a torch.nn.Module is expected, got {type(model).__name__}")
    for name, module in model.named_modules():
        if type(module) not in _ORIGINAL and isinstance(module, tuple(_ORIGINAL)):
            raise TypeError(f"model: {name} has become a {type(module).__name__} after accelerate; undo that first")
    for module in model.modules():
        own = vars(module)
        own.pop("_acceleration_report", None)
        _forget(module)
        if type(module) in _ORIGINAL:
            module.__class__ = _ORIGINAL[type(module)]
            own.pop("precision", None)
        elif own.pop("_was_sequential", False):
            module.__class__ = nn.Sequential
            own.pop("precision", None)
    return model


_FUSIONS = "_inpaint_fast_fusions"  # of a module of somebody's, whose forward calls their modules
_ORIGINAL = {fused: plain for plain, fused in REPLACEMENT.items()}
_LAYERS = tuple(REPLACEMENT)  # whose chains ask whether they have a forward of their own


def _replace(module: nn.Module, **attributes: object) -> None:
    """Give a module the class that computes what it does, and fuses, and these attributes."""
    plain = plain_class(module)
    assert plain is not None  # it would not have been chosen
    module.__class__ = REPLACEMENT[plain]
    for name, value in attributes.items():  # of any type: PyTorch's stubs know of tensors and modules
        setattr(module, name, value)


def _forget(module: nn.Module) -> None:
    """Drop what was found, kept or measured of a module."""
    own = vars(module)
    if isinstance(own.get("forward"), Graphed):
        del own["forward"]
    own.pop(_FUSIONS, None)
    own.pop("_passes_on", None)
    if isinstance(module, (*_ORIGINAL, FusedSequential)):
        for name in ("_fusion", "_kept", "_tuning", "_alone", "_found", "_plain_for"):
            own.pop(name, None)


def _names(model: nn.Module) -> dict[nn.Module, str]:
    """The modules by which the model is made, and their names; not those inside of scripts."""
    scripts = [f"{name}." for name, module in model.named_modules() if isinstance(module, ScriptModule) and name]
    return {
        module: name
        for name, module in model.named_modules()
        if not isinstance(module, ScriptModule) and not name.startswith(tuple(scripts))
        and not isinstance(model, ScriptModule)
    }  # fmt: skip


class _Calls:
    """What calls the modules of a model: containers, and forwards as far as they can be proved."""

    def __init__(self, model: nn.Module, names: dict[nn.Module, str]) -> None:
        self.names = names
        self.places: dict[nn.Module, list[tuple[nn.Module, str]]] = defaultdict(list)
        self.readings: dict[nn.Module, list[Reading]] = {}
        self.unproved: dict[nn.Module, str] = {}
        for module in names:
            for name, child in module._modules.items():
                if child is not None:
                    self.places[child].append((module, name))
            if _has_forward(module) and any(isinstance(each, CONVOLUTIONS) for each in module.modules()):
                self._read(module)

    def _read(self, module: nn.Module) -> None:
        try:
            self.readings[module] = [read(module, training) for training in (True, False)]
        except Unproved as reason:
            self.unproved[module] = f"the forward of {self.names[module] or 'the model'} is not proved: {reason}"

    def chain_of(self, conv: Conv) -> tuple[Chain, str]:
        """The chain that this convolution begins, tied together if it has to be, and why it is no longer."""
        owners = [owner for owner, readings in self.readings.items() if any(each.of(conv) for each in readings)]
        parents = [parent for parent, _ in self.places[conv]]
        sequential = next(
            (parent for parent in parents if is_sequential(parent) or type(parent) is nn.Sequential), None
        )
        if sequential is not None and not owners:
            chain = next((chain for chain in chains_of(sequential) if chain.conv is conv), None)
            if chain is None:
                return Chain(conv), "it has hooks"
            return chain, self._if_called(sequential, chain) or _after(chain, list(sequential))
        if not owners:
            return Chain(conv), self._why_unseen(conv)
        if len(owners) > 1 or len(parents) > 1:
            return Chain(conv), f"it is called from {max(len(owners), len(parents))} places"
        if not undisturbed(conv):
            return Chain(conv), "it has hooks"
        return self._fuse(conv, owners[0])

    def _fuse(self, conv: Conv, owner: nn.Module) -> tuple[Chain, str]:
        """Follow the convolution in training and in eval mode, and tie together what is the same in both."""
        readings = [reading for reading in self.readings[owner] if reading.of(conv)]
        if any(len(reading.of(conv)) > 1 for reading in readings):
            return Chain(conv), "it is called several times"
        followed = [_follow(reading, conv) for reading in readings]
        shortest, note = min(followed, key=lambda found: len(found[0]))
        chain, grounds = Chain(conv), [ground for reading in readings for ground in reading.grounds]
        for i, module in enumerate(shortest[1:], 1):
            if not all(modules[i] is module for modules, _ in followed) or len(self.places[module]) != 1:
                note = f"the {type(module).__name__} that follows is not always the same"
                break
            chain.take(module)
        if len(chain.modules) > 1:
            for module in chain.modules[1:]:
                _replace(module)
            first = readings[0]
            paths = [child for module in chain.modules for child in first.of(module)[0].path]
            caller = first.of(conv)[0].caller
            fusion = Fusion(chain, owner, caller, _without_repeats([*paths, *grounds]))
            vars(owner).setdefault(_FUSIONS, []).append(fusion)
        return chain, note

    def _if_called(self, sequential: nn.Module, chain: Chain) -> str:
        """Why it is not known that this nn.Sequential is called, and not its modules one by one."""
        caller = sequential
        while len(chain.modules) > 1 and (is_container(caller) or caller is sequential) and self.places[caller]:
            caller = self.places[caller][0][0]
        reason = self.unproved.get(caller, "")
        return f"where {self.names[sequential]} is called as a whole; {reason}" if reason else ""

    def _why_unseen(self, conv: nn.Module) -> str:
        name = self.names[conv]
        modules = {name: module for module, name in self.names.items()}
        while name:
            name = name.rpartition(".")[0]
            if modules.get(name) in self.unproved:
                return self.unproved[modules[name]]
        return ""


def _follow(reading: Reading, conv: Conv) -> tuple[list[nn.Module], str]:
    """The modules that can be fused from this convolution on, and why no more."""
    first = call = reading.of(conv)[0]
    chain = Chain(conv)
    while len(chain.modules) < 3:
        following = reading.following(call, first)
        if isinstance(following, str):
            return list(chain.modules), following
        module = following.module
        if len(reading.of(module)) != 1:
            return list(chain.modules), f"the {type(module).__name__} that follows is called several times"
        if not chain.take(module):
            return list(chain.modules), _left_beside(module)
        call = following
    return list(chain.modules), ""


def _without_repeats(grounds: list[Ground]) -> list[Ground]:
    """Both readings of a forward, and the paths of its modules, rest on much the same."""
    known = {
        (type(ground), *(id(getattr(ground, field.name)) for field in fields(ground))): ground for ground in grounds
    }
    return list(known.values())


def _has_forward(module: nn.Module) -> bool:
    """It is a user's module that may call others, not a container and none of torch.nn's own."""
    own = type(module).forward is not nn.Module.forward and not type(module).__module__.startswith("torch.nn.")
    return own and not is_sequential(module) and bool(module._modules)


# ---- why a chain ends ----


def _after(chain: Chain, children: list[nn.Module]) -> str:
    if len(chain.modules) == 3:
        return ""
    end = next(i for i, child in enumerate(children) if child is chain.conv) + len(chain.modules)
    return _left_beside(children[end]) if end < len(children) else "it ends its nn.Sequential"


def _left_beside(module: nn.Module) -> str:
    name = type(module).__name__
    return f"the {name} that follows has hooks" if not undisturbed(module) else f"a {name} follows"
