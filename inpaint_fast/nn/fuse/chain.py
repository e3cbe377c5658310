"""A chain: a convolution with the nn.BatchNorm2d and the activation that follow it, in either order, run as one.

The modules stay what they are: they hold the parameters, the statistics and the settings, read at every call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, is_grad_enabled, nn
from torch.compiler import is_compiling
from torch.nn import functional as F

from inpaint_fast._words import DTYPES
from inpaint_fast.nn.fuse.facts import Facts, all_of, class_is, dict_lacks, dict_type, kind_of, own_is, stand
from inpaint_fast.ops._dispatch import elsewhere
from inpaint_fast.ops._torch_private import is_ordinary
from inpaint_fast.ops.conv_block import (
    DILATED,
    HALVING,
    NARROW,
    STRIDED,
    TRANSPOSED,
    Block,
    Border,
    ConvNormAct,
    Epilogue,
    Geometry,
    Norm,
    Run,
    gains_by_rows,
    resampling_padding,
)
from inpaint_fast.ops.norm_act import norm_act, plan_norm

ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.ELU: "elu",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
}
SETTINGS = ("stride", "padding", "output_padding", "dilation", "groups", "padding_mode")
BORDERS = ("reflect", "replicate", "circular")
NORM_PARAMETERS, NORM_BUFFERS = ("weight", "bias"), ("running_mean", "running_var", "num_batches_tracked")
SLOPES = {"leaky_relu": "negative_slope", "elu": "alpha"}
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
Conv = nn.Conv2d | nn.ConvTranspose2d
_PLAIN: dict[type[nn.Module], type[nn.Module]] = {cls: cls for cls in (*CONVOLUTIONS, nn.BatchNorm2d, *ACTIVATIONS)}


def plain_class(module: nn.Module) -> type[nn.Module] | None:
    """The class of torch.nn that this module computes; None: a subclass, which may compute anything."""
    cls = type(module)
    # Those of nn/fuse/modules.py name it.
    return _PLAIN.get(cls) or cls.__dict__.get("_inpaint_fast_computes")


def undisturbed(module: nn.Module) -> bool:
    """Nobody looks at or changes what goes in and comes out of this module: no hooks, no forward of its own."""
    own = module.__dict__
    if own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"] or own["_backward_pre_hooks"]:
        return False
    return "forward" not in own and "_conv_forward" not in own


def why_not(conv: nn.Module) -> str | None:
    """Why none of `dilated_block`, `strided_block`, `transposed_block` can run this convolution; None when one can."""
    found = block_of(conv)
    return found if isinstance(found, str) else None


def block_of(conv: nn.Module) -> tuple[Block, Geometry, Border | None] | str:
    """The block that runs this convolution, its geometry and what is put round the input first, or why none can."""
    plain = plain_class(conv)
    if plain not in CONVOLUTIONS:
        base = next((cls.__name__ for cls in CONVOLUTIONS if isinstance(conv, cls)), None)
        return f"{type(conv).__name__}" + (f", a subclass of nn.{base}, may compute something else" if base else "")
    settings = _settings_of(conv)
    if settings is None:
        return "its weight is computed (weight_norm, spectral_norm, pruning)"
    return _block_of(plain is nn.ConvTranspose2d, *settings[1:])


def _settings_of(conv: nn.Module) -> tuple | None:
    """What decides which block runs a convolution; None: it has no weight or no place for a bias."""
    own = conv.__dict__
    parameters = own["_parameters"]
    weight = parameters.get("weight")
    if weight is None or "bias" not in parameters:
        return None
    widths = None if own["padding_mode"] == "zeros" else tuple(own["_reversed_padding_repeated_twice"])
    return type(conv), weight.shape, weight.dtype, *map(own.__getitem__, SETTINGS), widths


def _block_of(
    transposed: bool, shape: torch.Size, dtype: torch.dtype, stride: Any, padding: Any, output_padding: Any,
    dilation: Any, groups: int, padding_mode: str, widths: tuple[int, int, int, int] | None,
) -> tuple[Block, Geometry, Border | None] | str:  # fmt: skip
    if len(shape) != 4:
        return f"its weight has {len(shape)} dimensions"
    numbers = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
    for name, setting in numbers.items():
        if not (isinstance(setting, (int, str)) or (isinstance(setting, (tuple, list)) and all(map(_is_int, setting)))):
            return f"{name} {setting!r}"
    halves = _is(stride, 2)
    block = TRANSPOSED if transposed else STRIDED if halves else DILATED
    sides = tuple(shape[2:])
    if block is DILATED and sides in [(taps, taps) for taps in NARROW.taps] and gains_by_rows(shape):
        block = NARROW
    if sides not in [(taps, taps) for taps in block.taps]:
        return f"its kernel is {'x'.join(map(str, sides))}, not {' or '.join(f'{s}x{s}' for s in block.taps)}"
    if not halves and (transposed or not _is(stride, 1)):
        return f"stride {stride}"
    if halves:
        for name, setting, value in (
            ("padding", padding, resampling_padding(sides[0])),
            ("output_padding", output_padding, sides[0] % 2 if transposed else 0),
            ("dilation", dilation, 1),
        ):
            if not _is(setting, value):
                return f"{name} {setting}, with stride 2 and a kernel of {sides[0]}x{sides[0]}"
    if groups != 1:
        return f"groups {groups}"
    if widths is not None and (halves or padding_mode not in BORDERS):
        return f"padding_mode {padding_mode!r}" + (", with stride 2" if halves else "")
    if dtype not in DTYPES:
        return f"dtype {dtype}"
    if halves:
        return block, HALVING, None
    both = (dilation, dilation) if isinstance(dilation, int) else dilation
    named: dict[str, Any] = {"same": tuple(d * (sides[0] // 2) for d in both), "valid": 0}
    border = None if widths is None else Border(padding_mode, widths)
    try:
        padding = 0 if border else named[padding] if isinstance(padding, str) else padding
        return block, Geometry.of(dilation, padding), border
    except (TypeError, ValueError) as error:
        return str(error)


def _is_int(number: object) -> bool:
    return isinstance(number, int)


def _is(setting: int | str | tuple[int, int], number: int) -> bool:
    """A setting of a convolution is this number, in both directions."""
    return (tuple(setting) if isinstance(setting, list) else setting) in (number, (number, number))


class Plain(NamedTuple):
    """A run of a chain by PyTorch's own operators."""

    facts: Facts
    """On what input, with what settings of the modules."""
    run: Callable[[Tensor], Tensor]
    """Such a run; whoever asks for it knows that the modules are undisturbed."""


