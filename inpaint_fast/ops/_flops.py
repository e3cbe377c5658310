"""What torch.utils.flop_counter counts for the registered operators.

That module takes 0.2 s to import (it looks for Triton), so it is told when somebody else imports it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

import torch

COUNTER = "torch.utils.flop_counter"
_formulas: dict[str, Callable[..., int]] = {}


def register_flops(name: str, formula: Callable[..., int] | None) -> None:
    """Let "inpaint_fast::<name>" count as `formula`(*args, out_shape=...) says; None: as an elementwise operator, 0.

    Arguments are those of the operator, tensors as their shapes.
    """
    _formulas[name] = formula or _nothing
    if COUNTER in sys.modules:
        _register(sys.modules[COUNTER], name)


def convolution_flops(
    input: Sequence[int], weight: Sequence[int], output: Sequence[int], transposed: bool = False
) -> int:
    """2 for each product of a convolution (input -> output), padding counted, as PyTorch counts its own."""
    flops = 2 * input[0] * weight[0] * weight[1] * weight[2] * weight[3]
    height, width = (input if transposed else output)[2:]
    return flops * height * width


def _nothing(*args: object, **kwargs: object) -> int:
    return 0


def _register(counter: ModuleType, name: str) -> None:
    counter.register_flop_formula(getattr(torch.ops.inpaint_fast, name))(_formulas[name])


class _AtImport(MetaPathFinder):
    """Registers all formulas as soon as the counter's module has been loaded, once."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != COUNTER:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_register(module: ModuleType) -> None:
            load(module)
            for formula in _formulas:
                _register(module, formula)

        spec.loader.exec_module = load_and_register
        return spec


if COUNTER not in sys.modules:
    sys.meta_path.insert(0, _AtImport())
