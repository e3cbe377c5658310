"""Where the blocks' CUDA kernels are tested and how they multiply, and what is held to float64 for each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from emulation.build import launches, load
from support import assert_as_good
from torch import Tensor

from inpaint_fast._words import ACTIVATIONS, DEFAULT_SLOPE, ORDERS
from inpaint_fast.ops._dispatch import OPERATORS
from inpaint_fast.ops.conv_block import dilated_reference as reference

NOTHING = (None, None, None)
TILES = ((256, 128), (128, 128), (128, 64), (64, 64))
# INPAINT_FAST_CUDA_CAPABILITY leaves one.
CAPABILITIES = tuple(filter(None, [os.environ.get("INPAINT_FAST_CUDA_CAPABILITY")])) or ("sm_80", "sm_90a")


@dataclass(frozen=True)
class Mode:
    """A dtype and how it is multiplied."""

    dtype: torch.dtype
    tf32: bool = False

    def __str__(self) -> str:
        return "tf32" if self.tf32 else str(self.dtype).removeprefix("torch.")

    def factor(self, tensor: Tensor) -> Tensor:
        """What is multiplied: the tensor, or in TF32 its nearest number of 10 bits of mantissa."""
        if not self.tf32:
            return tensor
        return (tensor.contiguous().view(torch.int32) + 0x1000 & ~0x1FFF).view(torch.float32)


MODES = (Mode(torch.float16), Mode(torch.bfloat16), Mode(torch.float32, tf32=True), Mode(torch.float32))
# Where `call` runs: in the emulation, and on a GPU where there is one; by the code of sm_80 and of sm_90a.
RUNS = [(backend, path) for backend in ["emulated", *["cuda"] * torch.cuda.is_available()] for path in CAPABILITIES]


def marks_of(run: tuple[str, str]) -> tuple[pytest.MarkDecorator, ...]:
    return (pytest.mark.gpu,) if run[0] == "cuda" else ()


def modes_of(*paths: str) -> list[tuple[tuple[str, str], Mode]]:
    """Where each mode runs; float32 in full has no code of sm_90a."""
    pairs = [(run, mode) for run in RUNS for mode in MODES if run[1] in paths]
    return [(run, mode) for run, mode in pairs if run[1] == "sm_80" or mode != MODES[3]]


def every_mode_of(*paths: str) -> pytest.MarkDecorator:
    values = [
        pytest.param(run, mode, marks=marks_of(run), id=f"{'-'.join(run)}-{mode}") for run, mode in modes_of(*paths)
    ]
    return pytest.mark.parametrize(("backend", "mode"), values, indirect=["backend"])


every_mode = every_mode_of(*CAPABILITIES)


@contextmanager
def running(backend: str, path: str) -> Iterator[str]:
    """One of `RUNS`, for `call` and all that it calls; the value is the backend."""
    global _backend, _path
    _backend, _path = backend, path
    if _backend == "cuda" and _path == "sm_90a" and torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("this GPU does not run the code of sm_90a")
    load("dilated_block")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INPAINT_FAST_CUDA_CAPABILITY", _path)
        yield _backend


def path_of_code() -> str:
    """Whose code runs: sm_80's or sm_90a's."""
    return _path


def on_gpu(tensor: Tensor) -> Tensor:
    """A copy with the same strides."""
    if tensor.requires_grad:
        return tensor.cuda()
    memory = torch.empty(0, dtype=tensor.dtype, device="cuda").set_(tensor.untyped_storage().cuda())
    return memory.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def call_all(name: str, *args: object) -> tuple[Tensor, ...]:
    if _backend == "cuda":
        args = tuple(on_gpu(arg) if isinstance(arg, Tensor) else arg for arg in args)
    operator = next(each for each in OPERATORS.values() if name in each.definitions)
    found = operator.call(_backend, name, *args)
    return tuple(t.cpu() for t in (found if isinstance(found, tuple) else (found,)))


def call(name: str, *args: object) -> Tensor:
    (found,) = call_all(name, *args)
    return found


def shared_bytes(rows: int, columns: int) -> int:
    """Of the convolution: stages of 64 bytes a row (sm_90a: 128), or the sums in their place; the epilogue's four rows;
    for sm_90a up to 1024 bytes before all of these and two barriers a stage behind."""
    if _path == "sm_80":
        return max(4 * 64 * (rows + columns), 4 * rows * columns) + 4 * 4 * columns
    stages = 3 if (rows, columns) == (128, 128) else 4
    return 1024 + max(stages * 128 * (rows + columns), 4 * rows * columns) + 4 * 4 * columns + 16 * stages


def check_launches(expected: list[str]) -> None:
    """In the emulation: what has been launched since the last call, tiles as "rows x columns", other kernels as "-"."""
    if _backend == "emulated":
        tiles = {shared_bytes(*tile): "{} x {}".format(*tile) for tile in TILES}
        assert [tiles.get(launch.shared_bytes, "-") for launch in launches("dilated_block")] == expected


def without_ties(tensor: Tensor) -> Tensor:
    """float32 without numbers halfway between two of TF32, which sm_80's code rounds up and sm_90a's to even."""
    if tensor.dtype != torch.float32:
        return tensor
    bits = tensor.view(torch.int32)
    return torch.where(bits & 0x1FFF == 0x1000, bits + 1, bits).view(torch.float32)


def random(mode: Mode, *shape: int) -> Tensor:
    return without_ties(torch.randn(shape, dtype=torch.float64).to(mode.dtype))


def weights(mode: Mode, out: int, channels: int, taps: int = 3) -> Tensor:
    """Weights that keep the input's scale, as a network's do."""
    scale = (taps**2 * max(channels, 1)) ** -0.5
    return without_ties((torch.randn(out, channels, taps, taps, dtype=torch.float64) * scale).to(mode.dtype))


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def forward(
    mode: Mode,
    input: Tensor,
    weight: Tensor,
    vectors: tuple = NOTHING,
    *,
    dilation: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | None = None,
    activation: str = "none",
    slope: float = 0.0,
    order: str = "norm_act",
    channels_last: bool = False,
    packed: Tensor | None = None,
) -> Tensor:
    padding = dilation if padding is None else padding
    return call(
        "dilated_block", input, weight, packed, *vectors, [*pair(dilation), *pair(padding)],
        ACTIVATIONS.index(activation), slope, ORDERS.index(order), channels_last, mode.tf32,
    )  # fmt: skip


def check_forward(mode: Mode, input: Tensor, weight: Tensor, vectors: tuple = NOTHING, **settings) -> Tensor:
    """The result, held to the float64 reference on the factors as they are multiplied."""
    value = forward(mode, input, weight, vectors, **settings)
    known = {key: settings[key] for key in ("dilation", "padding", "activation", "order") if key in settings}
    if settings.get("activation") in DEFAULT_SLOPE:
        known["slope"] = settings["slope"]

    def expected(dtype: torch.dtype) -> Tensor:
        bias, scale, shift = (v if v is None else v.to(dtype) for v in vectors)
        factors = mode.factor(input).to(dtype), mode.factor(weight).to(dtype)
        return reference(*factors, bias, scale=scale, shift=shift, **known)

    exact = expected(torch.float64)
    assert value.dtype == mode.dtype and value.shape == exact.shape
    assert_as_good(value, expected(mode.dtype), exact)
    return value


def check_gradients(mode: Mode, input: Tensor, weight: Tensor, grad: Tensor, channels_last: bool, **settings) -> None:
    """Both gradients. Each multiplies grad by one of the two, so that the factors of each are its own."""
    dilation = settings.get("dilation", 1)
    padding = settings.get("padding", dilation)
    geometry = [*pair(dilation), *pair(padding)]
    to_input = call("dilated_block_input_gradient", grad, weight, geometry, channels_last, mode.tf32)
    to_weight = call("dilated_block_weight_gradient", grad, input, weight, geometry, mode.tf32)

    def expected(dtype: torch.dtype) -> tuple[Tensor, ...]:
        sources = [mode.factor(t).to(dtype).requires_grad_() for t in (input, weight)]
        y = reference(*sources, dilation=dilation, padding=padding)
        return torch.autograd.grad(y, sources, mode.factor(grad).to(dtype))

    exact, plain = expected(torch.float64), expected(mode.dtype)
    for value, near, wanted, like in zip((to_input, to_weight), plain, exact, (input, weight), strict=True):
        assert value.dtype == mode.dtype and value.shape == like.shape
        assert_as_good(value, near, wanted)
    assert to_weight.stride() == torch.empty_like(weight).stride()
    if channels_last:
        assert to_input.is_contiguous(memory_format=torch.channels_last)
