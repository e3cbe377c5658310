"""masked_l2: gradients to any order, against finite differences, float64, and the ways that PyTorch asks for them."""

from __future__ import annotations

import pytest
import torch
from ops.masked_l2.pictures import SMALL, mask_of, random, with_gradients
from support import assert_as_good
from torch import Tensor

import inpaint_fast as ipf
from inpaint_fast._words import REDUCTIONS
from inpaint_fast.ops.masked_l2 import reference

STEM = "masked_l2"


@pytest.mark.proves(
    "masked_l2",
    "masked_l2_composite",
    equals="finite differences",
    within="gradcheck's",
    dtypes="float64",
)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradcheck(implementation, reduction) -> None:
    pred, target = (random(1, 2, 3, 2, dtype=torch.float64, device=implementation.device) for _ in range(2))
    pred.requires_grad_(), target.requires_grad_()
    mask = torch.rand(1, 1, 3, 2, dtype=torch.float64, device=implementation.device)

    def loss(p: Tensor, t: Tensor) -> Tensor:
        return ipf.masked_l2(p, t, mask, weight=1.5, reduction=reduction, backend=implementation.backend)

    def both(p: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return ipf.masked_l2_composite(p, t, mask, reduction=reduction, backend=implementation.backend)

    assert torch.autograd.gradcheck(loss, (pred, target))
    assert torch.autograd.gradgradcheck(loss, (pred, target))
    assert torch.autograd.gradcheck(both, (pred, target))
    assert torch.autograd.gradgradcheck(both, (pred, target))


def test_second_backward_through_the_same_graph(implementation) -> None:
    pred, target = (
        random(*SMALL, device=implementation.device).requires_grad_(),
        random(*SMALL, device=implementation.device),
    )
    loss = ipf.masked_l2(pred, target, backend=implementation.backend)
    (first,) = torch.autograd.grad(3 * loss, pred, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(loss, pred, retain_graph=True)
    first.zero_()  # whoever got the first gradient may do with it as they like
    (third,) = torch.autograd.grad(3 * loss, pred)
    torch.testing.assert_close(kept, 3 * second)
    torch.testing.assert_close(third, kept)


def test_gradient_of_a_scaled_float16_loss_does_not_underflow(implementation) -> None:
    shape = SMALL if implementation.slow else (4, 3, 64, 64)
    pred, target = (random(*shape, dtype=torch.float16, device=implementation.device) for _ in range(2))
    scale, weight = 2.0**16, 1e-4
    exact = with_gradients(lambda p, t: scale * reference(p, t, weight=weight), pred.double(), target.double())[1]
    grad = with_gradients(
        lambda p, t: scale * ipf.masked_l2(p, t, weight=weight, backend=implementation.backend), pred, target
    )[1]
    assert_as_good(grad, exact.half(), exact)


def test_func_grad_and_second_derivatives() -> None:
    pred, target = random(2, 3, 4, 4), random(2, 3, 4, 4)
    grad = torch.func.grad(lambda p: ipf.masked_l2(p, target))(pred)
    torch.testing.assert_close(grad, 2 * (pred - target) / pred.numel())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_several_gradients_at_a_time(dtype) -> None:
    """As torch.autograd.functional.jacobian(vectorize=True) asks for them."""
    pred, target = (random(2, 3, 4, 4).to(dtype).requires_grad_() for _ in range(2))
    scales = torch.tensor([1.0, -2.0, 0.0])
    grads = torch.autograd.grad(ipf.masked_l2(pred, target), (pred, target), scales, is_grads_batched=True)
    loss = ipf.masked_l2(pred, target)
    by_vmap = torch.func.vmap(lambda scale: torch.autograd.grad(loss, (pred, target), scale, retain_graph=True))(scales)
    assert all(torch.equal(grad, same) for grad, same in zip(grads, by_vmap, strict=True))
    expected = scales[:, None, None, None, None] * 2 * (pred - target).float().detach() / pred.numel()
    for grad, sign in zip(grads, (1, -1), strict=True):
        torch.testing.assert_close(grad, (sign * expected).to(dtype))


def test_what_cannot_look_into_an_operator_takes_the_reference_or_refuses() -> None:
    from torch.autograd import forward_ad

    pred, target = random(2, 3, 4, 4), random(2, 3, 4, 4)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(pred, torch.ones_like(pred))
        tangent = forward_ad.unpack_dual(ipf.masked_l2(dual, target)).tangent
        torch.testing.assert_close(tangent, (2 * (pred - target) / pred.numel()).sum())
        with pytest.raises(ipf.BackendError, match="forward-mode"):
            ipf.masked_l2(dual, target, backend="cpp")
    with pytest.raises(ValueError, match="'gpu'"):
        torch.func.grad(lambda p: ipf.masked_l2(p, target, backend="gpu"))(pred)


@pytest.mark.parametrize("composite", [False, True])
def test_activation_checkpointing(implementation, composite) -> None:
    from torch.utils.checkpoint import checkpoint

    pred, target = (random(*SMALL, device=implementation.device) for _ in range(2))
    mask = mask_of("bool", SMALL, torch.float32, implementation.device)

    def loss(p: Tensor, t: Tensor) -> Tensor:
        if not composite:
            return ipf.masked_l2(2 * p, t, mask, backend=implementation.backend)
        value, picture = ipf.masked_l2_composite(2 * p, t, mask, backend=implementation.backend)
        return value + picture.mean()

    values = with_gradients(lambda p, t: checkpoint(loss, p, t, use_reentrant=False), pred, target)
    for value, expected in zip(values, with_gradients(loss, pred, target), strict=True):
        torch.testing.assert_close(value, expected)


def test_second_derivatives_of_half_differences_do_not_overflow() -> None:
    pred = torch.tensor([60000.0], dtype=torch.float16, requires_grad=True)
    loss = ipf.masked_l2(pred, torch.tensor([-60000.0], dtype=torch.float16), weight=1e-6)
    (grad,) = torch.autograd.grad(loss, pred, create_graph=True)
    assert grad.item() == pytest.approx(0.24, rel=1e-2)
