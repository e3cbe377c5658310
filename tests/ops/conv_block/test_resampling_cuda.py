"""strided_block and transposed_block on CUDA: what differs from dilated_block, whose code theirs is (taps.h): which
pixels and taps meet, the phases of a result, odd sizes, both gradients, statistics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
import torch
from emulation.build import launches
from hypothesis import given
from hypothesis import strategies as st
from ops.conv_block.cuda_modes import (
    CAPABILITIES,
    MODES,
    NOTHING,
    RUNS,
    TILES,
    Mode,
    call,
    call_all,
    check_launches,
    marks_of,
    modes_of,
    random,
    running,
    weights,
)
from support import assert_as_good, laid_out
from torch import Tensor

from inpaint_fast._words import ACTIVATIONS, DEFAULT_SLOPE, ORDERS
from inpaint_fast.ops._activations import activate
from inpaint_fast.ops.conv_block import HALVING, STRIDED, TRANSPOSED, strided_reference, transposed_reference

LAYOUTS = ("nchw", "channels_last", "sliced", "transposed")
# PyTorch's sums, whatever the mode: its own gradients in half precision, of pictures one pixel wide, are NaN at times.
NEAR = torch.float32
NO_EPILOGUE = (ACTIVATIONS.index("none"), 0.0, ORDERS.index("norm_act"))


@dataclass(frozen=True)
class Kind:
    """One of the two with 3x3 or 4x4 taps."""

    block: object
    taps: int

    def __str__(self) -> str:
        return f"{self.block.stem}_{self.taps}"

    @property
    def least(self) -> int:
        """The shortest side of an input."""
        return 2 if self.block is STRIDED and self.taps == 4 else 1

    def weights(self, mode: Mode, channels: int, out: int) -> Tensor:
        weight = weights(mode, out, channels, self.taps)
        return weight.transpose(0, 1).contiguous() if self.block.transposed else weight

    def reference(self, *args, **settings) -> Tensor:
        return (transposed_reference if self.block.transposed else strided_reference)(*args, **settings)

    def grad(self, mode: Mode, input: Tensor, weight: Tensor) -> Tensor:
        """Some gradient of the result."""
        size = self.block.size(input.shape, weight.shape, HALVING)
        return random(mode, input.shape[0], self.block.channels(weight.shape)[1], *size)


KINDS = [Kind(block, taps) for block in (STRIDED, TRANSPOSED) for taps in (3, 4)]
# Of stride 2, that is strided_block and every gradient of a weight, there is sm_80's code alone.
CASES = [
    pytest.param(run, mode, kind, marks=marks_of(run), id=f"{'-'.join(run)}-{mode}-{kind}")
    for run, mode in modes_of(*CAPABILITIES)
    for kind in KINDS
    if run[1] == "sm_80" or kind.block.transposed
]
every_case = pytest.mark.parametrize(("backend", "mode", "kind"), CASES, indirect=["backend"])


@pytest.fixture(
    scope="module", autouse=True, params=[pytest.param(run, marks=marks_of(run), id="-".join(run)) for run in RUNS]
)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with running(*request.param) as name:
        yield name


def forward(
    mode: Mode,
    kind: Kind,
    input: Tensor,
    weight: Tensor,
    vectors: tuple = NOTHING,
    *,
    activation: str = "none",
    slope: float = 0.0,
    order: str = "norm_act",
    channels_last: bool = False,
    packed: Tensor | None = None,
) -> Tensor:
    settings = ACTIVATIONS.index(activation), slope, ORDERS.index(order), channels_last, mode.tf32
    return call(kind.block.stem, input, weight, packed, *vectors, *settings)


def check_forward(mode: Mode, kind: Kind, input: Tensor, weight: Tensor, vectors: tuple = NOTHING, **given) -> Tensor:
    """The result, held to the float64 reference on the factors as they are multiplied."""
    value = forward(mode, kind, input, weight, vectors, **given)
    known = {key: given[key] for key in ("activation", "order") if key in given}
    if given.get("activation") in DEFAULT_SLOPE:
        known["slope"] = given["slope"]

    def expected(dtype: torch.dtype) -> Tensor:
        bias, scale, shift = (v if v is None else v.to(dtype) for v in vectors)
        factors = mode.factor(input).to(dtype), mode.factor(weight).to(dtype)
        return kind.reference(*factors, bias, scale=scale, shift=shift, **known)

    exact = expected(torch.float64)
    assert value.dtype == mode.dtype and value.shape == exact.shape
    assert_as_good(value, expected(NEAR), exact)
    return value


def check_weight_gradient(mode: Mode, kind: Kind, input: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
    value = call(f"{kind.block.stem}_weight_gradient", grad, input, weight, mode.tf32)

    def expected(dtype: torch.dtype) -> Tensor:
        source = weight.to(dtype).requires_grad_()
        y = kind.reference(mode.factor(input).to(dtype), source)
        return torch.autograd.grad(y, source, mode.factor(grad).to(dtype))[0]

    assert value.dtype == mode.dtype and value.stride() == torch.empty_like(weight).stride()
    assert_as_good(value, expected(NEAR), expected(torch.float64))
    return value


# ---- parity ----


@every_case
def test_parity(mode: Mode, kind: Kind) -> None:
    """Sides of one pixel and more, odd ones, tails of channels; the other kind is the input's gradient."""
    torch.manual_seed(0)
    for images, channels, out, *sides in ((1, 40, 72, 7, 13), (2, 3, 5, kind.least, 6), (1, 19, 33, 10, kind.least)):
        input, weight = random(mode, images, channels, *sides), kind.weights(mode, channels, out)
        check_forward(mode, kind, input, weight, (random(mode, out), None, None))
        check_weight_gradient(mode, kind, input, weight, kind.grad(mode, input, weight))


