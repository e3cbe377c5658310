"""masked_l2 in PyTorch's machinery: opcheck, torch.compile, autocast, subclasses of tensors."""

from __future__ import annotations

import pytest
import torch
from ops.masked_l2.pictures import FAST_BACKENDS, SMALL, laid_out, mask_of, random, with_gradients
from torch import Tensor
from torch.nn import functional as F

import inpaint_fast as ipf
from inpaint_fast.ops._dispatch import OPERATORS

STEM = "masked_l2"


def operators(implementation) -> list[str]:
    suffix = OPERATORS["masked_l2"].suffixes.get(implementation.backend)
    return (
        [] if suffix is None else [f"masked_l2{suffix}", f"masked_l2_composite{suffix}", f"masked_l2_backward{suffix}"]
    )


class Picture(Tensor):
    """What other libraries make of tensors."""


@pytest.mark.proves(
    "masked_l2",
    equals="what torch.library promises: schema, shapes, gradients, compilers",
    within="opcheck's",
)
@pytest.mark.once_a_backend
@pytest.mark.parametrize("layout", ("nchw", "channels_last", "transposed"))
def test_opcheck(implementation, layout) -> None:
    for name in operators(implementation):
        operator = getattr(torch.ops.inpaint_fast, name).default
        pred, target = (
            laid_out(random(*SMALL, device=implementation.device), layout).requires_grad_() for _ in range(2)
        )
        mask = torch.rand(2, 1, 5, 7, device=implementation.device).expand(SMALL)
        if "backward" in name:
            loss_grad = torch.tensor(2.0, device=implementation.device)
            args = (loss_grad, pred.detach(), target.detach(), mask, 0.5, 1)
        else:
            args = (pred, target, mask, 0.5, 1, True)
        torch.library.opcheck(operator, args)


def test_opcheck_of_the_scaling(implementation) -> None:
    for name in operators(implementation)[:1]:
        operator = getattr(torch.ops.inpaint_fast, name.replace("masked_l2", "masked_l2_scale_")).default
        grad = random(*SMALL, device=implementation.device)
        scaled = grad.clone()
        operator(scaled, torch.tensor(3.0, device=implementation.device))
        torch.testing.assert_close(scaled, 3 * grad)
        torch.library.opcheck(operator, (grad, torch.tensor(2.0, device=implementation.device)))


def test_compile_without_graph_breaks() -> None:
    def step(p: Tensor, t: Tensor, m: Tensor) -> Tensor:
        loss, composite = ipf.masked_l2_composite(torch.sigmoid(p), t, m, weight=2.0)
        return loss + ipf.masked_l2(p, t, m, reduction="mask_mean") + composite.mean()

    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for shape in ((2, 3, 8, 8), (3, 3, 8, 10)):
        pred, target = random(*shape), random(*shape)
        mask = mask_of("bool", shape, torch.float32)
        expected = with_gradients(lambda p, t, m=mask: step(p, t, m), pred, target)
        values = with_gradients(lambda p, t, m=mask: compiled(p, t, m), pred, target)
        for value, exact in zip(values, expected, strict=True):
            torch.testing.assert_close(value, exact)


def test_compile_with_inductor() -> None:
    torch._dynamo.reset()
    pred, target, mask = random(2, 3, 8, 8), random(2, 3, 8, 8), mask_of("float32", (2, 3, 8, 8), torch.float32)

    def step(p: Tensor, t: Tensor) -> Tensor:
        return ipf.masked_l2(torch.tanh(p), t, mask)

    values = with_gradients(torch.compile(step, fullgraph=True), pred, target)
    for value, exact in zip(values, with_gradients(step, pred, target), strict=True):
        torch.testing.assert_close(value, exact)


def test_autocast_computes_mixed_dtypes_in_float32() -> None:
    pred, target = random(2, 3, 8, 8, dtype=torch.bfloat16).requires_grad_(), random(2, 3, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ipf.masked_l2(pred, target)
    loss.backward()
    torch.testing.assert_close(loss, F.mse_loss(pred.float(), target))
    assert pred.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("backend", FAST_BACKENDS)
def test_a_subclass_has_a_loss_and_a_gradient(backend) -> None:
    pred, target = random(2, 3, 5, 5), random(2, 3, 5, 5)
    leaf = pred.as_subclass(Picture).requires_grad_()
    loss = ipf.masked_l2(leaf, target, backend=backend)
    loss.backward()
    torch.testing.assert_close(loss.detach().as_subclass(Tensor), F.mse_loss(pred, target))
    torch.testing.assert_close(leaf.grad.as_subclass(Tensor), 2 * (pred - target) / pred.numel())
