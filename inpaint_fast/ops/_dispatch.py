"""Which implementation of an operator runs: the backends, what each needs, and the one place that chooses.

An operator named `masked_l2` is up to three registered operators with one schema, one shape function and one
gradient formula:

    torch.ops.inpaint_fast.masked_l2           C++ on CPU tensors ("cpp"), CUDA C++ on CUDA tensors ("cuda")
    torch.ops.inpaint_fast.masked_l2_triton    Triton ("triton"), in Triton's interpreter on CPU tensors
    the reference, plain PyTorch               ("reference"), on any device

A caller chooses nothing: the first of `PREFERENCE` that is there for the tensor's device runs; on a GPU, of an operator
that is `measured`, the backend that measurements on such a GPU say for such a call (_fastest.py), or else the
reference. `backend=` or `use_backend` forces one, and one that is not there is an error that says why and how to get
it.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import Any

import torch
from torch import Tensor

from inpaint_fast import _extension
from inpaint_fast._words import BackendError, triton_interpreted
from inpaint_fast.ops._fastest import KINDS, fastest
from inpaint_fast.ops._flops import register_flops
from inpaint_fast.ops._torch_private import apply_of, has_kernel, is_transformed

BACKENDS = ("cuda", "triton", "cpp", "reference")
PREFERENCE = {"cpu": ("cpp", "reference"), "cuda": ("cuda", "triton", "reference")}
TRITON_INSTALLED = importlib.util.find_spec("triton") is not None  # looked for, not imported
SUFFIX = {"cpp": "", "cuda": "", "triton": "_triton"}
LANGUAGE = {"cpp": "C++", "cuda": "CUDA", "triton": "Triton"}

library = torch.library.Library("inpaint_fast", "DEF")
_forced: str | None = None


class use_backend:  # noqa: N801  (reads as a verb)
    """Force one backend for every operator: `with use_backend("reference"): ...`, or as a plain call, from then on.

    For the whole process, all its threads included.

    Args:
        name: "cuda", "triton", "cpp" or "reference"; None returns to the automatic choice.

    Raises:
        ValueError: the name is not one of these. Whether it can run on the tensors at hand is checked by each operator.
    """

    def __init__(self, name: str | None) -> None:
        global _forced
        self._name, self._before = check_name(name), _forced
        _forced = self._name

    def __enter__(self) -> use_backend:
        global _forced
        _forced = self._name  # again: it may be entered a second time
        return self

    def __exit__(self, *_: object) -> None:
        global _forced
        _forced = self._before


def check_name(backend: str | None) -> str | None:
    """The backend's name if it is one.

    Raises:
        ValueError: it is not.
    """
    if backend is not None and not (isinstance(backend, str) and backend in BACKENDS):
        raise ValueError(f"backend: one of {', '.join(map(repr, BACKENDS))} or None is expected, got {backend!r}")
    return backend


def _keeps_nothing(ctx: Any, inputs: Any, output: Any) -> None:
    """Of an operator without a gradient."""


@dataclass(frozen=True)
class Definition:
    """One schema with its shape function and, where it has one, its gradient formula. The schema names the arguments;
    the gradient formula reads and answers them by these names.

    Attributes:
        schema: without the name: "(Tensor pred, ...) -> Tensor".
        fake: the shape function; takes the arguments in order.
        setup_context: setup_context(ctx, inputs, output) keeps what the gradient needs; `inputs` has a field for each
            argument.
        backward: backward(call, ctx, *grads) -> {argument: gradient}; call(name, *args) calls a helper operator of the
            backend that ran forward.
        results: how many of its results eager callers get, whose gradients alone `backward` is given then; None: all.
        triton_fake, cuda_fake: where shapes differ from those on the CPU, of Triton's operator and of CUDA's.
        flops: flops(*args, out_shape) of tensors' shapes, as torch.utils.flop_counter counts PyTorch's own operators
            (2 for a multiplication and an addition of a convolution, 0 for what goes element by element).
    """

    schema: str
    fake: Callable
    setup_context: Callable = _keeps_nothing
    backward: Callable | None = None
    results: int | None = None
    triton_fake: Callable | None = None
    cuda_fake: Callable | None = None
    flops: Callable[..., int] | None = None

    @cached_property
    def arguments(self) -> tuple[str, ...]:
        """The names in the schema, in order."""
        inside = self.schema[1 : self.schema.index(") ->")]
        return tuple(argument.split()[-1] for argument in inside.split(", "))

    @cached_property
    def inputs(self) -> Any:
        """The arguments of a call, by name."""
        # Types are the schema's to say.
        return namedtuple("Inputs", self.arguments)  # pyright: ignore[reportUntypedNamedTuple]

    def fake_of(self, suffix: str) -> Callable:
        """The shape function of the operator with this suffix; others than those of SUFFIX are CUDA's, emulated."""
        if suffix == SUFFIX["triton"]:
            return self.triton_fake or self.fake
        cuda_fake = self.cuda_fake
        if cuda_fake is None:
            return self.fake
        if suffix:
            return cuda_fake
        return lambda tensor, *args: (cuda_fake if tensor.is_cuda else self.fake)(tensor, *args)

    def formula(self, call: Callable) -> Callable:
        """backward(ctx, *grads) with the gradients in the order of the arguments."""
        arguments, gradients = self.arguments, self.backward
        assert gradients is not None  # or nobody asks

        def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
            found = gradients(call, ctx, *grads)
            return tuple([found.get(name) for name in arguments])

        return backward

    def keep(self, ctx: Any, inputs: tuple, output: Any) -> None:
        """`setup_context` of a call with these arguments in order."""
        self.setup_context(ctx, self.inputs._make(inputs), output)


