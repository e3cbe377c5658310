"""masked_l2 and masked_l2_composite: every implementation against the float64 reference."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ops.masked_l2.pictures import FAST_BACKENDS, SMALL, laid_out, mask_of, random, with_gradients
from support import assert_as_good
from torch import Tensor
from torch.nn import functional as F

import inpaint_fast as ipf
from inpaint_fast._words import DTYPES, REDUCTIONS
from inpaint_fast.ops.masked_l2 import reference, reference_composite

STEM = "masked_l2"


MASKS = ("none", "bool", "uint8", "float32", "same", "soft")


LAYOUTS = ("nchw", "channels_last", "sliced", "transposed", "mixed")


LARGE = (2, 3, 67, 129)  # several chunks and blocks, prime sides, no multiple of any vector


def plain(pred: Tensor, target: Tensor, mask: Tensor | None, weight: float, reduction: str) -> Tensor:
    """What a user would write, in pred's own dtype."""
    mask = torch.ones_like(pred) if mask is None else mask.to(pred.dtype).expand_as(pred)
    total = (mask * (pred - target) ** 2).sum()
    denominator = {"sum": 1, "mean": pred.numel(), "mask_mean": mask.sum()}[reduction]
    return weight * total / denominator


PICTURE = torch.zeros(2, 3, 4, 4)


@pytest.mark.proves(
    "masked_l2",
    equals="the reference, with both gradients",
    source="Pathak et al. (2016), eq. 1; Iizuka et al. (2017), eq. 2",
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("mask_kind", MASKS)
def test_parity(implementation, dtype, reduction, mask_kind) -> None:
    shape = SMALL if implementation.slow else LARGE
    pred, target = (random(*shape, dtype=dtype, device=implementation.device) for _ in range(2))
    mask = mask_of(mask_kind, shape, dtype, implementation.device)
    weight = 0.7

    def ours(p: Tensor, t: Tensor) -> Tensor:
        return ipf.masked_l2(p, t, mask, weight=weight, reduction=reduction, backend=implementation.backend)

    def exact(p: Tensor, t: Tensor) -> Tensor:
        return reference(p, t, mask, weight=weight, reduction=reduction)

    values = with_gradients(ours, pred, target)
    plains = with_gradients(lambda p, t: plain(p, t, mask, weight, reduction), pred, target)
    exacts = with_gradients(exact, pred.double(), target.double())
    assert values[0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    for value, plain_value, exact_value in zip(values, plains, exacts, strict=True):
        assert_as_good(value, plain_value, exact_value)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mask_kind", ("none", "bool", "float32"))
def test_layouts_without_copies(implementation, layout, mask_kind) -> None:
    shape = SMALL if implementation.slow else LARGE
    pred, target = (random(*shape, device=implementation.device) for _ in range(2))
    mask = mask_of(mask_kind, shape, torch.float32, implementation.device)
    exacts = with_gradients(lambda p, t: reference(p, t, mask), pred.double(), target.double())
    values = with_gradients(
        lambda p, t: ipf.masked_l2(p, t, mask, backend=implementation.backend),
        laid_out(pred, layout),
        laid_out(target, layout, second=True),
    )
    for value, exact in zip(values, exacts, strict=True):
        assert_as_good(value, exact.float(), exact)


@pytest.mark.proves(
    "masked_l2_composite",
    equals="the reference: loss, picture and both gradients; known pixels bit for bit",
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_composite(implementation, dtype, layout) -> None:
    shape = SMALL if implementation.slow else LARGE
    pred, image = (random(*shape, dtype=dtype, device=implementation.device) for _ in range(2))
    mask = mask_of("bool", shape, dtype, implementation.device)
    wish = random(*shape, dtype=dtype, device=implementation.device)  # what a critic would pull towards

    def run(composite_function, p: Tensor, i: Tensor) -> tuple[Tensor, ...]:
        p, i = p.detach().requires_grad_(), i.detach().requires_grad_()
        loss, composite = composite_function(p, i)
        total = loss + (composite * wish.to(composite.dtype)).sum().to(loss.dtype)
        return (loss.detach(), composite.detach(), *torch.autograd.grad(total, (p, i)))

    values = run(
        lambda p, i: ipf.masked_l2_composite(p, i, mask, weight=3.0, backend=implementation.backend),
        laid_out(pred, layout),
        laid_out(image, layout, second=True),
    )
    exacts = run(lambda p, i: reference_composite(p, i, mask, weight=3.0), pred.double(), image.double())
    same = run(lambda p, i: (plain(p, i, mask, 3.0, "mean"), torch.where(mask, p, i)), pred, image)
    for value, plain_value, exact in zip(values, same, exacts, strict=True):
        assert_as_good(value, plain_value, exact)
    outside = ~mask.expand(shape)
    assert torch.equal(values[1][outside], image[outside])


@pytest.mark.proves("masked_l2", equals="F.mse_loss(pred * mask, target * mask)")
def test_equals_mse_of_masked_pictures() -> None:
    pred, target, mask = random(2, 3, 8, 8), random(2, 3, 8, 8), mask_of("float32", (2, 3, 8, 8), torch.float32)
    torch.testing.assert_close(ipf.masked_l2(pred, target, mask), F.mse_loss(pred * mask, target * mask))


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 3, 0, 8), (1, 1, 1, 1), (1,), (5, 3), (3, 4, 5), (1, 2, 3, 4, 5)])
def test_odd_shapes(implementation, shape) -> None:
    pred, target = random(*shape, device=implementation.device), random(*shape, device=implementation.device)
    for reduction in REDUCTIONS:
        value, grad, _ = with_gradients(
            lambda p, t, r=reduction: ipf.masked_l2(p, t, reduction=r, backend=implementation.backend), pred, target
        )
        exact, exact_grad, _ = with_gradients(
            lambda p, t, r=reduction: reference(p, t, reduction=r), pred.double(), target.double()
        )
        torch.testing.assert_close(value.double(), exact, rtol=1e-6, atol=0, equal_nan=True)
        torch.testing.assert_close(grad.double(), exact_grad, rtol=1e-6, atol=0)


