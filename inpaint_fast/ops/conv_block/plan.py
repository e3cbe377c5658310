"""How a convolution with its epilogue runs: worked out once for each key, then followed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_compiling

from inpaint_fast._words import ACTIVATIONS, ORDERS, check_activation, check_precision
from inpaint_fast.ops._activations import activation_of
from inpaint_fast.ops._plans import Facts, planned
from inpaint_fast.ops._torch_private import is_ordinary, may_overwrite
from inpaint_fast.ops.conv_block import choice
from inpaint_fast.ops.conv_block.definition import OPERATORS
from inpaint_fast.ops.conv_block.geometry import HALVING, NARROW, Block, Geometry
from inpaint_fast.ops.conv_block.kept import Kept
from inpaint_fast.ops.conv_block.reference import affine, epilogue
from inpaint_fast.ops.conv_block.rows import convolution_by_rows, pays_by_rows


class Epilogue(NamedTuple):
    """What follows a convolution, as users say it."""

    activation: str = "none"
    slope: float | None = None
    order: str = "norm_act"


class Tensors(NamedTuple):
    """What plans know of a convolution's tensors: their `facts`."""

    input: tuple
    weight: tuple
    bias: tuple | None
    scale: tuple | None = None
    shift: tuple | None = None


class Circumstances(NamedTuple):
    """What else a plan depends on."""

    precision: str
    backend: str | None
    gradient: bool  # one is wanted
    kept: bool  # what is derived of the weight is kept
    autocast: torch.dtype | None
    tf32: bool  # PyTorch's own convolution would compute in it
    elsewhere: tuple[str | None, bool]  # `ops._dispatch.elsewhere`
    way: str | None = None  # "ours", "amx", "plain": whatever was measured elsewhere

    @property
    def unasked(self) -> bool:
        """Nobody asked for a backend."""
        return self.backend is None and self.elsewhere[0] is None


def no_run(*_: Any) -> Any:
    """In the place of what a plan does not have, which nobody calls."""
    raise AssertionError("a plan is followed in a way that it does not have")


@dataclass(frozen=True)
class Convolution:
    """A plan. `convolution(input, weight, bias, scale, shift, kept)` follows it.

    Attributes:
        algorithm: "plain", PyTorch's operators one after the other; "rows", the same with each row of taps as a
            convolution of its own (rows.py); "contiguous", the same on NCHW copies; "direct", its convolution of
            tensors in `compute`, the epilogue as far as possible in the weights; "winograd" (the CPU's) or
            "implicit_gemm" (CUDA's and Triton's), kernels of ours.
        backend: whose.
        compute: the dtype that tensors are converted to; None: as they are.
        result: the result's dtype.
        run: the registered operator.
        settings: its arguments after the tensors.
        tf32: its products are computed in TF32.
        amx: on AMX, of the bfloat16 numbers whose sums the factors are; the gradient of the input as well.
        gradient: one is wanted.
        tile: of kept weights, for the CPU: 4, Winograd's F(4x4, 3x3), or 6, F(6x6, 3x3).
        convolve: the convolution in plain PyTorch.
        activate: the activation of what the convolution returned, which it may overwrite.
    """

    block: Block
    geometry: Geometry
    activation: str
    slope: float
    order: str
    algorithm: str = "plain"
    backend: str = "reference"
    compute: torch.dtype | None = None
    result: torch.dtype = torch.float32
    run: Callable = no_run
    settings: tuple = ()
    tf32: bool = False
    amx: bool = False
    gradient: bool = False
    tile: int = 4
    convolve: Callable[[Tensor, Tensor, Tensor | None], Tensor] = no_run
    activate: Callable[[Tensor], Tensor] = no_run

    @property
    def is_separate(self) -> bool:
        """PyTorch's operators run the convolution and its epilogue, one after the other."""
        return self.algorithm in ("plain", "rows", "contiguous")

    @property
    def is_ours(self) -> bool:
        """A kernel of ours runs the convolution."""
        return not self.is_separate and self.algorithm != "direct"

    def __call__(
        self, input: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor | None, shift: Tensor | None,
        kept: Kept | None,
    ) -> Tensor:  # fmt: skip
        if self.is_separate:
            y = self.convolve(input, weight, bias)
            if scale is None and shift is None:
                return self.activate(y)
            return epilogue(y, scale, shift, self.activation, self.slope, self.order)
        x, w, bias, scale, shift = self.converted(input, weight, bias, scale, shift)
        y = self._direct(x, w, bias, scale, shift) if self.algorithm == "direct" else self._ours(
            x, weight, w, bias, scale, shift, kept
        )  # fmt: skip
        return y if y.dtype == self.result else y.to(self.result)

    def converted(self, *tensors: Tensor | None) -> list[Any]:
        """The tensors as the algorithm computes with them."""
        compute = self.compute
        if compute is None:
            return list(tensors)
        return [t if t is None or t.dtype == compute else t.to(compute) for t in tensors]

    def _direct(self, x: Tensor, w: Tensor, bias: Tensor | None, scale: Tensor | None, shift: Tensor | None) -> Tensor:
        # The epilogue goes into the weights, which are few: "direct" runs where there are few channels.
        if self.order == "norm_act" and scale is not None:
            out = [1, -1, 1, 1] if self.block.transposed else [-1, 1, 1, 1]
            w, bias = w * scale.view(out), None if bias is None else bias * scale
        if self.order == "norm_act" and shift is not None:
            bias = shift if bias is None else bias + shift
        y = self.activate(self.convolve(x, w, bias))
        return y if self.order == "norm_act" else affine(y, scale, shift)

    def _ours(
        self, x: Tensor, weight: Tensor, w: Tensor, bias: Tensor | None, scale: Tensor | None, shift: Tensor | None,
        kept: Kept | None,
    ) -> Tensor:  # fmt: skip
        """weight: as the caller has it, w: in `compute`."""
        for name, tensor in (("weight", w), ("bias", bias), ("scale", scale), ("shift", shift)):
            if tensor is not None and tensor.device != x.device:  # another kernel would run, or none
                raise TypeError(f"{name}: it is on {tensor.device} and input is on {x.device}; one device is expected")
        if not self.gradient:
            transformed = None if kept is None else self.transformed(kept, weight, w)
            return self.run(x, w, transformed, bias, scale, shift, *self.settings)
        if scale is None and shift is None:
            return self.run(x, w, None, bias, None, None, *self.settings)
        if self.order == "norm_act":  # their gradients need the convolution's result
            none = self._settings_without_activation()
            y = self.run(x, w, None, bias, None, None, *none)
            return epilogue(y, scale, shift, self.activation, self.slope, self.order)
        return affine(self.run(x, w, None, bias, None, None, *self.settings), scale, shift)

    def _settings_without_activation(self) -> tuple:
        at = 1 if self.block.stride == 1 else 0
        return *self.settings[:at], ACTIVATIONS.index("none"), *self.settings[at + 1 :]

    def transformed(self, kept: Kept, weight: Tensor, w: Tensor) -> Tensor:
        """The weight as the kernel reads it, kept."""
        operator = OPERATORS[self.block]
        run = operator.entry(self.backend, f"{self.block.stem}_weights", False)
        name = (self.block.stem, self.backend, self.compute or w.dtype, self.tf32, self.amx, self.tile)
        settings = (*((self.tile,) if self.block.stride == 1 else ()), self.tf32 or self.amx)
        return kept.get(name, (weight,), lambda: run(as_tf32(w.detach()) if self.tf32 else w.detach(), *settings))


