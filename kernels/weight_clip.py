"""Weight clipping and the clipped optimizers in Triton: every operand is read once and written once.

One rule updates each parameter from its gradient and up to three states and then clips it (Arjovsky et al., Wasserstein
GAN (2017), algorithm 1); the table of rules is that of ops/weight_clip.py, formulas are those of torch.optim. Elements
are computed in float32 (float64 for float64), adam's bias corrections in float64.

One launch a tensor, for the sake of simplicity: with many small tensors the CUDA C++ version, which takes hundreds in
one, is faster. Nothing waits for the device: grad_scale, found_inf and steps are read where they are used. No element
depends on another, so that results are equal bit by bit from run to run.

The functions take what the schemas in ops/weight_clip.py say.
"""

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from inpaint_fast._words import DTYPES, RULES
from inpaint_fast.kernels._checks import MAX_DIMS, check_memory, check_same_device, check_same_sizes, is_apart
from inpaint_fast.kernels._walk import block_of, collapse, is_dense, is_wide, number, offsets_of

BLOCK = 1024
ADAM, RMSPROP, SGD = (tl.constexpr(RULES.index(name)) for name in ("adam", "rmsprop", "sgd"))


# ---- kernels ----


@triton.jit
def _root(x):
    """The square root as IEEE has it."""
    return tl.sqrt(x) if x.dtype == tl.float64 else tl.sqrt_rn(x)


@triton.jit
def _ratio(x, y):
    """The quotient as IEEE has it."""
    return x / y if x.dtype == tl.float64 else tl.div_rn(x, y)


@triton.jit
def _clamped(x, low, high):
    """NaN stays NaN."""
    return tl.where(x < low, low, tl.where(x > high, high, x))


@triton.jit
def _where(at, sizes, strides, DIMS: tl.constexpr, DENSE: tl.constexpr):
    return at if DENSE else offsets_of(at, sizes, strides, DIMS)


@triton.jit
def clip_kernel(
    tensor,  # T: float32, float64, float16 or bfloat16
    low: tl.float64,  # as T has it: a value that was clipped before is not written again
    high: tl.float64,
    numel,
    sizes,  # DIMS integers, outermost first
    strides,  # DIMS integers, in elements
    DIMS: tl.constexpr,
    DENSE: tl.constexpr,  # one element after the other, in the order of sizes
    WIDE: tl.constexpr,  # indices of 64 bits
    BLOCK: tl.constexpr,
):
    element: tl.constexpr = tensor.dtype.element_ty
    compute: tl.constexpr = tl.float64 if element == tl.float64 else tl.float32
    at, there = block_of(numel, WIDE, BLOCK)
    at = _where(at, sizes, strides, DIMS, DENSE)
    x = tl.load(tensor + at, there, 0.0).to(compute)
    least, most = number(low, compute), number(high, compute)
    tl.store(tensor + at, _clamped(x, least, most).to(element), there & ((x < least) | (x > most)))


