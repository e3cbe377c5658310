"""Calls of torch.ops.inpaint_fast: those that the public functions make, recorded, from which others are made."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import torch
from support import always_winograd
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fuzz.public import PUBLIC
from inpaint_fast.ops import forget, prepare
from inpaint_fast.ops._dispatch import OPERATORS

RECORDED = 24  # public calls of each function, from which all others are made
FORWARD = "_forward"  # the operator of the same name and no gradient


def load(backend: str) -> None:
    """Make sure that its operators are registered: those of CUDA's emulation are when they are loaded."""
    if backend == "emulated":
        from emulation import build

        for stem, operator in OPERATORS.items():
            if "cuda" in operator.backends:
                build.load(stem)


def names(backend: str) -> list[str]:
    """The registered operators of a backend, without its suffix, from the registry."""
    return [
        name + variant
        for operator in OPERATORS.values()
        if backend in operator.suffixes
        for name, definition in operator.definitions.items()
        for variant in ("", FORWARD)[: 2 if definition.backward else 1]
    ]


def operator_of(name: str, backend: str) -> Callable[..., Any]:
    return getattr(torch.ops.inpaint_fast, name + OPERATORS[stem_of(name)].suffixes[backend]).default


def stem_of(name: str) -> str:
    return next(stem for stem, operator in OPERATORS.items() if name.removesuffix(FORWARD) in operator.definitions)


def copied(value: Any) -> Any:
    """A tensor in memory of its own that lies just so; lists of them."""
    if isinstance(value, (list, tuple)):
        return [copied(v) for v in value]
    if not isinstance(value, Tensor):
        return value
    memory = value.untyped_storage().clone()
    return torch.empty(0, dtype=value.dtype).set_(memory, value.storage_offset(), value.shape, value.stride())


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, list[list[Any]]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func.namespace == "inpaint_fast":
            self.calls.setdefault(func._schema.name.partition("::")[2], []).append([copied(arg) for arg in args])
        return func(*args, **(kwargs or {}))


@cache
def recorded(stem: str, backend: str) -> dict[str, list[list[Any]]]:
    """The calls that drawn public calls of this operator make: registered operator, without suffix -> arguments."""
    recorder = _Recorder()
    for name, public in PUBLIC.items():
        if public.stem != stem or public.reference is None:
            continue
        for i in range(RECORDED):
            call = public.draw(Random(f"{name} {i}"))
            with always_winograd(), recorder, contextlib.suppress(ValueError):
                found = public.function(**call, backend=backend)
                of = [t for t in (found if isinstance(found, tuple) else (found,)) if isinstance(t, Tensor)]
                if of and of[0].requires_grad:
                    of[0].sum().backward(retain_graph=True)
                    of[0].sum().backward()  # the gradient that was left ready is gone
                if isinstance(call.get("weight"), Tensor) and "precision" in call:  # a block: its weight may be kept
                    prepare(call["weight"])
                    with torch.no_grad():
                        public.function(**call, backend=backend)
                    forget(call["weight"])
    suffix = OPERATORS[stem].suffixes[backend]
    calls: dict[str, list[list[Any]]] = {}
    for name, found in recorder.calls.items():
        name = name.removesuffix(suffix)
        calls.setdefault(name, []).extend(found)
        if name.endswith(FORWARD):
            calls.setdefault(name.removesuffix(FORWARD), []).extend(found)
    return calls


def right_call(rng: Random, name: str, backend: str) -> list[Any]:
    """Arguments that fit, in the order of the schema; where no public call gave any, something of the right types."""
    calls = recorded(stem_of(name), backend).get(name)
    if calls:
        return copied(rng.choice(calls))
    simple = {"Tensor": torch.ones(2, 3, 4, 4), "List[int]": [1, 1, 1, 1], "int": 1, "float": 0.5, "bool": True}
    kinds = [str(argument.type) for argument in operator_of(name, backend)._schema.arguments]
    return [[torch.ones(3)] if kind == "List[Tensor]" else simple.get(kind) for kind in kinds]
