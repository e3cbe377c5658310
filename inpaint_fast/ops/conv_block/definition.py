"""The registered operators of the blocks: schemas, shape functions, gradient formulas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from inpaint_fast._layout import is_channels_last, pictures_like
from inpaint_fast._words import ACTIVATIONS, ORDERS
from inpaint_fast.ops._dispatch import Definition, Operator
from inpaint_fast.ops._flops import convolution_flops
from inpaint_fast.ops.conv_block.geometry import DILATED, HALVING, STRIDED, TRANSPOSED, Block, Geometry
from inpaint_fast.ops.conv_block.reference import activation_gradient, epilogue, gradients_of

UNLESS = "for fewer than 24 channels, small maps, float64, and half precision where PyTorch's is the faster"
OPERANDS = ("input", "weight", "bias", "scale", "shift")

Shape = Sequence[int]

# ---- shape functions ----


def _fake(block: Block, input: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    channels_last = rest[-2]
    geometry = Geometry(*rest[4]) if block.stride == 1 else HALVING
    size = block.size(input.shape, weight.shape, geometry)
    return pictures_like(input, block.channels(weight.shape)[1], *size, channels_last)


def _fake_statistics(
    block: Block, input: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any
) -> tuple[Tensor, ...]:
    y = _fake(block, input, weight, None, bias, None, None, *settings)
    return y, *(input.new_empty(y.shape[1], dtype=torch.float64) for _ in range(2))


def transformed_numel(block: Block, weight: Any, tile: int = 4, split: bool = False) -> int:
    """Of a weight of this shape in the Winograd domain, in blocks of 32 output channels (csrc/conv_block); split: three
    bfloat16 numbers for each, and blocks of 32 input channels."""
    channels, out = block.channels(weight)
    channels = 3 * ((channels + 31) // 32 * 32) if split else channels
    numbers = tile + 2 if block.stride == 1 else 6 + weight[2]  # along a side
    return (out + 31) // 32 * 32 * numbers**2 * channels


def _fake_dilated_weights(weight: Tensor, tile: int, matrix_units: bool = False) -> Tensor:
    return _fake_weights(DILATED, weight, matrix_units, tile)


def _fake_weights(block: Block, weight: Tensor, matrix_units: bool = False, tile: int = 4) -> Tensor:
    dtype = torch.bfloat16 if matrix_units else weight.dtype
    return weight.new_empty(transformed_numel(block, weight.shape, tile, matrix_units), dtype=dtype)


def _fake_triton_weights(weight: Tensor, *settings: int) -> Tensor:
    return weight.new_empty(weight.numel())


def _fake_cuda_weights(block: Block, weight: Tensor, *settings: int) -> Tensor:
    channels, out = block.channels(weight.shape)
    whole = 16 // weight.element_size()  # input channels are loaded 16 bytes at a time
    return weight.new_empty(weight.shape[2] ** 2 * out * ((channels + whole - 1) // whole * whole))


def _fake_input_gradient(
    grad: Tensor, weight: Tensor, geometry: Sequence[int], channels_last: bool, matrix_units: bool
) -> Tensor:
    dilation_h, dilation_w, padding_h, padding_w = geometry
    height, width = grad.shape[2] - 2 * (padding_h - dilation_h), grad.shape[3] - 2 * (padding_w - dilation_w)
    return pictures_like(grad, weight.shape[1], height, width, channels_last)


def _fake_weight_gradient(grad: Tensor, input: Tensor, weight: Tensor, *settings: Any) -> Tensor:
    return torch.empty_like(weight)


# ---- what is counted ----


def _flops(block: Block, input: Shape, weight: Shape, *args: Any, out_shape: Shape, **kwargs: Any) -> int:
    return convolution_flops(input, weight, out_shape, block.transposed)


def _flops_statistics(
    block: Block, input: Shape, weight: Shape, *args: Any, out_shape: Sequence[Shape], **kwargs: Any
) -> int:
    return convolution_flops(input, weight, out_shape[0], block.transposed)


def _flops_input_gradient(grad: Shape, weight: Shape, *args: Any, out_shape: Shape, **kwargs: Any) -> int:
    return convolution_flops(grad, weight, out_shape, transposed=True)


def _flops_weight_gradient(block: Block, grad: Shape, input: Shape, weight: Shape, *args: Any, **kwargs: Any) -> int:
    return convolution_flops(input, weight, grad, block.transposed)


# ---- gradients ----


def _setup(block: Block, ctx: Any, inputs: Any, output: Tensor) -> None:
    ctx.geometry = Geometry(*inputs.geometry) if block.stride == 1 else HALVING
    ctx.activation, ctx.slope, ctx.order = ACTIVATIONS[inputs.activation], inputs.slope, ORDERS[inputs.order]
    ctx.matrix_units = inputs.matrix_units
    ctx.save_for_backward(*(getattr(inputs, name) for name in OPERANDS), output if inputs.activation else None)


def _backward(block: Block, call: Callable, ctx: Any, grad: Tensor) -> dict[str, Tensor | None]:
    # In the order of the schema: after weight comes transformed.
    wanted = {name: ctx.needs_input_grad[i] for name, i in zip(OPERANDS, (0, 1, 3, 4, 5), strict=True)}
    return _gradients(block, call, ctx, grad, wanted)


def _setup_statistics(block: Block, ctx: Any, inputs: Any, output: tuple) -> None:
    ctx.geometry, ctx.matrix_units = Geometry(*inputs.geometry) if block.stride == 1 else HALVING, inputs.matrix_units
    # y has no activation: that of the statistics is norm_act's.
    ctx.activation, ctx.slope, ctx.order = "none", 0.0, "norm_act"
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(inputs.input, inputs.weight, inputs.bias, None, None, None)


def _backward_statistics(
    block: Block, call: Callable, ctx: Any, grad: Tensor | None, *_: None
) -> dict[str, Tensor | None]:
    if grad is None:
        return {}
    wanted = dict.fromkeys(OPERANDS, False) | dict(zip(OPERANDS, ctx.needs_input_grad[:3], strict=False))
    return _gradients(block, call, ctx, grad, wanted)


def _gradients(block: Block, call: Callable, ctx: Any, grad: Tensor, wanted: dict) -> dict[str, Tensor | None]:
    *tensors, output = ctx.saved_tensors  # once: activation checkpointing allows no second look
    input, weight, _, scale, shift = tensors
    by_formula = scale is None and shift is None and ctx.slope >= 0  # a derivative from the result alone
    if torch.is_grad_enabled() or not by_formula:  # a second derivative was asked for, or none of ours is there

        def function(
            input: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor | None, shift: Tensor | None
        ) -> Tensor:
            y = block.convolve(input, weight, bias, ctx.geometry)
            return epilogue(y, scale, shift, ctx.activation, ctx.slope, ctx.order)

        return dict(zip(OPERANDS, gradients_of(function, tensors, grad, list(wanted.values())), strict=True))
    grad = activation_gradient(grad, output, ctx.activation, ctx.slope)
    of_convolution = _dilated_gradients if block.stride == 1 else partial(_resampled_gradients, block)
    found = of_convolution(call, ctx, grad, input, weight, wanted)
    if wanted["bias"]:
        found["bias"] = grad.sum((0, 2, 3))
    return found


def _dilated_gradients(call: Callable, ctx: Any, grad: Tensor, input: Tensor, weight: Tensor, wanted: dict) -> dict:
    if not (grad.is_contiguous() or grad.is_contiguous(memory_format=torch.channels_last)):
        grad = grad.contiguous()
    found = {}
    if wanted["input"]:
        layout = is_channels_last(input)
        found["input"] = call("dilated_block_input_gradient", grad, weight, ctx.geometry, layout, ctx.matrix_units)
    if wanted["weight"]:
        found["weight"] = call("dilated_block_weight_gradient", grad, input, weight, ctx.geometry, ctx.matrix_units)
    return found


def _resampled_gradients(
    block: Block, call: Callable, ctx: Any, grad: Tensor, input: Tensor, weight: Tensor, wanted: dict
) -> dict:
    height, width = input.shape[2:]
    odd, layout = (0, 0) if block.transposed else (height % 2, width % 2), torch.contiguous_format
    if any(odd):  # zeros round off the last row or column of four; 4 taps of a result that is not there see it, too
        layout = torch.channels_last if is_channels_last(input) else layout
        more = (0, odd[1], 0, odd[0])
        grad = grad if weight.shape[2] % 2 else torch.constant_pad_nd(grad, more)
        input = torch.constant_pad_nd(input, more) if wanted["weight"] else input
    found = {}
    if wanted["input"]:  # the other of the two blocks: it reads the weight with its channels swapped
        other = STRIDED if block.transposed else TRANSPOSED
        plain = ACTIVATIONS.index("none"), 0.0, ORDERS.index("norm_act")
        y = call(f"{other.stem}_forward", grad, weight, *[None] * 4, *plain, is_channels_last(input), ctx.matrix_units)
        found["input"] = y[:, :, :height, :width].contiguous(memory_format=layout) if any(odd) else y
    if wanted["weight"]:
        found["weight"] = call(f"{block.stem}_weight_gradient", grad, input, weight, ctx.matrix_units)
    return found


# ---- the operators ----
#
# matrix_units: float32 may be multiplied there in fewer bits, on a GPU as TF32; on a CPU it is split for AMX.


def _operator(block: Block, helpers: dict[str, Definition]) -> Operator:
    """helpers: the operators that are this block's alone."""
    stem = block.stem
    geometry = "int[] geometry, " if block.stride == 1 else ""
    definitions = {
        stem: Definition(
            "(Tensor input, Tensor weight, Tensor? transformed, Tensor? bias, Tensor? scale, Tensor? shift, "
            f"{geometry}int activation, float slope, int order, bool channels_last, bool matrix_units) -> Tensor",
            partial(_fake, block),
            partial(_setup, block),
            partial(_backward, block),
            flops=partial(_flops, block),
        ),
        f"{stem}_statistics": Definition(
            f"(Tensor input, Tensor weight, Tensor? bias, {geometry}int activation, float slope, bool channels_last, "
            "bool matrix_units) -> (Tensor, Tensor, Tensor)",
            partial(_fake_statistics, block),
            partial(_setup_statistics, block),
            partial(_backward_statistics, block),
            flops=partial(_flops_statistics, block),
        ),
        f"{stem}_weights": Definition(
            f"(Tensor weight, {'int tile, ' if block.stride == 1 else ''}bool matrix_units) -> Tensor",
            _fake_dilated_weights if block.stride == 1 else partial(_fake_weights, block),
            triton_fake=_fake_triton_weights,
            cuda_fake=partial(_fake_cuda_weights, block),
        ),
        f"{stem}_weight_gradient": Definition(
            f"(Tensor grad, Tensor input, Tensor weight, {geometry}bool matrix_units) -> Tensor",
            _fake_weight_gradient,
            flops=partial(_flops_weight_gradient, block),
        ),
    }
    return Operator(stem, definitions | helpers, home="conv_block", unless=UNLESS, measured=True)


OPERATORS = {
    DILATED: _operator(
        DILATED,
        {
            "dilated_block_input_gradient": Definition(
                "(Tensor grad, Tensor weight, int[] geometry, bool channels_last, bool matrix_units) -> Tensor",
                _fake_input_gradient,
                flops=_flops_input_gradient,
            )
        },
    ),
    STRIDED: _operator(STRIDED, {}),
    TRANSPOSED: _operator(TRANSPOSED, {}),
}
