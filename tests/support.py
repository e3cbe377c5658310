"""What tests of numbers share: how close is close enough."""

from __future__ import annotations

import torch
from torch import Tensor


def relative_error(value: Tensor, exact: Tensor) -> float:
    """norm(value - exact) / norm(exact), in float64; the plain norm of the difference where exact is 0."""
    difference = (value.double() - exact.double()).norm()
    return (difference / exact.double().norm().clamp(min=1e-300) if exact.norm() > 0 else difference).item()


def assert_as_good(value: Tensor, plain: Tensor, exact: Tensor, *, ulps: float = 4) -> None:
    """The error of `value` is at most twice that of the same-dtype PyTorch expression `plain`, against float64.

    `ulps` units in the last place of `value`'s dtype are allowed besides, since `plain` may be exact by luck: one for
    rounding the result and the rest for sums in another order. In float64 the reference is no better than what it
    judges: both add up to 1e5 numbers, whose rounding walks sqrt(1e5) / 8, about 40, units.
    """
    floor = (40 if value.dtype == torch.float64 else ulps) * torch.finfo(value.dtype).eps
    ours, theirs = relative_error(value, exact), relative_error(plain, exact)
    assert ours <= 2 * theirs + floor, f"relative error {ours:.3g}; plain PyTorch has {theirs:.3g}, floor {floor:.3g}"


def parameters(network: torch.nn.Module) -> int:
    """How many numbers it learns."""
    return sum(parameter.numel() for parameter in network.parameters())


def output_shapes(network: torch.nn.Module, *inputs: Tensor) -> list[tuple[type, tuple[int, ...]]]:
    """(class, output shape without the batch) of each leaf module, in the order of its calls."""
    seen: list[tuple[type, tuple[int, ...]]] = []
    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [
        leaf.register_forward_hook(lambda module, _, output: seen.append((type(module), tuple(output.shape[1:]))))
        for leaf in leaves
    ]
    network(*inputs)
    for hook in hooks:
        hook.remove()
    return seen
