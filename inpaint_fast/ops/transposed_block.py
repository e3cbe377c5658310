"""The upsampling block: a 4x4 transposed convolution of stride 2 and its epilogue, in one pass.

The output pixels of one parity, of even or odd rows and even or odd columns, are a convolution with 2x2 taps. On the
CPU the four are dilated_block's F(4x4, 3x3) on transformed patches that they share; the 11 of its 36 products that are
zero for 2x2 taps are left out, so that 2.56 times fewer multiplications are left than by the definition.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from inpaint_fast.ops import _blocks
from inpaint_fast.ops._activations import ACTIVATIONS, check_activation
from inpaint_fast.ops._backends import Definition, Operator
from inpaint_fast.ops._blocks import (
    activation_gradient,
    affine,
    computed,
    epilogue,
    gradients_of,
    is_channels_last,
    pictures_like,
    wants_grad,
)


def reference(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str = "none",
    slope: float | None = None,
    order: str = "norm_act",
) -> Tensor:
    """`transposed_block` in plain PyTorch."""
    slope = check_activation(activation, slope, order)
    return epilogue(F.conv_transpose2d(input, weight, bias, 2, 1), scale, shift, activation, slope, order)


def transposed_block(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str = "none",
    slope: float | None = None,
    order: str = "norm_act",
    precision: str = "fast",
    backend: str | None = None,
) -> Tensor:
    """activation(scale * conv_transpose2d(input, weight, bias, stride=2, padding=1) + shift), or, in the order
    "act_norm", scale * activation(conv_transpose2d(...)) + shift: twice the height and width.

    Args:
        input: (N, C_in, H, W); float32, float64, float16 or bfloat16; NCHW, channels_last (the faster) or any strides.
        weight: (C_in, C_out, 4, 4), dtype and device of input.
        bias, scale, shift: (C_out,), dtype and device of input, or None.
        activation: "none", "relu", "leaky_relu", "elu", "sigmoid" or "tanh".
        slope: the negative slope of leaky_relu (default 0.01), the alpha of elu (1.0).
        order: "norm_act", or "act_norm" for scale and shift after the activation.
        precision: "fast" takes the Winograd algorithm where it is faster; "exact" always the direct one.
        backend: "cuda", "triton", "cpp" or "reference"; None takes the fastest that is there.

    Returns:
        (N, C_out, 2H, 2W), dtype of input; channels_last where input or weight is.

    Raises:
        TypeError: a dtype is not one of these, dtypes or devices differ, or something is no tensor.
        ValueError: shapes do not fit, or an argument has no such value.
        BackendError: the backend that was asked for cannot run here.

    Gradients are defined for every tensor, to any order; the input's is PyTorch's own convolution. Deterministic, for any number
    of threads. What is said of dtypes, NaN and kept weights in `inpaint_fast.dilated_block` holds here.
    """
    slope = _check(input, weight, bias, scale, shift, activation, slope, order, precision)
    backend = _blocks.choose(_operator, input, backend)
    if backend == "reference":
        if input.dtype != weight.dtype and not torch.is_autocast_enabled(input.device.type):
            weight = weight.to(input.dtype)
        return epilogue(F.conv_transpose2d(input, weight, bias, 2, 1), scale, shift, activation, slope, order)
    tensors = computed(input, weight, bias, scale, shift)
    if precision == "exact" or algorithm(input, weight) == "direct":
        x, w, b, scale, shift = tensors
        y = epilogue(F.conv_transpose2d(x, w, b, 2, 1), scale, shift, activation, slope, order)
    else:
        y = _winograd(backend, weight, *tensors, activation, slope, order)
        # The pixels of one parity lie apart, so that NCHW is not written by whole vectors: a copy is faster.
        if not (is_channels_last(input) or is_channels_last(weight)):
            y = y.contiguous()
    return y if y.dtype == input.dtype else y.to(input.dtype)


# Measured on 2 cores of an AMD EPYC (Zen 5, AVX-512), as those of dilated_block.
LEAST_CHANNELS = 24  # of input and output
LEAST_TILES = 9  # of 4x4 pixels of the input, in all pictures
LEAST_FILL = 0.5  # of the tiles' pixels, that lie in the picture


def algorithm(input: Tensor, weight: Tensor) -> str:
    """What precision="fast" runs on the CPU: "winograd", or "direct", PyTorch's own convolution."""
    images, _, height, width = input.shape
    tiles = images * ((height + 3) // 4) * ((width + 3) // 4)
    enough = min(weight.shape[:2]) >= LEAST_CHANNELS and tiles >= LEAST_TILES
    filled = images * height * width >= LEAST_FILL * 16 * tiles
    return "winograd" if enough and filled and input.dtype != torch.float64 else "direct"


def prepare(weight: Tensor) -> None:
    """Transform a weight for inference now, not at its first use."""
    _blocks.prepare(_operator, weight)


def _check(input, weight, bias, scale, shift, activation, slope, order, precision) -> float:
    """The activation's slope; or the error that names the wrong argument."""
    vectors = {"bias": bias, "scale": scale, "shift": shift}
    _blocks.check_tensors(input, weight, **vectors)
    if weight.dim() != 4 or (weight.shape[0], *weight.shape[2:]) != (input.shape[1], 4, 4):
        raise ValueError(f"weight: ({input.shape[1]}, C_out, 4, 4) is expected, got {tuple(weight.shape)}")
    _blocks.check_vectors(weight.shape[1], **vectors)
    slope = check_activation(activation, slope, order)
    _blocks.check_precision(precision)
    if min(input.shape[2:]) < 1:
        raise ValueError(f"input: at least one pixel is expected, got shape {tuple(input.shape)}")
    return slope


def _winograd(backend, parameter, input, weight, bias, scale, shift, activation, slope, order) -> Tensor:
    """`parameter`: the weight as the caller has it, by which its transform is kept."""

    def run(transformed, scale, shift, activation):
        return _operator.call(
            backend, "transposed_block", input, weight, transformed, bias, scale, shift, ACTIVATIONS.index(activation),
            slope, order == "norm_act",
        )  # fmt: skip

    if not wants_grad(input, weight, bias, scale, shift):
        return run(_blocks.transformed(_operator, parameter, weight), scale, shift, activation)
    if scale is None and shift is None:
        return run(None, None, None, activation)
    if order == "norm_act":  # their gradients need the convolution's result
        return epilogue(run(None, None, None, "none"), scale, shift, activation, slope, order)
    return affine(run(None, None, None, activation), scale, shift)


# ---- the operator: schemas, shape functions, gradient formula ----


def _fake(input, weight, transformed, bias, scale, shift, activation, slope, norm_first):
    return pictures_like(input, weight.shape[1], 2 * input.shape[2], 2 * input.shape[3], channels_last=True)


def _fake_weights(weight):
    channels, out = weight.shape[:2]
    return weight.new_empty(4 * ((out + 31) // 32) * 32 * 25 * channels)  # as csrc/dilated_block/params.h has them


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    input, weight, _, bias, scale, shift, ctx.activation, ctx.slope, ctx.norm_first = inputs
    ctx.save_for_backward(input, weight, bias, scale, shift, output if ctx.activation else None)


def _backward(call: Callable, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, output = ctx.saved_tensors
    activation, slope = ACTIVATIONS[ctx.activation], ctx.slope
    wanted = [ctx.needs_input_grad[i] for i in (0, 1, 3, 4, 5)]
    if torch.is_grad_enabled() or slope < 0 or tensors[3] is not None or tensors[4] is not None:
        order = "norm_act" if ctx.norm_first else "act_norm"

        def function(input, weight, bias, scale, shift):
            return epilogue(F.conv_transpose2d(input, weight, bias, 2, 1), scale, shift, activation, slope, order)

        grads = gradients_of(function, tensors, grad, wanted)
    else:
        input, weight, *_ = tensors
        grad = activation_gradient(grad, output, activation, slope)
        grads = [None] * 5
        if wanted[0]:
            grads[0] = torch.ops.aten.convolution_backward(
                grad, input, weight, None, [2, 2], [1, 1], [1, 1], True, [0, 0], 1, [True, False, False]
            )[0]
        if wanted[1]:
            grads[1] = _weight_gradient(call, grad, input, weight)
        if wanted[2]:
            grads[2] = grad.sum((0, 2, 3))
    to_input, to_weight, to_bias, to_scale, to_shift = grads
    return (to_input, to_weight, None, to_bias, to_scale, to_shift, None, None, None)


def _weight_gradient(call: Callable, grad: Tensor, input: Tensor, weight: Tensor) -> Tensor:
    """The four parities' gradients of 3x3 taps, of which each has 2x2: tap 3 + a - 2r of the 4 is tap r = a, a + 1."""
    channels, out = weight.shape[:2]
    result, taps = torch.empty_like(weight), weight.new_empty(out, channels, 3, 3)
    for a, b in product((0, 1), (0, 1)):
        found = call("dilated_block_weight_gradient", grad[:, :, a::2, b::2], input, taps, 1, 1, 1, 1)
        for r, c in product((a, a + 1), (b, b + 1)):
            result[:, :, 3 + a - 2 * r, 3 + b - 2 * c] = found[:, :, r, c].t()
    return result


_operator = Operator(
    "transposed_block",
    {
        "transposed_block": Definition(
            "(Tensor input, Tensor weight, Tensor? transformed, Tensor? bias, Tensor? scale, Tensor? shift, "
            "int activation, float slope, bool norm_first) -> Tensor",
            _fake,
            _setup_context,
            _backward,
        ),
        "transposed_block_weights": Definition("(Tensor weight) -> Tensor", _fake_weights),
    },
    backends=("cpp", "reference"),
)