@final
@dataclass
class Chain:
    """A convolution and what is fused with it."""

    conv: Conv
    norm: nn.BatchNorm2d | None = None
    activation: nn.Module | None = None
    order: str = "norm_act"
    _seen: tuple | None = field(default=None, init=False, repr=False, compare=False)
    _plain: Plain | None = field(default=None, init=False, repr=False, compare=False)
    _shape: torch.Size | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """As they are called."""
        rest = (self.norm, self.activation) if self.order == "norm_act" else (self.activation, self.norm)
        return self.conv, *(module for module in rest if module is not None)

    def take(self, module: nn.Module) -> bool:
        """Fuse the module that is called next, if it can be."""
        if not undisturbed(module):
            return False
        plain = plain_class(module)
        if plain is nn.BatchNorm2d and isinstance(module, nn.BatchNorm2d) and self.norm is None:
            self.norm, self.order = module, "act_norm" if self.activation is not None else "norm_act"
            return True
        if plain in ACTIVATIONS and self.activation is None:
            self.activation = module
            return True
        return False

    def run(self, input: Tensor, precision: str) -> Tensor:
        """What the modules compute one after the other."""
        plain = self._plain
        if plain is not None and not is_compiling() and stand(plain.facts, input):
            return plain.run(input)
        conv, norm = self.conv, self.norm
        if input.dim() != 4:
            if norm is not None:
                norm._check_input_dim(input)
            if input.dim() == 3:  # one picture without a batch, as convolutions take it
                return self.run(input.unsqueeze(0), precision).squeeze(0)
        layer = self._layer(precision)
        try:
            normalisation = None if norm is None else _norm_of(norm)
        except KeyError:  # one of its tensors is no parameter or buffer of its own any more
            layer = normalisation = None
        if layer is None or input.layout is not torch.strided:
            for module in self.modules:
                input = module(input)
            return input
        if type(layer) is not ConvNormAct:
            y = conv(input)
            if normalisation is None:
                return y if self.activation is None else self.activation(y)
            how = partial(_plainly, conv, y, normalisation, layer)
            y = _after(y, normalisation, layer)
        else:
            own = conv.__dict__
            parameters, kept = own["_parameters"], own.get("_kept")
            if kept is not None and (own["training"] or (norm is not None and norm.training)):
                kept = None  # the promise is of inference
            y = layer(input, parameters["weight"], parameters["bias"], normalisation, kept)
            how = partial(layer.plain_run, input)
        if norm is not None and normalisation is not None:
            _count(norm, normalisation)
        if not is_compiling():
            self._note(input, how)
        return y

    def _note(self, input: Tensor, how: Callable[[], Run | None]) -> None:
        """Keep how a run on this input went, if that was by PyTorch's own operators: nothing need be found out then."""
        norm = self.norm
        last, self._shape = self._shape, input.shape
        if last != input.shape:  # sizes that take turns would be noted at every call
            return
        if not is_ordinary(input) or (run := how()) is None:
            return
        parameters = self.conv.__dict__["_parameters"]

        def again(input: Tensor) -> Tensor:
            normalisation = None if norm is None else _norm_of(norm)
            y = run(input, parameters.get("weight"), parameters.get("bias"), normalisation, None)
            if norm is not None and normalisation is not None:
                _count(norm, normalisation)
            return y

        self._plain = Plain(all_of(kind_of(input), self._facts()), again)

    def _facts(self) -> Facts:
        """The modules' settings are what they are."""
        facts = [own_is(self.conv, name) for name in ("_parameters", *SETTINGS)]
        own = self.conv._parameters  # a weight that is computed is none of them
        facts += [dict_type(own, name) if name in own else dict_lacks(own, name) for name in ("weight", "bias")]
        if self.norm is not None:
            facts += [own_is(self.norm, name) for name in ("training", "track_running_stats", "eps", "momentum")]
            for place, names in (("_parameters", NORM_PARAMETERS), ("_buffers", NORM_BUFFERS)):
                facts += [own_is(self.norm, place), *(dict_type(self.norm.__dict__[place], name) for name in names)]
        if self.activation is not None:
            own = self.activation.__dict__
            facts += [own_is(self.activation, name) for name in SLOPES.values() if name in own]
        return all_of(*facts, _unpatched(self.modules))

    def ran_plainly(self, input: Tensor) -> bool:
        """The last run on such an input was PyTorch's own operators, one after the other."""
        if self._plain is not None and stand(self._plain.facts, input):
            return True
        layer = None if self._seen is None else self._seen[1]
        return type(layer) is ConvNormAct and layer.plain_run(input) is not None

    def is_block(self, precision: str) -> bool:
        """One of the three blocks runs the convolution."""
        return type(self._layer(precision)) is ConvNormAct

    def _layer(self, precision: str) -> ConvNormAct | Epilogue | None:
        """The chain in the words of the operators, found anew when a setting of the modules has changed.

        The epilogue alone where no block runs the convolution; None where the modules are to be run one by one.
        """
        activation = self.activation
        told = {} if activation is None else activation.__dict__
        settings = (
            _settings_of(self.conv), type(activation), told.get("negative_slope"), told.get("alpha"), precision
        )  # fmt: skip
        seen = self._seen
        try:
            if not (seen is not None and seen[0] == settings):
                seen = None
        except Exception:  # of somebody's __eq__: an array, a tensor
            seen = None
        if seen is None or is_compiling():
            plain = None if activation is None else plain_class(activation)
            name = "none" if plain is None else ACTIVATIONS.get(plain, "none")
            slope = told.get(SLOPES[name]) if name in SLOPES else None
            found, epilogue = block_of(self.conv), Epilogue(name, slope, self.order)
            if isinstance(found, str):
                layer = epilogue
            else:
                block, geometry, border = found
                tuning = self.conv.__dict__.get("_tuning")
                layer = ConvNormAct(block, geometry, epilogue, precision, tuning, border)
            if not isinstance(epilogue.slope, (float, int, type(None))):
                layer = None
            if is_compiling():
                return layer
            seen = self._seen = settings, layer, _unpatched(self.modules)
        return seen[1] if stand(seen[2]) else None  # somebody has patched PyTorch

    def __reduce__(self) -> tuple:
        return Chain, (self.conv, self.norm, self.activation, self.order)