def test_empty_mean_is_nan_and_empty_hole_is_zero(implementation) -> None:
    empty = random(0, 3, 4, 4, device=implementation.device)
    assert math.isnan(ipf.masked_l2(empty, empty, backend=implementation.backend))
    pred, target = random(1, 3, 4, 4, device=implementation.device), random(1, 3, 4, 4, device=implementation.device)
    no_hole = torch.zeros(1, 1, 4, 4, dtype=torch.bool, device=implementation.device)
    value, grad, _ = with_gradients(
        lambda p, t: ipf.masked_l2(p, t, no_hole, reduction="mask_mean", backend=implementation.backend), pred, target
    )
    assert value == 0 and not grad.any()


def test_nan_and_inf_come_through(implementation) -> None:
    for bad in (float("nan"), float("inf")):
        pred, target = (
            random(1, 3, 9, 9, device=implementation.device),
            random(1, 3, 9, 9, device=implementation.device),
        )
        pred[0, 1, 4, 4] = bad
        mask = torch.ones(1, 1, 9, 9, device=implementation.device)
        value, grad, _ = with_gradients(
            lambda p, t, m=mask: ipf.masked_l2(p, t, m, backend=implementation.backend), pred, target
        )
        expected, expected_grad, _ = with_gradients(lambda p, t, m=mask: reference(p, t, m), pred, target)
        torch.testing.assert_close(value, expected, equal_nan=True)
        torch.testing.assert_close(grad, expected_grad, equal_nan=True)


@given(data=st.data())
def test_any_shape_mask_and_stride(data) -> None:
    side = st.integers(0, 9)
    shape = (data.draw(side), data.draw(st.integers(1, 4)), data.draw(side), data.draw(side))
    mask_shape = tuple(data.draw(st.sampled_from((1, size))) for size in shape)
    order = data.draw(st.permutations(range(4)))
    step = data.draw(st.integers(1, 3))

    def strided(values: Tensor) -> Tensor:
        """The same values, dimensions in any memory order, every `step`-th element of a larger buffer."""
        sizes = [values.shape[d] for d in order]
        buffer = torch.full((*sizes[:-1], sizes[-1] * step), float("nan"), device=values.device)[..., ::step]
        return buffer.permute([order.index(d) for d in range(4)]).copy_(values)

    pred, target = random(*shape), random(*shape)
    mask = torch.rand(mask_shape) > 0.4
    backend = data.draw(st.sampled_from(FAST_BACKENDS))
    reduction = data.draw(st.sampled_from(REDUCTIONS))
    values = with_gradients(
        lambda p, t: ipf.masked_l2(p, t, mask, reduction=reduction, backend=backend), strided(pred), target
    )
    exacts = with_gradients(lambda p, t: reference(p, t, mask, reduction=reduction), pred.double(), target.double())
    for value, exact in zip(values, exacts, strict=True):
        torch.testing.assert_close(value.double(), exact, rtol=2e-6, atol=1e-12, equal_nan=True)


