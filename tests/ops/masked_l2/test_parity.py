"""masked_l2 and masked_l2_composite: every implementation against the float64 reference."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import assert_as_good
from torch import Tensor
from torch.nn import functional as F

import inpaint_fast as ipf
from inpaint_fast._words import DTYPES, REDUCTIONS
from inpaint_fast.ops._dispatch import OPERATORS
from inpaint_fast.ops.masked_l2 import reference, reference_composite

STEM = "masked_l2"
MASKS = ("none", "bool", "uint8", "float32", "same", "soft")
LAYOUTS = ("nchw", "channels_last", "sliced", "transposed", "mixed")
SMALL = (2, 3, 5, 7)
FAST_BACKENDS = ["reference", "cpp"] if ipf._extension.module else ["reference"]
LARGE = (2, 3, 67, 129)  # several chunks and blocks, prime sides, no multiple of any vector


def random(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    return torch.rand(shape, dtype=torch.float64).to(dtype).to(device)


def mask_of(kind: str, shape: tuple[int, ...], dtype: torch.dtype, device: str = "cpu") -> Tensor | None:
    soft = torch.rand(shape[0], 1, *shape[2:])
    mask = {
        "none": None,
        "bool": soft > 0.5,
        "uint8": (soft > 0.5).to(torch.uint8),
        "float32": (soft > 0.5).float(),
        "same": (soft > 0.5).to(dtype),
        "soft": soft.to(dtype),
    }[kind]
    return mask if mask is None else mask.to(device)


def laid_out(tensor: Tensor, layout: str, *, second: bool = False) -> Tensor:
    """The same values in another memory order; `mixed` differs between the first and the second operand."""
    if layout == "channels_last" or (layout == "mixed" and not second):
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "sliced":
        n, c, h, w = tensor.shape
        larger = tensor.new_full((n, c + 1, h + 2, 2 * w), float("nan"))
        view = larger[:, 1:, 1:-1, ::2]
        return view.copy_(tensor)
    if layout == "transposed":
        return tensor.transpose(2, 3).contiguous().transpose(2, 3)
    return tensor


def plain(pred: Tensor, target: Tensor, mask: Tensor | None, weight: float, reduction: str) -> Tensor:
    """What a user would write, in pred's own dtype."""
    mask = torch.ones_like(pred) if mask is None else mask.to(pred.dtype).expand_as(pred)
    total = (mask * (pred - target) ** 2).sum()
    denominator = {"sum": 1, "mean": pred.numel(), "mask_mean": mask.sum()}[reduction]
    return weight * total / denominator


def with_gradients(loss, pred: Tensor, target: Tensor, *args) -> tuple[Tensor, ...]:
    """The loss and its gradients to pred and target."""
    pred, target = pred.detach().requires_grad_(), target.detach().requires_grad_()
    value = loss(pred, target, *args)
    return (value.detach(), *torch.autograd.grad(value, (pred, target)))


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


def operators(implementation) -> list[str]:
    suffix = OPERATORS["masked_l2"].suffixes.get(implementation.backend)
    return (
        [] if suffix is None else [f"masked_l2{suffix}", f"masked_l2_composite{suffix}", f"masked_l2_backward{suffix}"]
    )


@pytest.mark.proves(
    "masked_l2",
    equals="what torch.library promises: schema, shapes, gradients, compilers",
    within="opcheck's",
)
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


def test_autocast_computes_mixed_dtypes_in_float32() -> None:
    pred, target = random(2, 3, 8, 8, dtype=torch.bfloat16).requires_grad_(), random(2, 3, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ipf.masked_l2(pred, target)
    loss.backward()
    torch.testing.assert_close(loss, F.mse_loss(pred.float(), target))
    assert pred.grad.dtype == torch.bfloat16


PICTURE = torch.zeros(2, 3, 4, 4)


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


class Picture(Tensor):
    """What other libraries make of tensors."""


@pytest.mark.parametrize("backend", FAST_BACKENDS)
def test_a_subclass_has_a_loss_and_a_gradient(backend) -> None:
    pred, target = random(2, 3, 5, 5), random(2, 3, 5, 5)
    leaf = pred.as_subclass(Picture).requires_grad_()
    loss = ipf.masked_l2(leaf, target, backend=backend)
    loss.backward()
    torch.testing.assert_close(loss.detach().as_subclass(Tensor), F.mse_loss(pred, target))
    torch.testing.assert_close(leaf.grad.as_subclass(Tensor), 2 * (pred - target) / pred.numel())
