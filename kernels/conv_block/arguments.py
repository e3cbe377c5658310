"""The arguments of the blocks' operators, checked as in csrc/conv_block/arguments.h."""

from collections.abc import Sequence

import torch
from torch import Tensor

from inpaint_fast.kernels._checks import (
    check_activation,
    check_dims,
    check_memory,
    check_order,
    check_product,
    check_same_device,
    check_same_kind,
)
from inpaint_fast.kernels.conv_block.problem import Convolution

SIDE_LIMIT = 1 << 28  # channels, sides, dilations and paddings are smaller: sums of a few of them fit 32 bits
TAPS = {1: ((3, 3),), 2: ((3, 3), (4, 4))}  # of the weights for a stride


def check_kind(tensor: Tensor, name: str) -> None:
    """float64 is PyTorch's: no GPU multiplies it fast enough for a kernel of ours to matter."""
    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise RuntimeError(f"{name}: its dtype is not float32, float16 or bfloat16")


def _check_below_limit(numbers: Sequence[int]) -> None:
    if max(numbers) >= SIDE_LIMIT or min(numbers) <= -SIDE_LIMIT:
        raise RuntimeError("input: sides, channels, dilation and padding below 2^28 are expected")


def check_pictures(pictures: Tensor, name: str) -> None:
    check_kind(pictures, name)
    check_dims(pictures, 4, name)
    _check_below_limit(pictures.shape[1:])
    check_product(pictures.shape, name)
    check_memory(pictures, name)


def check_beside(tensor: Tensor, pictures: Tensor, dims: int, name: str) -> None:
    """What comes with pictures has their dtype and lies on their device."""
    check_same_kind(tensor, pictures, name, "the pictures")
    check_same_device(tensor, pictures, name, "the pictures")
    check_dims(tensor, dims, name)


def check_weight(weight: Tensor, stride: int) -> None:
    check_dims(weight, 4, "weight")
    _check_below_limit(weight.shape[1:])
    if weight.shape[2:] not in TAPS[stride]:
        raise RuntimeError(f"weight: 3x3 taps are expected{'' if stride == 1 else ', or 4x4'}")


def check_geometry(geometry: Sequence[int]) -> None:
    if len(geometry) != 4:
        raise RuntimeError(
            f"geometry: (dilation_h, dilation_w, padding_h, padding_w) is expected, got {len(geometry)} numbers"
        )
    if min(geometry[:2]) < 1:
        raise RuntimeError("dilation: at least 1 is expected")
    _check_below_limit(geometry)


def convolution_of(weight: Tensor, stride: int, transposed: bool, geometry: Sequence[int]) -> Convolution:
    """The convolution, of a weight and a geometry that fit."""
    check_weight(weight, stride)
    check_geometry(geometry)
    return Convolution(weight.shape[2], stride, transposed, geometry)


def check_convolution(convolution: Convolution, pictures: Tensor, weight: Tensor) -> tuple[int, int]:
    """Height and width of the result; `pictures`: of an input's gradient the output's."""
    name = "grad" if convolution.is_input_gradient else "input"
    check_pictures(pictures, name)
    check_beside(weight, pictures, 4, "weight")
    channels, out_channels = convolution.channels(weight)
    if convolution.is_input_gradient:  # the padding of the convolution the other way
        dilation_h, dilation_w, padding_h, padding_w = convolution.geometry
        _check_below_limit((2 * dilation_h - padding_h, 2 * dilation_w - padding_w))
    if pictures.shape[1] != channels:
        if convolution.is_input_gradient:
            raise RuntimeError("grad: its channels are not the weight's output channels")
        raise RuntimeError("weight: its channels are not those of the pictures")
    height, width = convolution.size(pictures)
    if min(height, width) < 0:
        raise RuntimeError(f"{name}: smaller than the dilated weights, or the padding")
    check_product((pictures.shape[0], out_channels, height, width), name)
    return height, width


def check_weight_gradient(convolution: Convolution, grad: Tensor, input: Tensor, weight: Tensor) -> None:
    """`grad`: that of the convolution's result."""
    size = check_convolution(convolution, input, weight)
    check_beside(grad, input, 4, "grad")
    _check_below_limit(grad.shape[1:])
    if grad.shape[1] != convolution.channels(weight)[1]:
        raise RuntimeError("grad: its channels are not the weight's output channels")
    if (grad.shape[0], *grad.shape[2:]) != (input.shape[0], *size):
        raise RuntimeError("grad: it is not of that input's output")


def check_epilogue(
    pictures: Tensor, channels: int, vectors: Sequence[Tensor | None], activation: int, order: int
) -> None:
    """`channels`: of the result; `vectors`: bias, scale, shift."""
    check_order(order)
    for vector, name in zip(vectors, ("bias", "scale", "shift"), strict=True):
        if vector is None:
            continue
        check_beside(vector, pictures, 1, name)
        if vector.shape[0] != channels:
            raise RuntimeError(f"{name}: one number for each output channel is expected")
    check_activation(activation)


def check_tile(tile: int) -> None:
    """The side of the tiles that weights are transformed for on a CPU; GPUs have none."""
    if tile not in (4, 6):
        raise RuntimeError(f"tile: 4 or 6 is expected, got {tile}")


def check_transformed(transformed: Tensor, pictures: Tensor, numel: int) -> None:
    """Weights as another call has packed them."""
    if transformed.dtype != pictures.dtype:
        raise RuntimeError("transformed: its dtype is not that of such weights")
    check_same_device(transformed, pictures, "transformed", "the pictures")
    check_dims(transformed, 1, "transformed")
    check_memory(transformed, "transformed")
    if transformed.numel() != numel or not transformed.is_contiguous():
        raise RuntimeError("transformed: it is not of this weight")
