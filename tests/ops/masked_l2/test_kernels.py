"""What is particular to masked_l2's GPU code: vectors and their tails, masks by index arithmetic, 64-bit indices,
bounded grids, and that Triton's kernels compile for real GPUs. Its numbers in general are test_parity.py's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from emulation.ahead_of_time import Kernel, compile_all, resources
from emulation.build import INDEX_LIMIT, load
from support import assert_as_good
from torch import Tensor

from inpaint_fast import _extension
from inpaint_fast._words import REDUCTIONS
from inpaint_fast.kernels import _walk
from inpaint_fast.kernels import masked_l2 as kernels
from inpaint_fast.ops._dispatch import OPERATORS
from inpaint_fast.ops.masked_l2 import reference

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
BACKENDS = ("emulated", "triton")
SUM, MEAN, MASK_MEAN = range(3)


@pytest.fixture(scope="module", autouse=True)
def emulated() -> None:
    load("masked_l2")


def call(backend: str, name: str, *args: object):
    return OPERATORS["masked_l2"].call(backend, name, *args)


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def among_nans(tensor: Tensor, before: int = 16) -> Tensor:
    """A contiguous copy with NaN on both sides: whatever is read past its ends shows in the sum."""
    buffer = torch.full((before + tensor.numel() + 64,), float("nan"), dtype=tensor.dtype)
    inside = buffer[before : before + tensor.numel()].view(tensor.shape)
    return inside.copy_(tensor)


def check(backend: str, pred: Tensor, target: Tensor, mask: Tensor | None, reduction: int = MEAN) -> None:
    """Loss, gradient, backward and composite against float64, and against plain PyTorch in the same dtype."""
    weight = 2.0 * pred.numel() if reduction != SUM else 2.0  # keeps a float16 gradient off its smallest numbers
    expanded = None if mask is None else mask.expand_as(pred)
    soft = torch.ones(()) if mask is None else mask

    def expected(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        p, t, m = pred.to(dtype), target.to(dtype), soft.to(dtype)
        loss = reference(p, t, None if mask is None else m, weight=weight, reduction=REDUCTIONS[reduction])
        count = {SUM: 1, MEAN: pred.numel(), MASK_MEAN: m.expand_as(p).double().sum().item() or 1}[reduction]
        return loss, 2 * weight / count * m * (p - t), t * (1 - m) + p * m

    exact, plain = expected(torch.float64), expected(pred.dtype)
    loss, grad = call(backend, "masked_l2", pred, target, expanded, weight, reduction, True)
    assert_as_good(loss, plain[0], exact[0])
    assert_as_good(grad, plain[1], exact[1])
    assert grad.stride() == torch.empty_like(pred).stride()
    upstream = torch.tensor(0.5, dtype=loss.dtype)  # a power of two: exact
    half = call(backend, "masked_l2_backward", upstream, pred, target, expanded, weight, reduction)
    assert_as_good(half, plain[1] / 2, exact[1] / 2)
    if mask is not None:
        args = (pred, target, expanded, weight, reduction, True)
        again, composite, grad_again = call(backend, "masked_l2_composite", *args)
        assert torch.equal(again, loss) and torch.equal(grad_again, grad)
        assert_as_good(composite, plain[2], exact[2])


# ---- tails, alignment, and where the mask is ----


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_tails_and_alignment(backend: str, dtype: torch.dtype) -> None:
    """Every length of a last vector, on aligned and unaligned memory (the first byte offset no vector can start at)."""
    for numel in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 2047, 2049):
        for before in (16, 17):
            pred, target = (
                among_nans(random(numel, dtype=dtype), before),
                among_nans(random(numel, dtype=dtype, seed=1)),
            )
            mask = among_nans(random(numel, seed=2).gt(0).to(dtype))
            check(backend, pred, target, mask)


# Rows of the mask that are shorter than a vector (7, 3), longer and odd (35, 67), and multiples of one (64).
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("mask_dtype", [torch.bool, torch.float32], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_broadcast_masks(backend: str, channels_last: bool, mask_dtype: torch.dtype, dtype: torch.dtype) -> None:
    for shape in ((2, 3, 5, 7), (3, 3, 1, 67), (2, 9, 8, 8), (1, 1, 16, 4)):
        pred, target = random(*shape, dtype=dtype), random(*shape, dtype=dtype, seed=1)
        if channels_last:
            pred, target = (t.contiguous(memory_format=torch.channels_last) for t in (pred, target))
        n, c, h, w = shape
        for mask_shape in ((n, 1, h, w), (1, 1, h, w), (n, c, 1, 1), (n, 1, 1, w), (1, c, h, 1), (1, 1, 1, 1), shape):
            check(backend, pred, target, random(*mask_shape, seed=2).gt(-0.5).to(mask_dtype), MASK_MEAN)


def strided(tensor: Tensor) -> dict[str, Tensor]:
    """The same elements at other strides."""
    wide = torch.full((*tensor.shape[:-1], 2 * tensor.shape[-1] + 1), float("nan"), dtype=tensor.dtype)
    sliced = wide[..., 1::2].copy_(tensor)
    return {
        "sliced": sliced,
        "transposed": tensor.transpose(1, 3).contiguous().transpose(1, 3),
        "channels_last": tensor.contiguous(memory_format=torch.channels_last),
        "expanded": tensor[:1].expand_as(tensor),
    }


@pytest.mark.parametrize("layout", ["sliced", "transposed", "channels_last", "expanded"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_any_strides(backend: str, layout: str) -> None:
    shape = (3, 4, 9, 17)
    pred, target = random(*shape), random(*shape, seed=1)
    mask = random(*shape, seed=2).gt(0).float()
    other = {name: strided(tensor)[layout] for name, tensor in (("pred", pred), ("target", target), ("mask", mask))}
    check(backend, other["pred"], target, mask, MASK_MEAN)
    check(backend, pred, other["target"], mask[:, :1], MASK_MEAN)
    check(backend, pred, target, other["mask"], MASK_MEAN)
    check(backend, other["pred"], other["target"], other["mask"][:, 1:2], MASK_MEAN)
    check(backend, other["pred"], other["target"], None)


@pytest.mark.parametrize("backend", BACKENDS)
def test_five_dimensions_that_do_not_merge(backend: str) -> None:
    shape = (2, 3, 4, 3, 5)
    pred = random(*(size + 1 for size in shape))[tuple(slice(size) for size in shape)]
    check(backend, pred, random(*shape, seed=1), random(2, 1, 4, 1, 5, seed=2).gt(0), MASK_MEAN)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_to_sum(backend: str) -> None:
    empty, pred = torch.empty(2, 0, 3), random(2, 4, 3)
    for reduction, loss in ((SUM, 0.0), (MEAN, float("nan")), (MASK_MEAN, 0.0)):
        for mask in (None, torch.ones(2, 0, 3)):
            got, grad = call(backend, "masked_l2", empty, empty, mask, 1.0, reduction, True)
            torch.testing.assert_close(got, torch.tensor(loss), equal_nan=True)
            assert grad.shape == empty.shape
    loss, grad = call(backend, "masked_l2", pred, pred + 1, torch.zeros(2, 1, 1).expand_as(pred), 1.0, MASK_MEAN, True)
    assert loss == 0 and torch.equal(grad, torch.zeros_like(pred))


# ---- sizes ----


@pytest.mark.parametrize("numel", [INDEX_LIMIT - 1, INDEX_LIMIT, INDEX_LIMIT + 1, 3 * INDEX_LIMIT])
def test_64_bit_indices_cuda(numel: int) -> None:
    pred, target, mask = (random(numel, seed=seed) for seed in range(3))
    check("emulated", pred, target, mask.gt(0), MASK_MEAN)
    pred, target = (tensor.view(1, -1, 1).expand(2, -1, 3) for tensor in (pred, target))
    check("emulated", pred, target, mask.gt(0).view(1, -1, 1), MASK_MEAN)  # nothing is dense
    check("emulated", pred.contiguous(), target.contiguous(), mask.gt(0).view(1, -1, 1), MASK_MEAN)


@pytest.mark.usefixtures("overflows_are_errors")
def test_64_bit_indices_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    pred, target = random(2, 3, 17, 19), random(2, 3, 17, 19, seed=1).transpose(2, 3).contiguous().transpose(2, 3)
    mask = random(2, 1, 17, 19, seed=2).gt(0).expand_as(pred)
    narrow = call("triton", "masked_l2_composite", pred, target, mask, 1.0, MASK_MEAN, True)
    monkeypatch.setattr(_walk, "INDEX_LIMIT", 10)
    wide = call("triton", "masked_l2_composite", pred, target, mask, 1.0, MASK_MEAN, True)
    assert all(torch.equal(a, b) for a, b in zip(narrow, wide, strict=True))


def test_more_elements_than_the_grid_has_threads_for() -> None:
    numel = 4096 * 2048 + 5  # the largest grid of the CUDA kernel, and a second round of its loop
    pred, target = random(numel), random(numel, seed=1)
    loss, _ = call("emulated", "masked_l2", pred, target, None, 1.0, MEAN, False)
    exact = reference(pred.double(), target.double())
    assert abs(loss.item() / exact.item() - 1) <= 1.2e-7  # one unit of float32: sums are kept in float64


def test_triton_grid_is_bounded_and_follows_from_the_size_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [kernels.programs(numel) for numel in (0, 1, kernels.BLOCK, kernels.BLOCK + 1)] == [1, 1, 1, 2]
    assert kernels.programs(2**40) == kernels.MAX_PROGRAMS
    monkeypatch.setattr(kernels, "MAX_PROGRAMS", 2)  # so that each program has several blocks
    check("triton", random(7 * kernels.BLOCK + 3), random(7 * kernels.BLOCK + 3, seed=1), None)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bitwise_equal_on_repeat(backend: str) -> None:
    pred, target = random(3, 3, 61, 67), random(3, 3, 61, 67, seed=1)
    mask = random(3, 1, 61, 67, seed=2).gt(0).expand_as(pred)
    first, again = (call(backend, "masked_l2_composite", pred, target, mask, 1.0, MASK_MEAN, True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_sums_need_nothing_of_the_memory_they_are_put_together_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch repeated with the memory and the tag of the one before, as a CUDA graph repeats it; and garbage."""
    numel = 9 * kernels.BLOCK + 5
    pred, target, mask = random(numel), random(numel, seed=1), random(numel, seed=2).gt(0)
    expected, _ = call("triton", "masked_l2", pred, target, mask, 1.0, MASK_MEAN, False)
    partials, tags = kernels._scratch(pred)
    monkeypatch.setattr(kernels, "_scratch", lambda like: (partials, tags))
    monkeypatch.setattr(kernels, "next_tag", lambda: 12345)
    for garbage in (0, -1, 54321):
        tags.fill_(garbage), partials.fill_(float("nan"))
        for _ in range(2):
            value, _ = call("triton", "masked_l2", pred, target, mask, 1.0, MASK_MEAN, False)
            assert torch.equal(value, expected)
            assert not (tags == 12345).any()