@every_case
def test_epilogues(mode: Mode, kind: Kind) -> None:
    torch.manual_seed(0)
    input, weight = random(mode, 1, 24, 5, 4), kind.weights(mode, 24, 21)
    bias, shift, scale = random(mode, 21), random(mode, 21), random(mode, 21).abs() + 0.5
    for activation, order in product(ACTIVATIONS, ORDERS):
        for vectors in (NOTHING, (bias, scale, shift), (None, None, shift)):
            check_forward(mode, kind, input, weight, vectors, activation=activation, slope=0.3, order=order)


@pytest.mark.pairs
@every_case
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("weight_layout", "channels_last"), [("nchw", False), ("channels_last", True), ("transposed", True)]
)
def test_layouts(mode: Mode, kind: Kind, layout: str, weight_layout: str, channels_last: bool) -> None:
    torch.manual_seed(0)
    for channels, out in ((16, 24), (19, 37)):
        input = laid_out(random(mode, 2, channels, 7, 6), layout)
        weight = laid_out(kind.weights(mode, channels, out), weight_layout)
        value = check_forward(mode, kind, input, weight, channels_last=channels_last)
        assert value.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        check_weight_gradient(mode, kind, input, weight, laid_out(kind.grad(mode, input, weight), layout))


@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    draw = data.draw
    mode, kind = draw(st.sampled_from(MODES)), draw(st.sampled_from(KINDS))
    sides = [draw(st.integers(kind.least, 20)) for _ in range(2)]
    images, channels, out = draw(st.integers(0, 3)), draw(st.integers(1, 50)), draw(st.integers(1, 70))
    layout, channels_last = draw(st.sampled_from(LAYOUTS)), draw(st.booleans())
    torch.manual_seed(0)
    input, weight = laid_out(random(mode, images, channels, *sides), layout), kind.weights(mode, channels, out)
    check_forward(mode, kind, input, weight, channels_last=channels_last)
    check_weight_gradient(mode, kind, input, weight, laid_out(kind.grad(mode, input, weight), layout))