@dataclass
class Operator:
    """All implementations of the operator `stem`.

    An operator that has a gradient is registered twice: under its name with the formula, for compilers and for those
    who call torch.ops; and under its name plus "_forward" without, for eager calls. PyTorch asks the schema for every
    argument anew at each call of a registered formula, which takes longer than the kernels of small tensors.

    Attributes:
        stem: the name of the operator, and of its public function.
        home: the name that finds its code: csrc/<home>, kernels/<home>, ops/<home>; the stem, where it has its own.
        definitions: name -> definition of each registered operator, the stem itself and its helpers.
        backends: those that have been written, whether or not this build and this machine have them.
        unless: where PyTorch's own operators run unasked instead of "cpp", in words.
        measured: on a GPU the table of _fastest.py says what runs unasked; otherwise `PREFERENCE`.
        suffixes: backend -> what its registered operators add to these names.
        compiled: the device types that the extension has a kernel for.
        functions: (backend's suffix, registered operator) -> itself with its gradient, for eager calls.
    """

    stem: str
    definitions: dict[str, Definition]
    backends: tuple[str, ...] = BACKENDS
    home: str = ""
    unless: str = ""
    measured: bool = False
    suffixes: dict[str, str] = field(init=False)
    compiled: frozenset[str] = field(init=False)
    functions: dict[tuple[str, str], type[torch.autograd.Function]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.suffixes = {backend: suffix for backend, suffix in SUFFIX.items() if backend in self.backends}
        self.home = self.home or self.stem
        OPERATORS[self.stem] = self
        for suffix in dict.fromkeys(self.suffixes.values()):
            self.define(suffix)
        self.compiled = frozenset(device for device in ("cpu", "cuda") if has_kernel(self.stem, device))

    def define(self, suffix: str) -> None:
        """Define every operator of this stem under its name plus `suffix`: schema, shape function, gradient."""
        for name, definition in self.definitions.items():
            self._register(name, "", suffix)
            if definition.backward is not None:
                self._register(name, "_forward", suffix)
                formula = definition.formula(partial(_call, suffix))
                torch.library.register_autograd(
                    f"inpaint_fast::{name}{suffix}", formula, setup_context=definition.keep, lib=library
                )
                self.functions[suffix, name] = _function(f"{name}_forward{suffix}", definition, formula)

    def _register(self, name: str, variant: str, suffix: str) -> None:
        definition, full = self.definitions[name], f"{name}{variant}{suffix}"
        library.define(f"{full}{definition.schema}")
        fake = _on_one_kind_of_device(full, definition.fake_of(suffix))
        torch.library.register_fake(f"inpaint_fast::{full}", fake, lib=library)
        register_flops(full, definition.flops)
        if suffix == SUFFIX["triton"]:
            run = partial(_call_triton, self.home, name)
            for key in ("CPU", "CUDA"):
                library.impl(full, run, key)

    def entry(self, backend: str, name: str, gradient: bool) -> Callable:
        """What to call with the arguments of the operator `name` (the stem or a helper) of `backend`.

        gradient: one is wanted; the operator has a gradient.
        """
        suffix = self.suffixes[backend]
        if (suffix, name) not in self.functions or torch.compiler.is_compiling():
            return _registered(f"{name}{suffix}")
        return apply_of(self.functions[suffix, name]) if gradient else _registered(f"{name}_forward{suffix}")

    def call(self, backend: str, name: str, *args: object) -> Any:
        """Call the operator `name` of `backend`."""
        gradient = torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in args)
        return self.entry(backend, name, gradient)(*args)

    def preference(self, device: torch.device, kind: str, size: int | None) -> tuple[str, ...]:
        """The backends to try on tensors of `device`, the first of which that can run does."""
        if device.type != "cuda" or not self.measured:
            return PREFERENCE.get(device.type, ())
        if not torch.cuda.is_available():
            return ()
        facts = torch.cuda.get_device_properties(device)
        found = fastest(self.stem, (facts.major, facts.minor), kind, size)
        return () if found is None else (found,)

    def describe(self, device: torch.device) -> str:
        """What runs on tensors of `device` unasked, and, where that is not what was written for it, why."""
        by_kind = {kind: self.choose(device, None, kind) for kind in KINDS}
        chosen, *others = dict.fromkeys(by_kind.values())
        if device.type != "cuda" or not self.measured or _forced is not None:
            unless = f"; PyTorch's own {self.unless}" if chosen == "cpp" and self.unless and _forced is None else ""
            return f"{chosen} runs{unless}"
        if chosen == "reference" and not others:
            ours = " or ".join(repr(name) for name in self.backends if name in ("triton", "cuda"))
            return f"reference (PyTorch's own) runs: no measurements for this GPU; backend={ours} runs ours"
        ours = " and ".join(f"{name} for large {kind}" for kind, name in by_kind.items() if name != "reference")
        return f"{ours} runs; PyTorch's own otherwise"

    def choose(
        self, device: torch.device, backend: str | None, kind: str = "inference", size: int | None = None
    ) -> str:
        """The backend that runs on tensors of `device`.

        Args:
            kind, size: of the call, by _fastest.py; None: any that is large enough.

        Raises:
            ValueError: `backend` is no backend.
            BackendError: it cannot run here.
        """
        added = _forced if backend is None else backend  # of an array nobody can say whether it is true
        if isinstance(added, str) and added in self.suffixes and added not in SUFFIX:
            return added  # by `define`, by those who test
        backend = check_name(backend) or _forced
        if is_transformed():
            if backend not in (None, "reference"):
                where = "under torch.func and forward-mode differentiation"
                raise BackendError(f"{self.stem}: backend {backend!r} cannot run {where}; only 'reference' can")
            return "reference"
        if backend is None:
            for candidate in self.preference(device, kind, size):
                if why_not(self.stem, candidate, device.type) is None:
                    return candidate
            return "reference"
        reason = why_not(self.stem, backend, device.type)
        if reason is not None:
            raise BackendError(f"{self.stem}: backend {backend!r} cannot run on {device.type} tensors: {reason}")
        return backend


