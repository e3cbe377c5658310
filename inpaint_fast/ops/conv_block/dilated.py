"""The dilated-convolution block: a 3x3 convolution of any dilation and its epilogue, in one pass.

On the CPU it is Winograd's F(4x4, 3x3) on the phases of the map (csrc/conv_block says how): 4 times fewer
multiplications than the definition, at every dilation; on large maps that are channels_last F(6x6, 3x3), up to 5 times
fewer. Where that does not pay (`plan` tells), and for `precision="exact"`, PyTorch's own convolution runs. Source of
the method: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (2016).

On a GPU it is an implicit matrix product (kernels/conv_block), where fastest.csv or the caller says so, and otherwise
PyTorch's convolution, then the epilogue.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inpaint_fast import _extension
from inpaint_fast._layout import is_channels_last
from inpaint_fast.ops._dispatch import check_name
from inpaint_fast.ops._plans import Facts, check_tensor, check_tensors, facts
from inpaint_fast.ops.conv_block import choice
from inpaint_fast.ops.conv_block.call import call, plan_of
from inpaint_fast.ops.conv_block.chain import with_statistics
from inpaint_fast.ops.conv_block.definition import OPERATORS, transformed_numel
from inpaint_fast.ops.conv_block.geometry import DILATED, Geometry, Size
from inpaint_fast.ops.conv_block.plan import Epilogue, products


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
            PyTorch's convolution does (torch.backends.cudnn). Where INPAINT_FAST_AMX=1 asks for it, Winograd's products
            are those of AMX, which round less. "exact" always takes the direct convolution, "cuda" and "triton" in
            float32.
        backend: "cuda", "triton", "cpp" or "reference"; None takes the fastest that is there, on a GPU by measurements
            on GPUs of its kind (`inpaint-fast info` says which).

    Returns:
        (N, C_out, H + 2 * (padding - dilation), W + 2 * (padding - dilation)), dtype of input, or autocast's.

    Raises:
        TypeError: a dtype is not one of these, dtypes or devices differ, or something is no tensor.
        ValueError: shapes do not fit, or an argument has no such value.
        BackendError: the backend that was asked for cannot run here.

    Gradients are defined for every tensor, to any order. On a CPU bfloat16 and float16 are computed by PyTorch
    where the processor's instructions for them are the faster, in float32 elsewhere and where "cpp" is asked for;
    on a GPU they are computed as they are, with sums in float32. float64
    is computed by PyTorch. Under `torch.autocast` dtypes may be mixed, and the result has autocast's, as with
    F.conv2d. Under the transforms of `torch.func` and forward-mode differentiation the reference runs.
    Deterministic, for any number of threads.

    A NaN or an infinity in the input makes every result NaN or infinite that it reaches by the definition, and may make
    others of the same tile of 4x4 or 6x6 pixels NaN: those up to 5 dilations away. Weights are transformed at every
    call, unless `inpaint_fast.ops.prepare(weight)` promises that they change only in ways that PyTorch can see.
    """
    epilogue = Epilogue(activation, slope, order)
    return call(DILATED, (dilation, padding), input, weight, bias, scale, shift, epilogue, precision, backend)


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
    epilogue = Epilogue(activation, slope, order)
    tensors = {"input": input, "weight": weight, "bias": bias}
    found = plan_of(DILATED, (dilation, padding), tensors, epilogue, precision, backend)
    if found.algorithm != "implicit_gemm":
        alone = plan_of(DILATED, (dilation, padding), tensors, Epilogue(), precision, backend)
        return alone(input, weight, bias, None, None, None), None
    run, found = with_statistics(found, epilogue)
    y, mean, var = run(*found.converted(input, weight, bias), *found.settings)
    return y, (mean, var)


@dataclass(frozen=True)
class Plan:
    """What `precision="fast"` does for one shape, and the memory it takes besides its tensors."""

    algorithm: str
    """"winograd" (the CPU's), "implicit_gemm" (Triton's and CUDA's), or "direct" (PyTorch's own convolution)."""
    workspace_bytes: int
    """Of each thread of the CPU; kept from call to call."""
    transformed_bytes: int
    """Of the transformed weights; kept under the promise of inference, otherwise for one call."""


def plan(
    input: Tensor,
    weight: Tensor,
    *,
    dilation: Size = 1,
    padding: Size | None = None,
    training: bool = False,
    kept: bool = False,
    backend: str | None = None,
) -> Plan:
    """What `dilated_block` will do with these tensors; they may be on the meta device. Arguments as there.

    Args:
        training: a gradient is wanted, so that weights are transformed twice at every call.
        kept: the weight is kept transformed (`inpaint_fast.ops.prepare`, `accelerate(net.eval(), inference=True)`).
        backend: None takes the one that runs on the input's device, for tensors on the meta device "cpp".

    Raises:
        TypeError, ValueError: as `dilated_block`.
    """
    geometry = Geometry.of(dilation, padding)
    for name, value in (("training", training), ("kept", kept)):
        if not isinstance(value, bool):
            raise TypeError(f"{name}: True or False is expected, got {value!r}")
    check_tensor("input", input)
    check_tensor("weight", weight)
    check_tensors(input=input, weight=weight)
    known = of_input, of_weight = Facts.all_of((facts(input), facts(weight)))
    DILATED.check(of_input, of_weight, geometry, None)
    unasked = check_name(backend) is None
    if unasked:
        kind, size = "training" if training else "inference", products(DILATED, geometry, *known)
        backend = OPERATORS[DILATED].choose(input.device, None, kind, size) if input.is_cuda else "cpp"
    if backend in ("cuda", "triton") and input.dtype != torch.float64:
        return Plan("implicit_gemm", 0, weight.numel() * weight.element_size())
    if backend != "cpp" or _extension.module is None:
        return Plan("direct", 0, 0)
    if choice.algorithm(DILATED, geometry, input.dtype, input.shape, weight.shape, training, kept, unasked) == "direct":
        return Plan("direct", 0, 0)
    last = is_channels_last(input)
    tile, amx = choice.tile(DILATED, geometry, input.shape, weight.shape, last, kept), choice.takes_amx(None)
    workspace = _extension.module.dilated_block_workspace(
        *input.shape[:2], weight.shape[0], *DILATED.size(input.shape, weight.shape, geometry), *geometry.dilation,
        last, tile, amx,
    )  # fmt: skip
    numel = transformed_numel(DILATED, weight.shape, tile, amx)
    return Plan("winograd", workspace, (2 if amx else 4) * numel)
