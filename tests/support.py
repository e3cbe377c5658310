"""What tests share: how close is close enough, and how often a fault is caused."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from inpaint_fast.ops._plans import forget_plans
from inpaint_fast.ops.conv_block import choice


def times(quick: int, whole: int) -> int:
    """How often a fault is caused: `make test` takes the first number, `make test-faults` the second."""
    return whole if os.environ.get("INPAINT_FAST_FAULTS") == "whole" else quick


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


# ---- of the blocks of convolution, norm and activation ----


@contextmanager
def always_winograd() -> Iterator[None]:
    """Winograd for every shape, however small: what plans depend on besides their keys, so all are made anew."""
    with pytest.MonkeyPatch.context() as patch:
        nothing = choice.Least(*(0 for _ in choice.Least._fields))
        patch.setattr(choice, "LEAST", dict.fromkeys(choice.LEAST, nothing))
        forget_plans()
        yield
    forget_plans()


def laid_out(tensor: Tensor, layout: str) -> Tensor:
    """The same values in another memory order."""
    if layout == "channels_last":
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "sliced":
        n, c, h, w = tensor.shape
        return tensor.new_full((n, c + 1, h + 2, 2 * w), float("nan"))[:, 1:, 1:-1, ::2].copy_(tensor)
    if layout == "transposed":
        return tensor.transpose(2, 3).contiguous().transpose(2, 3)
    return tensor


def run(function: Callable[..., Tensor], tensors: list[Tensor | None], seed: Tensor, **settings) -> list[Tensor]:
    """The result and the gradients of all tensors."""
    input, weight, bias, scale, shift = (t if t is None else t.detach().requires_grad_() for t in tensors)
    y = function(input, weight, bias, scale=scale, shift=shift, **settings)
    sources = [t for t in (input, weight, bias, scale, shift) if t is not None]
    return [y.detach(), *torch.autograd.grad(y, sources, seed.to(y.dtype).expand_as(y))]


def there(tensors: list[Tensor | None], device: str) -> list[Tensor | None]:
    """The tensors on this device."""
    return [t if t is None else t.to(device) for t in tensors]


def exactly(tensors: list[Tensor | None]) -> list[Tensor | None]:
    return [t if t is None else t.double() for t in tensors]