def forced() -> str | None:
    """The backend that `use_backend` forces."""
    return _forced


def elsewhere() -> tuple[str | None, bool]:
    """What else than its arguments a call depends on: the backend that `use_backend` forces, whether a transform of
    torch.func is on. Part of the key under which plans are kept."""
    return _forced, is_transformed()


def backend_of(stem: str, device: torch.device | str = "cpu", backend: str | None = None) -> str:
    """The backend that operator `stem` runs on tensors of that device, with its instruction set: "cpp (avx512)".

    Raises:
        ValueError: there is no such operator.
        ValueError, BackendError: as `Operator.choose`.
    """
    if stem not in OPERATORS:
        raise ValueError(f"stem: one of {', '.join(map(repr, OPERATORS))} is expected, got {stem!r}")
    chosen = OPERATORS[stem].choose(torch.device(device), backend)
    return f"cpp ({_extension.cpu_capability()})" if chosen == "cpp" else chosen


def _on_one_kind_of_device(full: str, fake: Callable) -> Callable:
    """The shape function `fake`, which PyTorch calls where a single tensor is on the meta device, too: nothing would be
    computed for the others, and nobody be told."""

    def checked(*args: Any) -> Any:
        flat = [t for arg in args for t in (arg if isinstance(arg, (list, tuple)) else (arg,)) if isinstance(t, Tensor)]
        if len({t.device.type == "meta" for t in flat}) == 2:
            raise RuntimeError(f"{full}: all tensors on the meta device are expected, or none")
        return fake(*args)

    return checked


