"""One drawn call, and what is wrong about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import torch
from torch import Tensor

from fuzz import registered
from fuzz.public import PUBLIC
from fuzz.values import numbers, odd_for_python, odd_for_schema
from inpaint_fast.ops._torch_private import has_kernel

# What a caller may be told; anything else is an accident.
EXPECTED = (TypeError, ValueError, RuntimeError)
# Of Winograd's algorithm in float32, relative to the norm; and what may be left where all cancels, of each number.
WINOGRAD, CANCELLED = 1e-5, 2e-6
LARGEST = 1e4  # numbers up to it are compared: beyond, sums in another order overflow elsewhere


def tensors_of(value: Any) -> Iterable[tuple[str, Tensor]]:
    """Every tensor in arguments or results, with a name."""
    if isinstance(value, Tensor):
        yield "", value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from ((f"{name}{at}", t) for at, t in tensors_of(each))
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            yield from ((f"[{index}]{at}", t) for at, t in tensors_of(each))


def plain(value: Any, dtype: torch.dtype | None = None) -> Any:
    """The same numbers in contiguous tensors of their own, of this dtype where they are floats."""
    if isinstance(value, Tensor):
        t = value.detach().resolve_neg().resolve_conj().as_subclass(Tensor).contiguous().clone()
        t = t.to(dtype) if dtype is not None and t.is_floating_point() else t
        return t.requires_grad_(value.requires_grad)
    if isinstance(value, dict):
        return {name: plain(each, dtype) for name, each in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(plain(each, dtype) for each in value)
    return value


def is_ordinary(t: Tensor) -> bool:
    """Its numbers can be read, and are few."""
    if t.is_nested or t.layout != torch.strided or t.device.type != "cpu" or t.is_quantized or t._is_zerotensor():
        return False
    return t.numel() <= 1 << 20 and (t.numel() == 0 or t.data_ptr() != 0)


def snapshot(arguments: Any) -> dict[str, Tensor]:
    return {name: plain(t.detach()) for name, t in tensors_of(arguments) if is_ordinary(t)}


def same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a, b) or (a.is_floating_point() and torch.equal(a.nan_to_num(7), b.nan_to_num(7)))


def outcome(function: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Tensor]:
    """What a call returns, gives as gradients, and leaves in its arguments."""
    found = dict(tensors_of({"result": function(**arguments)}))
    leaves = {name: t for name, t in tensors_of(arguments) if t.requires_grad}
    sources = [t for t in found.values() if t.requires_grad]
    if leaves and sources:
        # Eighths: the same numbers in every dtype.
        seeds = [(numbers(Random(1), t.shape, torch.float64) * 8).round().div(8).to(t.dtype) for t in sources]
        grads = torch.autograd.grad(sources, list(leaves.values()), seeds, allow_unused=True)
        found |= {f"gradient of {n}": g for n, g in zip(leaves, grads, strict=True) if g is not None}
    found |= {f"{name} afterwards": t for name, t in tensors_of(arguments) if is_ordinary(t)}
    return {name: plain(t.detach()) for name, t in found.items()}


def difference(ours: dict[str, Tensor], same_dtype: dict[str, Tensor], exact: dict[str, Tensor]) -> str | None:
    """What is not as good as PyTorch's own expression of the same dtype, by float64."""
    both = [*ours.items(), *same_dtype.items()]
    results = [t for name, t in both if name.startswith("result") and t.is_floating_point()]
    for name in exact.keys() & ours.keys():
        value, wanted, theirs = ours[name], exact[name], same_dtype.get(name, exact[name])
        if value.shape != wanted.shape:
            return f"{name}: shape {tuple(value.shape)}, expected {tuple(wanted.shape)}"
        if value.numel() == 0:  # its other sizes may have no product, and then PyTorch compares nothing
            continue
        if not value.is_floating_point():
            if not torch.equal(value, wanted.to(value.dtype)):
                return f"{name}: other numbers"
            continue
        value, wanted, theirs = value.double(), wanted.double(), theirs.double()
        if not any(same(value.isfinite(), like.isfinite()) for like in (wanted, theirs)):
            if not wanted.isfinite().all() or wanted.abs().max() > LARGEST:
                continue
            return f"{name}: {int((~value.isfinite()).sum())} numbers are not finite"
        finite = value.isfinite() & wanted.isfinite()
        if not finite.any() or wanted[finite].abs().max() > LARGEST:
            continue
        value, wanted, theirs = value[finite], wanted[finite], theirs[finite]
        # Results are computed together: statistics in float64 are those of sums in the other results' dtype.
        of = results if name.startswith("result") else [ours[name], same_dtype.get(name, ours[name])]
        eps = max(torch.finfo(t.dtype).eps for t in of)
        relative = max(WINOGRAD, 8 * eps) if eps > 1e-10 else 1e-12
        absolute = max(CANCELLED, 4 * eps) if eps > 1e-10 else 1e-13
        bound = 2 * (theirs - wanted).norm() + relative * wanted.norm() + absolute * math.sqrt(wanted.numel())
        if (value - wanted).norm() > bound:
            return f"{name}: error {(value - wanted).norm():.2g}, allowed {bound:.2g}"
    return None