@triton.jit
def step_kernel(
    param,  # T: float32, float64, float16 or bfloat16
    grad,  # T
    state0,  # T; not touched without HAS_STATE0, and so on
    state1,  # T
    state2,  # T
    step,  # float32, one: this step's number; not read without HAS_STEP
    grad_scale,  # float32, one; not read without HAS_SCALE
    found_inf,  # float32, one: nothing changes where it is not 0; not read without HAS_FOUND_INF
    rate,  # float64, one, by which lr is multiplied; not read without HAS_RATE
    known_step: tl.float64,  # where the host knows the step
    lr: tl.float64,
    beta1: tl.float64,
    beta2: tl.float64,
    log_beta1: tl.float64,
    log_beta2: tl.float64,
    eps: tl.float64,
    weight_decay: tl.float64,
    shrink: tl.float64,  # weight_decay where it is decoupled: param keeps 1 - lr * shrink of itself, before the rule
    low: tl.float64,
    high: tl.float64,
    sign: tl.float64,  # -1 to maximize
    numel,
    sizes,  # DIMS integers, outermost first
    strides,  # of param, grad and the states: DIMS integers each, in elements
    RULE: tl.constexpr,
    VARIANT: tl.constexpr,
    FIRST: tl.constexpr,
    HAS_STATE0: tl.constexpr,
    HAS_STATE1: tl.constexpr,
    HAS_STATE2: tl.constexpr,
    HAS_STEP: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_FOUND_INF: tl.constexpr,
    HAS_RATE: tl.constexpr,
    DIMS: tl.constexpr,
    DENSE: tl.constexpr,  # all operands lie one element after the other, in the order of sizes
    WIDE: tl.constexpr,  # indices of 64 bits
    BLOCK: tl.constexpr,
):
    element: tl.constexpr = param.dtype.element_ty
    compute: tl.constexpr = tl.float64 if element == tl.float64 else tl.float32
    at, there = block_of(numel, WIDE, BLOCK)
    if HAS_FOUND_INF:
        there = tl.where(tl.load(found_inf) == 0, there, False)
    factor = number(sign, tl.float64)
    if HAS_SCALE:
        factor = factor / tl.load(grad_scale).to(tl.float64)
    exact_lr = number(lr, tl.float64)
    if HAS_RATE:
        exact_lr = exact_lr * tl.load(rate)
    least, most = number(low, compute), number(high, compute)
    keep = tl.where(number(shrink, tl.float64) != 0.0, 1.0 - exact_lr * number(shrink, tl.float64), 1.0).to(compute)
    b1, b2, epsilon = number(beta1, compute), number(beta2, compute), number(eps, compute)
    rest1 = (1.0 - number(beta1, tl.float64)).to(compute)
    rest2 = (1.0 - number(beta2, tl.float64)).to(compute)

    param_at = param + _where(at, sizes, strides[0], DIMS, DENSE)
    grad_at = grad + _where(at, sizes, strides[1], DIMS, DENSE)
    p = tl.load(param_at, there, 0.0).to(compute)
    g = tl.load(grad_at, there, 0.0).to(compute) * factor.to(compute)
    # No times an infinite parameter would be NaN.
    g = tl.where(number(weight_decay, compute) != 0.0, g + number(weight_decay, compute) * p, g)
    p *= keep
    if HAS_STATE0:
        state0_at = state0 + _where(at, sizes, strides[2], DIMS, DENSE)
        s0 = tl.load(state0_at, there, 0.0).to(compute)
    if HAS_STATE1:
        state1_at = state1 + _where(at, sizes, strides[3], DIMS, DENSE)
        s1 = tl.load(state1_at, there, 0.0).to(compute)
    if HAS_STATE2:
        state2_at = state2 + _where(at, sizes, strides[4], DIMS, DENSE)
        s2 = tl.load(state2_at, there, 0.0).to(compute)

    if RULE == ADAM:
        t = number(known_step, tl.float64)
        if HAS_STEP:
            t = tl.load(step).to(tl.float64)
        one = tl.full([], 1.0, tl.float64)
        step_size = exact_lr / (one - tl.exp(t * log_beta1))
        root_factor = one / tl.sqrt(one - tl.exp(t * log_beta2))
        s0 += (g - s0) * rest1
        s1 = b2 * s1 + rest2 * g * g
        second = s1
        if VARIANT:
            s2 = tl.where((s1 > s2) | (s1 != s1), s1, s2)  # NaN stays
            second = s2
        p -= _ratio(step_size.to(compute) * s0, _root(second) * root_factor.to(compute) + epsilon)
    elif RULE == RMSPROP:
        s0 = b1 * s0 + rest1 * g * g
        variance = s0
        if HAS_STATE2:
            s2 += (g - s2) * rest1
            variance = s0 - s2 * s2
        change = _ratio(g, _root(variance + epsilon) if VARIANT else _root(variance) + epsilon)
        if HAS_STATE1:
            s1 = b2 * s1 + change
            change = s1
        p -= exact_lr.to(compute) * change
    elif RULE == SGD:
        change = g
        if HAS_STATE0:
            s0 = g if FIRST else b1 * s0 + rest2 * g
            change = g + b1 * s0 if VARIANT else s0
        p -= exact_lr.to(compute) * change
    else:  # adadelta
        s0 = b1 * s0 + rest1 * g * g
        delta = _ratio(_root(s1 + epsilon), _root(s0 + epsilon)) * g
        s1 = b1 * s1 + rest1 * delta * delta
        p -= exact_lr.to(compute) * delta

    tl.store(param_at, _clamped(p, least, most).to(element), there)
    if HAS_STATE0:
        tl.store(state0_at, s0.to(element), there)
    if HAS_STATE1:
        tl.store(state1_at, s1.to(element), there)
    if HAS_STATE2:
        tl.store(state2_at, s2.to(element), there)