def test_no_two_launches_have_one_tag() -> None:
    tags = {kernels.next_tag() for _ in range(1000)}
    assert len(tags) == 1000 and all(tag % 2 and -(2**63) <= tag < 2**63 for tag in tags)


# ---- the scale of a gradient that is ready ----


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_scale(backend: str, dtype: torch.dtype) -> None:
    for numel, before in ((1, 16), (1037, 16), (1037, 17), (5000, 16)):
        grad = among_nans(random(numel, dtype=dtype), before)
        plain = (grad.double() * 0.3).to(dtype)
        call(backend, "masked_l2_scale_", grad, torch.tensor(0.3, dtype=torch.float64))
        assert_as_good(grad, plain, plain)
        sides = grad.as_strided((before + numel + 64,), (1,), 0)
        assert sides[:before].isnan().all() and sides[before + numel :].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_scale_by_one_touches_nothing(backend: str, dtype: torch.dtype) -> None:
    grad = random(100, dtype=dtype)
    words = grad.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize])
    infinite = torch.tensor(float("inf"), dtype=dtype).view(words.dtype)
    words[7] = infinite + 1  # a signalling NaN: arithmetic would change it
    before = words.clone()
    call(backend, "masked_l2_scale_", grad, torch.ones(()))
    assert torch.equal(words, before)


