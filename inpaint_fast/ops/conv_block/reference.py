"""The blocks in plain PyTorch: what "correct" means, and what runs where no kernel of ours is faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from inpaint_fast._words import check_activation
from inpaint_fast.ops._activations import activate
from inpaint_fast.ops.conv_block.geometry import DILATED, HALVING, STRIDED, TRANSPOSED, Block, Geometry, Size


def reference(
    block: Block,
    geometry: Geometry,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str = "none",
    slope: float | None = None,
    order: str = "norm_act",
) -> Tensor:
    """A block in plain PyTorch; arguments as those of its public function."""
    slope = check_activation(activation, slope, order)
    return epilogue(block.convolve(input, weight, bias, geometry), scale, shift, activation, slope, order)


def dilated_reference(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, *, dilation: Size = 1, padding: Size | None = None,
    **settings: Any,
) -> Tensor:  # fmt: skip
    """`dilated_block` in plain PyTorch."""
    return reference(DILATED, Geometry.of(dilation, padding), input, weight, bias, **settings)


def strided_reference(input: Tensor, weight: Tensor, bias: Tensor | None = None, **settings: Any) -> Tensor:
    """`strided_block` in plain PyTorch."""
    return reference(STRIDED, HALVING, input, weight, bias, **settings)


def transposed_reference(input: Tensor, weight: Tensor, bias: Tensor | None = None, **settings: Any) -> Tensor:
    """`transposed_block` in plain PyTorch."""
    return reference(TRANSPOSED, HALVING, input, weight, bias, **settings)


def affine(y: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """scale * y + shift, a number for each channel, in y's dtype."""
    if scale is not None:
        y = (y * scale[:, None, None]).to(y.dtype)  # which autocast may have made narrower than the scale's
    return y if shift is None else (y + shift[:, None, None]).to(y.dtype)


def epilogue(
    y: Tensor, scale: Tensor | None, shift: Tensor | None, activation: str, slope: float, order: str
) -> Tensor:
    """Scale and shift, and the activation, in this order or the other."""
    if order == "norm_act":
        return activate(affine(y, scale, shift), activation, slope)
    return affine(activate(y, activation, slope), scale, shift)


def activation_gradient(grad: Tensor, output: Tensor, activation: str, slope: float) -> Tensor:
    """grad times the activation's derivative, which its result tells where slope >= 0."""
    aten = torch.ops.aten
    if activation == "relu":
        return aten.threshold_backward(grad, output, 0)
    if activation == "leaky_relu":
        return aten.leaky_relu_backward(grad, output, slope, True)
    if activation == "elu":
        return aten.elu_backward(grad, slope, 1, 1, True, output)
    if activation == "sigmoid":
        return aten.sigmoid_backward(grad, output)
    return aten.tanh_backward(grad, output) if activation == "tanh" else grad


def gradients_of(
    function: Callable[..., Tensor], tensors: Sequence[Tensor | None], grad: Tensor, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of function(*tensors), themselves differentiable when grad mode is on."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        if not again:
            tensors = tuple(t if t is None else t.detach().requires_grad_(w) for t, w in zip(tensors, wanted))  # noqa: B905
        y = function(*tensors)
        sources: list[Any] = [t for t, w in zip(tensors, wanted, strict=True) if w]
        found = iter(torch.autograd.grad(y, sources, grad, create_graph=again))
    return [next(found) if w else None for w in wanted]
