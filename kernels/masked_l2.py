"""Masked L2 in Triton: one pass that reads pred, target and mask once and writes the gradient and the composite.

    loss      = weight / denominator * sum(mask * (pred - target)^2)     Pathak et al., Context Encoders (2016), eq. 1
    grad      = 2 * weight / denominator * grad_loss * mask * (pred - target)
    composite = target * (1 - mask) + pred * mask

Elements are computed in float32 (float64 for float64) and summed in float64. Deterministic: the grid follows from the
number of elements alone, and the programs' sums are added in a fixed order. One launch, and one more for the mask's sum
with "mask_mean". The host waits for nothing: denominators and gradients of the loss are read where they are used.

The functions take what the schemas in ops/masked_l2.py say: the mask has pred's number of dimensions.
"""

import itertools
import math
import secrets

import torch
import triton
import triton.language as tl
from torch import Tensor

from inpaint_fast._words import REDUCTIONS
from inpaint_fast.kernels._checks import (
    MAX_DIMS,
    check_float,
    check_memory,
    check_same_device,
    check_same_kind,
    check_same_sizes,
    check_scalar,
)
from inpaint_fast.kernels._walk import collapse, is_dense, is_wide, number, offsets_of, on_their_device

BLOCK = 1024
MAX_PROGRAMS = 4096


# ---- kernels ----


@triton.jit
def _scale_of(weight, denominator, HAS_DENOMINATOR: tl.constexpr):
    """weight / denominator, in float64; 0 for a mask with nothing to fill."""
    scale = number(weight, tl.float64)
    if HAS_DENOMINATOR:
        count = tl.load(denominator)
        scale = tl.where(count == 0, 0.0, scale / tl.where(count == 0, 1.0, count))
    return scale


@triton.jit
def _share(WIDE: tl.constexpr, BLOCK: tl.constexpr):
    """(first, step): this program's blocks begin at first, first + step and so on."""
    index: tl.constexpr = tl.int64 if WIDE else tl.int32
    return tl.program_id(0).to(index) * BLOCK, tl.num_programs(0).to(index) * BLOCK


@triton.jit
def _store_grid_sum(
    result, own, weight, denominator, partials, tags, tag, HAS_DENOMINATOR: tl.constexpr, BLOCK: tl.constexpr
):
    """Stores weight / denominator times the sum of `own` over all programs, the last of which waits: see
    csrc/common/grid_sum.h."""
    last = tl.num_programs(0) - 1
    if tl.program_id(0) != last:
        tl.store(partials + tl.program_id(0), own)
        tl.debug_barrier()
        tl.atomic_xchg(tags + tl.program_id(0), tag, sem="release")
    else:
        total = tl.zeros([BLOCK], tl.float64)
        for start in range(0, last, BLOCK):
            at = start + tl.arange(0, BLOCK)
            missing = 1
            while missing != 0:
                seen = tl.atomic_add(tags + at, 0, at < last, sem="acquire")
                missing = tl.max(((seen != tag) & (at < last)).to(tl.int32), 0)
            tl.debug_barrier()
            total += tl.load(partials + at, at < last, 0.0, volatile=True)
            tl.store(tags + at, 0, at < last)  # a replay of this launch must find none
        total_sum = tl.sum(total) + own
        scale = _scale_of(weight, denominator, HAS_DENOMINATOR)
        tl.store(result, (scale * total_sum).to(result.dtype.element_ty))