def judged(error: BaseException, named: list[str], before: dict[str, Tensor], arguments: Any) -> str | None:
    """What is wrong about an error; named: one of these words it has to have, or [] where any will do."""
    words = f"{type(error).__name__}: {str(error)[:200]}"
    if not isinstance(error, EXPECTED):
        return f"an accident: {words}"
    for name, t in tensors_of(arguments):
        if name in before and is_ordinary(t) and not same(before[name], plain(t.detach())):
            return f"{name} was changed before {words}"
    ours = isinstance(error, (TypeError, ValueError)) and not isinstance(error, RuntimeError)
    if ours and named and not any(word in str(error) for word in named):
        return f"the error does not name {' or '.join(named)}: {words}"
    return None


# ---- a public function ----


def public_trial(name: str, backend: str | None, seed: str, patient: bool) -> str | None:
    """What is wrong about this call of a public function; None: nothing."""
    public = PUBLIC[name]

    def draw() -> tuple[dict[str, Any], list[str]]:
        rng = Random(seed)
        arguments, changed = public.draw(rng) | {"backend": backend}, []
        if rng.random() < 0.6:
            changed = rng.sample([n for n in arguments if n != "settings"], rng.choice((1, 1, 1, 2)))
            for argument in changed:
                arguments[argument] = odd_for_python(rng, arguments[argument], patient)
        return arguments, changed

    arguments, changed = draw()
    before = snapshot(arguments)
    failed = ours = None
    try:
        ours = outcome(public.function, arguments)
    except Exception as error:
        if public.internal and isinstance(error, AttributeError):
            return None
        failed = judged(error, [] if public.internal else list(arguments), before, arguments)
        if changed or failed is not None:
            return failed
        failed = f"it fits, and raises {type(error).__name__}: {str(error)[:200]}"
    if public.reference is None or _is_extreme(arguments):
        return failed
    forms = []
    for dtype in (None, torch.float64):
        call = {n: v for n, v in draw()[0].items() if n not in ("precision", "backend")}
        try:
            forms.append(outcome(public.reference, plain(call, dtype)))
        except Exception:
            return None  # nothing to compare with
    return failed or difference(ours, *forms)


def _is_extreme(arguments: dict[str, Any]) -> bool:
    """Numbers that overflow sooner or later, by the order in which they are multiplied."""
    tensors = [t for _, t in tensors_of(arguments) if is_ordinary(t) and t.is_floating_point()]
    whole = [float(t.detach().abs().max()) for t in tensors if t.numel()]
    return any(not abs(x) < 1e30 for x in [*whole, *(v for v in arguments.values() if isinstance(v, float))])


# ---- a registered operator ----


def registered_trial(name: str, backend: str, seed: str, patient: bool) -> str | None:
    """What is wrong about this call of a registered operator; None: nothing."""
    operator = registered.operator_of(name, backend)
    rng = Random(seed)
    schema = operator._schema.arguments
    values = registered.right_call(rng, name, backend)
    changed = rng.sample(range(len(schema)), min(len(schema), rng.choice((0, 1, 1, 1, 2, 3))))
    for at in changed:
        values[at] = odd_for_schema(rng, str(schema[at].type), values[at], patient)
    arguments = {argument.name: value for argument, value in zip(schema, values, strict=True)}
    before = snapshot(arguments)
    twin = plain(arguments) if all(is_ordinary(t) for _, t in tensors_of(arguments)) else None
    try:
        ours = outcome(operator, arguments)
    except Exception as error:
        if not changed and registered.recorded(registered.stem_of(name), backend).get(name):
            return f"it fits, and raises {type(error).__name__}: {str(error)[:200]}"
        return judged(error, [], before, arguments)
    if twin is None:
        return None
    refused = backend != "cpp" and _refused(name, plain(arguments))
    if refused:
        return f"it runs, where C++ says: {refused}"
    try:
        wanted = outcome(operator, twin)
    except Exception as error:
        return f"it runs, but not on the same numbers in contiguous memory: {type(error).__name__}: {str(error)[:200]}"
    return difference(ours, wanted, wanted)


def _refused(name: str, arguments: dict[str, Any]) -> str | None:
    """What C++ on the CPU says is wrong with arguments that another backend took; of dtypes it has fewer, weights are
    transformed otherwise there, and matrix units (on a GPU: TF32) need AMX."""
    if not has_kernel(name, "cpu") or arguments.get("transformed") is not None:
        return None
    if "matrix_units" in arguments:
        arguments = arguments | {"matrix_units": False}
    try:
        registered.operator_of(name, "cpp")(**arguments)
    except RuntimeError as error:
        return None if "dtype" in str(error) else str(error)[:200]
    return None