def _function(full: str, definition: Definition, backward: Callable) -> type[torch.autograd.Function]:
    """The registered operator `full`, which has no gradient, with the gradient of `definition`."""

    run, keep, results = _registered(full), definition.keep, definition.results

    def forward(ctx: Any, *args: object) -> Any:
        output = run(*args)
        keep(ctx, args, output)
        return output if results is None else output[0] if results == 1 else output[:results]

    members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type(full, (torch.autograd.Function,), members)


def _registered(full: str) -> Callable:
    return getattr(torch.ops.inpaint_fast, full).default


def _call(suffix: str, name: str, *args: object) -> Any:
    return _found(name, suffix)(*args)


@cache
def _found(name: str, suffix: str) -> Callable:
    return _registered(f"{name}{suffix}")


def _call_triton(home: str, name: str, *args: object) -> Any:
    """kernels/<home> is imported by its first call: Triton costs seconds that an import must not.

    Raises:
        BackendError: kernels are to be interpreted, and Triton's interpreter cannot run here.
        RuntimeError: an argument does not fit (kernels/_checks.py).
    """
    fault = _interpreter_fault()
    if fault is not None:
        raise BackendError(f"{name}: {fault}")
    return getattr(importlib.import_module(f"inpaint_fast.kernels.{home}"), name)(*args)


def _interpreter_fault() -> str | None:
    from inpaint_fast.kernels import interpreter_fault  # an import of the library needs nothing of kernels/

    return interpreter_fault()


# Every operator by its stem; filled by the modules of this package.
OPERATORS: dict[str, Operator] = {}


def why_not(stem: str, backend: str, device_type: str) -> str | None:
    """Why `backend` cannot run operator `stem` on tensors of that device type; None when it can."""
    if backend == "reference":
        return None
    if backend not in OPERATORS[stem].backends:
        return f"there is no {LANGUAGE[backend]} kernel for {stem} yet"
    if backend == "triton":
        if not TRITON_INSTALLED:
            return "Triton is not installed. Type: pip install 'triton>=3.6'"
        if device_type != "cuda" and not triton_interpreted():
            return "Triton needs CUDA tensors (or TRITON_INTERPRET=1, to test without a GPU)"
        return _interpreter_fault()
    needed = {"cpp": "cpu", "cuda": "cuda"}[backend]
    if device_type != needed:
        return f"it is for {needed} tensors"
    if _extension.error is not None:
        return f"the extension could not be loaded: {_extension.error}. Type: pip install --no-build-isolation ."
    if device_type not in OPERATORS[stem].compiled:
        left_out = _extension.build_info().get("cuda_left_out", "")
        return f"this build has no {backend} kernel for it ({left_out}). Type: INPAINT_FAST_CUDA=1 pip install ."
    return None