@triton.jit
def masked_l2_kernel(
    pred,  # T: float32, float64, float16 or bfloat16
    target,  # T
    mask,  # uint8, float32 or T; not read without HAS_MASK
    grad,  # T; not written without WANT_GRAD
    composite,  # T; not written without WANT_COMPOSITE
    loss,  # float32 or float64, one; not written without WANT_LOSS
    partials,  # float64, one for each program; not used without WANT_LOSS, like the next two
    tags,  # int64, one for each program
    tag,  # int64, of this launch alone
    weight: tl.float64,  # over the denominator, where the host knows that
    denominator,  # float64, one; not read without HAS_DENOMINATOR
    grad_loss,  # float32 or float64, one; not read without HAS_GRAD_LOSS
    numel,
    sizes,  # DIMS integers, outermost first
    strides,  # of pred, target, mask, grad and composite: DIMS integers each, in elements
    DIMS: tl.constexpr,
    DENSE: tl.constexpr,  # all but the mask lie one element after the other, in the order of sizes
    HAS_MASK: tl.constexpr,
    WANT_GRAD: tl.constexpr,
    WANT_COMPOSITE: tl.constexpr,
    WANT_LOSS: tl.constexpr,
    HAS_DENOMINATOR: tl.constexpr,
    HAS_GRAD_LOSS: tl.constexpr,
    WIDE: tl.constexpr,  # indices of 64 bits
    BLOCK: tl.constexpr,
):
    compute: tl.constexpr = tl.float64 if pred.dtype.element_ty == tl.float64 else tl.float32
    factor = 2.0 * _scale_of(weight, denominator, HAS_DENOMINATOR)
    if HAS_GRAD_LOSS:
        factor *= tl.load(grad_loss).to(tl.float64)
    factor = factor.to(compute)
    total = tl.zeros([BLOCK], tl.float64)
    first, step = _share(WIDE, BLOCK)
    for start in range(first, numel, step):
        at = start + tl.arange(0, BLOCK)
        there = at < numel
        pred_at = at if DENSE else offsets_of(at, sizes, strides[0], DIMS)
        target_at = at if DENSE else offsets_of(at, sizes, strides[1], DIMS)
        x = tl.load(pred + pred_at, there, 0.0).to(compute)
        y = tl.load(target + target_at, there, 0.0).to(compute)
        difference = x - y
        weighted = difference
        if HAS_MASK:
            m = tl.load(mask + offsets_of(at, sizes, strides[2], DIMS), there, 0).to(compute)
            weighted = m * difference
        if WANT_LOSS:
            total += (weighted * difference).to(tl.float64)
        if WANT_GRAD:
            grad_at = at if DENSE else offsets_of(at, sizes, strides[3], DIMS)
            tl.store(grad + grad_at, (factor * weighted).to(grad.dtype.element_ty), there)
        if WANT_COMPOSITE:
            composite_at = at if DENSE else offsets_of(at, sizes, strides[4], DIMS)
            tl.store(composite + composite_at, (y * (1 - m) + x * m).to(composite.dtype.element_ty), there)
    if WANT_LOSS:
        _store_grid_sum(loss, tl.sum(total), weight, denominator, partials, tags, tag, HAS_DENOMINATOR, BLOCK)


