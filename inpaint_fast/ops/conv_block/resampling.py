"""The blocks of stride 2, which halve or double height and width: a convolution and its epilogue, in one pass.

On the CPU their pixels are taken by parities: four quarters, of even or odd rows and even or odd columns, between which
all convolutions have stride 1 and fewer taps: 2x2, 2x1, 1x2 and 1x1 for 3x3, 2x2 each for 4x4, 3x3, 3x2, 2x3 and 2x2
for 5x5. They are computed by dilated_block's F(4x4, 3x3) without the products that are zero for so few taps: for a tile
of 4x4 pixels 81 multiplications where the definition takes 144, 100 where it takes 256, 121 where it takes 400.
csrc/conv_block says more.

On a GPU they are dilated_block's implicit matrix product with other coordinates, where fastest.csv or the caller says
so; 5x5 taps are PyTorch's convolution there.
"""

from __future__ import annotations

from torch import Tensor

from inpaint_fast.ops.conv_block.call import call
from inpaint_fast.ops.conv_block.geometry import HALVING, STRIDED, TRANSPOSED
from inpaint_fast.ops.conv_block.plan import Epilogue


def strided_block(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str = "none",
    slope: float | None = None,
    order: str = "norm_act",
    precision: str = "fast",
    backend: str | None = None,
) -> Tensor:
    """activation(scale * conv2d(input, weight, bias, stride=2, padding=1) + shift), or, in the order "act_norm",
    scale * activation(conv2d(...)) + shift: half the height and width. With 5x5 taps, padding=2.

    Args:
        input: (N, C_in, H, W); float32, float64, float16 or bfloat16; NCHW, channels_last (the faster) or any strides.
        weight: (C_out, C_in, 3, 3), (C_out, C_in, 4, 4) or (C_out, C_in, 5, 5), dtype and device of input.
        bias, scale, shift: (C_out,), dtype and device of input, or None.
        activation: "none", "relu", "leaky_relu", "elu", "sigmoid" or "tanh".
        slope: the negative slope of leaky_relu (default 0.01), the alpha of elu (1.0).
        order: "norm_act", or "act_norm" for scale and shift after the activation.
        precision: as in `inpaint_fast.dilated_block`.
        backend: "cuda", "triton", "cpp" or "reference"; None takes the fastest that is there, on a GPU by measurements
            on GPUs of its kind. "cuda" and "triton" run 5x5 taps, as float64, by PyTorch's convolution, in TF32 where
            that computes in it.

    Returns:
        (N, C_out, ceil(H / 2), ceil(W / 2)) for 3x3 and 5x5 taps, (N, C_out, floor(H / 2), floor(W / 2)) for 4x4; dtype
        of input; channels_last where input or weight is.

    Raises:
        TypeError: a dtype is not one of these, dtypes or devices differ, or something is no tensor.
        ValueError: shapes do not fit, or an argument has no such value.
        BackendError: the backend that was asked for cannot run here.

    Gradients are defined for every tensor, to any order; that of the input is a `transposed_block`. Deterministic, for
    any number of threads. What is said of dtypes, NaN and kept weights in `inpaint_fast.dilated_block` holds here.
    """
    epilogue = Epilogue(activation, slope, order)
    return call(STRIDED, HALVING, input, weight, bias, scale, shift, epilogue, precision, backend)


def transposed_block(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str = "none",
    slope: float | None = None,
    order: str = "norm_act",
    precision: str = "fast",
    backend: str | None = None,
) -> Tensor:
    """activation(scale * conv_transpose2d(input, weight, bias, stride=2, padding=1) + shift), or, in the order
    "act_norm", scale * activation(conv_transpose2d(...)) + shift: twice the height and width. With 3x3 taps,
    output_padding=1; with 5x5 taps, padding=2 and output_padding=1.

    Args:
        input: (N, C_in, H, W); float32, float64, float16 or bfloat16; NCHW, channels_last (the faster) or any strides.
        weight: (C_in, C_out, 3, 3), (C_in, C_out, 4, 4) or (C_in, C_out, 5, 5), dtype and device of input.
        bias, scale, shift: (C_out,), dtype and device of input, or None.
        activation: "none", "relu", "leaky_relu", "elu", "sigmoid" or "tanh".
        slope: the negative slope of leaky_relu (default 0.01), the alpha of elu (1.0).
        order: "norm_act", or "act_norm" for scale and shift after the activation.
        precision: as in `inpaint_fast.dilated_block`.
        backend: "cuda", "triton", "cpp" or "reference"; None takes the fastest that is there, on a GPU by measurements
            on GPUs of its kind. "cuda" and "triton" run 5x5 taps, as float64, by PyTorch's convolution, in TF32 where
            that computes in it.

    Returns:
        (N, C_out, 2H, 2W), dtype of input; channels_last where input or weight is.

    Raises:
        TypeError: a dtype is not one of these, dtypes or devices differ, or something is no tensor.
        ValueError: shapes do not fit, or an argument has no such value.
        BackendError: the backend that was asked for cannot run here.

    Gradients are defined for every tensor, to any order; that of the input is a `strided_block`. Deterministic, for
    any number of threads. What is said of dtypes, NaN and kept weights in `inpaint_fast.dilated_block` holds here.
    """
    epilogue = Epilogue(activation, slope, order)
    return call(TRANSPOSED, HALVING, input, weight, bias, scale, shift, epilogue, precision, backend)