@planned
def plan_convolution(
    block: Block,
    geometry: Geometry | tuple,
    follows: Epilogue,
    tensors: Tensors,
    circumstances: Circumstances,
) -> Convolution:
    """How a block runs; geometry: a `Geometry`, or (dilation, padding) as users say it.

    Raises:
        TypeError, ValueError, BackendError: as the public functions.
    """
    geometry = geometry if isinstance(geometry, Geometry) else Geometry.of(*geometry)
    activation, slope, order = follows.activation, check_activation(*follows), follows.order
    precision, backend, gradient, kept, autocast, tf32, _, way = circumstances
    check_precision(precision)
    input, weight, *vectors = Facts.all_of(tensors)
    block.check(input, weight, geometry, autocast, **dict(zip(("bias", "scale", "shift"), vectors, strict=True)))
    dtype = input.dtype if autocast is None or input.dtype == torch.float64 else autocast
    plain = Convolution(
        block, geometry, activation, slope, order, result=dtype, gradient=gradient,
        convolve=block.convolution(geometry, weight.shape[2]),
        activate=activation_of(activation, slope, may_overwrite(slope)),
    )  # fmt: skip
    channels_last = input.channels_last or weight.channels_last  # as F.conv2d
    narrow = dtype == torch.float32 and not gradient and _pays_by_rows(block, geometry, input, weight)
    if narrow and circumstances.unasked:
        plain = replace(plain, algorithm="rows", convolve=convolution_by_rows(geometry, channels_last))
    if channels_last and gradient and _loses_gradients(geometry, dtype, input):
        plain = replace(plain, algorithm="contiguous", convolve=_on_copies(plain.convolve))
    if block is NARROW:
        return plain
    operator = OPERATORS[block]
    chosen = operator.choose(
        input.device, backend, "training" if gradient else "inference", products(block, geometry, input, weight)
    )
    if chosen == "reference" or way == "plain":
        return plain
    tile, amx = 4, False
    if chosen == "cpp":
        ours, compute = "winograd", torch.float64 if dtype == torch.float64 else torch.float32
        sizes, unasked = (input.shape, weight.shape), circumstances.unasked
        measured = "winograd" if way else choice.algorithm(block, geometry, dtype, *sizes, gradient, kept, unasked)
        if unasked and choice.is_in_torch(dtype) and (measured == "direct" or precision == "exact"):
            return plain
        if precision == "exact" or dtype == torch.float64 or measured == "direct":
            ours = "direct"
        tf32, amx = False, ours == "winograd" and choice.takes_amx(way)
        if kept and ours == "winograd":
            last = input.channels_last and channels_last
            tile = choice.tile(block, geometry, *sizes, channels_last=last, kept=True)
    else:
        takes = dtype != torch.float64 and weight.shape[2] in block.taps_on_gpus
        ours, compute = ("implicit_gemm" if takes else "direct"), autocast and dtype
        tf32 = tf32 and takes and precision == "fast" and dtype == torch.float32
    # With nothing to convert, or where autocast converts, PyTorch's operators do the same.
    nothing = compute in (None, input.dtype) and vectors[1:] == [None, None]
    if ours == "direct" and (nothing or autocast is not None):
        return plain
    settings = ACTIVATIONS.index(activation), slope, ORDERS.index(order), channels_last, tf32 or amx
    return replace(
        plain, algorithm=ours, backend=chosen, compute=compute, tf32=tf32, amx=amx,
        settings=(geometry, *settings) if block.stride == 1 else settings,
        run=operator.entry(chosen, block.stem, gradient), tile=tile,
    )  # fmt: skip


