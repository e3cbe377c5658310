"""Convolution, batch normalisation and activation as one function: what modules call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, is_grad_enabled
from torch.autograd.graph import saved_tensors_hooks
from torch.compiler import is_compiling
from torch.nn import functional as F

from inpaint_fast._words import ACTIVATIONS, check_activation
from inpaint_fast.ops._dispatch import elsewhere
from inpaint_fast.ops._plans import facts, wants_grad
from inpaint_fast.ops._torch_private import autocast_dtype, is_autocast_enabled, is_ordinary
from inpaint_fast.ops.conv_block import blocking, choice
from inpaint_fast.ops.conv_block.definition import OPERATORS
from inpaint_fast.ops.conv_block.geometry import Block, Border, Geometry
from inpaint_fast.ops.conv_block.kept import Kept
from inpaint_fast.ops.conv_block.plan import (
    Circumstances,
    Convolution,
    Epilogue,
    Tensors,
    allows_tf32,
    no_run,
    plan_convolution,
)
from inpaint_fast.ops.conv_block.tuning import Measured, Tuning, race
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
        mean, var = self.running_mean, self.running_var
        assert mean is not None and var is not None  # that is asked where a norm is planned
        wide = torch.promote_types(var.dtype, torch.float32)
        scale = (var.to(wide) + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        shift = -scale * mean
        if self.bias is not None:
            shift = shift + self.bias
        return scale.to(dtype), shift.to(dtype)


# Elements of a result: to ask whether all seven tensors are those that a norm was folded from takes as long as a pass.
LEAST_FOLDED = 1 << 17

# With or without a `Norm`, and with or without what is kept: what a plan is for is part of its key.
Run = Callable[[Tensor, Tensor, "Tensor | None", Any, Any], Tensor]


@final
class ConvNormAct:
    """A convolution, and the normalisation and activation after it, with settings that stay.

    `layer(input, weight, bias, norm, kept)` plans a call for each kind of arguments once. What is derived of weight,
    bias and norm is put into `kept` while they do not change; None: it lives for one call.

    Args:
        block, geometry: the convolution.
        epilogue: the activation, and which of the two comes first.
        precision: as in `dilated_block`.
        tuning: measure for each kind of arguments whether our kernel (with AMX, if it may be used) or PyTorch's
            operators are the fastest, and keep it there. None: what was measured elsewhere decides.
        border: what is put round the input first.

    Raises:
        As `dilated_block`, `strided_block`, `transposed_block` and `norm_act`, by the call.
    """

    MOST = 64  # plans that are kept

    def plain_run(self, input: Tensor) -> Run | None:
        """How the last call ran, if it was on such an input and by PyTorch's own operators, one after the other: where
        gradients are recorded, in a way that has some."""
        key, run = self._last
        if not getattr(run, "is_plain", False) or key[0] != input.shape or self.border is not None:
            return None
        return run if (key[2], key[3], key[10]) == (input.dtype, input.device, is_grad_enabled()) else None

    def __init__(
        self, block: Block, geometry: Geometry, epilogue: Epilogue, precision: str, tuning: Tuning | None = None,
        border: Border | None = None,
    ) -> None:  # fmt: skip
        self.settings, self.tuning, self.border = (block, geometry, epilogue, precision), tuning, border
        self._plans: dict[tuple, Run] = {}
        self._last: tuple[tuple, Run] = (), no_run  # a comparison costs less than a hash

    def __call__(
        self, input: Tensor, weight: Tensor, bias: Tensor | None, norm: Norm | None, kept: Kept | None
    ) -> Tensor:
        if self.border is not None:
            input = F.pad(input, self.border.widths, self.border.mode)
        gradient = is_grad_enabled() and (
            input.requires_grad
            or weight.requires_grad
            or (bias is not None and bias.requires_grad)
            or (norm is not None and wants_grad(norm.weight, norm.bias))
        )
        # Kernels check the rest (and all of this) again.
        key = (
            input.shape, input.stride(), input.dtype, input.device, weight.shape, weight.stride(), weight.dtype,
            bias is None, None if norm is None else (norm.batch, norm.updates, norm.eps > 0), kept is None, gradient,
            is_autocast_enabled() and autocast_dtype(input.device), input.is_cuda and allows_tf32(), elsewhere(),
        )  # fmt: skip
        if type(input) is not Tensor or is_compiling():  # sizes may be symbols
            return self._plan(input, weight, bias, key)(input, weight, bias, norm, kept)
        last, run = self._last
        if last != key:
            run = self._plans.get(key)
            if run is None:
                if self.tuning is not None and not is_ordinary(input, weight, bias):
                    return self._plan(input, weight, bias, key)(input, weight, bias, norm, kept)
                if len(self._plans) >= self.MOST:
                    self._plans.clear()
                made = self._plan(input, weight, bias, key) if self.tuning is None else self._faster(
                    input, weight, bias, norm, kept, key
                )  # fmt: skip
                run = self._plans[key] = made
            self._last = key, run
        return run(input, weight, bias, norm, kept)

    def _faster(
        self, input: Tensor, weight: Tensor, bias: Tensor | None, norm: Norm | None, kept: Kept | None, key: tuple
    ) -> Run:
        """How a call with this key runs fastest, measured now."""
        tuning = self.tuning
        assert tuning is not None  # or nothing is measured
        circumstances, tensors = self._circumstances(key, "ours"), Tensors(facts(input), facts(weight), facts(bias))
        asked = not circumstances.unasked
        if asked or not plan_convolution(*self.settings[:3], tensors, circumstances).is_ours:
            return self._plan(input, weight, bias, key)  # there is no choice
        kind = self.settings, key
        if kind not in tuning.measured:
            if input.device.type == "cpu":
                blocking.fit()
            trials = []
            for way in choice.ways():
                run = self._plan(input, weight, bias, key, way)
                trials.append(_trial(run, input, weight, bias, norm, kept, circumstances.gradient))
            tuning.measured[kind] = Measured(input.shape, *race(trials, input))
        return self._plan(input, weight, bias, key, tuning.measured[kind].way)

    def _circumstances(self, key: tuple, way: str | None) -> Circumstances:
        _, keeps_nothing, gradient, autocast, *rest = key[-6:]
        return Circumstances(self.settings[3], None, gradient, not keeps_nothing, autocast or None, *rest, way=way)

    def _plan(self, input: Tensor, weight: Tensor, bias: Tensor | None, key: tuple, way: str | None = None) -> Run:
        """How a call with this key runs; way: of `Circumstances`."""
        block, geometry, epilogue, _ = self.settings
        norm, keeps_nothing, gradient, autocast, *_ = key[-6:]
        circumstances = self._circumstances(key, way)
        tensors = Tensors(facts(input), facts(weight), facts(bias))
        whole = plan_convolution(block, geometry, epilogue, tensors, circumstances)
        if norm is None:
            return _convolution(whole)
        batch, updates, positive = norm
        if not batch and not gradient and whole.is_ours:
            return _in_the_kernel(whole)
        size = block.size(input.shape, weight.shape, geometry)
        shape = torch.Size((input.shape[0], block.channels(weight.shape)[1], *size))
        if not (keeps_nothing or batch or gradient or autocast) and shape.numel() >= LEAST_FOLDED:
            exact = whole.is_separate and whole.result in (torch.float32, torch.float64)
            if exact and epilogue.order == "norm_act":
                return _in_the_weights(whole)
        alone = plan_convolution(block, geometry, Epilogue(), tensors, circumstances)
        if batch and shape[0] * shape[2] * shape[3] == 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {shape}")
        # On a GPU PyTorch's normalisation follows its convolution: no measurement stands behind another choice.
        plain = not positive or (input.is_cuda and not alone.is_ours)
        normalise = plan_norm(
            shape, input.device, batch, epilogue, "reference" if plain else None, circumstances.gradient,
            circumstances.elsewhere,
        )  # fmt: skip
        if batch and alone.algorithm == "implicit_gemm":
            return _with_statistics(alone, epilogue, normalise, not updates)
        return _one_by_one(alone, normalise, batch and not updates)


def _trial(
    run: Run, input: Tensor, weight: Tensor, bias: Tensor | None, norm: Norm | None, kept: Kept | None, gradient: bool
) -> Callable[[], object]:
    """A call like this one that leaves nothing behind, with its gradients where these are wanted."""

    if norm is not None and norm.updates:
        mean, var = norm.running_mean, norm.running_var
        norm = norm._replace(
            running_mean=None if mean is None else mean.clone(), running_var=None if var is None else var.clone()
        )
    if not gradient:
        kept = None if kept is None else Kept()
        return lambda: run(input, weight, bias, norm, kept)

    def leaf(tensor: Any) -> Any:
        return None if tensor is None else tensor.detach().requires_grad_(tensor.requires_grad)

    x, w, b = leaf(input), leaf(weight), leaf(bias)
    if norm is not None:
        norm = norm._replace(weight=leaf(norm.weight), bias=leaf(norm.bias))
    leaves = [t for t in (x, w, b, *(() if norm is None else norm[2:4])) if t is not None and t.requires_grad]

    def there_and_back() -> object:
        with saved_tensors_hooks(lambda saved: saved, lambda saved: saved):  # not those of activation checkpointing
            y = run(x, w, b, norm, None)
        return torch.autograd.grad(y, leaves, torch.ones_like(y))

    return there_and_back


# ---- the ways to run ----


def _convolution(plan: Convolution) -> Run:
    """No normalisation."""

    def run(input: Tensor, weight: Tensor, bias: Tensor | None, norm: None, kept: Kept | None) -> Tensor:
        return plan(input, weight, bias, None, None, kept)

    run.is_plain = plan.algorithm == "plain"  # pyright: ignore[reportFunctionMemberAccess]  (plain_run asks for it)
    return run


def _one_by_one(plan: Convolution, normalise: Normalisation, hides: bool) -> Run:
    """The convolution, then normalisation and activation. hides: the running statistics are not to be updated."""
    convolve = plan.convolve if plan.is_separate else lambda x, w, b: plan(x, w, b, None, None, None)

    def run(input: Tensor, weight: Tensor, bias: Tensor | None, norm: Norm, kept: Kept | None) -> Tensor:
        mean, var, scale, shift, _, _, _, momentum, eps = norm
        if hides:
            mean = var = None
        return normalise(convolve(input, weight, bias), mean, var, scale, shift, momentum, eps)

    plain = plan.algorithm == "plain" and getattr(normalise, "is_plain", False)
    run.is_plain = plain  # pyright: ignore[reportFunctionMemberAccess]  (plain_run asks for it)
    return run


def _with_statistics(plan: Convolution, epilogue: Epilogue, normalise: Normalisation, hides: bool) -> Run:
    """The convolution's kernel finds what the normalisation needs."""
    find, plan = with_statistics(plan, epilogue)

    def run(input: Tensor, weight: Tensor, bias: Tensor | None, norm: Norm, kept: Kept | None) -> Tensor:
        mean, var, scale, shift, _, _, _, momentum, eps = norm
        if hides:
            mean = var = None
        y, *found = find(*plan.converted(input, weight, bias), *plan.settings)
        return normalise(y, mean, var, scale, shift, momentum, eps, tuple(found))

    return run