# What PyTorch's modules run is what it was when this was loaded: nobody has patched it.
_OF_THEIRS: dict[type[nn.Module], tuple[Facts, ...]] = {
    nn.Conv2d: (class_is(nn.Conv2d, "_conv_forward"), own_is(F, "conv2d")),
    nn.ConvTranspose2d: (own_is(F, "conv_transpose2d"),),
    nn.BatchNorm2d: (own_is(F, "batch_norm"),),
    nn.ReLU: (own_is(F, "relu"),),
    nn.LeakyReLU: (own_is(F, "leaky_relu"),),
    nn.ELU: (own_is(F, "elu"),),
    nn.Sigmoid: (own_is(torch, "sigmoid"),),
    nn.Tanh: (own_is(torch, "tanh"),),
}
_UNPATCHED: dict[type[nn.Module] | None, Facts] = {
    cls: all_of(class_is(cls, "forward"), *facts) for cls, facts in _OF_THEIRS.items()
}


def _unpatched(modules: Sequence[nn.Module]) -> Facts:
    """Nobody has patched PyTorch's modules of these kinds; those of other classes never run what these do."""
    return all_of(*(_UNPATCHED.get(plain_class(module), ()) for module in modules))


def find_chain(modules: Sequence[nn.Module], start: int = 0) -> Chain | None:
    """The chain that these modules, called one after the other, have from `start` on."""
    conv = modules[start]
    if not isinstance(conv, CONVOLUTIONS) or not undisturbed(conv):
        return None
    chain = Chain(conv)
    for module in modules[start + 1 :]:
        if not chain.take(module):
            break
    if chain.norm is None and why_not(conv) is not None:
        return None  # nothing is to be fused
    return chain


