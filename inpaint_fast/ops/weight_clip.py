"""Weight clipping, alone and as the last act of an optimizer step: each parameter is touched once.

Wasserstein critics need it: Arjovsky et al., "Wasserstein GAN" (2017), algorithm 1, clips every critic weight after
every critic step. `clipped_step` is what the optimizers of `inpaint_fast.optim` are made of; its rules are those of
torch.optim, element by element:

    rule      state0           state1           state2          beta1     beta2      variant
    adam      exp_avg          exp_avg_sq       max_exp_avg_sq  beta1     beta2      amsgrad
    rmsprop   square_avg       momentum_buffer  grad_avg        alpha     momentum   epsilon inside the root (Lasagne)
    sgd       momentum_buffer  -                -               momentum  dampening  nesterov
    adadelta  square_avg       acc_delta        -               rho       -          -
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor

from inpaint_fast import _extension
from inpaint_fast._words import RULES, check_number
from inpaint_fast.ops._dispatch import Definition, Operator
from inpaint_fast.ops._torch_private import has_dispatch_mode, is_transformed

Bound = float | tuple[float, float]
CPU = torch.device("cpu")


def clip_weights_(tensors: Iterable[Tensor] | Tensor, bound: Bound, *, backend: str | None = None) -> None:
    """Clip every element of many tensors in place, in one pass.

    Equivalent to `for t in tensors: t.clamp_(-bound, bound)` without gradients.

    Args:
        tensors: a list of tensors (or one, or `critic.parameters()`): any shapes, strides and devices; float32,
            float64, float16, bfloat16, mixed as you like. Values inside the bounds are not written.
        bound: a number for [-bound, bound], or (low, high).
        backend: "cuda", "triton", "cpp" or "reference"; None takes the fastest that is there for each device.

    Raises:
        ValueError: the bound is negative, NaN or the wrong way round.
        TypeError: a tensor is not one, not dense, or not of these dtypes; the bound is no number or pair of them.
        RuntimeError: a tensor's elements share memory (an expanded view) or are not aligned, it is not contiguous and
            has more than 5 dimensions, or it stands for negated numbers (`z.conj().imag`).

    After an error no tensor has been changed. NaN stays NaN, as in `torch.clamp`.
    """
    if bound is None:  # pyright: ignore[reportUnnecessaryComparison]  (no bound, of an optimizer)
        raise TypeError("bound: a number or a pair (low, high) is expected, got None")
    low, high = limits(bound)
    if not isinstance(tensors, Iterable):
        raise TypeError(f"tensors: a list of tensors (module.parameters()) is expected, got {type(tensors).__name__}")
    tensors = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    direct = _direct_clip(tensors[0], backend) if tensors else None
    if direct is not None and direct(tensors, low, high):
        torch.autograd.graph.increment_version(tensors)
        return
    groups = _groups(tensors)
    # Of all, before the first is changed.
    backends = [_operator.choose(device, backend) for device, _ in groups]
    if len(groups) > 1:  # nor is one when another cannot be: without bounds all are looked at and none is written
        for chosen, group in zip(backends, groups.values(), strict=True):
            _clip(chosen, group, -math.inf, math.inf)
    for chosen, group in zip(backends, groups.values(), strict=True):
        _clip(chosen, group, low, high)
        if chosen != "reference":
            torch.autograd.graph.increment_version(group)


def _clip(backend: str, tensors: list[Tensor], low: float, high: float) -> None:
    """Tensors of one device and dtype."""
    with torch.no_grad():
        if backend == "reference":
            reference_clip(tensors, low, high)
        else:
            _operator.call(backend, "weight_clip", tensors, low, high)


def _direct_clip(tensor: object, backend: str | None) -> Callable[[list[Tensor], float, float], bool] | None:
    """The module's own clip of lists of tensors like this one, which returns False, and has done nothing, where one of
    them is not plain; None: there is none."""
    module = _extension.module
    if module is None:
        return None
    if _is_direct(tensor, backend):
        return module.weight_clip
    if _is_eager(tensor) and tensor.is_cuda and _operator.choose(tensor.device, backend) == "cuda":
        return module.weight_clip_cuda
    return None


def _is_direct(tensor: object, backend: str | None) -> bool:
    """True where the module's own functions may be asked: eager code on CPU tensors, by the C++ backend."""
    return _is_eager(tensor) and tensor.is_cpu and _operator.choose(CPU, backend) == "cpp"


