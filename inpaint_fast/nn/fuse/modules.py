"""The classes that `accelerate` gives to modules of torch.nn, and how those of one chain work together.

In an nn.Sequential a chain is run by the nn.Sequential. In a forward of somebody's its modules are called one by one:
there the convolution computes the whole chain and marks its result, and the norm and the activation pass on what has
their mark. That is done only where the forward was proved to call them so (`proof`), in a call by that very forward of
that very module, while what the proof rests on stands. A module that is called by anybody else, with anything else,
computes what it always did.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, cast

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling

from inpaint_fast.nn.fuse.chain import Chain, Conv, undisturbed
from inpaint_fast.nn.fuse.facts import (
    Facts,
    all_of,
    class_is,
    dict_type,
    own_is,
    own_lacks,
    size_of,
    stand,
    type_is,
    undisturbed_now,
)
from inpaint_fast.nn.fuse.proof import Ground
from inpaint_fast.nn.fuse.source import PythonFunction
from inpaint_fast.ops._torch_private import is_watched

if TYPE_CHECKING:
    from typing_extensions import Self

MARK = "_inpaint_fast_computed"  # on a tensor: (the fusion that computed it, which module of its chain comes next)
REFUSAL = "an accelerated network is nothing for {}: inpaint_fast.restore(model) gives the plain network back"
_OF_MODULE_CALLS = (nn.Module._call_impl.__code__, nn.Module._wrapped_call_impl.__code__)


class Fusion:
    """A chain whose modules are called one by one, by a forward that was read.

    Args:
        chain: the modules; the convolution gets a reference to this.
        owner: the module whose forward calls them.
        caller: its forward, or the method of it that calls the convolution.
        grounds: what the proof rests on.
    """

    def __init__(self, chain: Chain, owner: nn.Module, caller: PythonFunction, grounds: Sequence[Ground]) -> None:
        self.chain, self.owner, self.caller, self.grounds = chain, owner, caller, grounds
        self.modules = chain.modules
        self._classes = [(module, type(module)) for module in self.modules]
        self._class_of_owner = type(owner)
        # From these it follows that the proof stands: facts, and grounds that are to be asked themselves.
        self._stood: tuple[Facts, Sequence[Ground]] | None = None
        vars(chain.conv)["_fusion"] = self

    def __deepcopy__(self, memo: dict) -> Fusion:
        """Tied to copies of the modules."""
        chain, owner, grounds = copy.deepcopy((self.chain, self.owner, self.grounds), memo)
        return Fusion(chain, owner, self.caller, grounds)

    def __reduce__(self) -> tuple:
        functions = [self.caller, *(getattr(ground, "function", None) for ground in self.grounds)]
        if not all(function is None or _is_found_by_name(function) for function in functions):
            return _no_fusion, ()  # a pickle knows functions by their names alone
        return Fusion, (self.chain, self.owner, self.caller, self.grounds)

    def holds(self, conv: nn.Module, frame: FrameType | None) -> bool:
        """The convolution that asks was called by the forward that was read, and the proof stands.

        Asked where nobody looks on.

        Args:
            frame: of the convolution's caller.
        """
        while frame is not None and frame.f_code in _OF_MODULE_CALLS:
            frame = frame.f_back
        code = self.caller.__code__
        if frame is None or frame.f_code is not code or _first_argument(frame) is not self.owner:
            return False
        return self._stands(conv)

    def stands(self) -> bool:
        """Where nobody looks on, a call of the owner computes the whole chain now."""
        return type(self.owner) is self._class_of_owner and self._stands(self.chain.conv)

    def _stands(self, conv: nn.Module) -> bool:
        """The convolution is this chain's, its modules are as they were, undisturbed, and the grounds hold."""
        if conv is not self.chain.conv:
            return False
        stood = self._stood
        if stood is not None and not is_compiling() and stand(stood[0]):
            return all(ground.holds(self.owner) for ground in stood[1])
        for module, cls in self._classes:
            if type(module) is not cls or not undisturbed(module):
                return False
        owner = self.owner
        for ground in self.grounds:  # noqa: SIM110 (asked at every call: a generator takes twice as long)
            if not ground.holds(owner):
                return False
        found = [(ground, ground.facts(owner)) for ground in self.grounds]
        facts = all_of(*map(undisturbed_now, self.modules), *(facts or () for _, facts in found))
        self._stood = facts, [ground for ground, facts in found if facts is None]
        return True

    def __call__(self, input: Tensor, precision: str) -> Tensor:
        output = self.chain.run(input, precision)
        if not self.modules[1]._passes_on:
            for module in self.modules[1:]:
                module.__dict__["_passes_on"] = True
        setattr(output, MARK, (self, 1))
        return output

    def passes(self, module: nn.Module, next: int, output: Tensor) -> bool:
        """This module comes next, and its part is computed already."""
        if self.modules[next] is not module:
            return False
        if next + 1 < len(self.modules):
            setattr(output, MARK, (self, next + 1))
        else:
            delattr(output, MARK)
        return True