@triton.jit
def mask_sum_kernel(
    mask,  # uint8 or floating point
    result,  # float64, one: times the sum
    partials,  # as in masked_l2_kernel
    tags,
    tag,
    times: tl.float64,
    numel,
    sizes,  # DIMS integers, outermost first
    strides,  # DIMS integers, in elements
    DIMS: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    total = tl.zeros([BLOCK], tl.float64)
    first, step = _share(WIDE, BLOCK)
    for start in range(first, numel, step):
        at = start + tl.arange(0, BLOCK)
        total += tl.load(mask + offsets_of(at, sizes, strides, DIMS), at < numel, 0).to(tl.float64)
    _store_grid_sum(result, tl.sum(total), times, result, partials, tags, tag, False, BLOCK)


@triton.jit
def scale_kernel(
    grad,  # T, dense memory; left as it is where the scale is 1
    scale,  # float32 or float64, one
    numel,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    compute: tl.constexpr = tl.float64 if grad.dtype.element_ty == tl.float64 else tl.float32
    factor = tl.load(scale)
    if factor != 1:
        first, step = _share(WIDE, BLOCK)
        for start in range(first, numel, step):
            at = start + tl.arange(0, BLOCK)
            scaled = tl.load(grad + at, at < numel).to(compute) * factor.to(compute)
            tl.store(grad + at, scaled.to(grad.dtype.element_ty), at < numel)


# ---- arguments: those of csrc/masked_l2/arguments.h ----


def _check(pred: Tensor, target: Tensor, mask: Tensor | None, reduction: int) -> None:
    if not 0 <= reduction < len(REDUCTIONS):
        raise RuntimeError(f"reduction: 0, 1 or 2 is expected, got {reduction}")
    if pred.dim() > MAX_DIMS:
        raise RuntimeError(f"pred: at most {MAX_DIMS} dimensions, got {pred.dim()}")
    check_float(pred, "pred")
    check_same_kind(target, pred, "target", "pred")
    check_same_sizes(target, pred, "target", "pred")
    check_same_device(target, pred, "target", "pred")
    if mask is None:
        return
    if mask.dim() != pred.dim():
        raise RuntimeError(f"mask: the dimensions of pred, {pred.dim()}, are expected, got {mask.dim()}")
    for d, (size, expected) in enumerate(zip(mask.shape, pred.shape, strict=True)):
        if size not in (expected, 1):
            raise RuntimeError(f"mask: size {expected} or 1 is expected in dimension {d}, got {size}")
    check_same_device(mask, pred, "mask", "pred")
    kinds = (torch.bool, torch.uint8, pred.dtype, pred.dtype if pred.dtype == torch.float64 else torch.float32)
    if mask.dtype not in kinds:
        raise RuntimeError("mask: its dtype is not bool, uint8, float32 or that of pred")
    check_memory(mask, "mask")


def _check_scaled(grad: Tensor, scale: Tensor) -> None:
    """The gradient that is scaled in place: elements without gaps, in whatever order."""
    check_float(grad, "grad")
    if not grad.is_contiguous():
        sizes, (strides,) = collapse(list(grad.shape), [list(grad.stride())])
        if not is_dense(sizes, strides):
            raise RuntimeError("grad: elements that fill its memory are expected")
    check_scalar(scale, "scale")
    check_same_device(scale, grad, "scale", "grad")


# ---- launches ----


def programs(numel: int) -> int:
    """Programs for a tensor of that size; of nothing else, for the order of sums follows from it."""
    return min(max(triton.cdiv(numel, BLOCK), 1), MAX_PROGRAMS)


def _is_wide(numel: int) -> bool:
    return is_wide(numel + MAX_PROGRAMS * BLOCK)  # a loop may step that far past the end


def _run(
    pred: Tensor,
    target: Tensor,
    mask: Tensor | None,
    weight: float,
    reduction: int,
    *,
    grad: Tensor | None = None,
    composite: Tensor | None = None,
    grad_loss: Tensor | None = None,
    want_loss: bool = True,
) -> Tensor | None:
    """Fills grad and composite where they are given; returns the loss where it is wanted."""
    numel = pred.numel()
    mask = None if mask is None else mask.expand_as(pred)
    if mask is not None and mask.dtype == torch.bool:
        mask = mask.view(torch.uint8)
    loss = pred.new_empty((), dtype=torch.float64 if pred.dtype == torch.float64 else torch.float32)
    partials, tags = _scratch(pred)
    denominator = None
    if REDUCTIONS[reduction] == "mask_mean" and numel == 0:
        weight = 0.0  # a mask of no element has no memory to sum
    elif REDUCTIONS[reduction] == "mask_mean" and mask is not None:
        denominator = _mask_sum(mask, partials, tags)
    elif REDUCTIONS[reduction] != "sum":
        weight = weight / numel if numel else math.nan  # an empty mean
    # What is not there walks as pred does, so that it keeps no dimensions from merging.
    operands = [pred if tensor is None else tensor for tensor in (pred, target, mask, grad, composite)]
    sizes, strides = collapse(list(pred.shape), [list(tensor.stride()) for tensor in operands])
    dense = all(is_dense(sizes, strides[k]) for k in (0, 1, 3, 4))
    if dense:  # then the mask's alone are read, and others would only make for more variants to compile
        strides = tuple(part if k == 2 else (0,) * len(sizes) for k, part in enumerate(strides))
    masked_l2_kernel[(programs(numel),)](
        *operands,
        loss,
        partials,
        tags,
        next_tag(),
        weight,
        partials if denominator is None else denominator,
        partials if grad_loss is None else grad_loss,
        numel,
        sizes,
        strides,
        DIMS=len(sizes),
        DENSE=dense,
        HAS_MASK=mask is not None,
        WANT_GRAD=grad is not None,
        WANT_COMPOSITE=composite is not None,
        WANT_LOSS=want_loss,
        HAS_DENOMINATOR=denominator is not None,
        HAS_GRAD_LOSS=grad_loss is not None,
        WIDE=_is_wide(numel),
        BLOCK=BLOCK,
        # Offsets and 64-bit divisions take registers, and gain nothing from elements side by side.
        num_warps=4 if dense and not _is_wide(numel) else 8,
    )
    return loss if want_loss else None


def _mask_sum(mask: Tensor, partials: Tensor, tags: Tensor) -> Tensor:
    """The sum of the mask, one float64. A broadcast dimension only repeats the sum of the others."""
    own = [d for d in range(mask.dim()) if mask.stride(d) != 0]
    times = math.prod(mask.shape[d] for d in range(mask.dim()) if d not in own)
    sizes, (strides,) = collapse([mask.shape[d] for d in own], [[mask.stride(d) for d in own]])
    numel = math.prod(sizes)
    total = partials.new_empty(1)
    mask_sum_kernel[(programs(numel),)](
        mask, total, partials, tags, next_tag(), float(times), numel, sizes, strides, DIMS=len(sizes),
        WIDE=_is_wide(numel), BLOCK=BLOCK,
    )  # fmt: skip
    return total


# ---- sums over a grid ----

_tags = itertools.count(secrets.randbits(62) | 1, 2)


def next_tag() -> int:
    """A number of 64 bits, as an int64, that no other launch of this process gets; never 0, and of no particular form,
    so that Triton compiles no variant for it. As in csrc/common/grid_sum_scratch.h."""
    tag = next(_tags) * 0x9E3779B97F4A7C15 % 2**64  # of two odd numbers: odd, and another for each
    return tag - 2**64 if tag >= 2**63 else tag


def _scratch(like: Tensor) -> tuple[Tensor, Tensor]:
    """(partials, tags): a float64 and an int64 for each program, whatever they hold."""
    return tuple(like.new_empty(MAX_PROGRAMS, dtype=dtype) for dtype in (torch.float64, torch.int64))


# ---- the operators ----


@on_their_device
def masked_l2(
    pred: Tensor, target: Tensor, mask: Tensor | None, weight: float, reduction: int, want_grad: bool
) -> tuple[Tensor, Tensor]:
    """(loss, gradient with respect to pred; empty when not wanted)."""
    _check(pred, target, mask, reduction)
    grad = torch.empty_like(pred) if want_grad else None
    loss = _run(pred, target, mask, weight, reduction, grad=grad)
    return loss, pred.new_empty(0) if grad is None else grad


@on_their_device
def masked_l2_composite(
    pred: Tensor, image: Tensor, mask: Tensor, weight: float, reduction: int, want_grad: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, composite, gradient)."""
    _check(pred, image, mask, reduction)
    grad = torch.empty_like(pred) if want_grad else None
    composite = torch.empty_like(pred)
    loss = _run(pred, image, mask, weight, reduction, grad=grad, composite=composite)
    return loss, composite, pred.new_empty(0) if grad is None else grad


@on_their_device
def masked_l2_backward(
    grad_loss: Tensor, pred: Tensor, target: Tensor, mask: Tensor | None, weight: float, reduction: int
) -> Tensor:
    """The gradient with respect to pred, times grad_loss."""
    check_scalar(grad_loss, "grad_loss")
    check_same_device(grad_loss, pred, "grad_loss", "pred")
    _check(pred, target, mask, reduction)
    grad = torch.empty_like(pred)
    _run(pred, target, mask, weight, reduction, grad=grad, grad_loss=grad_loss, want_loss=False)
    return grad


@on_their_device
def masked_l2_scale_(grad: Tensor, scale: Tensor) -> None:
    """grad *= scale, over grad's dense memory."""
    _check_scaled(grad, scale)
    numel = grad.numel()
    scale_kernel[(programs(numel),)](grad, scale, numel, WIDE=_is_wide(numel), BLOCK=BLOCK)
