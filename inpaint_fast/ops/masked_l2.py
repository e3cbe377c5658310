"""Masked L2: weight / denominator * sum(mask * (pred - target)^2), forward and gradient in one pass.

The reconstruction loss of every system here: Pathak et al., Context Encoders (2016), eq. 1; Iizuka et al., GLCIC
(2017), eq. 2; on the hole's own pixels alone (no mask) the squared error of the WGAN projects.

The forward pass leaves the gradient with respect to pred ready, so that forward and backward together read pred, target
and mask once and write the gradient once. It is handed out once; a second backward through the same graph, a
second derivative and float16 (where an unscaled gradient would underflow) compute it anew from pred and target.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from inpaint_fast._words import REDUCTIONS, check_number, check_word
from inpaint_fast.ops._dispatch import Definition, Operator, elsewhere
from inpaint_fast.ops._plans import Facts, check_dtype, check_place, check_tensor, check_tensors, facts, planned
from inpaint_fast.ops._torch_private import autocast_dtype, is_several

MAX_DIMS = 5


# ---- the reference: what "correct" means ----


def reference(
    pred: Tensor, target: Tensor, mask: Tensor | None = None, *, weight: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """`masked_l2` in plain PyTorch, in float32 or better; any device, any derivative."""
    wide = torch.float64 if pred.dtype == torch.float64 else torch.float32
    difference = pred.to(wide) - target.to(wide)
    mask = torch.ones_like(difference) if mask is None else mask.to(wide).expand_as(difference)
    total = (mask * difference.square()).sum()
    if reduction == "sum":
        return weight * total
    if reduction == "mean":
        return weight * total / pred.numel() if pred.numel() else total / 0
    count = mask.sum()
    return weight * total / torch.where(count == 0, 1, count)


def reference_composite(
    pred: Tensor, image: Tensor, mask: Tensor, *, weight: float = 1.0, reduction: str = "mean"
) -> tuple[Tensor, Tensor]:
    """`masked_l2_composite` in plain PyTorch."""
    soft = mask.to(torch.promote_types(pred.dtype, torch.float32))
    composite = (image * (1 - soft) + pred * soft).to(pred.dtype)
    return reference(pred, image, mask, weight=weight, reduction=reduction), composite


# ---- the public functions ----


def masked_l2(
    pred: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    weight: float = 1.0,
    reduction: str = "mean",
    backend: str | None = None,
) -> Tensor:
    """Squared error inside the hole.

    Equivalent to `weight * (mask * (pred - target) ** 2).sum() / denominator`; for a mask of zeros and ones and
    `reduction="mean"` that is `weight * F.mse_loss(pred * mask, target * mask)`.

    Args:
        pred: (N, C, H, W), or 1 to 5 dimensions; float32, float64, float16 or bfloat16; any strides.
        target: shape, dtype and device of pred.
        mask: 1 marks the hole. pred's number of dimensions, each its size or 1: (N|1, C|1, H, W). bool, uint8
            or floating point. Values are factors: a soft mask weighs, 255 counts 255 times, NaN gives NaN; nothing is
            cut at half (`inpaint_fast.data.hole_of` does that). None: the whole picture.
        weight: factor of the loss (a recipe's lambda), folded into the gradient at no cost.
        reduction: what the sum is divided by: "sum" 1, "mean" pred.numel(), "mask_mean" the sum of the mask
            broadcast to pred (the loss is 0 where that is 0).
        backend: "cuda", "triton", "cpp" or "reference"; None takes the fastest that is there.

    Returns:
        The loss, a scalar: float64 for float64, otherwise float32 (a float16 sum would overflow). An empty mean is NaN.

    Raises:
        TypeError: a dtype is not one of these, dtypes or devices differ, or something is no tensor.
        ValueError: shapes do not fit, the mask asks for a gradient, or an argument has no such value.
        BackendError: the backend that was asked for cannot run here.

    Gradients are defined for pred and target, to any order. Under `torch.autocast` mixed dtypes of
    float16, bfloat16 and float32 are computed in float32. Under the transforms of `torch.func` and forward-mode
    differentiation the reference runs, and a backend asked for by name is refused. NaN in a tensor gives NaN, as in
    PyTorch.
    """
    plan = _plan_of("masked_l2", pred, target, mask, weight, reduction, backend)
    pred, target, mask = plan.converted(pred, target, mask)
    try:
        if plan.run is None:
            return reference(pred, target, mask, weight=weight, reduction=reduction)
        found = plan.run(pred, target, mask, float(weight), REDUCTIONS.index(reduction), plan.want_grad)
    except RuntimeError:
        check_tensors(pred=pred, target=target, mask=mask)  # some that are not dense have strides, and a plan
        raise
    return found if isinstance(found, Tensor) else found[0]


def masked_l2_composite(
    pred: Tensor,
    image: Tensor,
    mask: Tensor,
    *,
    weight: float = 1.0,
    reduction: str = "mean",
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """`masked_l2(pred, image, mask)` and the completed picture, from one pass.

    Equivalent to `masked_l2(pred, image, mask, ...), image * (1 - mask) + pred * mask`: the loss, and the picture that
    a critic is shown. Errors are those of `masked_l2`, and a TypeError without a mask.

    Args:
        pred, image: as pred and target of `masked_l2`.
        mask: as there, and required.
        weight, reduction, backend: as there; of the loss.

    Returns:
        (loss, composite): a scalar, and a picture of pred's shape and dtype (float32 for mixed dtypes under autocast).
        Both carry gradients to pred and image. On the CPU a picture of 4 MB or more cannot be resized in place: its
        memory is kept for the next one.
    """
    if mask is None:  # pyright: ignore[reportUnnecessaryComparison]  (for callers without types)
        raise TypeError("mask: a tensor is expected, got None (without a hole there is nothing to composite)")
    plan = _plan_of("masked_l2_composite", pred, image, mask, weight, reduction, backend)
    pred, image, mask = plan.converted(pred, image, mask)
    try:
        if plan.run is None:
            return reference_composite(pred, image, mask, weight=weight, reduction=reduction)
        return plan.run(pred, image, mask, float(weight), REDUCTIONS.index(reduction), plan.want_grad)[:2]
    except RuntimeError:
        check_tensors(pred=pred, image=image, mask=mask)
        raise


# ---- the plan ----


@dataclass(frozen=True)
class Plan:
    """How a call runs.

    Attributes:
        run: the registered operator; None: the reference.
        wide: dtypes are mixed, and pred and target are computed in float32.
        mask: the dtype that the mask is converted to; None: as it is.
        want_grad: the forward pass leaves the gradient ready.
    """

    run: Callable | None
    wide: bool
    mask: torch.dtype | None
    want_grad: bool

    def converted(self, pred: Tensor, target: Tensor, mask: Any) -> tuple[Tensor, Tensor, Any]:
        """The tensors as the operator takes them."""
        if self.wide:
            pred, target = pred.float(), target.float()  # as PyTorch's own losses do under autocast
        return pred, target, mask if self.mask is None else mask.to(self.mask)


def _plan_of(
    name: str, pred: Tensor, target: Tensor, mask: Tensor | None, weight: float, reduction: str, backend: str | None
) -> Plan:
    check_number("weight", weight)
    try:
        if mask is not None and mask.requires_grad and torch.is_grad_enabled():
            raise ValueError("mask: it requires a gradient and none is defined for it; pass mask.detach()")
        return _plan(
            name, facts(pred), facts(target), facts(mask), reduction, backend,
            torch.is_grad_enabled() and (pred.requires_grad or target.requires_grad),
            autocast_dtype(pred.device) is not None, elsewhere(),
        )  # fmt: skip
    except (AttributeError, RuntimeError):  # of something that is no tensor, or no dense one
        check_tensor("pred", pred)
        check_tensor(_target(name), target)
        check_tensors(**{"pred": pred, _target(name): target, "mask": mask})
        raise


@planned
def _plan(
    name: str, pred: Any, target: Any, mask: Any, reduction: str, backend: str | None, gradient: bool,
    autocast: bool, _elsewhere: tuple,
) -> Plan:  # fmt: skip
    """How the operator `name` runs; or the error that names the argument that does not fit."""
    pred, target, mask = Facts.all_of((pred, target, mask))
    for argument, tensor in (("pred", pred), (_target(name), target), ("mask", mask)):
        if tensor is not None:
            check_place(argument, tensor, pred.device, "pred")
    check_word("reduction", reduction, REDUCTIONS)
    check_dtype("pred", pred)
    shape = tuple(pred.shape)
    if not 1 <= len(shape) <= MAX_DIMS:
        raise ValueError(f"pred: 1 to {MAX_DIMS} dimensions are expected, got shape {shape}")
    if target.shape != pred.shape:
        raise ValueError(f"{_target(name)}: the shape of pred, {shape}, is expected, got {tuple(target.shape)}")
    wide = target.dtype != pred.dtype
    if wide and not (autocast and {pred.dtype, target.dtype} <= {torch.float16, torch.bfloat16, torch.float32}):
        raise TypeError(f"{_target(name)}: the dtype of pred, {pred.dtype}, is expected, got {target.dtype}")
    dtype = torch.float32 if wide else pred.dtype
    chosen = _operator.choose(pred.device, backend)
    # float16: 2 * weight * difference / numel lies below its smallest number; the backward pass has the loss scale.
    want_grad = gradient and dtype != torch.float16
    run = None if chosen == "reference" else _operator.entry(chosen, name, gradient)
    return Plan(run, wide, None if mask is None else _mask_dtype(mask, shape, dtype), want_grad)


def _target(name: str) -> str:
    return "image" if name == "masked_l2_composite" else "target"


def _mask_dtype(mask: Facts, shape: tuple[int, ...], dtype: torch.dtype) -> torch.dtype | None:
    """The dtype that a mask for pictures of this shape and dtype is converted to; None: it stays."""
    if not (mask.dtype.is_floating_point or mask.dtype in (torch.bool, torch.uint8)):
        raise TypeError(f"mask: bool, uint8 or floating point is expected, got {mask.dtype}")
    if len(mask.shape) != len(shape) or any(m not in (1, p) for m, p in zip(mask.shape, shape, strict=True)):
        raise ValueError(
            f"mask: a shape that broadcasts to pred's {shape}, each size equal or 1, is expected, "
            f"got {tuple(mask.shape)}"
        )
    if not mask.dtype.is_floating_point or mask.dtype == dtype:
        return None
    return None if mask.dtype == torch.float32 and dtype != torch.float64 else dtype


# ---- the operator: schemas, shape functions, gradient formulas ----


def _loss_like(pred: Tensor) -> Tensor:
    return pred.new_empty((), dtype=torch.float64 if pred.dtype == torch.float64 else torch.float32)


def _fake(
    pred: Tensor, target: Tensor, mask: Tensor | None, weight: float, reduction: int, want_grad: bool
) -> tuple[Tensor, Tensor]:
    return _loss_like(pred), torch.empty_like(pred) if want_grad else pred.new_empty(0)


def _fake_composite(
    pred: Tensor, image: Tensor, mask: Tensor, weight: float, reduction: int, want_grad: bool
) -> tuple[Tensor, Tensor, Tensor]:
    loss, grad = _fake(pred, image, mask, weight, reduction, want_grad)
    return loss, torch.empty_like(pred), grad


def _fake_backward(
    grad_loss: Tensor, pred: Tensor, target: Tensor, mask: Tensor | None, weight: float, reduction: int
) -> Tensor:
    return torch.empty_like(pred)


def _fake_scale(grad: Tensor, scale: Tensor) -> None:
    return None


def _mask_factor(pred: Tensor, mask: Tensor | None, weight: float, reduction: int) -> Tensor | float:
    """2 * weight / denominator * mask: what (pred - target) is multiplied by in the gradient."""
    wide = None if mask is None else mask.to(_loss_like(pred).dtype)
    if REDUCTIONS[reduction] == "sum":
        denominator = 1
    elif REDUCTIONS[reduction] == "mean" or wide is None:
        denominator = max(pred.numel(), 1)
    else:
        count = wide.expand_as(pred).sum()
        denominator = torch.where(count == 0, 1, count)
    return 2 * weight / denominator * (1 if wide is None else wide)


def _setup_context(ctx: Any, inputs: Any, output: tuple) -> None:
    pred, target, mask, ctx.weight, ctx.reduction, want_grad = inputs  # "image" or "target"
    ctx.save_for_backward(pred, target, mask)
    ctx.set_materialize_grads(False)
    # Not saved as an output: it is handed out once and must not outlive that. Detached, or it would hold its own node.
    ctx.ready = output[-1].detach() if want_grad else None


def _backward(
    target_name: str, call: Callable, ctx: Any, grad_loss: Tensor | None, *grads: Tensor | None
) -> dict[str, Tensor | None]:
    """Gradients of (loss, gradient) or (loss, composite, gradient) with respect to pred and target."""
    grad_composite = None
    if target_name == "image":
        grad_composite, grads = grads[0], grads[1:]
    grad_ready = grads[0] if grads else None  # of the gradient, which eager callers do not get
    to_pred = None if grad_loss is None else _ready(call, ctx, grad_loss)
    wants_pred, wants_target, *_ = ctx.needs_input_grad
    if to_pred is not None and grad_ready is None and grad_composite is None:
        return {"pred": to_pred if wants_pred else None, target_name: -to_pred if wants_target else None}
    pred, target, mask = ctx.saved_tensors  # once: activation checkpointing allows no second look
    if to_pred is None and grad_loss is not None:
        to_pred = _loss_grad(call, ctx, grad_loss, pred, target, mask)
    if grad_ready is not None and grad_ready.numel():
        second = (_mask_factor(pred, mask, ctx.weight, ctx.reduction) * grad_ready).to(pred.dtype)
        to_pred = second if to_pred is None else to_pred + second
    to_target = -to_pred if to_pred is not None and wants_target else None
    if grad_composite is not None:
        inside = grad_composite * mask.to(pred.dtype)
        to_pred = inside if to_pred is None else to_pred + inside
        if wants_target:
            outside = grad_composite - inside
            to_target = outside if to_target is None else to_target + outside
    return {"pred": to_pred if wants_pred else None, target_name: to_target}


def _ready(call: Callable, ctx: Any, grad_loss: Tensor) -> Tensor | None:
    """grad_loss * d loss / d pred by what the forward pass left; None where it has to be found anew."""
    ready, ctx.ready = ctx.ready, None
    if ready is None or torch.is_grad_enabled():  # it was handed out, or a second derivative was asked for
        return None
    # Being traced (a compiler fuses the product into what follows), or several gradients of the loss at a time.
    if type(ready) is not Tensor or is_several(grad_loss):
        return ready * grad_loss.to(ready.dtype)
    call("masked_l2_scale_", ready, grad_loss)
    return ready


def _loss_grad(
    call: Callable, ctx: Any, grad_loss: Tensor, pred: Tensor, target: Tensor, mask: Tensor | None
) -> Tensor:
    """grad_loss * d loss / d pred, from pred and target."""
    if torch.is_grad_enabled():
        difference = pred.to(grad_loss.dtype) - target.to(grad_loss.dtype)
        return (_mask_factor(pred, mask, ctx.weight, ctx.reduction) * difference * grad_loss).to(pred.dtype)
    return call("masked_l2_backward", grad_loss, pred, target, mask, ctx.weight, ctx.reduction)


_operator = Operator(
    "masked_l2",
    {
        "masked_l2": Definition(
            "(Tensor pred, Tensor target, Tensor? mask, float weight, int reduction, bool want_grad)"
            " -> (Tensor, Tensor)",
            _fake,
            _setup_context,
            partial(_backward, "target"),
            results=1,
        ),
        "masked_l2_composite": Definition(
            "(Tensor pred, Tensor image, Tensor mask, float weight, int reduction, bool want_grad)"
            " -> (Tensor, Tensor, Tensor)",
            _fake_composite,
            _setup_context,
            partial(_backward, "image"),
            results=2,
        ),
        "masked_l2_backward": Definition(
            "(Tensor grad_loss, Tensor pred, Tensor target, Tensor? mask, float weight, int reduction) -> Tensor",
            _fake_backward,
        ),
        "masked_l2_scale_": Definition("(Tensor(a!) grad, Tensor scale) -> ()", _fake_scale),
    },
    measured=True,
)
