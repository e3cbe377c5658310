"""Drawn values: tensors that lie in memory in every way, and what no operator can take."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
OTHERS = (torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn)
WHOLE = (-(2**63), -(2**62), -(2**31), -7, -1, 0, 1, 2, 3, 5, 255, 2**27, 2**28, 2**31 - 1, 2**31, 2**62, 2**63 - 1)
REAL = (math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0, 1e-320, 1e308, -1e308, 3e38)
HUGE = 2**44  # elements: no machine has memory for a result of them


def numbers(rng: Random, shape: tuple[int, ...], dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(rng.getrandbits(31))
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype)


# ---- the same values, lying otherwise ----


def as_is(rng: Random, t: Tensor) -> Tensor:
    return t


def channels_last(rng: Random, t: Tensor) -> Tensor:
    return t.movedim(1, -1).contiguous().movedim(-1, 1) if t.dim() > 1 else t


def transposed(rng: Random, t: Tensor) -> Tensor:
    order = rng.sample(range(t.dim()), t.dim())
    return t.permute(order).contiguous().permute([order.index(d) for d in range(t.dim())])


def sliced(rng: Random, t: Tensor) -> Tensor:
    """Every second element of a dimension, and not the first one of memory."""
    if t.dim() == 0:
        return t.new_zeros(3).index_fill_(0, torch.tensor(1), t.item())[1] if t.dtype in FLOATS else t
    d = rng.randrange(t.dim())
    larger = t.new_zeros([2 * size + 1 if at == d else size for at, size in enumerate(t.shape)])
    return larger.narrow(d, 1, 2 * t.shape[d])[(slice(None),) * d + (slice(None, None, 2),)].copy_(t)


def of_odd_strides(rng: Random, t: Tensor) -> Tensor:
    """Dimensions of one element have strides that lead nowhere."""
    t = t.contiguous()
    return t.as_strided(t.shape, [2**62 if size == 1 else s for size, s in zip(t.shape, t.stride(), strict=True)])


def negated(rng: Random, t: Tensor) -> Tensor:
    """A view that stands for the negated numbers."""
    return torch._neg_view(-t) if t.dtype != torch.bool else t


def imaginary(rng: Random, t: Tensor) -> Tensor:
    """The imaginary part of conjugated numbers: negated, and every second one of memory."""
    if t.dtype not in (torch.float32, torch.float64):
        return t
    return torch.complex(torch.zeros_like(t), -t).conj().imag


def unaligned(rng: Random, t: Tensor) -> Tensor:
    """At an address that is no multiple of the element's size, as a file in memory may have it."""
    if t.numel() == 0 or t.dtype == torch.bool:
        return t
    memory = bytearray(t.numel() * t.element_size() + 1)
    return torch.frombuffer(memory, dtype=t.dtype, count=t.numel(), offset=1).view(t.shape).copy_(t)


def subclassed(rng: Random, t: Tensor) -> Tensor:
    return t.as_subclass(_Subclass)


class _Subclass(Tensor):
    pass


LAYOUTS = (as_is, as_is, as_is, channels_last, transposed, sliced, of_odd_strides)
VIEWS = (negated, imaginary, unaligned, subclassed)


def laid_out(rng: Random, t: Tensor) -> Tensor:
    return rng.choice(LAYOUTS)(rng, t)


def tensor(rng: Random, shape: tuple[int, ...], dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    """Finite numbers, lying in memory in one way or another."""
    return laid_out(rng, numbers(rng, shape, dtype, scale))


# ---- what was not expected ----


def _of_another_dtype(rng: Random, t: Tensor) -> Tensor:
    return t.to(rng.choice(FLOATS + OTHERS))


def _of_other_dims(rng: Random, t: Tensor) -> Tensor:
    return rng.choice(
        [lambda: t[None], lambda: t.flatten(), lambda: t.squeeze(), lambda: t[(None,) * 4], lambda: t.sum(),
         lambda: t.unsqueeze(-1)]
    )()  # fmt: skip


def _of_another_size(rng: Random, t: Tensor) -> Tensor:
    if t.dim() == 0:
        return t.new_zeros(rng.choice((0, 2)))
    d = rng.randrange(t.dim())
    size = rng.choice((0, 0, 1, t.shape[d] - 1, t.shape[d] + 1, 2 * t.shape[d]))
    return t.new_ones([max(size, 0) if at == d else old for at, old in enumerate(t.shape)])


def _empty_and_vast(rng: Random, t: Tensor) -> Tensor:
    """No element, though the other sizes have no product."""
    shape = [rng.choice((2**31, 2**28 - 1, 1)) for _ in t.shape] or [0]
    shape[rng.randrange(len(shape))] = 0
    return t.new_empty(0).as_strided(shape, [rng.choice((0, 1, 2**40)) for _ in shape])


def _expanded(rng: Random, t: Tensor) -> Tensor:
    return t.new_ones(1).expand(t.shape) if t.dim() else t


def _huge(rng: Random, t: Tensor) -> Tensor:
    """More elements than there is memory for, all of them one."""
    if t.dim() == 0:
        return t.new_ones(1).expand(HUGE)
    shape, d = list(t.shape), rng.randrange(t.dim())
    shape[d] = rng.choice((HUGE, 2**58, 2**61))
    shape = [size if at == d else min(size, 4) for at, size in enumerate(shape)]
    return t.new_ones([1] * t.dim()).expand(shape) if math.prod(shape) < 2**62 else t.new_ones(1).expand(HUGE)


def _overlapping(rng: Random, t: Tensor) -> Tensor:
    return t.contiguous().as_strided(t.shape, [1] * t.dim())


def _without_memory(rng: Random, t: Tensor) -> Tensor:
    t = t.clone()
    t.untyped_storage().resize_(0)
    return t


def _zeros_that_were_never_written(rng: Random, t: Tensor) -> Tensor:
    return torch._efficientzerotensor(t.shape, dtype=t.dtype)


def _elsewhere(rng: Random, t: Tensor) -> Tensor:
    return t.to("meta")


def _not_dense(rng: Random, t: Tensor) -> Any:
    makers = [t.to_sparse, lambda: t.float().to_mkldnn(), lambda: torch.nested.nested_tensor([t, t])]
    makers += [lambda: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8), lambda: t[0, 0].to_sparse_csr()]
    return rng.choice(makers)()


