"""Batch normalisation and activation in one operator, for training: Ioffe and Szegedy, Batch Normalization (2015).

The forward pass keeps nothing for the backward pass but its input and two numbers a channel: the gradient computes the
normalised value and the activation's slope anew. PyTorch's own modules keep the normalised picture besides, and go over
it once more in each direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, batch_norm, native_batch_norm
from torch.nn import functional as F

from inpaint_fast._words import ACTIVATIONS, DEFAULT_SLOPE, ORDERS, check_activation, check_number
from inpaint_fast.ops._activations import activate, activation_of
from inpaint_fast.ops._dispatch import Definition, Operator, elsewhere
from inpaint_fast.ops._plans import (
    Facts,
    check_dtype,
    check_tensor,
    check_tensors,
    planned,
    wants_grad,
)
from inpaint_fast.ops._torch_private import is_cudnn_enabled, may_overwrite

# ---- the reference: what "correct" means ----


def reference(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str = "none",
    slope: float | None = None,
    order: str = "norm_act",
) -> Tensor:
    """`norm_act` in plain PyTorch."""
    slope = check_activation(activation, slope, order)
    if order == "act_norm":
        input = activate(input, activation, slope)
    y = F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return y if order == "act_norm" else activate(y, activation, slope)


# ---- the public function ----


def norm_act(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str = "none",
    slope: float | None = None,
    order: str = "norm_act",
    statistics: tuple[Tensor, Tensor] | None = None,
    backend: str | None = None,
) -> Tensor:
    """Batch normalisation and activation: `F.batch_norm` with the activation after it ("norm_act") or before it.

    Equivalent to `activation(F.batch_norm(input, ...))` in the order "norm_act" and to
    `F.batch_norm(activation(input), ...)` in the order "act_norm". In training mode the running statistics are updated
    in place, as F.batch_norm does: by the mean and the unbiased variance of the batch.

    Args:
        input: (N, C, ...), 2 dimensions or more; float32, float64, float16 or bfloat16, computed in float32 or better.
            Contiguous and channels_last memory is read as it lies, any other is copied once.
        running_mean, running_var: (C,), of input's dtype or float32; float64 for a float64 input. Both None: nothing is
            updated, which training mode alone allows.
        weight, bias: (C,) or None (1 and 0), of the dtype of the running statistics.
        training: normalise by the statistics of this batch; otherwise by running_mean and running_var.
        momentum: the share of this batch in the updated running statistics.
        eps: added to the variance; above 0 in training.
        activation: "none", "relu", "leaky_relu", "elu", "sigmoid" or "tanh".
        slope: the negative slope of leaky_relu (default 0.01), the alpha of elu (1.0).
        order: "norm_act" or "act_norm".
        statistics: (mean, biased variance) of what is normalised, of input or in the order "act_norm" of
            activation(input), over all but the channels; float64, (C,) each. In training alone, where some kernel has
            found them already: they are taken as they are, which saves reading input once, and gradients are those of
            statistics found here. The reference finds them anew. None: they are found here.
        backend: "cuda", "triton", "cpp" or "reference"; None takes the fastest that is there.

    Returns:
        A tensor of input's shape, dtype and memory format (contiguous where input had to be copied). On the CPU one of
        4 MB or more cannot be resized in place: its memory is kept for the next one.

    Raises:
        TypeError: a dtype is not one of these, dtypes or devices differ, or something is no tensor or no number.
        ValueError: shapes do not fit, training has a single value per channel, or an argument has no such value.
        BackendError: the backend that was asked for cannot run here.

    Gradients are defined for input, weight and bias, to any order. Under the transforms of `torch.func` and
    forward-mode differentiation the reference runs, and a backend asked for by name is refused. NaN in a channel gives
    NaN, as in PyTorch.
    """
    if not isinstance(training, bool):
        raise TypeError(f"training: True or False is expected, got {training!r}")
    momentum, eps = check_number("momentum", momentum), check_number("eps", eps)
    if not eps >= 0 or (training and eps == 0):
        raise ValueError(f"eps: a number above 0 is expected (0 outside training), got {eps}")
    if statistics is not None:
        if not isinstance(statistics, tuple):
            raise _not_statistics(statistics)
        _check_tensors(input, {}, statistics)
    vectors = running_mean, running_var, weight, bias
    try:
        plan = _plan(
            input.shape, input.dtype, input.device, input.layout,
            tuple([None if t is None else (t.dtype, t.shape, t.device) for t in vectors]), statistics is not None,
            training, (activation, slope, order), backend,
            torch.is_grad_enabled() and (input.requires_grad or wants_grad(weight, bias)), elsewhere(),
        )  # fmt: skip
        return plan(input, *vectors, momentum, eps, statistics)
    except (AttributeError, RuntimeError):
        _check_tensors(input, dict(zip(VECTORS, vectors, strict=True)), statistics)
        raise


# ---- the plan ----

# Measured on 1 and 2 cores of an AMD EPYC (Zen 5, AVX-512), after a convolution of another size as in a network: below
# so many elements PyTorch's two operators cost less than our one; of a call without and with a gradient.
LEAST_ELEMENTS, LEAST_ELEMENTS_TRAINING = 1 << 20, 1 << 16


# How a normalisation and its activation run: a function of (input, running_mean, running_var, weight, bias, momentum,
# eps, statistics), the last of which may be left out.
Normalisation = Callable[..., Tensor]


def _by_torch(training: bool, direct: bool, activate: Callable[[Tensor], Tensor], order: str) -> Normalisation:
    """PyTorch's own operators. After the normalisation the activation may overwrite that's result.

    direct: to the operator that torch.batch_norm finds on the CPU after two others.
    """

    def norm(
        input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None,
        bias: Tensor | None, momentum: float, eps: float,
    ) -> Tensor:  # fmt: skip
        if direct:
            return native_batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps)[0]
        return batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps, is_cudnn_enabled())

    def norm_first(
        input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None,
        bias: Tensor | None, momentum: float, eps: float,
        statistics: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        return activate(norm(input, running_mean, running_var, weight, bias, momentum, eps))

    def activation_first(
        input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None,
        bias: Tensor | None, momentum: float, eps: float,
        statistics: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        return norm(activate(input), running_mean, running_var, weight, bias, momentum, eps)

    run = norm_first if order == "norm_act" else activation_first
    run.is_plain = True  # pyright: ignore[reportFunctionMemberAccess]  (chains of modules ask for it)
    return run


def _by_kernel(run: Callable, training: bool, activation: str, slope: float, order: str) -> Normalisation:
    """The registered operator `run`."""
    settings = ACTIVATIONS.index(activation), slope, ORDERS.index(order)

    def normalise(
        input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None,
        bias: Tensor | None, momentum: float, eps: float,
        statistics: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        for name, tensor in zip(VECTORS, (running_mean, running_var, weight, bias), strict=True):
            if tensor is not None and tensor.device != input.device:  # another kernel would run, or none
                raise TypeError(f"{name}: it is on {tensor.device} and input is on {input.device}; one is expected")
        if training and running_mean is not None and running_var is not None:
            for name, tensor in (("running_mean", running_mean), ("running_var", running_var)):
                if tensor.stride(0) == 0 and tensor.shape[0] > 1:
                    raise ValueError(f"{name}: its elements share memory (an expanded view); it cannot be updated")
        y, _, _, new_mean, new_var = run(
            input, running_mean, running_var, weight, bias, *(statistics or (None, None)), training, float(momentum),
            float(eps), *settings,
        )  # fmt: skip
        if training and running_mean is not None and running_var is not None:
            updated = [running_mean, running_var]
            if not torch.compiler.is_compiling():
                # Not counted, as F.batch_norm does not: it saves them for its backward, and one norm may go both ways.
                updated = [statistic.data for statistic in updated]
            with torch.no_grad():
                torch._foreach_copy_(updated, [new_mean, new_var])
        return y

    return normalise


@planned
def _plan(
    shape: torch.Size,
    dtype: torch.dtype,
    device: torch.device,
    layout: torch.layout,
    vectors: tuple[tuple[torch.dtype, torch.Size, torch.device] | None, ...],
    statistics: bool,
    training: bool,
    *rest: Any,
) -> Normalisation:
    """How `norm_act` runs, or the error that names the argument that does not fit.

    Args:
        shape, dtype, device, layout: of input.
        vectors: dtype, shape and device of the others.
        rest: as of `plan_norm`.
    """
    check_activation(*rest[0])
    _check(Facts(shape, (), dtype, device), layout, dict(zip(VECTORS, vectors, strict=True)), training)
    if statistics and not training:
        raise ValueError("statistics: None is expected outside training, got a value")
    return plan_norm(shape, device, training, *rest)


def plan_norm(
    shape: torch.Size,
    device: torch.device,
    training: bool,
    epilogue: tuple[str, float | None, str],
    backend: str | None,
    gradient: bool,
    elsewhere: tuple,
) -> Normalisation:
    """How a normalisation of arguments that fit runs.

    Args:
        epilogue: activation, slope and order, as users say them.
        gradient: one is wanted.
        elsewhere: `ops._dispatch.elsewhere`.
    """
    activation, slope, order = epilogue[0], check_activation(*epilogue), epilogue[2]
    kind = "training" if training or gradient else "inference"
    chosen = _operator.choose(device, backend, kind, math.prod(shape) if device.type == "cuda" else None)
    unasked = chosen == "cpp" and backend is None and elsewhere[0] is None
    if chosen == "reference" or (unasked and not _pays(shape, training, gradient, activation)):
        in_place = order == "norm_act" and may_overwrite(slope)
        direct = device.type == "cpu" and not (training or gradient or elsewhere[1] or torch.compiler.is_compiling())
        return _by_torch(training, direct, activation_of(activation, slope, in_place), order)
    return _by_kernel(_operator.entry(chosen, "norm_act", gradient), training, activation, slope, order)


def _pays(shape: torch.Size, training: bool, gradient: bool, activation: str) -> bool:
    """On a CPU our kernel is the faster one."""
    if torch.compiler.is_compiling():  # sizes may be symbols
        return True
    if not (training or gradient) and activation == "none":
        return False  # PyTorch's is one pass, too
    return math.prod(shape) >= (LEAST_ELEMENTS_TRAINING if gradient else LEAST_ELEMENTS)


# ---- arguments ----

VECTORS = ("running_mean", "running_var", "weight", "bias")


def _check(
    input: Facts,
    layout: torch.layout,
    vectors: dict[str, tuple[torch.dtype, torch.Size, torch.device] | None],
    training: bool,
) -> None:
    """Raises the error that names the wrong argument, as far as dtypes, shapes and devices tell."""
    if layout != torch.strided:
        raise TypeError(f"input: a dense tensor is expected, got layout {layout}")
    check_dtype("input", input)
    if len(input.shape) < 2:
        raise ValueError(f"input: (N, C, ...), 2 dimensions or more, is expected, got shape {tuple(input.shape)}")
    for name in ("running_mean", "running_var"):
        if vectors[name] is None and not training:
            raise ValueError(f"{name}: a tensor is expected outside training, got None")
    if (vectors["running_mean"] is None) != (vectors["running_var"] is None):
        raise ValueError("running_mean, running_var: both or neither are expected, got one")
    dtypes = [input.dtype] if input.dtype in (torch.float64, torch.float32) else [input.dtype, torch.float32]
    first = None
    for name, vector in vectors.items():
        if vector is None:
            continue
        dtype, shape, device = vector
        if device != input.device:
            raise TypeError(f"{name}: it is on {device} and input is on {input.device}; one device is expected")
        if tuple(shape) != (input.shape[1],):
            raise ValueError(f"{name}: shape ({input.shape[1]},) is expected, got {tuple(shape)}")
        if dtype not in dtypes:
            raise TypeError(f"{name}: {' or '.join(map(str, dtypes))} is expected, got {dtype}")
        first = first or (name, dtype)
        if dtype != first[1]:
            raise TypeError(f"{name}: the dtype of {first[0]}, {first[1]}, is expected, got {dtype}")
    if training and input.shape[0] * math.prod(input.shape[2:]) == 1:
        # The words of F.batch_norm.
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.shape}")


def _check_tensors(input: Tensor, vectors: dict[str, Tensor | None], statistics: tuple[Tensor, Tensor] | None) -> None:
    """Raises the error that names what is no tensor, or one of another shape or on another device; after an error."""
    check_tensor("input", input)
    check_tensors(input=input, **vectors)
    if statistics is not None and not (len(statistics) == 2 and all(isinstance(part, Tensor) for part in statistics)):
        raise _not_statistics(statistics) from None
    if input.dim() < 2:
        return
    named = vectors | dict(zip(("statistics: mean", "statistics: variance"), statistics or (), strict=False))
    for name, tensor in named.items():
        if tensor is None:
            continue
        if tensor.device != input.device:
            raise TypeError(
                f"{name}: it is on {tensor.device} and input is on {input.device}; one device is expected"
            ) from None
        if tensor.shape != (input.shape[1],):
            raise ValueError(f"{name}: shape ({input.shape[1]},) is expected, got {tuple(tensor.shape)}") from None
        if name.startswith("statistics") and tensor.dtype != torch.float64:
            raise TypeError(f"{name} of float64 is expected, got {tensor.dtype}") from None


def _not_statistics(statistics: object) -> TypeError:
    got = type(statistics).__name__
    if isinstance(statistics, tuple):
        got = ", ".join(type(part).__name__ for part in statistics)
    return TypeError(f"statistics: (mean, variance), two tensors, or None is expected, got {got}")


# ---- the operator: schemas, shape functions, gradient formulas ----


def _result_like(input: Tensor) -> Tensor:
    if input.is_contiguous() or input.movedim(1, -1).is_contiguous():
        return torch.empty_like(input)
    return torch.empty_like(input, memory_format=torch.contiguous_format)


def _fake(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None, bias: Tensor | None,
    batch_mean: Tensor | None, batch_var: Tensor | None, training: bool, momentum: float, eps: float, activation: int,
    slope: float, order: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    def of_channels(like: Tensor | None) -> Tensor:
        return input.new_empty(0) if like is None or not training else torch.empty_like(like)

    mean, invstd = (input.new_empty(input.shape[1], dtype=torch.float64) for _ in range(2))
    return _result_like(input), mean, invstd, of_channels(running_mean), of_channels(running_var)


def _fake_backward(
    grad: Tensor, input: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, invstd: Tensor,
    training: bool, activation: int, slope: float, order: int, want_input: bool, want_parameters: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    grad_input = _result_like(input) if want_input else input.new_empty(0)
    return (grad_input, *(input.new_empty(0) if p is None or not want_parameters else torch.empty_like(p)
                          for p in (weight, bias)))  # fmt: skip


def _setup_context(ctx: Any, inputs: Any, output: tuple) -> None:
    _, mean, invstd, new_mean, new_var = output
    ctx.training, ctx.eps = inputs.training, inputs.eps
    ctx.activation, ctx.slope, ctx.order = inputs.activation, inputs.slope, inputs.order
    ctx.mark_non_differentiable(mean, invstd, new_mean, new_var)
    ctx.save_for_backward(inputs.input, inputs.weight, inputs.bias, mean, invstd)
    ctx.set_materialize_grads(False)


def _backward(call: Callable, ctx: Any, grad: Tensor | None, *_: None) -> dict[str, Tensor | None]:
    """Gradients of y with respect to input, weight and bias."""
    input, weight, bias, mean, invstd = ctx.saved_tensors  # once: activation checkpointing allows no second look
    mean, invstd = mean.double(), invstd.double()  # somebody's hooks may have saved them as something smaller
    wanted = [ctx.needs_input_grad[i] for i in (0, 3, 4)]  # in the order of the schema
    if grad is None:
        return {}
    if torch.is_grad_enabled():  # a second derivative was asked for
        grads = _differentiable_grads(ctx, grad, (input, weight, bias), mean, invstd, wanted)
    else:
        found = call(
            "norm_act_backward", grad, input, weight, bias, mean, invstd, ctx.training, ctx.activation, ctx.slope,
            ctx.order, wanted[0], wanted[1] or wanted[2],
        )  # fmt: skip
        grads = [g if wish else None for g, wish in zip(found, wanted, strict=True)]
    return dict(zip(("input", "weight", "bias"), grads, strict=True))


def _differentiable_grads(
    ctx: Any, grad: Tensor, operands: tuple[Any, ...], mean: Tensor, invstd: Tensor, wanted: list[bool]
) -> list[Tensor | None]:
    """The gradients by the reference, as functions of grad and the operands that can be differentiated again."""
    # Views, so that one operand's gradient does not run on into another that it was computed from.
    twins: list[Any] = [None if operand is None else operand.view_as(operand) for operand in operands]
    input, weight, bias = twins
    dtype = next((p.dtype for p in (weight, bias) if p is not None), input.dtype)
    statistics = (None, None) if ctx.training else (mean.to(dtype), (invstd**-2 - ctx.eps).to(dtype))
    activation = ACTIVATIONS[ctx.activation]
    y = reference(
        input, *statistics, weight, bias, training=ctx.training, eps=ctx.eps, activation=activation,
        slope=ctx.slope if activation in DEFAULT_SLOPE else None, order=ORDERS[ctx.order],
    )  # fmt: skip
    chosen = [operand for operand, wish in zip((input, weight, bias), wanted, strict=True) if wish]
    found = iter(torch.autograd.grad(y, chosen, grad, create_graph=True))
    return [next(found) if wish else None for wish in wanted]


_operator = Operator(
    "norm_act",
    {
        "norm_act": Definition(
            "(Tensor input, Tensor? running_mean, Tensor? running_var, Tensor? weight, Tensor? bias,"
            " Tensor? batch_mean, Tensor? batch_var, bool training, float momentum, float eps, int activation,"
            " float slope, int order) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
            _fake,
            _setup_context,
            _backward,
        ),
        "norm_act_backward": Definition(
            "(Tensor grad, Tensor input, Tensor? weight, Tensor? bias, Tensor mean, Tensor invstd, bool training,"
            " int activation, float slope, int order, bool want_input, bool want_parameters)"
            " -> (Tensor, Tensor, Tensor)",
            _fake_backward,
        ),
    },
    backends=("cuda", "triton", "cpp", "reference"),
    unless=f"below {LEAST_ELEMENTS} elements, {LEAST_ELEMENTS_TRAINING} with a gradient",
    measured=True,
)