def _is_eager(tensor: object) -> TypeGuard[Tensor]:
    if torch.compiler.is_compiling() or _extension.module is None or not isinstance(tensor, Tensor):
        return False
    return not (is_transformed() or has_dispatch_mode())


def limits(bound: Bound | None, name: str = "bound") -> tuple[float, float]:
    """(low, high) of a bound; of None: no bound.

    Raises:
        TypeError, ValueError: it is no number or pair of numbers; negative, NaN, or low above high.
    """
    if bound is None:
        return -math.inf, math.inf
    if type(bound) is float and bound >= 0:  # asked at every step
        return -bound, bound
    pair = tuple(bound) if isinstance(bound, (tuple, list)) else (bound, bound)
    if len(pair) != 2 or not all(isinstance(x, Real) and not isinstance(x, bool) for x in pair):
        raise TypeError(f"{name}: a number or a pair (low, high) is expected, got {bound!r}")
    low, high = (check_number(name, x) for x in (pair if isinstance(bound, (tuple, list)) else (-bound, bound)))
    if not low <= high:  # NaN too
        raise ValueError(f"{name}: a bound of at least 0, or low <= high, is expected, got {bound!r}")
    return low, high


def _groups(tensors: Sequence[Tensor]) -> dict[tuple[torch.device, torch.dtype], list[Tensor]]:
    """The tensors by device and dtype, in order."""
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        try:
            if tensor.layout != torch.strided:
                raise TypeError(f"tensors: dense tensors are expected, got layout {tensor.layout}")
            groups.setdefault((tensor.device, tensor.dtype), []).append(tensor)
        except AttributeError:
            raise TypeError(f"tensors: torch.Tensor is expected, got {type(tensor).__name__}") from None
    for _, dtype in groups:
        if dtype not in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
            raise TypeError(f"tensors: float32, float64, float16 or bfloat16 is expected, got {dtype}")
    return groups


# ---- the rules in plain PyTorch: what "correct" means ----


class Settings(NamedTuple):
    """The numbers of a step, as the registered operator takes them; betas and variant as in the table above."""

    rule: int
    lr: float
    beta1: float = 0.0
    beta2: float = 0.0
    eps: float = 0.0
    weight_decay: float = 0.0
    low: float = -math.inf
    high: float = math.inf
    maximize: bool = False
    variant: bool = False
    first: bool = False
    """sgd: the momentum buffers are new and start as the gradient."""
    decoupled: bool = False
    """The weight decay shrinks the parameter, by lr * weight_decay, and leaves the gradient alone (AdamW)."""


def reference_clip(tensors: Sequence[Tensor], low: float, high: float) -> None:
    """`weight_clip` in plain PyTorch."""
    for tensor in tensors:
        tensor.clamp_(low, high)