def keep_transformed(kept: Kept, block: Block, weight: Tensor) -> None:
    """Transform a weight for inference now, not at its first use; where a kernel of ours may read it."""
    if block is NARROW:
        return
    operator = OPERATORS[block]
    backend, taps = operator.choose(weight.device, None), weight.shape[2]
    least = choice.LEAST[block.stem, taps]
    too_few = min(weight.shape[:2]) < (least.start if block.stride == 1 else least.channels)
    if backend == "reference" or weight.dtype == torch.float64 or too_few:
        return
    if backend != "cpp" and taps not in block.taps_on_gpus:
        return
    if not is_ordinary(weight):
        return  # nothing would be kept
    compute = torch.float32 if backend == "cpp" else None
    if backend == "cpp" and choice.is_in_torch(weight.dtype):
        return  # ours reads few sizes, if any
    tf32 = weight.is_cuda and weight.dtype == torch.float32 and allows_tf32()
    amx = backend == "cpp" and choice.takes_amx(None)
    plan = Convolution(block, HALVING, "none", 0.0, "norm_act", backend=backend, compute=compute, tf32=tf32, amx=amx)
    plan.transformed(kept, weight, plan.converted(weight)[0])


def _loses_gradients(geometry: Geometry, dtype: torch.dtype, input: Facts) -> bool:
    """Of such channels_last tensors PyTorch's weight gradient is what happened to lie in memory (2.13 with oneDNN)."""
    dilated, blocks = max(geometry.dilation) > 1, input.shape[1] % 16 == 0
    return dtype == torch.bfloat16 and input.device.type == "cpu" and dilated and not blocks


def _on_copies(convolve: Callable[[Tensor, Tensor, Tensor | None], Tensor]) -> Callable[..., Tensor]:
    """The convolution of channels_last tensors on NCHW ones."""

    def run(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return convolve(input.contiguous(), weight.contiguous(), bias).contiguous(memory_format=torch.channels_last)

    return run


def _pays_by_rows(block: Block, geometry: Geometry, input: Facts, weight: Facts) -> bool:
    if block.stride != 1 or input.device.type != "cpu" or input.dtype != torch.float32 or is_compiling():
        return False
    height, width = block.size(input.shape, weight.shape, geometry)
    return pays_by_rows(weight.shape, input.shape[0] * height * width)


def products(block: Block, geometry: Geometry, input: Facts, weight: Facts) -> int:
    """Multiplications of the convolution by its definition, padding's included."""
    height, width = input.shape[2:] if block.transposed else block.size(input.shape, weight.shape, geometry)
    return input.shape[0] * height * width * math.prod(weight.shape)


def as_tf32(tensor: Tensor) -> Tensor:
    """float32 numbers rounded to the 11 bits of TF32, half away from zero: tensor cores cut the others off."""
    bits = (tensor.view(torch.int32) + 0x1000) & -0x2000
    return torch.where(tensor.isfinite(), bits.view(torch.float32), tensor)


def allows_tf32() -> bool:
    """Whether PyTorch's own convolution would compute with float32 numbers on a GPU as TF32."""
    # Of all the flags for this, the one that can be read whichever of them were set.
    return torch.backends.cudnn.conv.fp32_precision == "tf32"  # pyright: ignore[reportAttributeAccessIssue]