# ---- arguments: those of csrc/weight_clip/arguments.h ----


def _check_list(tensors: Sequence[Tensor], first: Tensor, name: str) -> None:
    """Tensors of one floating-point dtype, that of the first one of all, on its device."""
    for tensor in tensors:
        if tensor.dtype not in DTYPES:
            raise RuntimeError(f"{name}: a dtype is not floating point")
        if tensor.dtype != first.dtype:
            raise RuntimeError(f"{name}: tensors of one dtype are expected, the dtype of params everywhere")
        check_same_device(tensor, first, name, "the first")


def _check_entry(names: Sequence[str], operands: Sequence[Tensor | None], index: int) -> None:
    """Of one parameter with its gradient and states, all but the second of which are changed."""
    param = operands[0]
    dense = True
    for list_name, operand in zip(names, operands, strict=True):
        if operand is not None:
            name = f"{list_name}[{index}]"
            check_same_sizes(operand, param, name, "its parameter")
            check_memory(operand, name)
            dense = dense and operand.is_contiguous()
    if dense:
        return
    if param.dim() > MAX_DIMS:
        raise RuntimeError(
            f"{names[0]}[{index}]: a view of at most {MAX_DIMS} dimensions is expected, got {param.dim()}"
        )
    for name, operand in zip(names, operands, strict=True):
        if name != "grads" and operand is not None and not is_apart(operand):
            raise RuntimeError(
                f"{name}[{index}]: its elements share memory (an expanded view); it cannot be changed in place"
            )


def _missing_list(
    rule: str, variant: bool, grads: object, state0: object, state1: object, state2: object, steps: object
) -> str | None:
    """The list that the rule of a step needs and that is empty; None: it has all."""
    if not grads:
        return "grads: they are missing"
    if rule != "sgd" and not state0:
        return "state0: it is missing"
    if rule in ("adam", "adadelta") and not state1:
        return "state1: it is missing"
    if rule == "adam" and variant and not state2:
        return "state2: it is missing"
    if rule == "adam" and not steps:
        return "steps: they are missing"
    return None


def _check_lists(lists: dict[str, Sequence[Tensor]], rule: int, variant: bool) -> None:
    """params, grads, state0, state1, state2, steps: what the rule needs is there, of one dtype, on one device."""
    params, *others, steps = lists.values()
    first = params[0]
    if not 1 <= rule < len(RULES):
        raise RuntimeError(f"rule: 1 to {len(RULES) - 1} is expected, got {rule}")
    missing = _missing_list(RULES[rule], variant, *others, steps)
    if missing is not None:
        raise RuntimeError(missing)
    _check_list(params, first, "params")
    for name, tensors in lists.items():
        if len(tensors) not in (0, len(params)):
            raise RuntimeError(f"{name}: {len(params)} tensors are expected, got {len(tensors)}")
    for tensors in others:
        _check_list(tensors, first, "grads and states")
    for step in steps:
        if step.numel() != 1 or step.dtype != torch.float32:
            raise RuntimeError("steps: float32 numbers are expected")
        check_memory(step, "steps")


def _check_number_beside(tensor: Tensor | None, param: Tensor, name: str, dtype: torch.dtype = torch.float32) -> None:
    if tensor is None:
        return
    if tensor.numel() != 1 or tensor.dtype != dtype:
        kind = str(dtype).removeprefix("torch.")
        raise RuntimeError(f"{name}: one {kind} number on the parameters' device is expected")
    check_same_device(tensor, param, name, "the parameters")
    check_memory(tensor, name)


def _check_steps(steps: Sequence[Tensor], param: Tensor, found_inf: Tensor | None) -> None:
    for step in steps:
        if step.device == param.device:
            continue
        if found_inf is not None:
            raise RuntimeError(
                "steps: with found_inf they are needed on the device, which alone can tell whether they count"
            )
        if step.device.type != "cpu":
            raise RuntimeError("steps: it is not on the device of the parameters")


# ---- launches ----


def _walk_of(operands: Sequence[Tensor]) -> dict:
    """How a kernel walks tensors of one shape."""
    first = operands[0]
    sizes, strides = collapse(list(first.shape), [list(tensor.stride()) for tensor in operands])
    dense = all(is_dense(sizes, own) for own in strides)
    if dense:  # then sizes are not read, and others would only make for more variants to compile
        sizes, strides = (first.numel(),), ((1,),) * len(operands)
    wide = is_wide(first.numel() + BLOCK)
    return {"sizes": sizes, "strides": strides, "DIMS": len(sizes), "DENSE": dense, "WIDE": wide, "BLOCK": BLOCK}


