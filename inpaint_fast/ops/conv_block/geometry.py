"""The three blocks: what each convolves in plain PyTorch, its sizes, and what is wrong with its arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from inpaint_fast.ops._plans import Facts, check_dtype, check_place

Size = int | tuple[int, int]


class Geometry(NamedTuple):
    """How far apart the taps of a convolution are, and the zeros round its input; as the kernels take it."""

    dilation_h: int
    dilation_w: int
    padding_h: int
    padding_w: int

    @property
    def dilation(self) -> tuple[int, int]:
        return self.dilation_h, self.dilation_w

    @property
    def padding(self) -> tuple[int, int]:
        return self.padding_h, self.padding_w

    @classmethod
    def of(cls, dilation: Size, padding: Size | None) -> Geometry:
        """From a public function's arguments; padding None: the dilation.

        Raises:
            TypeError, ValueError: one has no such value; the message names it.
        """
        dilation = pair("dilation", dilation, 1)
        return cls(*dilation, *(dilation if padding is None else pair("padding", padding, 0)))


# Of both blocks of stride 2, whatever their taps: between the quarters of a picture (resampling.py).
HALVING = Geometry(1, 1, 1, 1)


def resampling_padding(taps: int) -> int:
    """Zeros round the input of a convolution of stride 2 with weights of this side, or what a transposed one cuts off
    round its result."""
    return (taps - 1) // 2


class Border(NamedTuple):
    """What is put round the input of a convolution that adds no zeros itself: the arguments of F.pad."""

    mode: str
    widths: tuple[int, int, int, int]  # left, right, top, bottom


def pair(name: str, value: Size, least: int) -> tuple[int, int]:
    """(vertical, horizontal) of one number or two.

    Raises:
        TypeError: they are no whole numbers.
        ValueError: one is below `least`.
    """
    numbers = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, (tuple, list)) else ()
    if len(numbers) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) for v in numbers):
        raise TypeError(f"{name}: a whole number or a pair of them is expected, got {value!r}")
    if min(numbers) < least:
        raise ValueError(f"{name}: at least {least} is expected, got {value!r}")
    if max(numbers) >= 1 << 63:
        raise ValueError(f"{name}: at most 64 bits are expected, got {value!r}")
    return numbers


def _as_one(numbers: tuple[int, int]) -> Size:
    """Two that are the same as one, which PyTorch reads faster."""
    return numbers[0] if numbers[0] == numbers[1] else numbers


@dataclass(frozen=True)
class Block:
    """One of the three: `DILATED`, `STRIDED`, `TRANSPOSED`.

    Attributes:
        stem: the name of its operator and of its public function.
        stride: 1 or 2.
        transposed: whether it doubles the size, by a transposed convolution.
        taps: the sides that its weights may have.
        taps_on_gpus: those of them that the kernels for GPUs take.
    """

    stem: str
    stride: int
    transposed: bool
    taps: tuple[int, ...]
    taps_on_gpus: tuple[int, ...] = ()

    def convolution(self, geometry: Geometry, taps: int) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
        """The convolution in plain PyTorch, with weights of this side: a function of input, weight and bias."""
        stride, dilation = self.stride, _as_one(geometry.dilation)
        padding = _as_one(geometry.padding) if stride == 1 else resampling_padding(taps)
        if self.transposed:
            output_padding = taps % 2
            return lambda x, w, b: torch.conv_transpose2d(x, w, b, stride, padding, output_padding)
        return lambda x, w, b: torch.conv2d(x, w, b, stride, padding, dilation)

    def convolve(self, input: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        """The convolution in plain PyTorch."""
        return self.convolution(geometry, weight.shape[2])(input, weight, bias)

    def channels(self, weight: Sequence[int]) -> tuple[int, int]:
        """(of the input, of the output) for a weight of this shape."""
        return (weight[0], weight[1]) if self.transposed else (weight[1], weight[0])

    def size(self, input: Sequence[int], weight: Sequence[int], geometry: Geometry) -> tuple[int, int]:
        """Height and width of the result for pictures and a weight of these shapes."""
        height, width = input[2:]
        if self.transposed:
            return 2 * height, 2 * width
        if self.stride == 2:
            odd = weight[2] % 2  # 3 or 5 taps read the last one of an odd number of rows, 4 do not
            return (height + odd) // 2, (width + odd) // 2
        dilation_h, dilation_w, padding_h, padding_w = geometry
        spans = weight[2] - 1  # between the first and the last tap
        return height + 2 * padding_h - spans * dilation_h, width + 2 * padding_w - spans * dilation_w

    def check(
        self, input: Facts, weight: Facts, geometry: Geometry, autocast: torch.dtype | None, **vectors: Facts | None
    ) -> None:
        """Raises the error that names the argument that does not fit.

        Args:
            autocast: with one, dtypes may differ.
            vectors: bias and whatever else has a number for each output channel.
        """
        given = {name: tensor for name, tensor in vectors.items() if tensor is not None}
        for name, tensor in {"input": input, "weight": weight, **given}.items():
            check_place(name, tensor, input.device, "input")
            check_dtype(name, tensor)
            if tensor.dtype != input.dtype and autocast is None:
                raise TypeError(f"{name}: the dtype of input, {input.dtype}, is expected, got {tensor.dtype}")
        if len(input.shape) != 4:
            raise ValueError(f"input: (N, C, H, W) is expected, got shape {tuple(input.shape)}")
        self._check_weight(input.shape[1], tuple(weight.shape))
        channels = self.channels(weight.shape)[1]
        for name, tensor in given.items():
            if tuple(tensor.shape) != (channels,):
                raise ValueError(f"{name}: ({channels},), one number for each output channel, is expected, "
                                 f"got {tuple(tensor.shape)}")  # fmt: skip
        self._check_size(input.shape, weight.shape, geometry)

    def _check_weight(self, channels: int, weight: tuple[int, ...]) -> None:
        sides = [(taps, taps) for taps in self.taps]
        if len(weight) == 4 and self.channels(weight)[0] == channels and weight[2:] in sides:
            return
        order = f"{channels}, C_out" if self.transposed else f"C_out, {channels}"
        expected = " or ".join(f"({order}, {taps}, {taps})" for taps in self.taps)
        raise ValueError(f"weight: {expected} is expected for an input of {channels} channels, got {weight}")

    def _check_size(self, input: Sequence[int], weight: Sequence[int], geometry: Geometry) -> None:
        if self.stride == 1:
            for side, name, d, p in zip(
                input[2:], ("height", "width"), geometry.dilation, geometry.padding, strict=True
            ):
                least = (weight[2] - 1) * d - 2 * p + 1
                if side < least:
                    raise ValueError(f"input: with dilation {d} and padding {p} its {name} must be at least {least}, "
                                     f"got {side}")  # fmt: skip
        elif min(input[2:]) < 1 or min(self.size(input, weight, geometry)) < 1:
            least = "one pixel" if min(input[2:]) < 1 else "2x2 pixels"
            raise ValueError(f"input: at least {least} is expected, got shape {tuple(input)}")


DILATED = Block("dilated_block", stride=1, transposed=False, taps=(3,), taps_on_gpus=(3,))
STRIDED = Block("strided_block", stride=2, transposed=False, taps=(3, 4, 5), taps_on_gpus=(3, 4))
NARROW = Block("", stride=1, transposed=False, taps=(5, 7, 9, 11))  # no operator: PyTorch's, by rows
TRANSPOSED = Block("transposed_block", stride=2, transposed=True, taps=(3, 4, 5), taps_on_gpus=(3, 4))
