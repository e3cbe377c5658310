"""What is particular to the GPU code of weight_clip and clipped_step: tables that are full, chunks and their edges,
vectors and their tails, numbers that only the device knows, and that kernels compile for real GPUs and spill nothing.
Its numbers in general are test_parity.py's."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from emulation.ahead_of_time import Kernel, compile_all, resources
from emulation.build import INDEX_LIMIT, load
from support import assert_as_good
from torch import Tensor

from inpaint_fast import _extension
from inpaint_fast._words import RULES
from inpaint_fast.kernels import _walk
from inpaint_fast.kernels import weight_clip as kernels
from inpaint_fast.ops._dispatch import OPERATORS
from inpaint_fast.ops.weight_clip import Settings, reference_step

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
BACKENDS = ("emulated", "triton")
CHUNK = 4096  # of the CUDA kernel
FEW, MANY, COUNTS = 60, 508, 500  # tensors of its launches

# name -> settings, states
CASES = {
    "adam": (Settings(1, 0.02, 0.5, 0.9, 1e-5), 2),
    "adamw": (Settings(1, 0.02, 0.5, 0.9, 1e-5, 0.5, decoupled=True), 2),
    "amsgrad": (Settings(1, 0.02, 0.5, 0.9, 1e-5, variant=True), 3),
    "rmsprop": (Settings(2, 0.02, 0.9, 0.0, 1e-5), 1),
    "rmsprop centered": (Settings(2, 0.02, 0.9, 0.5, 1e-5, variant=True), 3),
    "sgd": (Settings(3, 0.1), 0),
    "sgd nesterov": (Settings(3, 0.1, 0.9, 0.0, variant=True), 1),
    "sgd first": (Settings(3, 0.1, 0.9, 0.5, first=True), 1),
    "adadelta": (Settings(4, 1.0, 0.9, 0.0, 1e-3), 2),
}


@pytest.fixture(scope="module", autouse=True)
def emulated() -> None:
    load("weight_clip")


def call(backend: str, name: str, *args: object) -> None:
    OPERATORS["weight_clip"].call(backend, name, *args)


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def among_nans(tensor: Tensor, before: int = 16) -> Tensor:
    """A contiguous copy with NaN on both sides, which nothing may touch."""
    buffer = torch.full((before + tensor.numel() + 64,), float("nan"), dtype=tensor.dtype)
    return buffer[before : before + tensor.numel()].view(tensor.shape).copy_(tensor)


def assert_sides_are_nan(tensor: Tensor) -> None:
    before = tensor.storage_offset()
    whole = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
    assert whole[:before].isnan().all() and whole[before + tensor.numel() :].isnan().all()


Lists = tuple[list[Tensor], ...]


def lists_of(params: list[Tensor], case: str) -> Lists:
    """(params, grads, state0, state1, state2, steps)."""
    settings, states = CASES[case]
    centered = settings.rule == 2 and states == 3  # its average of g must not be larger than that of g^2 allows
    made = [params, [random(*p.shape, dtype=p.dtype, seed=1 + i) for i, p in enumerate(params)]]
    for k in range(3):
        shrink = 0.1 if centered and k == 2 else 1.0
        made.append([(random(*p.shape, seed=9 + k).abs() + 1).mul(shrink).to(p.dtype) for p in params])
        if k >= states:
            made[-1] = []
    made.append([torch.tensor(3.0 + i) for i in range(len(params))] if settings.rule == 1 else [])
    return tuple(made)


def copies(lists: Lists, dtype: torch.dtype | None = None) -> Lists:
    """The same numbers, densely; steps keep their dtype."""
    *tensors, steps = lists
    plain = [[t.detach().clone(memory_format=torch.contiguous_format).to(dtype or t.dtype) for t in part]
             for part in tensors]  # fmt: skip
    return (*plain, [step.clone() for step in steps])


def check(
    backend: str,
    lists: Lists,
    settings: Settings,
    scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    rate: Tensor | None = None,
) -> None:
    """One step against float64, and against plain PyTorch in the same dtype."""
    exact, plain = copies(lists, torch.float64), copies(lists)
    for expected in (exact, plain):
        reference_step(*expected, settings, scale, found_inf, rate)
    call(backend, "clipped_step", *lists, *settings, scale, found_inf, rate)
    for ours, theirs, best in zip(lists[:5], plain[:5], exact[:5], strict=True):
        if ours:
            assert_as_good(*(torch.cat([t.flatten() for t in part]) for part in (ours, theirs, best)))
    assert lists[5] == plain[5]


# ---- chunks, vectors and tables ----


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_rules_at_chunk_edges_and_tails(backend: str, case: str, dtype: torch.dtype) -> None:
    sizes = (1, 7, 0, 8, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 13)
    params = [among_nans(random(size, dtype=dtype), 17 if size == 8 else 16) for size in sizes]
    settings = CASES[case][0]
    settings = settings._replace(low=-0.5, high=0.75, weight_decay=settings.weight_decay or 0.01, maximize=True)
    check(backend, lists_of(params, case), settings)
    for param in params:
        assert_sides_are_nan(param)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_clip_at_edges_and_on_unaligned_memory(backend: str, dtype: torch.dtype) -> None:
    tensors = [
        among_nans(random(size, dtype=dtype, seed=size), before)
        for size in (0, 1, 3, 8, 9, 17, CHUNK - 1, CHUNK, CHUNK + 1)
        for before in (16, 17)
    ]
    tensors[-1][5] = float("nan")
    expected = [tensor.clamp(-0.3, 0.6) for tensor in tensors]
    call(backend, "weight_clip", tensors, -0.3, 0.6)
    for tensor, other in zip(tensors, expected, strict=True):
        torch.testing.assert_close(tensor, other, rtol=0, atol=0, equal_nan=True)
        assert_sides_are_nan(tensor)


@pytest.mark.parametrize("count", [FEW, FEW + 1, MANY, MANY + 1, 2 * MANY + 3])
def test_full_tables_take_further_launches(count: int) -> None:
    params = [random(3 + i % 5, seed=i) for i in range(count)]
    lists = lists_of(params, "adam")
    check("emulated", lists, CASES["adam"][0]._replace(low=-1.0, high=1.0))
    expected = [param.clamp(-0.1, 0.1) for param in params]
    call("emulated", "weight_clip", params, -0.1, 0.1)
    assert all(map(torch.equal, params, expected))


def test_nothing_but_empty_tensors() -> None:
    for backend in BACKENDS:
        lists = lists_of([torch.empty(0), torch.empty(2, 0)], "adam")
        call(backend, "clipped_step", *lists, *CASES["adam"][0], None, None, None)
        assert [step.item() for step in lists[5]] == [4, 5]
        call(backend, "weight_clip", lists[0], -1.0, 1.0)


# ---- views ----


def transposed(tensor: Tensor) -> Tensor:
    return tensor.transpose(0, 1).contiguous().transpose(0, 1)


def sliced(tensor: Tensor) -> Tensor:
    return torch.full((*tensor.shape[:-1], 2 * tensor.shape[-1] + 1), math.nan)[..., 1::2].copy_(tensor)


@pytest.mark.parametrize("case", ["amsgrad", "sgd nesterov"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_views_among_dense_tensors(backend: str, case: str) -> None:
    settings = CASES[case][0]._replace(low=-0.5, high=0.5)
    for layout in (transposed, sliced, lambda t: t.contiguous(memory_format=torch.channels_last)):
        params = [random(3, 4, 5, 3), layout(random(3, 4, 5, 3, seed=1)), random(70, seed=2)]
        check(backend, lists_of(params, case), settings)
        lists = lists_of(params, case)
        lists[1][0], lists[2][1] = layout(lists[1][0]), layout(lists[2][1])
        check(backend, lists, settings)


@pytest.mark.parametrize("backend", BACKENDS)
def test_clip_of_views_leaves_what_lies_between(backend: str) -> None:
    whole = random(6, 50)
    expected = whole.clone()
    expected[1::2, ::3].clamp_(-0.1, 0.1)
    call(backend, "weight_clip", [whole[1::2, ::3]], -0.1, 0.1)
    assert torch.equal(whole, expected)


@pytest.mark.usefixtures("overflows_are_errors")
@pytest.mark.parametrize("backend", BACKENDS)
def test_views_by_64_bit_indices(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_walk, "INDEX_LIMIT", 100)
    param = random(2, INDEX_LIMIT // 2 + 1).t()
    other = lists_of([param], "rmsprop")
    check(backend, other, CASES["rmsprop"][0]._replace(low=-0.5, high=0.5))


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_expanded_view_is_an_error(backend: str) -> None:
    with pytest.raises(RuntimeError, match="share memory"):
        call(backend, "weight_clip", [torch.ones(1, 3).expand(2, 3)], -0.1, 0.1)


# ---- numbers that only the device knows ----


@pytest.mark.parametrize("case", ["adam", "rmsprop centered", "adadelta"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_grad_scale_and_found_inf(backend: str, case: str) -> None:
    params = [random(100), random(5, 9, seed=1).t(), random(CHUNK + 3, seed=2)]
    lists = lists_of(params, case)
    settings = CASES[case][0]._replace(low=-0.5, high=0.5)
    check(backend, lists, settings, torch.tensor(8.0), torch.zeros(1))
    before = copies(lists)
    call(backend, "clipped_step", *lists, *settings, torch.tensor(8.0), torch.ones(1), None)
    for part, same in zip(lists, before, strict=True):
        assert all(map(torch.equal, part, same))


@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_count_once_each_time(backend: str) -> None:
    """Over more tensors than one launch counts, each of several chunks or none."""
    sizes = [2 * CHUNK + 1, 0, *(1 + i % 3 for i in range(COUNTS if backend == "emulated" else 3))]
    lists = lists_of([random(size, seed=size) for size in sizes], "adam")
    for _ in range(2):
        check(backend, lists, CASES["adam"][0])
    assert [step.item() for step in lists[5]] == [5.0 + i for i in range(len(sizes))]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rate_on_the_device(backend: str, case: str) -> None:
    """A factor of lr, in the decoupled weight decay, too."""
    lists = lists_of([random(20), random(5, 3, seed=1).t()], case)
    settings = CASES[case][0]._replace(weight_decay=0.1, decoupled=CASES[case][0].rule == 1)
    check(backend, lists, settings, rate=torch.tensor(0.25, dtype=torch.float64))


def test_steps_on_the_host_give_the_same() -> None:
    lists = lists_of([random(50), random(7, 5, seed=1).t()], "amsgrad")
    host = copies(lists)
    host = (*host[:5], [step.reshape(1) for step in host[5]])  # so the emulation tells them from the device's
    numbers = CASES["amsgrad"][0]
    for each in (lists, host):
        call("emulated", "clipped_step", *each, *numbers, None, None, None)
    for part, same in zip(lists[:5], host[:5], strict=True):
        assert all(map(torch.equal, part, same))
    assert [step.item() for step in host[5]] == [4, 5]
    with pytest.raises(RuntimeError, match="needed on the device"):
        call("emulated", "clipped_step", *host, *numbers, None, torch.zeros(1), None)
    assert [step.item() for step in host[5]] == [4, 5]


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_stays(backend: str) -> None:
    lists = lists_of([random(20)], "amsgrad")
    lists[1][0][3] = math.nan
    call(backend, "clipped_step", *lists, *CASES["amsgrad"][0]._replace(low=-0.5, high=0.5), None, None, None)
    for part in lists[:5]:
        assert part[0].isnan().nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("backend", BACKENDS)
def test_bitwise_equal_on_repeat(backend: str) -> None:
    lists = lists_of([random(CHUNK + 5), random(9, 7, seed=1).t()], "amsgrad")
    again = copies(lists)
    for each in (lists, again):
        call(backend, "clipped_step", *each, *CASES["amsgrad"][0], None, None, None)
    for part, same in zip(lists, again, strict=True):
        assert all(map(torch.equal, part, same))


# ---- machine code ----


def triton_kernels(capability: int) -> list[Kernel]:
    """As their launches call them."""
    module = "inpaint_fast.kernels.weight_clip"

    def walk(dims: int, wide: bool) -> tuple[dict, dict]:
        integer = "i64" if wide else "i32"
        types = {"numel": f"{integer}:16", "sizes": (integer,) * dims}
        return types, {"DIMS": dims, "DENSE": dims == 1, "WIDE": wide, "BLOCK": kernels.BLOCK}

    def clip(element: str, dims: int, wide: bool = False) -> Kernel:
        types, constants = walk(dims, wide)
        types |= {"tensor": f"*{element}", "low": "fp64", "high": "fp64", "strides": types["sizes"]}
        return Kernel(module, "clip_kernel", types, constants, capability)

    def step(case: str, element: str, dims: int, wide: bool = False) -> Kernel:
        settings, states = CASES[case]
        types, constants = walk(dims, wide)
        types |= dict.fromkeys(("param", "grad", "state0", "state1", "state2"), f"*{element}")
        types |= dict.fromkeys(("step", "grad_scale", "found_inf"), "*fp32") | {"rate": "*fp64"}
        numbers = "known_step lr beta1 beta2 log_beta1 log_beta2 eps weight_decay shrink low high sign"
        types |= dict.fromkeys(numbers.split(), "fp64") | {"strides": (types["sizes"],) * 5}
        constants |= {f"HAS_STATE{k}": k < states for k in range(3)}
        constants |= dict.fromkeys(("HAS_STEP", "HAS_SCALE", "HAS_FOUND_INF", "HAS_RATE"), True)
        constants |= {"RULE": settings.rule, "VARIANT": settings.variant, "FIRST": settings.first}
        return Kernel(module, "step_kernel", types, constants, capability)

    return [
        *(clip(element, 1) for element in ("fp32", "fp64", "fp16", "bf16")),
        clip("fp32", 4, wide=True),
        *(step(case, "fp32", 1) for case in CASES),
        *(step("amsgrad", element, 1) for element in ("fp64", "fp16", "bf16")),
        step("amsgrad", "fp32", 4),
        step("rmsprop centered", "bf16", 1, wide=True),
    ]


@pytest.mark.parametrize("capability", [pytest.param(80, marks=pytest.mark.long), 90])
def test_triton_compiles_for_gpus_and_spills_nothing(capability: int) -> None:
    todo = list(triton_kernels(capability))
    for kernel, compiled in zip(todo, compile_all(todo), strict=True):
        assert compiled.code_bytes > 0
        assert compiled.stack_bytes == 0, kernel
        if kernel.name == "step_kernel" and kernel.constants["DENSE"] and not kernel.constants["WIDE"]:
            assert compiled.wide, kernel


def test_cuda_kernels_spill_nothing() -> None:
    if _extension.module is None or not _extension.build_info()["cuda"]:
        pytest.skip("the extension was built without CUDA (INPAINT_FAST_CUDA=1 builds it)")
    found = [kernel for kernel in resources(Path(_extension.module.__file__)) if "clipped_" in kernel[0]]
    assert len(found) >= 4 * len(RULES)  # in each dtype
    for name, registers, stack in found:
        assert stack == 0, name
        assert registers <= 80, name  # three blocks of 256 threads on a multiprocessor
