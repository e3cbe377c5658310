"""What is particular to norm_act's GPU code: vectors and what has none, parts across samples, 64-bit indices, bounded
grids, and that its kernels compile for real GPUs. Its numbers in general are test_parity.py's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from emulation.ahead_of_time import Kernel, compile_all, resources
from emulation.build import load
from ops.norm_act.norm_acts import Parameters, check_against_plain, laid_out, ours, random, results
from torch import Tensor

from inpaint_fast import _extension
from inpaint_fast._words import ACTIVATIONS, DTYPES, ORDERS
from inpaint_fast.kernels import _walk
from inpaint_fast.kernels._activations import NONE
from inpaint_fast.kernels.norm_act import backward, forward
from inpaint_fast.kernels.norm_act.walk import CHANNELS, COMBINED, MAX_PARTS, PROGRAMS, TILE, Walk

ARGS = ("tanh", "norm_act", True, 0.1, 1e-5)


@pytest.fixture(scope="module", autouse=True)
def emulated() -> None:
    load("norm_act")


def all_of(backend: str, x: Tensor, grad: Tensor) -> list[Tensor]:
    return list(results(ours, x, Parameters(x.shape[1], x.dtype), grad, *ARGS, backend).values())


# Whole vectors of every dtype in both orders; in one; in none; samples shorter than a part; several groups of channels.
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_vectors_and_parts(layout: str, dtype: torch.dtype) -> None:
    for shape in ((2, 16, 4, 8), (2, 24, 7, 5), (3, 5, 4, 6), (700, 2, 3, 3), (3, 264, 5, 5), (1, 2, 97, 101)):
        check_against_plain("emulated", laid_out(random(*shape, dtype=dtype), layout), "elu", "norm_act", True)


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_parts_of_interpreted_kernels(layout: str) -> None:
    for shape in ((600, 2, 3, 3), (3, 130, 3, 3), (1, 2, 97, 101)):
        check_against_plain("triton", laid_out(random(*shape), layout), "leaky_relu", "act_norm", True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_unaligned_memory_gives_the_same_bits(layout: str, dtype: torch.dtype) -> None:
    """And nothing is read past its ends: there is NaN."""
    shape = (2, 16, 5, 8)
    x, grad = (laid_out(random(*shape, dtype=dtype), layout) for _ in range(2))

    def moved(tensor: Tensor) -> Tensor:
        buffer = torch.full((tensor.numel() + 65,), float("nan"), dtype=dtype)
        return buffer[1 : 1 + tensor.numel()].as_strided(tensor.shape, tensor.stride(), 1).copy_(tensor)

    expected = all_of("emulated", x, grad)
    for other in ((moved(x), grad), (x, moved(grad)), (moved(x), moved(grad))):
        assert all(torch.equal(a, b) for a, b in zip(all_of("emulated", *other), expected, strict=True))


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_64_bit_indices_triton(monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    x, grad = laid_out(random(2, 5, 7, 6), layout), random(2, 5, 7, 6)
    narrow = all_of("triton", x, grad)
    monkeypatch.setattr(_walk, "INDEX_LIMIT", 10)
    assert all(torch.equal(a, b) for a, b in zip(all_of("triton", x, grad), narrow, strict=True))


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 2), (16, 3, 256, 256), (4, 256, 64, 64), (2, 5000, 3, 3), (64, 1, 999, 999)]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_triton_grid_is_bounded_and_leaves_nothing_out(layout: torch.memory_format, shape: tuple[int, ...]) -> None:
    walk = Walk(torch.empty(shape, device="meta").to(memory_format=layout))
    length = walk.sizes[3]
    assert 1 <= walk.parts <= MAX_PARTS
    assert walk.grid[0] <= PROGRAMS + walk.groups
    assert (walk.parts - 1) * length < walk.count <= walk.parts * length
    assert walk.groups * walk.constants["CHANNELS"] >= shape[1]


# ---- machine code ----


def triton_kernels(capability: int) -> list[Kernel]:
    """Every kernel in every dtype and memory order, as its launches call it."""

    def kernel(name: str, types: dict, constants: dict) -> Kernel:
        module = forward if hasattr(forward, name) else backward
        names = getattr(module, name).arg_names
        types = {arg: kind for arg, kind in types.items() if arg in names}
        return Kernel(module.__name__, name, types, constants, capability)

    def of_elements(name: str, element: str, rows: bool, wide: bool, tensors: tuple[str, ...], flags: dict) -> Kernel:
        integer = "i64" if wide else "i32"
        of_channels = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), "*fp32")
        of_channels |= dict.fromkeys(("mean", "invstd", "totals", "partials"), "*fp64")
        sizes = {"count": f"{integer}:16", "channels": "i32:16", "pixels": f"{integer}:16", "length": f"{integer}:16"}
        types = dict.fromkeys(tensors, f"*{element}") | of_channels | sizes
        types |= {"parts": "i32", "slope": "fp64", "eps": "fp64"}
        channels = CHANNELS if rows else 1
        constants = {"ROWS": rows, "WIDE": wide, "VALUES": TILE // channels, "CHANNELS": channels, **flags}
        return kernel(name, types, constants)

    def passes(element: str, rows: bool, activation: str, order: str, wide: bool = False) -> list[Kernel]:
        number = ACTIVATIONS.index(activation)
        has = {"ACTIVATION": number, "ORDER": ORDERS.index(order), "HAS_WEIGHT": True, "HAS_BIAS": True}
        moments = {"ACTIVATION": number if order == "act_norm" else NONE}
        return [
            of_elements("moments_kernel", element, rows, wide, ("input",), moments),
            of_elements(
                "forward_kernel", element, rows, wide, ("input", "output"), has | {"TRAINING": order == "norm_act"}
            ),
            of_elements("sums_kernel", element, rows, wide, ("grad", "input"), has),
            of_elements("backward_kernel", element, rows, wide, ("grad", "input", "output"), has | {"TRAINING": True}),
        ]

    doubles = dict.fromkeys(("partials", "means", "deviations", "mean", "invstd", "totals"), "*fp64")
    numbers = dict.fromkeys(("running_mean", "running_var", "new_mean", "new_var", "grad_weight", "grad_bias"), "*bf16")
    sizes = dict.fromkeys(("count", "channels", "length", "parts"), "i32") | dict.fromkeys(
        ("momentum", "eps", "unit"), "fp64"
    )
    every = doubles | numbers | sizes

    def combining(name: str, constants: dict) -> Kernel:
        return kernel(name, every, {"COMBINED": COMBINED, **constants})

    return [
        *(k for rows in (False, True) for k in passes("bf16", rows, "relu", order="norm_act")),
        *passes("fp32", False, "elu", order="act_norm"),
        *passes("fp16", True, "tanh", order="norm_act"),
        *passes("fp64", True, "sigmoid", order="norm_act"),
        *passes("fp32", True, "leaky_relu", order="norm_act", wide=True),
        combining("statistics_kernel", {"HAS_RUNNING": True}),
        combining("totals_kernel", {"SHIFT": "fp32", "WANT_WEIGHT": True, "WANT_BIAS": True}),
    ]


@pytest.mark.parametrize("capability", [pytest.param(80, marks=pytest.mark.long), 90])
def test_triton_compiles_for_gpus_and_spills_nothing(capability: int) -> None:
    todo = list(triton_kernels(capability))
    for kernel, compiled in zip(todo, compile_all(todo), strict=True):
        assert compiled.code_bytes > 0
        assert compiled.stack_bytes == 0, kernel
        if kernel.name in ("forward_kernel", "backward_kernel") and not kernel.constants["WIDE"]:
            assert compiled.wide, kernel


def test_cuda_kernels_spill_nothing() -> None:
    if _extension.module is None or not _extension.build_info()["cuda"]:
        pytest.skip("the extension was built without CUDA (INPAINT_FAST_CUDA=1 builds it)")
    names = ("moments_kernel", "forward_kernel", "sums_kernel", "backward_kernel", "statistics_kernel", "totals_kernel")
    found = [
        kernel for kernel in resources(Path(_extension.module.__file__)) if any(name in kernel[0] for name in names)
    ]
    assert len(found) >= 4 * 16
    for name, registers, stack in found:
        assert stack == 0, name
        assert registers <= 128, name  # two blocks of 256 threads on a multiprocessor
