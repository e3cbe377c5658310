"""Pictures, masks and memory layouts for the tests of masked_l2, and what a user would write instead."""

from __future__ import annotations

import torch
from torch import Tensor

import inpaint_fast as ipf

SMALL = (2, 3, 5, 7)


FAST_BACKENDS = ["reference", "cpp"] if ipf._extension.module else ["reference"]


def random(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    return torch.rand(shape, dtype=torch.float64).to(dtype).to(device)


def mask_of(kind: str, shape: tuple[int, ...], dtype: torch.dtype, device: str = "cpu") -> Tensor | None:
    soft = torch.rand(shape[0], 1, *shape[2:])
    mask = {
        "none": None,
        "bool": soft > 0.5,
        "uint8": (soft > 0.5).to(torch.uint8),
        "float32": (soft > 0.5).float(),
        "same": (soft > 0.5).to(dtype),
        "soft": soft.to(dtype),
    }[kind]
    return mask if mask is None else mask.to(device)


def laid_out(tensor: Tensor, layout: str, *, second: bool = False) -> Tensor:
    """The same values in another memory order; `mixed` differs between the first and the second operand."""
    if layout == "channels_last" or (layout == "mixed" and not second):
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "sliced":
        n, c, h, w = tensor.shape
        larger = tensor.new_full((n, c + 1, h + 2, 2 * w), float("nan"))
        view = larger[:, 1:, 1:-1, ::2]
        return view.copy_(tensor)
    if layout == "transposed":
        return tensor.transpose(2, 3).contiguous().transpose(2, 3)
    return tensor


def with_gradients(loss, pred: Tensor, target: Tensor, *args) -> tuple[Tensor, ...]:
    """The loss and its gradients to pred and target."""
    pred, target = pred.detach().requires_grad_(), target.detach().requires_grad_()
    value = loss(pred, target, *args)
    return (value.detach(), *torch.autograd.grad(value, (pred, target)))