def test_bitwise_deterministic_for_any_number_of_threads(implementation) -> None:
    shape = SMALL if implementation.slow else (4, 3, 131, 127)
    pred, target = (random(*shape, device=implementation.device) for _ in range(2))
    mask = mask_of("soft", shape, torch.float32, implementation.device)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 1, 2):
            torch.set_num_threads(count)
            for reduction in ("mean", "mask_mean"):
                results.append(
                    with_gradients(
                        lambda p, t, r=reduction: ipf.masked_l2(
                            p, t, mask, reduction=r, backend=implementation.backend
                        ),
                        pred,
                        target,
                    )
                )
    finally:
        torch.set_num_threads(threads)
    if implementation.backend == "reference":
        return  # PyTorch's own sum may depend on the number of threads; ours must not
    for earlier, later in zip(results[:-2], results[2:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(earlier, later, strict=True))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((PICTURE, torch.zeros(2, 3, 4, 5)), ValueError, ["target", "(2, 3, 4, 4)", "(2, 3, 4, 5)"]),
        ((PICTURE, PICTURE, torch.zeros(2, 2, 4, 4)), ValueError, ["mask", "(2, 3, 4, 4)", "(2, 2, 4, 4)"]),
        ((PICTURE, PICTURE, torch.zeros(4, 4)), ValueError, ["mask", "(4, 4)"]),
        ((PICTURE, PICTURE.double()), TypeError, ["target", "float32", "float64"]),
        ((PICTURE.long(), PICTURE.long()), TypeError, ["pred", "int64"]),
        ((PICTURE.cfloat(), PICTURE.cfloat()), TypeError, ["pred", "complex64"]),
        ((PICTURE, PICTURE, PICTURE[:, :1].long()), TypeError, ["mask", "int64"]),
        ((PICTURE, PICTURE, torch.zeros(2, 1, 4, 4, requires_grad=True)), ValueError, ["mask", "gradient", "detach"]),
        ((PICTURE, PICTURE.to("meta")), TypeError, ["target", "meta", "cpu"]),
        ((PICTURE.to_sparse(), PICTURE), TypeError, ["pred", "sparse"]),
        ((PICTURE, PICTURE.to_sparse()), TypeError, ["target", "sparse"]),
        ((PICTURE, PICTURE, PICTURE[:, :1].to_sparse()), TypeError, ["mask", "sparse"]),
        ((PICTURE, None), TypeError, ["target", "NoneType"]),
        ((torch.zeros(()), torch.zeros(())), ValueError, ["pred", "()"]),
        ((torch.zeros([1] * 6), torch.zeros([1] * 6)), ValueError, ["pred", "1 to 5"]),
    ],
)
def test_bad_input_is_named(arguments, error, words) -> None:
    with pytest.raises(error) as caught:
        ipf.masked_l2(*arguments)
    for word in words:
        assert word in str(caught.value)


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match="reduction.*'sum'.*'average'"):
        ipf.masked_l2(PICTURE, PICTURE, reduction="average")
    with pytest.raises(ValueError, match="backend.*'gpu'"):
        ipf.masked_l2(PICTURE, PICTURE, backend="gpu")
    with pytest.raises(ipf.BackendError, match="'cuda' cannot run on cpu tensors"):
        ipf.masked_l2(PICTURE, PICTURE, backend="cuda")
    with pytest.raises(TypeError, match="mask.*None"):
        ipf.masked_l2_composite(PICTURE, PICTURE, None)
    with pytest.raises(TypeError, match="weight.*str"):
        ipf.masked_l2(PICTURE, PICTURE, weight="2")


def test_use_backend_forces_and_restores() -> None:
    from inpaint_fast.ops import backend_of

    before = backend_of("masked_l2")
    with ipf.use_backend("reference"):
        assert backend_of("masked_l2") == "reference"
    assert backend_of("masked_l2") == before
    again = ipf.use_backend("reference")
    for _ in range(2):
        with again:
            assert backend_of("masked_l2") == "reference"
        assert backend_of("masked_l2") == before
    with pytest.raises(ValueError, match="'fast'"):
        ipf.use_backend("fast")
    assert backend_of("masked_l2") == before
