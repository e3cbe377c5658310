"""dilated_block: gradients against finite differences, second derivatives, and which are made."""

from __future__ import annotations

import pytest
import torch
from ops.conv_block.blocks import BOUND, OUT, SHAPE, arguments, compiled, random
from support import exactly, relative_error, run
from torch import Tensor

import inpaint_fast as ipf
from inpaint_fast._words import ACTIVATIONS, ORDERS
from inpaint_fast.ops.conv_block import dilated_reference as reference

STEM = "dilated_block"


@pytest.mark.proves("dilated_block", equals="finite differences", within="gradcheck's", dtypes="float64")
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("order", ORDERS)
def test_gradcheck(activation, order) -> None:
    torch.manual_seed(0)
    tensors = [t.requires_grad_() for t in arguments(torch.float64, (1, 2, 5, 4), 2)]

    def function(input, weight, bias, scale, shift):
        return ipf.dilated_block(
            input, weight, bias, scale=scale, shift=shift, dilation=2, activation=activation, order=order
        )

    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors, fast_mode=True)


@compiled
@pytest.mark.parametrize("activation", ("none", "elu", "tanh"))
def test_second_derivatives(winograd, activation) -> None:
    torch.manual_seed(0)

    def penalty(function, tensors) -> list[Tensor]:  # a gradient penalty, as a Wasserstein critic has
        input, weight, bias = (t.detach().requires_grad_() for t in tensors[:3])
        y = function(input, weight, bias, dilation=2, activation=activation)
        (grad,) = torch.autograd.grad(y.square().sum(), input, create_graph=True)
        return list(torch.autograd.grad(grad.square().sum(), (input, weight, bias)))

    tensors = arguments(affine=False)
    for value, wanted in zip(
        penalty(ipf.dilated_block, tensors), penalty(reference, exactly(tensors[:3])), strict=True
    ):
        assert relative_error(value, wanted) < 3 * BOUND


@compiled
@pytest.mark.parametrize("slope", (-0.5, 0.0, 0.3))
def test_any_negative_slope(winograd, slope) -> None:
    torch.manual_seed(0)
    tensors, seed = arguments(affine=False), random(SHAPE[0], OUT, *SHAPE[2:])
    settings = {"activation": "leaky_relu", "slope": slope}
    exact = run(reference, exactly(tensors), seed.double(), **settings)
    for value, wanted in zip(run(ipf.dilated_block, tensors, seed, **settings), exact, strict=True):
        assert relative_error(value, wanted) < BOUND


@compiled
def test_only_the_gradients_that_are_wanted(winograd) -> None:
    tensors = arguments(affine=False)
    for index in range(3):
        args = [t.detach().requires_grad_(i == index) for i, t in enumerate(tensors[:3])]
        ipf.dilated_block(*args).sum().backward()  # its gradient is an expanded number
        assert [a.grad is not None for a in args] == [i == index for i in range(3)]
        exact = [t.detach().double().requires_grad_(i == index) for i, t in enumerate(tensors[:3])]
        reference(*exact).sum().backward()
        assert relative_error(args[index].grad, exact[index].grad) < BOUND


def test_functional_transforms_run_the_reference() -> None:
    tensors = arguments(affine=False)
    args = tensors[:3]
    value, tangent = torch.func.jvp(lambda x: ipf.dilated_block(x, *args[1:]), (args[0],), (args[0],))
    torch.testing.assert_close(value - args[2][:, None, None], tangent, rtol=1e-4, atol=1e-5)
    stacked = torch.func.vmap(lambda x: ipf.dilated_block(x, *args[1:]))(args[0][None])
    torch.testing.assert_close(stacked[0], reference(*args))
    with pytest.raises(ipf.BackendError, match="only 'reference' can"):
        torch.func.vmap(lambda x: ipf.dilated_block(x, *args[1:], backend="cpp"))(args[0][None])


# ---- PyTorch's machinery ----
