"""Masked L2: weight / denominator * sum(mask * (pred - target)^2), forward and gradient in one pass.

The reconstruction loss of every system here: Pathak et al., Context Encoders (2016), eq. 1; Iizuka et al., GLCIC
(2017), eq. 2; on the hole's own pixels alone (no mask) the squared error of the WGAN projects.

The forward pass leaves the gradient with respect to pred ready, so that forward and backward together read pred, target
and mask once and write the gradient once. It is handed out once; a second backward through the same graph, a
second derivative and float16 (where an unscaled gradient would underflow) compute it anew from pred and target.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from inpaint_fast._words import DTYPES, REDUCTIONS
from inpaint_fast.ops._dispatch import Definition, Operator

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
            or floating point (values are factors, so a soft mask weighs). None: the whole picture.
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
    pred, target, mask = _check(pred, target, mask, weight, reduction, "target")
    backend = _choose(pred, backend)
    if backend == "reference":
        return reference(pred, target, mask, weight=weight, reduction=reduction)
    loss, _ = _operator.call(
        backend, "masked_l2", pred, target, mask, float(weight), REDUCTIONS.index(reduction), _wants_grad(pred, target)
    )
    return loss


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
    a critic is shown. Arguments and errors are those of `masked_l2`; the mask is required.

    Returns:
        (loss, composite): a scalar, and a picture of pred's shape and dtype (float32 for mixed dtypes under autocast).
        Both carry gradients to pred and image. On the CPU a picture of 4 MB or more cannot be resized in place: its
        memory is kept for the next one.
    """
    if mask is None:
        raise TypeError("mask: a tensor is expected, got None (without a hole there is nothing to composite)")
    pred, image, mask = _check(pred, image, mask, weight, reduction, "image")
    backend = _choose(pred, backend)
    if backend == "reference":
        return reference_composite(pred, image, mask, weight=weight, reduction=reduction)
    loss, composite, _ = _operator.call(
        backend,
        "masked_l2_composite",
        pred,
        image,
        mask,
        float(weight),
        REDUCTIONS.index(reduction),
        _wants_grad(pred, image),
    )
    return loss, composite


# ---- arguments ----


