"""The checks of arguments that all operators in Triton share: those of csrc/common/checks.h, by the same names and in
the same words.

The Python functions have named every wrong argument already; these keep a direct call of torch.ops.inpaint_fast from
doing harm. So each argument is checked before anything is allocated by it, launched or changed: what does not fit is a
RuntimeError, and nothing has happened. They look at what a tensor is, never at its numbers: nothing waits for a device.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from inpaint_fast._words import ACTIVATIONS, DTYPES

MAX_DIMS = 5  # of what is walked by its strides
LARGEST = 1 << 58  # numbers of a tensor whose bytes can be counted


# ---- one tensor ----


def check_memory(tensor: Tensor, name: str) -> None:
    """torch keeps none for some tensors: those whose storage was given back. And elements of a view of a file's bytes
    may begin anywhere, where GPUs cannot read them."""
    if tensor.numel() == 0:
        return
    address = tensor.data_ptr()
    if not address:
        raise RuntimeError(f"{name}: a tensor with memory of its own is expected")
    if address % tensor.element_size():
        raise RuntimeError(
            f"{name}: elements at multiples of their size in memory are expected, as those of its clone are"
        )


def check_float(tensor: Tensor, name: str) -> None:
    if tensor.dtype not in DTYPES:
        raise RuntimeError(f"{name}: its dtype is not float32, float64, float16 or bfloat16")
    check_memory(tensor, name)


def check_dims(tensor: Tensor, dims: int, name: str) -> None:
    if tensor.dim() != dims:
        raise RuntimeError(f"{name}: {dims} dimensions are expected, got {tensor.dim()}")


def check_scalar(tensor: Tensor, name: str) -> None:
    """One number of float32 or float64."""
    if tensor.numel() != 1:
        raise RuntimeError(f"{name}: one element is expected, got {tensor.numel()}")
    if tensor.dtype not in (torch.float32, torch.float64):
        raise RuntimeError(f"{name}: its dtype is not float32 or float64")
    check_memory(tensor, name)


def is_apart(tensor: Tensor) -> bool:
    """Each stride leads past all that smaller ones reach: no two elements lie at one address. A view that interleaves
    others may be apart for all that; it is not for the few that do so to be changed in place."""
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return False
            reach += stride * (size - 1)
    return True


# ---- one tensor by another ----


def check_same_sizes(tensor: Tensor, like: Tensor, name: str, of: str) -> None:
    if tensor.shape != like.shape:
        raise RuntimeError(f"{name}: its shape is not that of {of}")


def check_same_device(tensor: Tensor, like: Tensor, name: str, of: str) -> None:
    if tensor.device != like.device:
        raise RuntimeError(f"{name}: it is not on the device of {of}")


def check_same_kind(tensor: Tensor, like: Tensor, name: str, of: str) -> None:
    if tensor.dtype != like.dtype:
        raise RuntimeError(f"{name}: its dtype is not that of {of}")
    check_memory(tensor, name)


# ---- sizes ----


def check_product(sizes: Iterable[int], name: str) -> None:
    """Sizes of a tensor whose bytes can be counted; that there is memory for them is found out by allocating it."""
    if math.prod(sizes) > LARGEST:
        raise RuntimeError(f"{name}: the sizes are too large")


# ---- words ----


def check_activation(activation: int) -> None:
    if not 0 <= activation < len(ACTIVATIONS):
        raise RuntimeError(f"activation: 0 to {len(ACTIVATIONS) - 1} is expected, got {activation}")


def check_order(order: int) -> None:
    if order not in (0, 1):
        raise RuntimeError(f"order: 0 or 1 is expected, got {order}")
