"""Convolution, batch normalisation and activation as one: `DilatedConvBlock`, and the chain of modules behind it.

A chain is a convolution with the nn.BatchNorm2d and the activation that follow it, in either order. In training it runs
as two operators, the convolution's (`dilated_block`, `strided_block` or `transposed_block`) and `norm_act`; with fixed
statistics as one, the norm folded into scale and shift. A convolution that none of the three can run stays PyTorch's,
with `norm_act` after it. The modules stay what they are: they hold the parameters, the statistics and the settings,
read at every call.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from inpaint_fast._words import check_activation, check_precision
from inpaint_fast.ops._dispatch import OPERATORS
from inpaint_fast.ops.dilated_block import dilated_block, dilated_block_statistics
from inpaint_fast.ops.dilated_block import prepare as prepare_dilated
from inpaint_fast.ops.norm_act import norm_act
from inpaint_fast.ops.strided_block import prepare as prepare_strided
from inpaint_fast.ops.strided_block import strided_block
from inpaint_fast.ops.transposed_block import prepare as prepare_transposed
from inpaint_fast.ops.transposed_block import transposed_block

ACTIVATIONS = {nn.ReLU: "relu", nn.LeakyReLU: "leaky_relu", nn.ELU: "elu", nn.Sigmoid: "sigmoid", nn.Tanh: "tanh"}
# The exact class of a module -> the plain one that it computes. A subclass may compute anything, so it is not here.
PLAIN: dict[type, type] = {cls: cls for cls in (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, *ACTIVATIONS)}
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


# ---- what can be fused ----


def why_not(conv: nn.Module) -> str | None:
    """Why none of `dilated_block`, `strided_block`, `transposed_block` can run this convolution; None when one can."""
    plain = PLAIN.get(type(conv))
    if plain not in CONVOLUTIONS:
        base = next((cls.__name__ for cls in CONVOLUTIONS if isinstance(conv, cls)), None)
        return f"{type(conv).__name__}" + (f", a subclass of nn.{base}, may compute something else" if base else "")
    weight = conv._parameters.get("weight")
    if weight is None:
        return "its weight is computed (weight_norm, spectral_norm, pruning)"
    settings = (
        plain is nn.ConvTranspose2d, tuple(weight.shape[2:]), weight.dtype, conv.stride, conv.padding,
        conv.output_padding, conv.dilation, conv.groups, conv.padding_mode,
    )  # fmt: skip
    # It is asked several times at every call of a small network's layers; torch.compile sees through no cache.
    return _why_not(*settings) if torch.compiler.is_compiling() else _remembered(*settings)


def _why_not(
    transposed: bool, sides: tuple[int, int], dtype: torch.dtype, stride, padding, output_padding, dilation,
    groups: int, padding_mode: str,
) -> str | None:  # fmt: skip
    halves = _is(stride, 2)
    expected = (3, 4) if transposed or halves else (3,)
    side = sides[0]
    if sides[1] != side or side not in expected:
        return f"its kernel is {'x'.join(map(str, sides))}, not {' or '.join(f'{s}x{s}' for s in expected)}"
    if not halves and (transposed or not _is(stride, 1)):
        return f"stride {stride}"
    if halves:
        for name, setting, value in (
            ("padding", padding, 1), ("output_padding", output_padding, side % 2 if transposed else 0),
            ("dilation", dilation, 1),
        ):  # fmt: skip
            if not _is(setting, value):
                return f"{name} {setting}, with stride 2 and a kernel of {side}x{side}"
    if groups != 1:
        return f"groups {groups}"
    if padding_mode != "zeros":
        return f"padding_mode {padding_mode!r}"
    if dtype not in _DTYPES:
        return f"dtype {dtype}"
    return None


_remembered = functools.lru_cache(maxsize=1024)(_why_not)


def _is(setting: int | str | tuple[int, int], number: int) -> bool:
    """A setting of a convolution is this number, in both directions."""
    return setting in (number, (number, number))


def prepare(conv: nn.Module) -> None:
    """Transform the weights of this convolution for inference."""
    if PLAIN[type(conv)] is nn.ConvTranspose2d:
        prepare_transposed(conv.weight)
    else:
        (prepare_strided if _is(conv.stride, 2) else prepare_dilated)(conv.weight)


def undisturbed(module: nn.Module) -> bool:
    """Nobody looks at or changes what goes in and comes out of this module: no hooks, no forward of its own."""
    hooks = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return not (hooks or _has_any_global_hook() or "forward" in module.__dict__)


@dataclass
class Chain:
    """A convolution and what is fused with it."""

    conv: nn.Conv2d | nn.ConvTranspose2d
    norm: nn.BatchNorm2d | None = None
    activation: nn.Module | None = None
    order: str = "norm_act"

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """As they are called."""
        rest = (self.norm, self.activation) if self.order == "norm_act" else (self.activation, self.norm)
        return self.conv, *(module for module in rest if module is not None)

    def take(self, module: nn.Module) -> bool:
        """Fuse the module that is called next, if it can be."""
        plain = PLAIN.get(type(module))
        if not undisturbed(module):
            return False
        if plain is nn.BatchNorm2d and self.norm is None:
            self.norm, self.order = module, "act_norm" if self.activation is not None else "norm_act"
            return True
        if plain in ACTIVATIONS and self.activation is None:
            self.activation = module
            return True
        return False

    def __call__(self, input: Tensor, precision: str) -> Tensor:
        """What the modules compute one after the other."""
        conv, norm = self.conv, self.norm
        if norm is not None:
            norm._check_input_dim(input)
        if input.dim() == 3:  # one picture without a batch, as convolutions take it
            return self(input.unsqueeze(0), precision).squeeze(0)
        activation = _describe(self.activation, self.order)
        batch = norm is not None and (norm.training or (norm.running_mean is None and norm.running_var is None))
        if why_not(conv) is not None:
            return norm_act(conv(input), **(_batch_statistics(norm) if batch else _kept_statistics(norm)), **activation)
        if PLAIN[type(conv)] is nn.ConvTranspose2d:
            stem, convolve = "transposed_block", partial(transposed_block, precision=precision)
        elif _is(conv.stride, 2):
            stem, convolve = "strided_block", partial(strided_block, precision=precision)
        else:
            stem = "dilated_block"
            same = {"same": conv.dilation, "valid": 0}
            padding = same[conv.padding] if isinstance(conv.padding, str) else conv.padding
            convolve = partial(dilated_block, dilation=conv.dilation, padding=padding, precision=precision)
        if norm is None:
            return convolve(input, conv.weight, conv.bias, **activation)
        if batch:
            statistics = None
            if stem == "dilated_block" and OPERATORS[stem].choose(input.device, None) in ("cuda", "triton"):
                named = convolve.keywords | activation
                y, statistics = dilated_block_statistics(input, conv.weight, conv.bias, **named)
            else:
                y = convolve(input, conv.weight, conv.bias)
            return norm_act(y, **_batch_statistics(norm), **activation, statistics=statistics)
        if OPERATORS[stem].choose(input.device, None) == "reference":  # PyTorch's convolution, then one pass of ours
            return norm_act(convolve(input, conv.weight, conv.bias), **_kept_statistics(norm), **activation)
        scale, shift = scale_and_shift(norm, conv.weight.dtype)
        return convolve(input, conv.weight, conv.bias, scale=scale, shift=shift, **activation)


def find_chain(modules: Iterable[nn.Module]) -> Chain | None:
    """The chain that these modules, called one after the other, begin with."""
    chain = None
    for module in modules:
        if chain is not None:
            if not chain.take(module):
                break
        elif isinstance(module, CONVOLUTIONS) and undisturbed(module):
            chain = Chain(module)
        else:
            break
    if chain is not None and chain.norm is None and why_not(chain.conv) is not None:
        return None  # nothing is to be fused
    return chain


def _describe(module: nn.Module | None, order: str) -> dict[str, Any]:
    """An activation module in the words of the operators."""
    if module is None:
        return {"activation": "none"}
    name = ACTIVATIONS[PLAIN[type(module)]]
    slope = {"leaky_relu": "negative_slope", "elu": "alpha"}.get(name)
    return {"activation": name, "slope": getattr(module, slope) if slope else None, "order": order}


# ---- the norm ----


def _batch_statistics(norm: nn.BatchNorm2d) -> dict[str, Any]:
    """The arguments of norm_act for the statistics of the batch, and the step of the counter: as nn.BatchNorm2d."""
    kept = getattr(norm, "_folded", None)
    if kept is not None:
        kept.clear()
    track = norm.training and norm.track_running_stats
    momentum = 0.0 if norm.momentum is None else norm.momentum
    if track and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:  # the cumulative average
            momentum = 1.0 / float(norm.num_batches_tracked)
    return {
        "running_mean": norm.running_mean if track else None,
        "running_var": norm.running_var if track else None,
        "weight": norm.weight,
        "bias": norm.bias,
        "training": True,
        "momentum": momentum,
        "eps": norm.eps,
    }


def _kept_statistics(norm: nn.BatchNorm2d) -> dict[str, Any]:
    """The arguments of norm_act for the running statistics."""
    return {
        "running_mean": norm.running_mean,
        "running_var": norm.running_var,
        "weight": norm.weight,
        "bias": norm.bias,
        "eps": norm.eps,
    }


def scale_and_shift(norm: nn.BatchNorm2d, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The norm with its running statistics as scale * x + shift; both (C,), computed in float32 or better."""
    kept = getattr(norm, "_folded", None)
    if kept is not None and kept.usable(norm):
        return kept.get(norm, dtype)
    return _fold(norm, dtype)


