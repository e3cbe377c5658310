"""Convolution, batch normalisation and activation as one function: what modules call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inpaint_fast._words import ACTIVATIONS, check_activation
from inpaint_fast.ops._dispatch import elsewhere
from inpaint_fast.ops._plans import Facts, facts, planned, wants_grad
from inpaint_fast.ops._torch_private import autocast_dtype
from inpaint_fast.ops.conv_block.definition import OPERATORS
from inpaint_fast.ops.conv_block.geometry import Block, Geometry
from inpaint_fast.ops.conv_block.kept import Kept
from inpaint_fast.ops.conv_block.plan import (
    Circumstances,
    Convolution,
    Epilogue,
    Tensors,
    allows_tf32,
    plan_convolution,
)
from inpaint_fast.ops.norm_act import Normalisation, plan_norm


class Norm(NamedTuple):
    """A batch normalisation: its tensors, (C,) or None, and its settings.

    Attributes:
        tracked: the counter of minibatches, by which a change of the running statistics is seen.
        batch: normalise by the statistics of this batch; otherwise by the running ones.
        updates: update these.
        momentum: the share of this batch in the updated running statistics.
    """

    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    tracked: Tensor | None
    batch: bool
    updates: bool
    momentum: float
    eps: float

    def scale_and_shift(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The normalisation by the running statistics as scale * x + shift, computed in float32 or better."""
        wide = torch.promote_types(self.running_var.dtype, torch.float32)
        scale = (self.running_var.to(wide) + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        shift = -scale * self.running_mean
        if self.bias is not None:
            shift = shift + self.bias
        return scale.to(dtype), shift.to(dtype)


@dataclass(frozen=True)
class Chain:
    """How a chain runs.

    Attributes:
        convolution: its plan; with the activation, where that is computed with it.
        folded: "kernel": the normalisation is scale and shift in the convolution's kernel; "weights": it is in the
            weights of PyTorch's convolution, which are kept; "": it is neither.
        normalisation: how it runs after the convolution; None: it does not.
        statistics: the registered operator that convolves and finds the statistics of its result.
    """

    convolution: Convolution
    folded: str = ""
    normalisation: Normalisation | None = None
    statistics: Callable | None = None

    def __call__(
        self, input: Tensor, weight: Tensor, bias: Tensor | None, norm: Norm | None, kept: Kept | None
    ) -> Tensor:
        convolution, found = self.convolution, None
        if self.folded == "weights":
            tensors = weight, bias, *norm[:5]
            weight, bias = kept.get(("weights", norm.eps), tensors, lambda: self._folded_weights(weight, bias, norm))
            return convolution(input, weight, bias, None, None, None)
        if self.folded:
            dtype = convolution.compute or convolution.result
            make = partial(norm.scale_and_shift, dtype)
            scale, shift = make() if kept is None else kept.get((dtype, norm.eps), norm[:5], make)
            return convolution(input, weight, bias, scale, shift, kept)
        if self.statistics is not None:
            y, *found = self.statistics(*convolution.converted(input, weight, bias), *convolution.settings)
        elif convolution.algorithm == "plain":
            y = convolution.activate(convolution.convolve(input, weight, bias))
        else:
            y = convolution(input, weight, bias, None, None, kept)
        if self.normalisation is None:
            return y
        mean, var, scale, shift, _, batch, updates, momentum, eps = norm
        if batch and not updates:
            mean = var = None
        return self.normalisation(y, mean, var, scale, shift, momentum, eps, found)

    def _folded_weights(self, weight: Tensor, bias: Tensor | None, norm: Norm) -> tuple[Tensor, Tensor]:
        scale, shift = norm.scale_and_shift(weight.dtype)
        out = [1, -1, 1, 1] if self.convolution.block.transposed else [-1, 1, 1, 1]
        return weight * scale.view(out), shift if bias is None else torch.addcmul(shift, bias, scale)


def conv_norm_act(
    block: Block,
    geometry: Geometry,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm: Norm | None,
    epilogue: Epilogue,
    precision: str,
    kept: Kept | None,
) -> Tensor:
    """A convolution, and the normalisation and activation after it.

    Args:
        norm: None: without one.
        epilogue: the activation, and the order of the two.
        precision: as in `dilated_block`.
        kept: where to keep what is derived of weight, bias and norm while they do not change; None: nowhere.

    Raises:
        As `dilated_block`, `strided_block`, `transposed_block` and `norm_act`.
    """
    gradient = torch.is_grad_enabled() and (
        input.requires_grad or weight.requires_grad or wants_grad(bias) or (norm is not None and wants_grad(*norm[2:4]))
    )
    plan = _plan(
        block, geometry, epilogue, facts(input), facts(weight), facts(bias),
        None if norm is None else (norm[5], norm[6], norm[8] > 0), kept is not None, precision, gradient,
        autocast_dtype(input.device), allows_tf32(input), elsewhere(),
    )  # fmt: skip
    return plan(input, weight, bias, norm, kept)


@planned
def _plan(
    block: Block,
    geometry: Geometry,
    epilogue: Epilogue,
    input: tuple,
    weight: tuple,
    bias: tuple | None,
    norm: tuple[bool, bool, bool] | None,
    keeps: bool,
    precision: str,
    gradient: bool,
    *rest: Any,
) -> Chain:
    """How `conv_norm_act` runs.

    Args:
        input, weight, bias: their `facts`.
        norm: its `batch`, `updates`, and whether eps is above 0.
        keeps: what is derived of parameters may be kept.
        rest: as in `Circumstances`.
    """
    tensors, circumstances = Tensors(input, weight, bias), Circumstances(precision, None, gradient, *rest)
    whole = plan_convolution(block, geometry, epilogue, tensors, circumstances)
    if norm is None:
        return Chain(whole)
    batch, _, positive = norm
    if not batch and not gradient:
        if whole.is_ours:
            return Chain(whole, folded="kernel")
        exact = whole.result in (torch.float32, torch.float64) and circumstances.autocast is None
        if keeps and exact and whole.algorithm == "plain" and epilogue.order == "norm_act":
            return Chain(whole, folded="weights")
    alone = plan_convolution(block, geometry, Epilogue(), tensors, circumstances)
    pictures, weights = Facts.all_of((input, weight))
    size = block.size(pictures.shape, weights.shape, geometry)
    shape = torch.Size((pictures.shape[0], block.channels(weights.shape)[1], *size))
    if batch and shape[0] * shape[2] * shape[3] == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {shape}")
    # On a GPU PyTorch's normalisation follows its convolution: no measurement stands behind another choice.
    plain = not positive or (pictures.device.type == "cuda" and not alone.is_ours)
    backend = "reference" if plain else None
    normalisation = plan_norm(shape, pictures.device, batch, epilogue, backend, gradient, circumstances.elsewhere)
    statistics = None
    if batch and alone.algorithm == "implicit_gemm":
        statistics, alone = with_statistics(alone, epilogue)
    return Chain(alone, normalisation=normalisation, statistics=statistics)


def with_statistics(convolution: Convolution, epilogue: Epilogue) -> tuple[Callable, Convolution]:
    """The operator that finds, besides, the statistics of its result (before or after the activation), and the plan
    with that operator's settings."""
    activation = epilogue.activation if epilogue.order == "act_norm" else "none"
    geometry, *_, channels_last, tf32 = convolution.settings
    settings = geometry, ACTIVATIONS.index(activation), check_activation(*epilogue), channels_last, tf32
    name = f"{convolution.block.stem}_statistics"
    run = OPERATORS[convolution.block].entry(convolution.backend, name, convolution.gradient)
    return run, replace(convolution, settings=settings)
