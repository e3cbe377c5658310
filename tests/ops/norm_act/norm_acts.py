"""What the tests of norm_act share: layouts, parameters, the plain expression, and the judgement by float64."""

from __future__ import annotations

import math

import torch
from support import assert_as_good, relative_error
from torch import Tensor
from torch.nn import functional as F

import inpaint_fast as ipf

LAYOUTS = ("nchw", "channels_last", "sliced", "transposed")
SHAPE = (3, 21, 7, 13)  # no multiple of any vector; 21 channels leave a tail in rows, 91 pixels in planes
SMALL = (2, 3, 3, 7)  # for what is interpreted or emulated
SHAPES = (SHAPE, (2, 259, 4, 5), (2, 3, 129, 131), (70, 5, 2, 2), (5, 9), (1, 2), (9, 17, 6), (2, 4, 3, 3, 2))
SMALL_SHAPES = (SMALL, (3, 4, 2, 8), (5, 9), (1, 2), (3, 5, 6), (2, 4, 3, 3, 2))
SLOPES = {"leaky_relu": 0.2, "elu": 1.3}


def random(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    return (torch.randn(shape, dtype=torch.float64) * 1.5 + 0.4).to(device, dtype)


def laid_out(tensor: Tensor, layout: str) -> Tensor:
    """The same values in another memory order."""
    if layout == "channels_last":
        return tensor.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "sliced":
        return tensor.new_full((*tensor.shape[:-1], 2 * tensor.shape[-1]), math.nan)[..., ::2].copy_(tensor)
    if layout == "transposed":
        return tensor.transpose(2, 3).contiguous().transpose(2, 3)
    return tensor


class Parameters:
    """Weight, bias and running statistics of one normalisation, the same numbers for every dtype."""

    def __init__(
        self, channels: int, dtype: torch.dtype, *, affine: bool = True, track: bool = True, device: str = "cpu"
    ) -> None:
        at = torch.arange(channels, dtype=torch.float64, device=device)
        # Weights of both signs; statistics unlike those of the batch.
        self.weight = (0.8 * torch.cos(at) + 0.1).to(dtype).requires_grad_() if affine else None
        self.bias = (0.3 * torch.sin(3 * at)).to(dtype).requires_grad_() if affine else None
        self.running_mean = (0.2 * torch.cos(2 * at)).to(dtype) if track else None
        self.running_var = (1.5 + torch.sin(at)).to(dtype) if track else None

    def tensors(self) -> tuple[Tensor | None, ...]:
        return self.running_mean, self.running_var, self.weight, self.bias


def plain_activation(x: Tensor, activation: str) -> Tensor:
    return {
        "none": lambda: x,
        "relu": lambda: F.relu(x),
        "leaky_relu": lambda: F.leaky_relu(x, SLOPES["leaky_relu"]),
        "elu": lambda: F.elu(x, SLOPES["elu"]),
        "sigmoid": lambda: torch.sigmoid(x),
        "tanh": lambda: torch.tanh(x),
    }[activation]()


def plain(x: Tensor, p: Parameters, activation: str, order: str, training: bool, momentum: float, eps: float) -> Tensor:
    """nn.BatchNorm2d's computation and the activation, as a user would write them."""
    if order == "act_norm":
        x = plain_activation(x, activation)
    y = F.batch_norm(x, *p.tensors(), training, momentum, eps)
    return y if order == "act_norm" else plain_activation(y, activation)


def ours(
    x: Tensor, p: Parameters, activation: str, order: str, training: bool, momentum: float, eps: float, backend: str,
    statistics: tuple[Tensor, Tensor] | None = None,
) -> Tensor:  # fmt: skip
    return ipf.norm_act(
        x, *p.tensors(), training=training, momentum=momentum, eps=eps, activation=activation,
        slope=SLOPES.get(activation), order=order, statistics=statistics, backend=backend,
    )  # fmt: skip


def results(function, x: Tensor, p: Parameters, grad: Tensor, *args) -> dict[str, Tensor]:
    """y, the gradients of input, weight and bias, and the running statistics afterwards."""
    x = x.detach().requires_grad_()
    operands = {"input": x, "weight": p.weight, "bias": p.bias}
    operands = {name: operand for name, operand in operands.items() if operand is not None}
    y = function(x, p, *args)
    grads = torch.autograd.grad(y, list(operands.values()), grad.to(y.dtype))
    found = {"y": y.detach(), **{f"grad of {name}": g for name, g in zip(operands, grads, strict=True)}}
    if p.running_mean is not None:
        found |= {"running_mean": p.running_mean, "running_var": p.running_var}
    return found


def check_against_plain(
    backend: str, x: Tensor, activation: str, order: str, training: bool, *, affine=True, track=True,
    parameter_dtype: torch.dtype | None = None, grad: Tensor | None = None, momentum: float = 0.3, eps: float = 1e-3,
) -> None:  # fmt: skip
    grad = torch.randn(x.shape, dtype=torch.float64).to(x) if grad is None else grad
    dtype, args = parameter_dtype or x.dtype, (activation, order, training, momentum, eps)

    def parameters(wide: bool) -> Parameters:
        p = Parameters(x.shape[1], dtype, affine=affine, track=track, device=x.device)
        if wide:  # the same rounded numbers
            for name in ("weight", "bias", "running_mean", "running_var"):
                tensor = getattr(p, name)
                if tensor is not None:
                    setattr(p, name, tensor.detach().double().requires_grad_(tensor.requires_grad))
        return p

    values = results(ours, x, parameters(False), grad, *args, backend)
    plains = results(plain, x, parameters(False), grad, *args)
    exacts = results(plain, x.double(), parameters(True), grad.double(), *args)
    assert values.keys() == exacts.keys()
    for name, exact in exacts.items():
        assert values[name].dtype == plains[name].dtype, name
        if x.dtype == torch.float64 and exact.norm() > 0:
            # The judge is float64 itself: 1e-13 is some hundred of its units.
            assert relative_error(values[name], exact) < 1e-13, name
        else:
            assert_as_good(values[name], plains[name], exact)