def test_a_scalar_of_two_elements_is_an_error() -> None:
    pred = random(4)
    with pytest.raises(RuntimeError, match="grad_loss: one element is expected, got 2"):
        call("emulated", "masked_l2_backward", torch.ones(2), pred, pred, None, 1.0, MEAN)
    with pytest.raises(RuntimeError, match="scale: its dtype is not float32 or float64"):
        call("emulated", "masked_l2_scale_", pred, torch.ones((), dtype=torch.int64))


# ---- machine code ----


def triton_kernels(capability: int) -> list[Kernel]:
    """Every kernel in every dtype, as its launches call it."""

    def kernel(name: str, types: dict, constants: dict, warps: int = 4) -> Kernel:
        constants = {"BLOCK": kernels.BLOCK, **constants}
        return Kernel("inpaint_fast.kernels.masked_l2", name, types, constants, capability, warps)

    scratch = {"partials": "*fp64", "tags": "*i64", "tag": "i64"}

    def main(element: str, mask: str, dims: int, dense: bool, wide: bool = False) -> Kernel:
        tensors = dict.fromkeys(("pred", "target", "grad", "composite"), f"*{element}") | {"mask": f"*{mask}"}
        scalars = {"loss": "*fp64" if element == "fp64" else "*fp32", "weight": "fp64", "denominator": "*fp64"}
        scalars |= {"grad_loss": "*fp32", **scratch}
        integer = "i64" if wide else "i32"
        walk = {"numel": f"{integer}:16", "sizes": (integer,) * dims, "strides": ((integer,) * dims,) * 5}
        wants = ("HAS_MASK", "WANT_GRAD", "WANT_COMPOSITE", "WANT_LOSS", "HAS_DENOMINATOR", "HAS_GRAD_LOSS")
        constants = dict.fromkeys(wants, True) | {"DIMS": dims, "DENSE": dense, "WIDE": wide}
        return kernel("masked_l2_kernel", tensors | scalars | walk, constants, 4 if dense and not wide else 8)

    def mask_sum(mask: str) -> Kernel:
        walk = {"numel": "i32", "sizes": ("i32",) * 2, "strides": ("i32",) * 2}
        types = {"mask": f"*{mask}", "result": "*fp64", "times": "fp64", **scratch, **walk}
        return kernel("mask_sum_kernel", types, {"DIMS": 2, "WIDE": False})

    def scale(element: str, by: str) -> Kernel:
        return kernel("scale_kernel", {"grad": f"*{element}", "scale": f"*{by}", "numel": "i32:16"}, {"WIDE": False})

    return [
        *(main(element, "u8", 3, dense=True) for element in ("fp32", "fp64", "fp16", "bf16")),
        *(main(element, element, 5, dense=False) for element in ("fp32", "fp64", "fp16", "bf16")),
        main("bf16", "fp32", 2, dense=True, wide=True),
        *(mask_sum(mask) for mask in ("u8", "fp32", "bf16")),
        *(scale(element, "fp32") for element in ("fp32", "fp16", "bf16")),
        scale("fp64", "fp64"),
    ]


@pytest.mark.parametrize("capability", [pytest.param(80, marks=pytest.mark.long), 90])
def test_triton_compiles_for_gpus_and_spills_nothing(capability: int) -> None:
    todo = list(triton_kernels(capability))
    for kernel, compiled in zip(todo, compile_all(todo), strict=True):
        assert compiled.code_bytes > 0
        assert compiled.stack_bytes == 0, kernel
        if (kernel.constants.get("DENSE") and not kernel.constants["WIDE"]) or kernel.name == "scale_kernel":
            assert compiled.wide, kernel


def test_cuda_kernels_spill_nothing() -> None:
    if _extension.module is None or not _extension.build_info()["cuda"]:
        pytest.skip("the extension was built without CUDA (INPAINT_FAST_CUDA=1 builds it)")
    found = [kernel for kernel in resources(Path(_extension.module.__file__)) if "masked_l2_kernel" in kernel[0]]
    assert found
    for name, registers, stack in found:
        assert stack == 0, name
        assert registers <= 80, name  # three blocks of 256 threads on a multiprocessor: enough loads on their way