def _check(
    pred: Tensor, target: Tensor, mask: Tensor | None, weight: float, reduction: str, target_name: str
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The tensors, the mask expanded to pred's shape; or the error that names the wrong one."""
    for name, tensor in (("pred", pred), (target_name, target), ("mask", mask)):
        if tensor is None and name == "mask":
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: a torch.Tensor is expected, got {type(tensor).__name__}")
        if tensor.layout != torch.strided:
            raise TypeError(f"{name}: a dense tensor is expected, got layout {tensor.layout}")
        if tensor.device != pred.device:
            raise TypeError(f"{name}: it is on {tensor.device} and pred is on {pred.device}; one device is expected")
    if not isinstance(weight, Real):
        raise TypeError(f"weight: a number is expected, got {type(weight).__name__}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: one of {', '.join(map(repr, REDUCTIONS))} is expected, got {reduction!r}")
    if pred.dtype not in DTYPES:
        raise TypeError(f"pred: float32, float64, float16 or bfloat16 is expected, got {pred.dtype}")
    if not 1 <= pred.dim() <= MAX_DIMS:
        raise ValueError(f"pred: 1 to {MAX_DIMS} dimensions are expected, got shape {tuple(pred.shape)}")
    if target.shape != pred.shape:
        raise ValueError(
            f"{target_name}: the shape of pred, {tuple(pred.shape)}, is expected, got {tuple(target.shape)}"
        )
    if target.dtype != pred.dtype:
        halves = (torch.float16, torch.bfloat16, torch.float32)
        if not (torch.is_autocast_enabled(pred.device.type) and pred.dtype in halves and target.dtype in halves):
            raise TypeError(f"{target_name}: the dtype of pred, {pred.dtype}, is expected, got {target.dtype}")
        pred, target = pred.float(), target.float()  # as PyTorch's own losses do under autocast
    return pred, target, None if mask is None else _check_mask(mask, pred)


def _check_mask(mask: Tensor, pred: Tensor) -> Tensor:
    if mask.requires_grad and torch.is_grad_enabled():
        raise ValueError("mask: it requires a gradient and none is defined for it; pass mask.detach()")
    if not (mask.is_floating_point() or mask.dtype in (torch.bool, torch.uint8)):
        raise TypeError(f"mask: bool, uint8 or floating point is expected, got {mask.dtype}")
    if mask.dim() != pred.dim() or any(m not in (1, p) for m, p in zip(mask.shape, pred.shape, strict=True)):
        raise ValueError(
            f"mask: a shape that broadcasts to pred's {tuple(pred.shape)}, each size equal or 1, is expected, "
            f"got {tuple(mask.shape)}"
        )
    if mask.is_floating_point() and mask.dtype != torch.float32:
        mask = mask.to(pred.dtype)
    elif mask.dtype == torch.float32 and pred.dtype == torch.float64:
        mask = mask.double()
    return mask.expand_as(pred)


def _choose(pred: Tensor, backend: str | None) -> str:
    # The transforms of torch.func and forward-mode derivatives cannot look into a registered operator.
    if torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0:
        return _operator.only_reference(backend, "under torch.func and forward-mode differentiation")
    return _operator.choose(pred.device, backend)


def _wants_grad(pred: Tensor, target: Tensor) -> bool:
    # float16: 2 * weight * difference / numel lies below its smallest number; the backward pass has the loss scale.
    return pred.dtype != torch.float16 and torch.is_grad_enabled() and (pred.requires_grad or target.requires_grad)


# ---- the operator: schemas, shape functions, gradient formulas ----


def _loss_like(pred: Tensor) -> Tensor:
    return pred.new_empty((), dtype=torch.float64 if pred.dtype == torch.float64 else torch.float32)


def _fake(pred, target, mask, weight, reduction, want_grad):
    return _loss_like(pred), torch.empty_like(pred) if want_grad else pred.new_empty(0)


def _fake_composite(pred, image, mask, weight, reduction, want_grad):
    loss, grad = _fake(pred, image, mask, weight, reduction, want_grad)
    return loss, torch.empty_like(pred), grad


def _fake_backward(grad_loss, pred, target, mask, weight, reduction):
    return torch.empty_like(pred)


def _fake_scale(grad, scale):
    return None


def _mask_factor(pred: Tensor, mask: Tensor | None, weight: float, reduction: int) -> Tensor | float:
    """2 * weight / denominator * mask: what (pred - target) is multiplied by in the gradient."""
    wide = None if mask is None else mask.to(_loss_like(pred).dtype)
    if REDUCTIONS[reduction] == "sum":
        denominator = 1
    elif REDUCTIONS[reduction] == "mean" or wide is None:
        denominator = max(pred.numel(), 1)
    else:
        count = wide.sum()
        denominator = torch.where(count == 0, 1, count)
    return 2 * weight / denominator * (1 if wide is None else wide)


def _setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
    pred, target, mask, ctx.weight, ctx.reduction, want_grad = inputs
    ctx.save_for_backward(pred, target, mask)
    ctx.set_materialize_grads(False)
    # Not saved as an output: it is handed out once and must not outlive that. Detached, or it would hold its own node.
    ctx.ready = output[-1].detach() if want_grad else None


def _loss_grad(
    call: Callable, ctx: Any, grad_loss: Tensor, pred: Tensor, target: Tensor, mask: Tensor | None
) -> Tensor:
    """grad_loss * d loss / d pred."""
    ready, ctx.ready = ctx.ready, None
    if torch.is_grad_enabled():  # a second derivative was asked for
        difference = pred.to(grad_loss.dtype) - target.to(grad_loss.dtype)
        return (_mask_factor(pred, mask, ctx.weight, ctx.reduction) * difference * grad_loss).to(pred.dtype)
    if ready is None:
        return call("masked_l2_backward", grad_loss, pred, target, mask, ctx.weight, ctx.reduction)
    # Being traced (a compiler fuses the product into what follows), or several gradients of the loss at a time.
    functorch = torch._C._functorch
    several = functorch.is_legacy_batchedtensor(grad_loss) or functorch.is_functorch_wrapped_tensor(grad_loss)
    if type(ready) is not Tensor or several:
        return ready * grad_loss.to(ready.dtype)
    call("masked_l2_scale_", ready, grad_loss)
    return ready


def _backward(call: Callable, ctx: Any, grad_loss: Tensor | None, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    """Gradients of (loss, gradient) or (loss, composite, gradient) with respect to pred and target."""
    pred, target, mask = ctx.saved_tensors  # once: activation checkpointing allows no second look
    grad_composite, grad_ready = grads if len(grads) == 2 else (None, grads[0])
    to_pred = to_target = None
    if grad_loss is not None:
        to_pred = _loss_grad(call, ctx, grad_loss, pred, target, mask)
    if grad_ready is not None and grad_ready.numel():
        second = (_mask_factor(pred, mask, ctx.weight, ctx.reduction) * grad_ready).to(pred.dtype)
        to_pred = second if to_pred is None else to_pred + second
    if to_pred is not None and ctx.needs_input_grad[1]:
        to_target = -to_pred
    if grad_composite is not None:
        inside = grad_composite * mask.to(pred.dtype)
        to_pred = inside if to_pred is None else to_pred + inside
        if ctx.needs_input_grad[1]:
            outside = grad_composite - inside
            to_target = outside if to_target is None else to_target + outside
    return to_pred if ctx.needs_input_grad[0] else None, to_target, None, None, None, None


_operator = Operator(
    "masked_l2",
    {
        "masked_l2": Definition(
            "(Tensor pred, Tensor target, Tensor? mask, float weight, int reduction, bool want_grad)"
            " -> (Tensor, Tensor)",
            _fake,
            _setup_context,
            _backward,
        ),
        "masked_l2_composite": Definition(
            "(Tensor pred, Tensor image, Tensor mask, float weight, int reduction, bool want_grad)"
            " -> (Tensor, Tensor, Tensor)",
            _fake_composite,
            _setup_context,
            _backward,
        ),
        "masked_l2_backward": Definition(
            "(Tensor grad_loss, Tensor pred, Tensor target, Tensor? mask, float weight, int reduction) -> Tensor",
            _fake_backward,
        ),
        "masked_l2_scale_": Definition("(Tensor(a!) grad, Tensor scale) -> ()", _fake_scale),
    },
)