def _fold(norm: nn.BatchNorm2d, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(norm.running_var.dtype, torch.float32)
    scale = (norm.running_var.to(wide) + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -scale * norm.running_mean.clone()  # saved for the gradient of scale, and training changes it uncounted
    if norm.bias is not None:
        shift = shift + norm.bias
    return scale.to(dtype), shift.to(dtype)


class Folded:
    """Scale and shift of one norm, kept while none of the tensors that they come from has changed.

    A change is seen by PyTorch's version counters (in-place operations, optimizers, load_state_dict) and by the memory
    (another tensor, `.to`, assignment to `.data`). Batch normalisation in training counts no versions of the running
    statistics; num_batches_tracked, which nn.BatchNorm2d increases, tells of it. An in-place operation on `tensor.data`
    is seen by nothing.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        # Aliases of the tensors: they hold the memory, so that another tensor cannot come to lie at the same address.
        self.sources: tuple[Tensor | None, ...] = ()
        self.state: tuple = ()
        self.values: tuple[Tensor, Tensor] | None = None

    def __reduce__(self) -> tuple:
        return Folded, ()  # a copy starts empty: its tensors are other tensors, with other counters

    @staticmethod
    def usable(norm: nn.BatchNorm2d) -> bool:
        """False while compiling (the fold belongs in the graph), for gradients, and where nothing counts versions."""
        tensors = [tensor for tensor in _tensors(norm) if tensor is not None]
        if torch.compiler.is_compiling() or any(tensor.is_inference() for tensor in tensors):
            return False
        return not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))

    def get(self, norm: nn.BatchNorm2d, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        tensors = _tensors(norm)
        state = (dtype, norm.eps, *(t if t is None else (t.data_ptr(), t.dtype, t._version) for t in tensors))
        if self.values is None or self.state != state:
            with torch.inference_mode(False), torch.no_grad():
                self.values = _fold(norm, dtype)
                self.sources = tuple(None if t is None else t.detach() for t in tensors)
            self.state = state
        return self.values


def _tensors(norm: nn.BatchNorm2d) -> tuple[Tensor | None, ...]:
    return norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.num_batches_tracked


# ---- the modules ----


class FusedSequential(nn.Sequential):
    """An nn.Sequential that runs each chain among its modules by the fused operators.

    Which they are is looked up at every call: modules may be replaced, get hooks, be called by themselves or be shared,
    and a module that cannot be fused runs as it is. `precision`: as in `inpaint_fast.dilated_block`.
    """

    precision = "fast"

    def forward(self, input: Tensor) -> Tensor:
        modules = list(self)
        while modules:
            chain = find_chain(modules)
            if chain is None:
                input = modules.pop(0)(input)
            else:
                input = chain(input, self.precision)
                modules = modules[len(chain.modules) :]
        return input

    def __getitem__(self, index: slice | int) -> nn.Module:
        """A module, or for a slice an nn.Sequential of the same modules, fused too."""
        if not isinstance(index, slice):
            return super().__getitem__(index)
        part = FusedSequential()
        part.precision = self.precision
        for name, module in list(self._modules.items())[index]:
            part.add_module(name, module)
        return part


class DilatedConvBlock(FusedSequential):
    """A dilated 3x3 convolution, batch normalisation and activation in one pass (two in training).

    Equivalent to, and with the state_dict of, `nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=dilation,
    dilation=dilation), nn.BatchNorm2d(out_channels), nn.ReLU())`; these are its children, and may be replaced.

    Args:
        in_channels, out_channels: 1 or more.
        dilation: 1 or more; one number or (vertical, horizontal).
        padding: zeros round the input, 0 or more; one number or (vertical, horizontal). None: the dilation, so that the
            result has the input's height and width.
        bias: give the convolution a bias.
        norm: "batch", or None for no normalisation.
        activation: "none", "relu", "leaky_relu", "elu", "sigmoid" or "tanh".
        slope: the negative slope of leaky_relu (default 0.01), the alpha of elu (1.0).
        order: "norm_act", or "act_norm" for the activation first.
        eps, momentum: those of nn.BatchNorm2d; momentum None is the cumulative average.
        precision: "fast" (Winograd) or "exact".
        device, dtype: of the parameters.

    Shapes:
        input (N, in_channels, H, W); output (N, out_channels, H, W) where the padding is the dilation, in each
        direction 2 * (padding - dilation) more or less otherwise.

    Raises:
        ValueError, TypeError: an argument has no such value or is of another type; the message names it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dilation: int | tuple[int, int] = 1,
        *,
        padding: int | tuple[int, int] | None = None,
        bias: bool = True,
        norm: str | None = "batch",
        activation: str = "relu",
        slope: float | None = None,
        order: str = "norm_act",
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        precision: str = "fast",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _at_least(1, in_channels=in_channels, out_channels=out_channels)
        dilation = _pair("dilation", dilation, 1)
        padding = dilation if padding is None else _pair("padding", padding, 0)
        slope = check_activation(activation, slope, order)
        if norm not in ("batch", None):
            raise ValueError(f"norm: 'batch' or None is expected, got {norm!r}")
        if not isinstance(eps, Real) or not eps > 0:
            raise ValueError(f"eps: a number above 0 is expected, got {eps!r}")
        if momentum is not None and not (isinstance(momentum, Real) and 0 <= momentum <= 1):
            raise ValueError(f"momentum: a number from 0 to 1 or None is expected, got {momentum!r}")
        self.precision = check_precision(precision)

        placed = {"device": device, "dtype": dtype}
        convolution = nn.Conv2d(in_channels, out_channels, 3, padding=padding, dilation=dilation, bias=bias, **placed)
        rest: list[nn.Module] = []
        if norm == "batch":
            rest.append(nn.BatchNorm2d(out_channels, eps=eps, momentum=momentum, **placed))
        if activation != "none":
            cls = next(cls for cls, name in ACTIVATIONS.items() if name == activation)
            rest.append(cls(slope) if activation in ("leaky_relu", "elu") else cls())
        for i, module in enumerate([convolution, *(rest if order == "norm_act" else reversed(rest))]):
            self.add_module(str(i), module)


def _at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name}: an int is expected, got {type(value).__name__}")
        if value < least:
            raise ValueError(f"{name}: at least {least} is expected, got {value}")


def _pair(name: str, value: int | tuple[int, int], least: int) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{name}: one number or (vertical, horizontal) is expected, got {value!r}")
    for number in pair:
        _at_least(least, **{name: number})
    return pair
