"""The dilated-convolution block: a 3x3 convolution of any dilation and its epilogue, in one pass.

On the CPU it is Winograd's F(4x4, 3x3) on the phases of the map (csrc/conv_block/cpu/params.h says how): 4 times fewer
multiplications than the definition, at every dilation. Where that does not pay (`plan` tells), and for
`precision="exact"`, PyTorch's own convolution runs. Source of the method: Lavin and Gray, Fast Algorithms for
Convolutional Neural Networks (2016).

On a GPU it is an implicit matrix product (kernels/dilated_block.py), where `FASTEST` or the caller says so, and
otherwise PyTorch's convolution, then the epilogue.

Weights are transformed once and kept for inference; in training they are transformed at every step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from inpaint_fast import _extension
from inpaint_fast._layout import is_channels_last, pictures_like
from inpaint_fast._words import ACTIVATIONS, ORDERS, check_activation, check_precision
from inpaint_fast.ops import _blocks
from inpaint_fast.ops._blocks import (
    activation_gradient,
    affine,
    allows_tf32,
    autocast,
    computed,
    epilogue,
    gradients_of,
    tiles_and_products,
    wants_grad,
)
from inpaint_fast.ops._dispatch import Definition, Operator, check_name

Size = int | tuple[int, int]

# A GPU's compute capability -> the backend that is the fastest there, "triton" or "cuda". `inpaint-fast bench
# dilated_block` on such a GPU fills it: benchmarks/results/<device>/dilated_block.csv must show it. Where there is none
# PyTorch's own convolution runs.
FASTEST: dict[tuple[int, int], str] = {}


# ---- the reference: what "correct" means ----


def reference(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    dilation: Size = 1,
    padding: Size | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str = "none",
    slope: float | None = None,
    order: str = "norm_act",
) -> Tensor:
    """`dilated_block` in plain PyTorch."""
    slope = check_activation(activation, slope, order)
    y = F.conv2d(input, weight, bias, padding=dilation if padding is None else padding, dilation=dilation)
    return epilogue(y, scale, shift, activation, slope, order)


# ---- the public functions ----


def dilated_block(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    dilation: Size = 1,
    padding: Size | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str = "none",
    slope: float | None = None,
    order: str = "norm_act",
    precision: str = "fast",
    backend: str | None = None,
) -> Tensor:
    """A 3x3 convolution of stride 1 and any dilation, then scale, shift and activation.

    Equivalent to `y = F.conv2d(input, weight, bias, padding=padding, dilation=dilation)`, then
    `activation(scale * y + shift)` in the order "norm_act" and `scale * activation(y) + shift` in the order "act_norm".
    scale and shift are those of a normalisation in eval mode.

    Args:
        input: (N, C_in, H, W); float32, float64, float16 or bfloat16; any strides.
        weight: (C_out, C_in, 3, 3), any strides. The result is channels_last where input or weight is.
        bias, scale, shift: (C_out,) or None.
        dilation: 1 or more; one number or (vertical, horizontal).
        padding: zeros round the input, 0 or more; one number or (vertical, horizontal). None: the dilation, so that the
            result has the input's height and width.
        activation: "none", "relu", "leaky_relu", "elu", "sigmoid" or "tanh".
        slope: the negative slope of leaky_relu (default 0.01), the alpha of elu (1.0).
        order: "norm_act" or "act_norm", as above.
        precision: "fast" takes, on a CPU, the Winograd algorithm where it is faster: its error is a few times that of
            a direct convolution (below 1e-5 of the result's norm at 256 channels); on a GPU, TF32 for float32 where
            PyTorch's convolution does (torch.backends.cudnn). "exact" always takes the direct one, "cuda" and "triton"
            in float32.
        backend: "cuda", "triton", "cpp" or "reference"; None takes the fastest that is there, on a GPU by measurements
            on GPUs of its kind (`inpaint-fast info` says which).

    Returns:
        (N, C_out, H + 2 * (padding - dilation), W + 2 * (padding - dilation)), dtype of input.

    Raises:
        TypeError: a dtype is not one of these, dtypes or devices differ, or something is no tensor.
        ValueError: shapes do not fit, or an argument has no such value.
        BackendError: the backend that was asked for cannot run here.

    Gradients are defined for every tensor, to any order. On the CPU float16 and bfloat16 are computed in float32, and
    under `torch.autocast` tensors of mixed dtypes are, too; on a GPU they are computed as they are, with sums in
    float32, and autocast makes every tensor and the result its dtype, as with F.conv2d. float64 is computed by PyTorch.
    Under the transforms of `torch.func` and forward-mode differentiation the reference runs. Deterministic, for any
    number of threads.

    A NaN or an infinity in the input makes every result NaN or infinite that it reaches by the definition, and may make
    others of the same 4x4 tile NaN: those up to 3 dilations away. Weights of inference are transformed again when their
    version counter says that they have changed; a change by way of `weight.data` is not counted, by PyTorch's design:
    change weights under `torch.no_grad()` instead, or call `inpaint_fast.ops.forget(weight)`.
    """
    dilation, padding, slope = _check(
        input, weight, bias, dilation, padding, scale, shift, activation, slope, order, precision
    )
    backend = _blocks.choose(_operator, input, backend)
    if backend == "reference":
        if input.dtype != weight.dtype and not torch.is_autocast_enabled(input.device.type):
            weight = weight.to(input.dtype)
        return reference(
            input, weight, bias, dilation=dilation, padding=padding, scale=scale, shift=shift, activation=activation,
            slope=slope if activation in ("leaky_relu", "elu") else None, order=order,
        )  # fmt: skip
    if backend != "cpp":
        tensors = autocast(input, weight, bias, scale, shift)
        if tensors[0].dtype == torch.float64:
            return _direct(*tensors, dilation, padding, activation, slope, order)
        tf32 = precision == "fast" and allows_tf32(tensors[0])
        return _ours(backend, tf32, weight, *tensors, dilation, padding, activation, slope, order)
    tensors = computed(input, weight, bias, scale, shift)
    training = wants_grad(input, weight, bias, scale, shift)
    if precision == "exact" or _algorithm(input, weight, dilation, padding, training) == "direct":
        y = _direct(*tensors, dilation, padding, activation, slope, order)
    else:
        y = _ours(backend, False, weight, *tensors, dilation, padding, activation, slope, order)
    return y if y.dtype == input.dtype else y.to(input.dtype)


def dilated_block_statistics(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    dilation: Size = 1,
    padding: Size | None = None,
    activation: str = "none",
    slope: float | None = None,
    order: str = "norm_act",
    precision: str = "fast",
    backend: str | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """A convolution, and the statistics of its result that batch normalisation needs of it, in one pass.

    Arguments, errors and gradients as those of `dilated_block`; for `norm_act` after it, with the same activation,
    slope and order.

    Returns:
        (y, statistics). y: of the convolution with its bias, no activation applied. statistics: (mean, biased
        variance), as `norm_act` takes them, float64, (C_out,) each: of y as it is rounded, in the order "act_norm" of
        activation(y). They are found per tile in float32 and put together in float64. None where no kernel finds them:
        on a CPU, by the reference and in float64. No gradient flows through them, for that of `norm_act` takes them as
        functions of y.
    """
    dilation, padding, slope = _check(
        input, weight, bias, dilation, padding, None, None, activation, slope, order, precision
    )
    backend = _blocks.choose(_operator, input, backend)
    tensors = autocast(input, weight, bias)
    if backend in ("cpp", "reference") or tensors[0].dtype == torch.float64:
        named = {"dilation": dilation, "padding": padding, "precision": precision, "backend": backend}
        return dilated_block(input, weight, bias, **named), None
    channels_last = is_channels_last(tensors[0]) or is_channels_last(weight)  # as F.conv2d
    y, mean, var = _operator.call(
        backend, "dilated_block_statistics", *tensors, [*dilation, *padding],
        ACTIVATIONS.index(activation if order == "act_norm" else "none"), slope, channels_last,
        precision == "fast" and allows_tf32(tensors[0]),
    )  # fmt: skip
    return y, (mean, var)


@dataclass(frozen=True)
class Plan:
    """What `precision="fast"` does for one shape, and the memory it takes besides its tensors."""

    algorithm: str
    """"winograd" (the CPU's), "implicit_gemm" (Triton's and CUDA's), or "direct" (PyTorch's own convolution)."""
    workspace_bytes: int
    """Of each thread of the CPU; kept from call to call."""
    transformed_bytes: int
    """Of the transformed weights; kept as long as the weight lives, in inference."""


def plan(
    input: Tensor,
    weight: Tensor,
    *,
    dilation: Size = 1,
    padding: Size | None = None,
    training: bool = False,
    backend: str | None = None,
) -> Plan:
    """What `dilated_block` will do with these tensors; they may be on the meta device. Arguments as there.

    Args:
        training: a gradient is wanted, so that weights are transformed at every call.
        backend: None takes the one that runs on the input's device, for tensors on the meta device "cpp".
    """
    dilation, padding, _ = _check(input, weight, None, dilation, padding, None, None, "none", None, "norm_act", "fast")
    if check_name(backend) is None:
        backend = _operator.choose(input.device, None) if input.is_cuda else "cpp"
    if backend in ("cuda", "triton") and input.dtype != torch.float64:
        return Plan("implicit_gemm", 0, weight.numel() * weight.element_size())
    if (
        backend != "cpp"
        or _extension.module is None
        or _algorithm(input, weight, dilation, padding, training) == "direct"
    ):
        return Plan("direct", 0, 0)
    height, width = (side + 2 * (p - d) for side, d, p in zip(input.shape[2:], dilation, padding, strict=True))
    images, channels, out = input.shape[0], input.shape[1], weight.shape[0]
    workspace = _extension.module.dilated_block_workspace(
        images, channels, out, height, width, *dilation, is_channels_last(input)
    )
    return Plan("winograd", workspace, 4 * _transformed_numel(out, channels))


def prepare(weight: Tensor) -> None:
    """Transform a weight for inference now, not at its first use."""
    _blocks.prepare(_operator, weight)


# ---- arguments ----


def _pair(name: str, value: Size, least: int) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, (tuple, list)) else ()
    if len(pair) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) for v in pair):
        raise TypeError(f"{name}: a whole number or a pair of them is expected, got {value!r}")
    if min(pair) < least:
        raise ValueError(f"{name}: at least {least} is expected, got {value!r}")
    return pair


def _check(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dilation: Size,
    padding: Size | None,
    scale: Tensor | None,
    shift: Tensor | None,
    activation: str,
    slope: float | None,
    order: str,
    precision: str,
) -> tuple[tuple[int, int], tuple[int, int], float]:
    """dilation and padding as pairs and the activation's slope; or the error that names the wrong argument."""
    vectors = {"bias": bias, "scale": scale, "shift": shift}
    _blocks.check_tensors(input, weight, **vectors)
    if weight.dim() != 4 or weight.shape[1:] != (input.shape[1], 3, 3):
        raise ValueError(
            f"weight: (C_out, {input.shape[1]}, 3, 3) is expected for an input of {input.shape[1]} channels, "
            f"got {tuple(weight.shape)}"
        )
    _blocks.check_vectors(weight.shape[0], **vectors)
    slope = check_activation(activation, slope, order)
    check_precision(precision)
    dilation = _pair("dilation", dilation, 1)
    padding = dilation if padding is None else _pair("padding", padding, 0)
    for side, name, d, p in zip(input.shape[2:], ("height", "width"), dilation, padding, strict=True):
        if side + 2 * (p - d) < 1:
            raise ValueError(f"input: with dilation {d} and padding {p} its {name} must be at least {2 * (d - p) + 1}, "
                             f"got {side}")  # fmt: skip
    return dilation, padding, slope


# ---- the algorithms ----

# Measured on 2 cores of an AMD EPYC (Zen 5, AVX-512): below these, PyTorch's convolution is faster.
LEAST_CHANNELS = 24  # of input and output: fewer leave the vectors of a tile's transforms without work to share
LEAST_TILES = 4  # in all pictures: each task reads all transformed weights
LEAST_TILES_TRAINING = 24  # where they are transformed at every call, twice, and a gradient is transformed back
LEAST_GAIN = 1.4  # multiplications of the definition for one of ours; 4 where 4x4 tiles fit and nothing is padding


def _algorithm(
    input: Tensor, weight: Tensor, dilation: tuple[int, int], padding: tuple[int, int], training: bool
) -> str:
    if input.dtype == torch.float64 or min(weight.shape[:2]) < LEAST_CHANNELS:
        return "direct"
    images, taps, sides = input.shape[0], input.shape[0], []
    for side, d, p in zip(input.shape[2:], dilation, padding, strict=True):
        out = side + 2 * (p - d)
        sides.append(out)
        # Pairs of a result and a tap on it that is no padding: PyTorch skips the others.
        taps *= sum(max(0, min(out, side + p - k * d) - max(0, p - k * d)) for k in range(3))
    tiles, products = tiles_and_products(images, sides, dilation, lambda pixels: pixels + 2)
    enough = tiles >= (LEAST_TILES_TRAINING if training else LEAST_TILES)
    return "winograd" if enough and taps >= LEAST_GAIN * products else "direct"


def _direct(input, weight, bias, scale, shift, dilation, padding, activation, slope, order) -> Tensor:
    """PyTorch's convolution; in the order "norm_act" scale and shift go into its weights, which are few."""
    if order == "norm_act" and scale is not None:
        weight, bias = weight * scale[:, None, None, None], None if bias is None else bias * scale
    if order == "norm_act" and shift is not None:
        bias = shift if bias is None else bias + shift
    y = F.conv2d(input, weight, bias, padding=padding, dilation=dilation)
    if order == "norm_act":
        scale = shift = None
    return epilogue(y, scale, shift, activation, slope, order)


def _ours(
    backend, tf32, parameter, input, weight, bias, scale, shift, dilation, padding, activation, slope, order
) -> Tensor:
    """`parameter`: the weight as the caller has it, by which its transform is kept."""
    geometry = [*dilation, *padding]
    channels_last = is_channels_last(input) or is_channels_last(parameter)  # as F.conv2d

    def run(transformed, scale, shift, activation):
        return _operator.call(
            backend, "dilated_block", input, weight, transformed, bias, scale, shift, geometry,
            ACTIVATIONS.index(activation), slope, ORDERS.index(order), channels_last, tf32,
        )  # fmt: skip

    if not wants_grad(input, weight, bias, scale, shift):
        return run(_blocks.transformed(_operator, backend, parameter, weight, tf32), scale, shift, activation)
    if scale is None and shift is None:
        return run(None, None, None, activation)
    if order == "norm_act":  # their gradients need the convolution's result
        return epilogue(run(None, None, None, "none"), scale, shift, activation, slope, order)
    return affine(run(None, None, None, activation), scale, shift)


# ---- the operator: schemas, shape functions, gradient formulas ----


def _fake(input, weight, transformed, bias, scale, shift, geometry, activation, slope, order, channels_last, tf32):
    dilation_h, dilation_w, padding_h, padding_w = geometry
    height, width = input.shape[2] + 2 * (padding_h - dilation_h), input.shape[3] + 2 * (padding_w - dilation_w)
    return pictures_like(input, weight.shape[0], height, width, channels_last)


def _fake_statistics(input, weight, bias, geometry, activation, slope, channels_last, tf32):
    y = _fake(input, weight, None, bias, None, None, geometry, activation, slope, 0, channels_last, tf32)
    return y, *(input.new_empty(weight.shape[0], dtype=torch.float64) for _ in range(2))


def _transformed_numel(out_channels: int, in_channels: int) -> int:
    # Blocks of 32 output channels, as csrc/conv_block/cpu/params.h has them.
    return (out_channels + 31) // 32 * 32 * 36 * in_channels


def _fake_triton_weights(weight):
    return weight.new_empty(weight.numel())


def _fake_cuda_weights(weight):
    whole = 16 // weight.element_size()  # input channels are loaded 16 bytes at a time
    return weight.new_empty(9 * weight.shape[0] * ((weight.shape[1] + whole - 1) // whole * whole))


def _fake_weights(weight):
    return weight.new_empty(_transformed_numel(*weight.shape[:2]))


def _fake_input_gradient(grad, weight, geometry, channels_last, tf32):
    dilation_h, dilation_w, padding_h, padding_w = geometry
    height, width = grad.shape[2] - 2 * (padding_h - dilation_h), grad.shape[3] - 2 * (padding_w - dilation_w)
    return pictures_like(grad, weight.shape[1], height, width, channels_last)


def _fake_weight_gradient(grad, input, weight, geometry, tf32):
    return torch.empty_like(weight)


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    input, weight, _, bias, scale, shift, ctx.geometry, ctx.activation, ctx.slope, ctx.order, _, ctx.tf32 = inputs
    ctx.save_for_backward(input, weight, bias, scale, shift, output if ctx.activation else None)


def _setup_statistics(ctx: Any, inputs: tuple, output: tuple) -> None:
    input, weight, bias, ctx.geometry, _, _, _, ctx.tf32 = inputs
    ctx.activation, ctx.slope, ctx.order = 0, 0.0, 0  # y has none, that of the statistics is norm_act's
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(input, weight, bias, None, None, None)


def _backward(call: Callable, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    wanted = [ctx.needs_input_grad[i] for i in (0, 1, 3, 4, 5)]
    to_input, to_weight, to_bias, to_scale, to_shift = _gradients(call, ctx, grad, wanted)
    return (to_input, to_weight, None, to_bias, to_scale, to_shift, *[None] * 6)


def _backward_statistics(call: Callable, ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 8
    return (*_gradients(call, ctx, grad, [*ctx.needs_input_grad[:3], False, False])[:3], *[None] * 5)


def _gradients(call: Callable, ctx: Any, grad: Tensor, wanted: list[bool]) -> list[Tensor | None]:
    """Gradients with respect to input, weight, bias, scale and shift."""
    input, weight, bias, scale, shift, output = ctx.saved_tensors
    activation = ACTIVATIONS[ctx.activation]
    by_formula = scale is None and shift is None and ctx.slope >= 0  # a derivative from the result alone
    if torch.is_grad_enabled() or not by_formula:  # a second derivative was asked for, or none of ours is there
        formula = partial(
            reference, dilation=tuple(ctx.geometry[:2]), padding=tuple(ctx.geometry[2:]), activation=activation,
            slope=ctx.slope if activation in ("leaky_relu", "elu") else None,
            order=ORDERS[ctx.order],
        )  # fmt: skip

        def function(input, weight, bias, scale, shift):
            return formula(input, weight, bias, scale=scale, shift=shift)

        grads = gradients_of(function, (input, weight, bias, scale, shift), grad, wanted)
    else:
        grad = activation_gradient(grad, output, activation, ctx.slope)
        if not (grad.is_contiguous() or grad.is_contiguous(memory_format=torch.channels_last)):
            grad = grad.contiguous()
        grads = [None] * 5
        if wanted[0]:
            layout = is_channels_last(input)
            grads[0] = call("dilated_block_input_gradient", grad, weight, ctx.geometry, layout, ctx.tf32)
        if wanted[1]:
            grads[1] = call("dilated_block_weight_gradient", grad, input, weight, ctx.geometry, ctx.tf32)
        if wanted[2]:
            grads[2] = grad.sum((0, 2, 3))
    return grads


_operator = Operator(
    "dilated_block",
    {
        "dilated_block": Definition(
            "(Tensor input, Tensor weight, Tensor? transformed, Tensor? bias, Tensor? scale, Tensor? shift, "
            "int[] geometry, int activation, float slope, int order, bool channels_last, bool tf32) -> Tensor",
            _fake,
            _setup_context,
            _backward,
        ),
        "dilated_block_statistics": Definition(
            "(Tensor input, Tensor weight, Tensor? bias, int[] geometry, int activation, float slope, "
            "bool channels_last, bool tf32) -> (Tensor, Tensor, Tensor)",
            _fake_statistics,
            _setup_statistics,
            _backward_statistics,
        ),
        "dilated_block_weights": Definition(
            "(Tensor weight) -> Tensor",
            _fake_weights,
            triton_fake=_fake_triton_weights,
            cuda_fake=_fake_cuda_weights,
        ),
        "dilated_block_input_gradient": Definition(
            "(Tensor grad, Tensor weight, int[] geometry, bool channels_last, bool tf32) -> Tensor",
            _fake_input_gradient,
        ),
        "dilated_block_weight_gradient": Definition(
            "(Tensor grad, Tensor input, Tensor weight, int[] geometry, bool tf32) -> Tensor", _fake_weight_gradient
        ),
    },
    home="conv_block",
    fastest=FASTEST,
)