def _is_found_by_name(function: PythonFunction) -> bool:
    found: object = sys.modules.get(function.__module__)
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is function


def _no_fusion() -> None:
    """What a fusion that cannot be pickled becomes: its modules are run one by one."""


def _first_argument(frame: FrameType) -> object:
    """`self` of a method's frame."""
    names = frame.f_locals
    found = names.get(frame.f_code.co_varnames[0])
    if sys.version_info < (3, 13):
        names.clear()  # a copy that would keep every variable alive for as long as the frame
    return found


class _Refuses(nn.Module):
    """Accelerated modules say so where a tool knows the classes of torch.nn alone."""

    def __prepare_scriptable__(self) -> NoReturn:
        """torch.jit.script asks for what it is to read."""
        raise TypeError(REFUSAL.format("torch.jit.script"))


def refuse_proxies(input: object) -> None:
    """torch.fx gives a Proxy to modules that it looks into."""
    if isinstance(input, torch.fx.Proxy):
        raise TypeError(REFUSAL.format("torch.fx"))


class _Convolution(_Refuses):
    """What both accelerated convolutions share. A copy of one alone is in no fusion; a copy of its owner makes anew."""

    precision = "fast"
    _inpaint_fast_computes: type[nn.Conv2d | nn.ConvTranspose2d]
    _fusion: Fusion | None = None
    _kept = None  # what is kept of its tensors, under the promise of inference
    # The size of input for which PyTorch's own operators ran, one by one. Modules may do so at any time: this saves the
    # questions whether they might be fused.
    _plain_for: Facts | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_fusion", "_alone", "_plain_for")}

    def _apply(self, *args: Any, **named: Any) -> Self:
        self._plain_for = None  # on another device, in another dtype
        return super()._apply(*args, **named)

    def train(self, mode: bool = True) -> Self:
        if mode:  # the promise of inference ends
            self.__dict__.pop("_kept", None)
        return super().train(mode)

    def _fused(self) -> bool:
        """It computes what follows it in a forward of somebody's, too, as things are now."""
        return self._fusion is not None and self._fusion.stands()

    def _run(self, input: Tensor, frame: FrameType | None) -> Tensor | None:
        """The convolution, with its chain where it may be; None where it stays PyTorch's."""
        if not isinstance(input, Tensor):
            refuse_proxies(input)
            return None
        if input.layout is not torch.strided or is_watched():
            return None  # somebody looks on, or PyTorch alone knows such tensors
        if "_conv_forward" in self.__dict__:
            return None
        if self._plain_for is not None:
            self._plain_for = None
        if self._fusion is not None and type(input) is Tensor and self._fusion.holds(self, frame):
            output = self._fusion(input, self.precision)
            self._note(self._fusion.chain, input)
            return output
        alone: Chain | None = self.__dict__.get("_alone")
        # Both classes that this is mixed into are convolutions.
        if alone is None or alone.conv is not self:  # pyright: ignore[reportUnnecessaryComparison]
            alone = Chain(cast(Conv, self))
            if not is_compiling():
                self.__dict__["_alone"] = alone
        # Its stride, say, may have changed after it was accelerated.
        if not alone.is_block(self.precision):
            return None
        output = alone.run(input, self.precision)
        self._note(alone, input)
        return output

    def _note(self, chain: Chain, input: Tensor) -> None:
        if type(input) is Tensor and not is_compiling() and chain.ran_plainly(input):
            parameters = self.__dict__["_parameters"]
            self._plain_for = all_of(
                size_of(input), type_is(self), own_lacks(self, "_conv_forward"), own_is(self, "_parameters"),
                dict_type(parameters, "weight"), dict_type(parameters, "bias"), class_is(type(self), "_conv_forward"),
                class_is(self._inpaint_fast_computes, "forward"),
            )  # fmt: skip