def reference_step(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    state0: Sequence[Tensor],
    state1: Sequence[Tensor],
    state2: Sequence[Tensor],
    steps: Sequence[Tensor],
    settings: Settings,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    rate: Tensor | None = None,
) -> None:
    """`clipped_step` in plain PyTorch, one parameter after the other."""
    if found_inf is not None and found_inf.item():
        return
    s = settings if rate is None else settings._replace(lr=settings.lr * rate.item())
    for i, (p, g) in enumerate(zip(params, grads, strict=True)):
        if grad_scale is not None:  # in float32 or better: the scale may be more than float16 holds
            g = (g.to(torch.promote_types(g.dtype, torch.float32)) / grad_scale).to(g.dtype)
        g = -g if s.maximize else g
        if s.weight_decay and s.decoupled:
            p.mul_(1 - s.lr * s.weight_decay)
        elif s.weight_decay:
            g = g + s.weight_decay * p
        state: list[Any] = [states[i] if states else None for states in (state0, state1, state2)]
        s0, s1, s2 = state
        t = steps[i].add_(1).item() if steps else 0
        if RULES[s.rule] == "adam":
            s0.lerp_(g, 1 - s.beta1)
            s1.mul_(s.beta2).addcmul_(g, g, value=1 - s.beta2)
            second = torch.maximum(s2, s1, out=s2) if s.variant else s1
            denominator = second.sqrt() / math.sqrt(1 - s.beta2**t) + s.eps
            p.addcdiv_(s0, denominator, value=-s.lr / (1 - s.beta1**t))
        elif RULES[s.rule] == "rmsprop":
            s0.mul_(s.beta1).addcmul_(g, g, value=1 - s.beta1)
            variance = s0 if s2 is None else s0 - s2.lerp_(g, 1 - s.beta1).square()
            change = g / ((variance + s.eps).sqrt() if s.variant else variance.sqrt() + s.eps)
            p.add_(change if s1 is None else s1.mul_(s.beta2).add_(change), alpha=-s.lr)
        elif RULES[s.rule] == "sgd":
            if s0 is not None:
                s0.copy_(g) if s.first else s0.mul_(s.beta1).add_(g, alpha=1 - s.beta2)
                g = g + s.beta1 * s0 if s.variant else s0
            p.add_(g, alpha=-s.lr)
        else:
            s0.mul_(s.beta1).addcmul_(g, g, value=1 - s.beta1)
            delta = (s1 + s.eps).sqrt() / (s0 + s.eps).sqrt() * g
            s1.mul_(s.beta1).addcmul_(delta, delta, value=1 - s.beta1)
            p.add_(delta, alpha=-s.lr)
        if s.low > -math.inf or s.high < math.inf:
            p.clamp_(s.low, s.high)


def clipped_step(
    params: list[Tensor],
    grads: list[Tensor],
    state0: list[Tensor],
    state1: list[Tensor],
    state2: list[Tensor],
    steps: list[Tensor],
    settings: Settings,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    rate: Tensor | None = None,
    *,
    backend: str | None = None,
) -> None:
    """One optimizer step with its clip, in place, in one pass over parameters, gradients and states.

    Args:
        params, grads: of one device and dtype; gradients and states have their parameter's shape.
        state0, state1, state2: as the table above, or [].
        steps: float32 numbers, increased by one; adam needs them, [] elsewhere counts nothing.
        settings: rule and numbers.
        grad_scale: gradients are divided by this number (`torch.amp.GradScaler`).
        found_inf: nothing happens where this number is not 0.
        rate: the learning rate is multiplied by this float64 number, which a captured graph reads anew at each replay.
        backend: as for `clip_weights_`.
    """
    if not params:
        return
    lists = (params, grads, state0, state1, state2, steps)
    if grad_scale is None and found_inf is None and rate is None and step_direct(lists, settings, backend):
        return
    backend = _operator.choose(params[0].device, backend)
    if backend == "reference":
        reference_step(*lists, settings, grad_scale, found_inf, rate)
    else:
        _operator.call(backend, "clipped_step", *lists, *settings, grad_scale, found_inf, rate)
        torch.autograd.graph.increment_version(params)


def step_direct(lists: tuple[list[Any], ...], settings: Settings, backend: str | None) -> bool:
    """`clipped_step` by the module's own function, where that can: plain contiguous CPU tensors of one dtype.

    Args:
        lists: params, grads, state0, state1, state2, steps.

    Returns:
        False, and nothing was done, where it cannot.
    """
    module = _extension.module
    if module is None or not _is_direct(lists[0][0], backend):
        return False
    if not module.clipped_step(*lists, *settings):
        return False
    torch.autograd.graph.increment_version(lists[0])
    return True


# ---- the operators ----


def _fake(*_: object) -> None:
    return None


_operator = Operator(
    "weight_clip",
    {
        "weight_clip": Definition("(Tensor(a!)[] tensors, float low, float high) -> ()", _fake),
        "clipped_step": Definition(
            "(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] state0, Tensor(c!)[] state1, Tensor(d!)[] state2, "
            "Tensor(e!)[] steps, int rule, float lr, float beta1, float beta2, float eps, float weight_decay, "
            "float low, float high, bool maximize, bool variant, bool first, bool decoupled, "
            "Tensor? grad_scale, Tensor? found_inf, Tensor? rate) -> ()",
            _fake,
        ),
    },
)
