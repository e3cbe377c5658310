"""What `strided_block` and `transposed_block` share: blocks that halve or double a picture's height and width.

Their pixels are taken by parities: four quarters, of even or odd rows and even or odd columns, between which all
convolutions have stride 1 and fewer taps. csrc/conv_block/cpu/params.h says more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from inpaint_fast._layout import is_channels_last, pictures_like
from inpaint_fast._words import ACTIVATIONS, ORDERS, check_activation, check_precision
from inpaint_fast.ops import _blocks
from inpaint_fast.ops._blocks import affine, computed, epilogue, tiles_and_products, wants_grad
from inpaint_fast.ops._dispatch import Definition, Operator

# Measured on 2 cores of an AMD EPYC (Zen 5, AVX-512): below these, PyTorch's convolution is faster.
LEAST_CHANNELS = 24  # of input and output
LEAST_TILES = 9  # of 4x4 pixels of the smaller picture, in the whole batch
# In training, by taps: there the weights are transformed twice at every call, and their gradient is transformed back.
LEAST_TILES_TRAINING = {3: 256, 4: 128}
LEAST_GAIN = 1.2  # multiplications of the definition for one of ours; 1.8 or 2.6 where 4x4 tiles fit


@dataclass
class Resampling:
    """One of the two blocks: its plain convolution, and its registered operator.

    Attributes:
        stem: "strided_block" or "transposed_block".
        transposed: whether it doubles the size or halves it.
    """

    stem: str
    transposed: bool
    operator: Operator = field(init=False)

    def __post_init__(self) -> None:
        self.operator = Operator(
            self.stem,
            {
                self.stem: Definition(
                    "(Tensor input, Tensor weight, Tensor? transformed, Tensor? bias, Tensor? scale, Tensor? shift, "
                    "int activation, float slope, int order) -> Tensor",
                    self._fake,
                    self._setup_context,
                    self._backward,
                ),
                f"{self.stem}_weights": Definition("(Tensor weight) -> Tensor", self._fake_weights),
                f"{self.stem}_weight_gradient": Definition(
                    "(Tensor grad, Tensor input, Tensor weight) -> Tensor",
                    lambda grad, input, weight: torch.empty_like(weight),
                ),
            },
            backends=("cpp", "reference"),
            home="conv_block",
        )

    def convolve(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self.transposed:
            return F.conv2d(input, weight, bias, stride=2, padding=1)
        return F.conv_transpose2d(input, weight, bias, stride=2, padding=1, output_padding=weight.shape[2] % 2)

    def reference(
        self, input: Tensor, weight: Tensor, bias: Tensor | None = None, *, scale: Tensor | None = None,
        shift: Tensor | None = None, activation: str = "none", slope: float | None = None, order: str = "norm_act",
    ) -> Tensor:  # fmt: skip
        """The block in plain PyTorch."""
        slope = check_activation(activation, slope, order)
        return epilogue(self.convolve(input, weight, bias), scale, shift, activation, slope, order)

    def algorithm(self, input: Tensor, weight: Tensor, training: bool = False) -> str:
        """What precision="fast" runs on the CPU: "winograd", or "direct", PyTorch's own convolution.

        training: a gradient is wanted.
        """
        if input.dtype == torch.float64 or min(weight.shape[:2]) < LEAST_CHANNELS:
            return "direct"
        sides = tuple(input.shape[2:]) if self.transposed else self._size(input, weight)
        images, taps = input.shape[0], weight.shape[2]
        # Of the two parities of a side, both have 2 of 4 taps, or one has 2 of 3 and the other 1.
        tiles, products = tiles_and_products(images, sides, (1, 1), lambda pixels: 2 * pixels + taps - 2)
        gains = images * taps**2 * sides[0] * sides[1] >= LEAST_GAIN * products
        enough = tiles >= (LEAST_TILES_TRAINING[taps] if training else LEAST_TILES)
        return "winograd" if enough and gains else "direct"

    def prepare(self, weight: Tensor) -> None:
        """Transform a weight for inference now, not at its first use."""
        _blocks.prepare(self.operator, weight)

    def __call__(
        self, input: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor | None, shift: Tensor | None,
        activation: str, slope: float | None, order: str, precision: str, backend: str | None,
    ) -> Tensor:  # fmt: skip
        slope = self._check(input, weight, bias, scale, shift, activation, slope, order, precision)
        backend = _blocks.choose(self.operator, input, backend)
        if backend == "reference":
            if input.dtype != weight.dtype and not torch.is_autocast_enabled(input.device.type):
                weight = weight.to(input.dtype)
            return epilogue(self.convolve(input, weight, bias), scale, shift, activation, slope, order)
        x, w, b, scale, shift = computed(input, weight, bias, scale, shift)
        training = wants_grad(input, weight, bias, scale, shift)
        if precision == "exact" or self.algorithm(input, weight, training) == "direct":
            y = epilogue(self.convolve(x, w, b), scale, shift, activation, slope, order)
        else:
            y = self._winograd(backend, weight, x, w, b, scale, shift, activation, slope, order)
            # A copy is faster than to write quarters, whose pixels lie apart, as planes of channels.
            if not (is_channels_last(input) or is_channels_last(weight)):
                y = y.contiguous()
        return y if y.dtype == input.dtype else y.to(input.dtype)

    def _size(self, input: Tensor, weight: Tensor) -> tuple[int, int]:
        height, width = input.shape[2:]
        odd = weight.shape[2] % 2  # 3 taps read the last one of an odd number of rows, 4 do not
        return (2 * height, 2 * width) if self.transposed else ((height + odd) // 2, (width + odd) // 2)

    def _check(self, input, weight, bias, scale, shift, activation, slope, order, precision) -> float:
        """The activation's slope; or the error that names the wrong argument."""
        vectors = {"bias": bias, "scale": scale, "shift": shift}
        _blocks.check_tensors(input, weight, **vectors)
        channels = 0 if self.transposed else 1
        if weight.dim() != 4 or weight.shape[channels] != input.shape[1] or weight.shape[2:] not in ((3, 3), (4, 4)):
            expected = f"{input.shape[1]}, C_out" if self.transposed else f"C_out, {input.shape[1]}"
            raise ValueError(
                f"weight: ({expected}, 3, 3) or ({expected}, 4, 4) is expected for an input of {input.shape[1]} "
                f"channels, got {tuple(weight.shape)}"
            )
        _blocks.check_vectors(weight.shape[1 - channels], **vectors)
        slope = check_activation(activation, slope, order)
        check_precision(precision)
        if min(input.shape[2:]) < 1 or min(self._size(input, weight)) < 1:
            least = "one pixel" if min(input.shape[2:]) < 1 else "2x2 pixels"
            raise ValueError(f"input: at least {least} is expected, got shape {tuple(input.shape)}")
        return slope

    def _winograd(
        self, backend, parameter, input, weight, bias, scale, shift, activation, slope, order
    ) -> Tensor:  # fmt: skip
        """`parameter`: the weight as the caller has it, by which its transform is kept."""

        def run(transformed, scale, shift, activation):
            return self.operator.call(
                backend, self.stem, input, weight, transformed, bias, scale, shift, ACTIVATIONS.index(activation),
                slope, ORDERS.index(order),
            )  # fmt: skip

        if not wants_grad(input, weight, bias, scale, shift):
            return run(_blocks.transformed(self.operator, backend, parameter, weight), scale, shift, activation)
        if scale is None and shift is None:
            return run(None, None, None, activation)
        if order == "norm_act":  # their gradients need the convolution's result
            return epilogue(run(None, None, None, "none"), scale, shift, activation, slope, order)
        return affine(run(None, None, None, activation), scale, shift)

    # ---- the operator: shape functions, gradient formula ----

    def _fake(self, input, weight, transformed, bias, scale, shift, activation, slope, order):
        out = weight.shape[1 if self.transposed else 0]
        return pictures_like(input, out, *self._size(input, weight), channels_last=True)

    def _fake_weights(self, weight):
        channels, out = weight.shape[:2] if self.transposed else reversed(weight.shape[:2])
        numbers = 81 if weight.shape[2] == 3 else 100
        return weight.new_empty((out + 31) // 32 * 32 * numbers * channels)  # as csrc/conv_block/cpu/params.h

    @staticmethod
    def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        input, weight, _, bias, scale, shift, ctx.activation, ctx.slope, ctx.order = inputs
        ctx.save_for_backward(input, weight, bias, scale, shift, output if ctx.activation else None)

    def _backward(self, call: Callable, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, output = ctx.saved_tensors
        activation, slope = ACTIVATIONS[ctx.activation], ctx.slope
        wanted = [ctx.needs_input_grad[i] for i in (0, 1, 3, 4, 5)]
        if torch.is_grad_enabled() or slope < 0 or tensors[3] is not None or tensors[4] is not None:
            order = ORDERS[ctx.order]

            def function(input, weight, bias, scale, shift):
                return epilogue(self.convolve(input, weight, bias), scale, shift, activation, slope, order)

            grads = _blocks.gradients_of(function, tensors, grad, wanted)
        else:
            input, weight, *_ = tensors
            grad = _blocks.activation_gradient(grad, output, activation, slope)
            grads = [None] * 5
            even = self.transposed or not (input.shape[2] % 2 or input.shape[3] % 2)  # all quarters have one size
            if not even:
                grads[:2] = torch.ops.aten.convolution_backward(
                    grad, input, weight, None, [2, 2], [1, 1], [1, 1], False, [0, 0], 1, [*wanted[:2], False]
                )[:2]
            elif wanted[0]:
                grads[0] = self._input_gradient(call, grad, input, weight)
            if wanted[1] and even:
                grads[1] = call(f"{self.stem}_weight_gradient", grad, input, weight)
            if wanted[2]:
                grads[2] = grad.sum((0, 2, 3))
        to_input, to_weight, to_bias, to_scale, to_shift = grads
        return (to_input, to_weight, None, to_bias, to_scale, to_shift, None, None, None)

    def _input_gradient(self, call: Callable, grad: Tensor, input: Tensor, weight: Tensor) -> Tensor:
        """The other of the two blocks: it reads the weight with its channels swapped."""
        other = "strided_block" if self.transposed else "transposed_block"
        found = call(other, grad, weight, None, None, None, None, ACTIVATIONS.index("none"), 0.0, 0)
        return found if is_channels_last(input) else found.contiguous()