class AcceleratedConv2d(_Convolution, nn.Conv2d):
    """An nn.Conv2d of PyTorch's, computed by `dilated_block` or `strided_block`, with the norm and activation after it.

    `accelerate` makes one of a convolution, in place; `restore` undoes it. Arguments, parameters and shapes are those
    of torch.nn.Conv2d: (N, C_in, H, W) to (N, C_out, H_out, W_out).
    """

    _inpaint_fast_computes = nn.Conv2d

    def forward(self, input: Tensor) -> Tensor:
        if self._plain_for is not None and not is_compiling() and stand(self._plain_for, input):
            parameters = self.__dict__["_parameters"]  # what nn.Conv2d.forward does, in less time
            return self._conv_forward(input, parameters["weight"], parameters["bias"])
        frame = None if self._fusion is None or is_compiling() else sys._getframe(1)
        output = self._run(input, frame)
        return super().forward(input) if output is None else output


class AcceleratedConvTranspose2d(_Convolution, nn.ConvTranspose2d):
    """An nn.ConvTranspose2d computed by `transposed_block`, with the norm and the activation after it."""

    _inpaint_fast_computes = nn.ConvTranspose2d

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if self._plain_for is not None and not is_compiling() and stand(self._plain_for, input):
            return super().forward(input, output_size)
        frame = None if self._fusion is None or is_compiling() else sys._getframe(1)
        output = self._run(input, frame) if output_size is None else None
        return super().forward(input, output_size) if output is None else output


class _PassesOn(_Refuses):
    """A norm or activation that the convolution before it may have computed already."""

    _inpaint_fast_computes: type[nn.Module]
    _passes_on = False  # until it has been computed once by another

    def forward(self, input: Tensor) -> Tensor:
        if not self._passes_on:
            return self._inpaint_fast_computes.forward(self, input)  # what super() finds, in less time
        if not isinstance(input, Tensor):
            refuse_proxies(input)
        real = not is_compiling() and isinstance(input, Tensor)
        mark = getattr(input, MARK, None) if real else None
        return input if mark is not None and mark[0].passes(self, mark[1], input) else super().forward(input)


class FusedBatchNorm2d(_PassesOn, nn.BatchNorm2d):
    """An nn.BatchNorm2d that the convolution before it may have computed already."""

    _inpaint_fast_computes = nn.BatchNorm2d


class FusedReLU(_PassesOn, nn.ReLU):
    """An nn.ReLU that the convolution before it may have computed already."""

    _inpaint_fast_computes = nn.ReLU


class FusedLeakyReLU(_PassesOn, nn.LeakyReLU):
    """An nn.LeakyReLU that the convolution before it may have computed already."""

    _inpaint_fast_computes = nn.LeakyReLU


class FusedELU(_PassesOn, nn.ELU):
    """An nn.ELU that the convolution before it may have computed already."""

    _inpaint_fast_computes = nn.ELU


class FusedSigmoid(_PassesOn, nn.Sigmoid):
    """An nn.Sigmoid that the convolution before it may have computed already."""

    _inpaint_fast_computes = nn.Sigmoid


class FusedTanh(_PassesOn, nn.Tanh):
    """An nn.Tanh that the convolution before it may have computed already."""

    _inpaint_fast_computes = nn.Tanh


CONVOLUTIONS = (AcceleratedConv2d, AcceleratedConvTranspose2d)
_OTHERS = (FusedBatchNorm2d, FusedReLU, FusedLeakyReLU, FusedELU, FusedSigmoid, FusedTanh)
# The class of torch.nn -> the one that `accelerate` gives its modules.
REPLACEMENT: dict[type[nn.Module], type[nn.Module]] = {
    cls._inpaint_fast_computes: cls for cls in (*CONVOLUTIONS, *_OTHERS)
}