@every_case
@pytest.mark.parametrize("statistics", [False, True])
def test_gradients_by_autograd(mode: Mode, kind: Kind, statistics: bool) -> None:
    """Even sides and odd ones, whose last row or column the quarters of a picture do not share."""
    for sides in ((6, 8), (5, 8), (5, 7)):
        torch.manual_seed(0)
        tensors = [random(mode, 2, 16, *sides), kind.weights(mode, 16, 24), random(mode, 24)]

        def gradients(function, dtype: torch.dtype, given: list[Tensor] = tensors) -> tuple[Tensor, ...]:
            sources = [t.to(dtype).requires_grad_() for t in given]
            y = function(*sources)
            seed = mode.factor(torch.linspace(-1, 1, y.numel()).to(mode.dtype)).to(dtype).view_as(y)
            return tuple(g.cpu() for g in torch.autograd.grad(y, sources, seed))

        def ours(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            stem, end = kind.block.stem, (False, mode.tf32)
            if statistics:
                return call_all(f"{stem}_statistics", input, weight, bias, *NO_EPILOGUE[:2], *end)[0]
            return call(stem, input, weight, None, bias, None, None, *NO_EPILOGUE, *end)

        def plain(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return kind.reference(input, weight, bias)

        rounded = [mode.factor(t) for t in tensors]
        exact, near = gradients(plain, torch.float64, rounded), gradients(plain, NEAR, rounded)
        for value, same_dtype, wanted in zip(gradients(ours, mode.dtype, rounded), near, exact, strict=True):
            assert value.shape == wanted.shape
            assert_as_good(value, same_dtype, wanted)


# ---- statistics ----


@every_case
@pytest.mark.parametrize("channels_last", [False, True])
def test_statistics(mode: Mode, kind: Kind, channels_last: bool) -> None:
    """Of all phases of pictures that share a block, and of cut ones."""
    torch.manual_seed(0)
    for images, out, *sides in ((1, 3, 1, 2), (40, 5, 4, 3), (2, 70, 9, 11)):
        input, weight = random(mode, images, 5, *(max(kind.least, s) for s in sides)), kind.weights(mode, 5, out)
        args = (input, weight, random(mode, out), ACTIVATIONS.index("elu"), 1.0, channels_last, mode.tf32)
        y, mean, var = call_all(f"{kind.block.stem}_statistics", *args)
        alone = forward(mode, kind, input, weight, (args[2], None, None), channels_last=channels_last)
        assert torch.equal(y, alone) and y.stride() == alone.stride()
        exact, near = (
            torch.var_mean(activate(y.to(dtype), "elu", 1.0), (0, 2, 3), correction=0)
            for dtype in (torch.float64, NEAR)
        )
        for value, plain, wanted in zip((var, mean), near, exact, strict=True):
            assert value.dtype == torch.float64
            assert_as_good(value.float(), plain, wanted)


# ---- what is launched ----


@every_case
def test_every_tile_has_the_same_sums(mode: Mode, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """The more multiprocessors, the smaller the tiles; a tile changes no sum."""
    torch.manual_seed(0)
    sides = (8, 16) if kind.block.transposed else (32, 64)
    input, weight = laid_out(random(mode, 2, 16, *sides), "channels_last"), kind.weights(mode, 16, 128)
    packed = call(f"{kind.block.stem}_weights", weight, False)
    results = []
    for multiprocessors, tile in zip((1, 8, 16, 32), TILES, strict=True):
        monkeypatch.setenv("INPAINT_FAST_EMULATED_MULTIPROCESSORS", str(multiprocessors))
        launches(kind.block.stem)
        results.append(forward(mode, kind, input, weight, packed=packed, channels_last=True))
        check_launches(["{} x {}".format(*tile)])  # one kernel, where nothing is to be packed
    assert all(torch.equal(each, results[0]) for each in results[1:])


@every_case
def test_taps_of_nothing_but_padding_are_left_out(mode: Mode, kind: Kind) -> None:
    """Of one pixel, the taps on it alone are multiplied: zero times infinity would be NaN."""
    outside = {"strided_block_3": [0, 2], "transposed_block_3": [0]}.get(str(kind), [0, 3])
    input, weight = random(mode, 1, 8, kind.least, kind.least), kind.weights(mode, 8, 8)
    far, near = weight.clone(), weight.clone()
    for weight, value in ((far, torch.inf), (near, 0)):
        weight[:, :, outside] = weight[:, :, :, outside] = value
    assert torch.equal(forward(mode, kind, input, far), forward(mode, kind, input, near))


@every_case
def test_packed_weights_are_those_that_a_call_packs(mode: Mode, kind: Kind) -> None:
    torch.manual_seed(0)
    input, weight = random(mode, 1, 19, 6, 8), laid_out(kind.weights(mode, 19, 37), "channels_last")
    packed = call(f"{kind.block.stem}_weights", weight, False)
    assert packed.shape == (kind.taps**2 * 37 * (24 if packed.element_size() == 2 else 20),)
    assert torch.equal(forward(mode, kind, input, weight, packed=packed), forward(mode, kind, input, weight))


# ---- sizes ----


@every_case
def test_offsets_of_more_than_32_bits(mode: Mode, kind: Kind, tmp_path: Path) -> None:
    """Pictures 2^31 elements apart, in a file that is all holes."""
    torch.manual_seed(0)
    apart, size = 2**31 + 16, 4 * 6 * 8
    file = torch.from_file(str(tmp_path / "pictures"), shared=True, size=apart + size, dtype=mode.dtype)
    input = file.as_strided((2, 8, 4, 6), (apart, 1, 6 * 8, 8))
    input.copy_(random(mode, 2, 8, 4, 6))
    near, weight = input.contiguous(memory_format=torch.channels_last), kind.weights(mode, 8, 8)
    assert torch.equal(forward(mode, kind, input, weight), forward(mode, kind, near, weight))
    grad = kind.grad(mode, near, weight)
    far, value = (call(f"{kind.block.stem}_weight_gradient", grad, x, weight, mode.tf32) for x in (input, near))
    assert torch.equal(far, value)


@every_case
def test_nothing_to_compute(mode: Mode, kind: Kind) -> None:
    stem, bias = kind.block.stem, random(mode, 5)
    weight, input = kind.weights(mode, 4, 5), random(mode, 2, 4, 4, 4)
    empty = forward(mode, kind, input[:0], weight)
    assert empty.shape == (0, 5, 8, 8) if kind.block.transposed else (0, 5, 2, 2)
    assert not call(f"{stem}_weight_gradient", empty, input[:0], weight, mode.tf32).any()
    assert forward(mode, kind, input, kind.weights(mode, 4, 0)).shape[:2] == (2, 0)
    value = forward(mode, kind, input[:, :0], kind.weights(mode, 0, 5), (bias, None, None), activation="relu")
    assert torch.equal(value, bias.relu().view(1, 5, 1, 1).expand(value.shape))
    y, mean, var = call_all(f"{stem}_statistics", input[:0], weight, None, *NO_EPILOGUE[:2], False, mode.tf32)
    assert y.shape == empty.shape and not mean.any() and not var.any()


@pytest.mark.parametrize("kind", [Kind(STRIDED, 5), Kind(TRANSPOSED, 5)], ids=str)
def test_five_taps_are_an_error(kind: Kind) -> None:
    """Which plans spare users: 5x5 are PyTorch's."""
    mode = MODES[3]
    stem, weight, input = kind.block.stem, kind.weights(mode, 4, 5), random(mode, 2, 4, 4, 4)
    grad = kind.grad(mode, input, weight)
    for run in (
        lambda: forward(mode, kind, input, weight),
        lambda: call(f"{stem}_weights", weight, False),
        lambda: call(f"{stem}_weight_gradient", grad, input, weight, False),
        lambda: call_all(f"{stem}_statistics", input, weight, None, *NO_EPILOGUE[:2], False, False),
    ):
        with pytest.raises(RuntimeError, match="weight: 3x3 taps are expected, or 4x4"):
            run()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_bitwise_equal_on_repeat(kind: Kind) -> None:
    torch.manual_seed(0)
    mode = MODES[1]
    input, weight = random(mode, 2, 24, 13, 17), kind.weights(mode, 24, 40)
    grad = kind.grad(mode, input, weight)
    assert torch.equal(*(forward(mode, kind, input, weight) for _ in range(2)))
    assert torch.equal(*(call(f"{kind.block.stem}_weight_gradient", grad, input, weight, mode.tf32) for _ in range(2)))