def _norm_of(norm: nn.BatchNorm2d) -> Norm:
    """What nn.BatchNorm2d normalises by."""
    own, buffers, parameters = norm.__dict__, norm._buffers, norm._parameters
    mean, var, tracked = buffers["running_mean"], buffers["running_var"], buffers["num_batches_tracked"]
    training, momentum = own["training"], own["momentum"]
    updates = training and own["track_running_stats"] and mean is not None
    if momentum is None:  # the cumulative average
        momentum = 1.0 / (float(tracked) + 1) if updates and tracked is not None else 0.0
    batch = training or (mean is None and var is None)
    return Norm(mean, var, parameters["weight"], parameters["bias"], tracked, batch, updates, momentum, own["eps"])


def _count(norm: nn.BatchNorm2d, normalisation: Norm) -> None:
    """Another minibatch has moved the running statistics."""
    if norm.training and norm.track_running_stats and normalisation.tracked is not None:
        normalisation.tracked.add_(1)


def _plainly(conv: nn.Module, y: Tensor, norm: Norm, epilogue: Epilogue) -> Run | None:
    """How this convolution, which stays PyTorch's and gave y, is run with what follows it, if that stays so, too."""
    normalise = plan_norm(y.shape, y.device, norm.batch, epilogue, None, is_grad_enabled(), elsewhere())

    def run(input: Tensor, weight: object, bias: object, norm: Norm, kept: object) -> Tensor:
        mean, var = (norm.running_mean, norm.running_var) if norm.updates or not norm.batch else (None, None)
        return normalise(conv(input), mean, var, norm.weight, norm.bias, norm.momentum, norm.eps)

    return run if getattr(normalise, "is_plain", False) else None


def _after(y: Tensor, norm: Norm, epilogue: Epilogue) -> Tensor:
    """Normalisation and activation after a convolution that stays PyTorch's."""
    mean, var = (norm.running_mean, norm.running_var) if norm.updates or not norm.batch else (None, None)
    return norm_act(
        y, mean, var, norm.weight, norm.bias, training=norm.batch, momentum=norm.momentum, eps=norm.eps,
        activation=epilogue.activation, slope=epilogue.slope, order=epilogue.order,
    )  # fmt: skip