def _in_the_kernel(plan: Convolution) -> Run:
    """The normalisation by running statistics as scale and shift of the convolution's kernel."""
    dtype = plan.compute or plan.result

    def run(input: Tensor, weight: Tensor, bias: Tensor | None, norm: Norm, kept: Kept | None) -> Tensor:
        if kept is None:
            scale, shift = norm.scale_and_shift(dtype)
        else:
            scale, shift = kept.get((dtype, norm.eps), norm[:5], lambda: norm.scale_and_shift(dtype))
        return plan(input, weight, bias, scale, shift, kept)

    return run


def _in_the_weights(plan: Convolution) -> Run:
    """The normalisation by running statistics within the weights of PyTorch's convolution, which are kept.

    For results of some size: to see whether all seven tensors are still the same takes longer than a small pass.
    """
    out = [1, -1, 1, 1] if plan.block.transposed else [-1, 1, 1, 1]

    def folded(weight: Tensor, bias: Tensor | None, norm: Norm) -> tuple[Tensor, Tensor]:
        scale, shift = norm.scale_and_shift(weight.dtype)
        return weight * scale.view(out), shift if bias is None else torch.addcmul(shift, bias, scale)

    def run(input: Tensor, weight: Tensor, bias: Tensor | None, norm: Norm, kept: Kept) -> Tensor:
        tensors = (weight, bias, *norm[:5])
        weights = kept.get(("weights", norm.eps), tensors, lambda: folded(weight, bias, norm))
        return plan.activate(plan.convolve(input, *weights))

    return run


def with_statistics(convolution: Convolution, epilogue: Epilogue) -> tuple[Callable, Convolution]:
    """The operator that finds, besides, the statistics of its result (before or after the activation), and the plan
    with that operator's settings."""
    activation = epilogue.activation if epilogue.order == "act_norm" else "none"
    *_, channels_last, matrix_units = convolution.settings
    settings = ACTIVATIONS.index(activation), check_activation(*epilogue), channels_last, matrix_units
    if convolution.block.stride == 1:
        settings = convolution.geometry, *settings
    name = f"{convolution.block.stem}_statistics"
    run = OPERATORS[convolution.block].entry(convolution.backend, name, convolution.gradient)
    return run, replace(convolution, settings=settings)