def _as(dtype: torch.dtype, *bounds: float) -> list[float]:
    """The numbers as dtype has them."""
    return torch.tensor(bounds, dtype=torch.float64).to(dtype).tolist()


def _log(beta: float) -> float:
    return math.log(beta) if beta > 0 else -math.inf


# ---- the operators ----


def weight_clip(tensors: Sequence[Tensor], low: float, high: float) -> None:
    """Clips every element in place; what lies within the bounds is not written. Tensors of one dtype."""
    if not tensors:
        return
    _check_list(tensors, tensors[0], "tensors")
    for i, tensor in enumerate(tensors):
        _check_entry(("tensors",), (tensor,), i)
    low, high = _as(tensors[0].dtype, low, high)
    for tensor in tensors:
        if tensor.numel():
            walk = _walk_of([tensor])
            walk["strides"] = walk["strides"][0]
            with torch.cuda.device_of(tensor):  # or the launch would go to the current device
                clip_kernel[(triton.cdiv(tensor.numel(), BLOCK),)](tensor, low, high, tensor.numel(), **walk)


def clipped_step(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    state0: Sequence[Tensor],
    state1: Sequence[Tensor],
    state2: Sequence[Tensor],
    steps: Sequence[Tensor],
    rule: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    low: float,
    high: float,
    maximize: bool,
    variant: bool,
    first: bool,
    decoupled: bool,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
    rate: Tensor | None,
) -> None:
    """One optimizer step with its clip, in place; steps may lie on the CPU if there is no found_inf."""
    lists = {"params": params, "grads": grads, "state0": state0, "state1": state1, "state2": state2, "steps": steps}
    if not params:
        if any(lists.values()):
            raise RuntimeError("params: they are missing")
        return
    _check_lists(lists, rule, variant)
    _check_number_beside(grad_scale, params[0], "grad_scale")
    _check_number_beside(found_inf, params[0], "found_inf")
    _check_number_beside(rate, params[0], "rate", torch.float64)
    _check_steps(steps, params[0], found_inf)
    *names, _ = lists
    entries = [[of[i] if of else None for of in (params, grads, state0, state1, state2)] for i in range(len(params))]
    for i, entry in enumerate(entries):
        _check_entry(names, entry, i)
    _count(steps, found_inf)
    low, high = _as(params[0].dtype, low, high)
    shrink, weight_decay = (weight_decay, 0.0) if decoupled else (0.0, weight_decay)
    sign = -1.0 if maximize else 1.0
    numbers = (lr, beta1, beta2, _log(beta1), _log(beta2), eps, weight_decay, shrink, low, high, sign)
    for i, param in enumerate(params):
        if not param.numel():
            continue
        # What is not there walks as its parameter does, so that it keeps no dimensions from merging.
        operands = [param if operand is None else operand for operand in entries[i]]
        step = steps[i] if steps else None
        on_host = step is not None and step.device != param.device
        with torch.cuda.device_of(param):  # or the launch would go to the current device
            step_kernel[(triton.cdiv(param.numel(), BLOCK),)](
                *operands,
                param if step is None or on_host else step,
                param if grad_scale is None else grad_scale,
                param if found_inf is None else found_inf,
                param if rate is None else rate,
                step.item() if on_host else 1.0,
                *numbers,
                param.numel(),
                RULE=rule,
                VARIANT=variant,
                FIRST=first,
                HAS_STATE0=bool(state0),
                HAS_STATE1=bool(state1),
                HAS_STATE2=bool(state2),
                HAS_STEP=step is not None and not on_host,
                HAS_SCALE=grad_scale is not None,
                HAS_FOUND_INF=found_inf is not None,
                HAS_RATE=rate is not None,
                **_walk_of(operands),
            )


def _count(steps: Sequence[Tensor], found_inf: Tensor | None) -> None:
    """Adds 1 to each step, unless found_inf says no. Before the kernels, which read them."""
    if not steps:
        return
    torch._foreach_add_(steps, 1 if found_inf is None else (found_inf == 0).to(torch.float32).reshape(()))