def _of_odd_numbers(rng: Random, t: Tensor) -> Tensor:
    return torch.full_like(t, rng.choice(REAL)) if t.is_floating_point() else t


def _relaid(rng: Random, t: Tensor) -> Tensor:
    return rng.choice(VIEWS + LAYOUTS)(rng, t)


ODD_TENSORS: tuple[Callable[[Random, Tensor], Any], ...] = (
    _of_another_dtype, _of_other_dims, _of_another_size, _empty_and_vast, _expanded, _overlapping,
    _zeros_that_were_never_written, _elsewhere, _not_dense, _of_odd_numbers, _relaid, _relaid, _huge,
)  # fmt: skip


def odd_tensor(rng: Random, t: Tensor, patient: bool, registered: bool = False) -> Any:
    """Something else in the place of `t`; not patient: nothing that takes hours where it is computed.

    Without memory for registered operators alone: public functions may hand tensors to PyTorch's own, which die of it.
    """
    choices = ODD_TENSORS if patient else ODD_TENSORS[:-1]
    if registered:
        choices = (*choices, _without_memory)
    try:
        return rng.choice(choices)(rng, t.detach())
    except (RuntimeError, TypeError, ValueError, IndexError, MemoryError):
        return t.detach()[None]  # PyTorch has no such tensor of this shape and dtype


def odd_list(rng: Random, tensors: list[Tensor], patient: bool, registered: bool = False) -> list[Any]:
    """Another list."""
    found = list(tensors)
    if not found:
        return [torch.ones(rng.randrange(4))]
    at = rng.randrange(len(found))
    kind = rng.randrange(6)
    if kind == 0:
        del found[at]
    elif kind == 1:
        found.append(found[at].clone())
    elif kind == 2:
        found = []
    else:
        found[at] = odd_tensor(rng, found[at], patient, registered)
    return found


def odd_for_python(rng: Random, value: Any, patient: bool) -> Any:
    """What a caller of a Python function may pass instead of `value`."""
    if rng.random() < 0.1:
        return rng.choice((None, "x", "", 3, 1.5, (), [1, 2], {}, object(), True, 2**64, -(2**70), b"1", np.ones(3)))
    if isinstance(value, Tensor):
        return odd_tensor(rng, value, patient)
    if isinstance(value, list):
        return odd_list(rng, value, patient)
    if isinstance(value, bool):
        return rng.choice((not value, 2, None, "yes"))
    if isinstance(value, int):
        return rng.choice((*WHOLE, 2**64, -(2**70), np.int64(3), 1.0, (1, 2), (2**31, 1), (0, 1), (1, -(2**62)), (1,)))
    if isinstance(value, float):
        return rng.choice((*REAL, 1, np.float32(2.0), 10**400, 1 + 2j))
    if isinstance(value, tuple):
        return tuple(odd_for_python(rng, v, patient) for v in value)[: rng.choice((1, 2, 2, 3))]
    if value is None:
        return rng.choice((torch.ones(3), torch.ones(()), torch.ones(2, 3, 4, 4), 0.1, 3, -1, (1, 2)))
    return rng.choice(("none", "relu", "NORM_ACT", "é" * 70, 5, None, ("relu",), b"relu"))


def odd_for_schema(rng: Random, kind: str, value: Any, patient: bool) -> Any:
    """What the dispatcher lets through to an argument of this type of a schema."""
    if kind.startswith("List[Tensor"):
        return odd_list(rng, value, patient, True)
    if kind.startswith("List[int"):
        return rng.choice(
            [lambda: value[:-1], lambda: [*value, 1], list, lambda: [rng.choice(WHOLE) for _ in value],
             lambda: [rng.choice(WHOLE) if rng.random() < 0.4 else v for v in value]]
        )()  # fmt: skip
    if "Tensor" in kind:
        if kind.startswith("Optional") and rng.random() < 0.2:
            return None
        some = torch.ones(rng.choice(((), (3,), (6,), (2, 3, 4, 4)))) if value is None else value
        return odd_tensor(rng, some, patient, True)
    return {"int": lambda: rng.choice(WHOLE), "float": lambda: rng.choice(REAL), "bool": lambda: not value}[kind]()
