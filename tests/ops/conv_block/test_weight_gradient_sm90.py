"""The weights' gradient by sm_90a's code, which INPAINT_FAST_CUDA_WEIGHT_GRADIENT asks for: of all three blocks against
float64, every tile, box of pixels and tail, and which code runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from emulation.build import launches, load
from hypothesis import given
from hypothesis import strategies as st
from ops.conv_block.cuda_modes import (
    CAPABILITIES,
    MODES,
    RUNS,
    TILES,
    Mode,
    call,
    marks_of,
    pair,
    random,
    running,
    shared_bytes,
    weights,
)
from support import assert_as_good, laid_out
from torch import Tensor

from inpaint_fast.ops.conv_block import dilated_reference, strided_reference, transposed_reference

VARIABLE = "INPAINT_FAST_CUDA_WEIGHT_GRADIENT"
HALVES = MODES[:2]
REFERENCES = {"strided_block": strided_reference, "transposed_block": transposed_reference}

pytestmark = pytest.mark.skipif("sm_90a" not in CAPABILITIES, reason="sm_80's code alone is tested")
every_half = pytest.mark.parametrize("half", HALVES, ids=str)


@pytest.fixture(
    scope="module",
    autouse=True,
    params=[pytest.param(run, marks=marks_of(run), id="-".join(run)) for run in RUNS if run[1] == "sm_90a"],
)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with running(*request.param) as name, pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "sm_90a")
        yield name


def launched() -> str:
    """Whose code of the weights' gradient has run since the last call, in the emulation; of sm_90a's the tile."""
    *_, sums, _ = launches("dilated_block")  # the last one adds the parts
    if sums.threads % 128 != 32:
        return "sm_80"
    return next("{} x {}".format(*tile) for tile in TILES if shared_bytes(*tile) == sums.shared_bytes)


def dilated(half: Mode, grad: Tensor, input: Tensor, weight: Tensor, dilation=1, padding=None) -> Tensor:
    padding = dilation if padding is None else padding
    geometry = [*pair(dilation), *pair(padding)]
    return call("dilated_block_weight_gradient", grad, input, weight, geometry, half.tf32)


def check_dilated(half: Mode, input: Tensor, out: int, dilation=1, padding=None, scale: float = 1.0) -> Tensor:
    """The gradient, held to float64; of a gradient of the output that is `scale` large."""
    padding = dilation if padding is None else padding
    sides = [s + 2 * (p - d) for s, d, p in zip(input.shape[2:], pair(dilation), pair(padding), strict=True)]
    weight = weights(half, out, input.shape[1])
    grad = laid_out((random(half, input.shape[0], out, *sides).double() * scale).to(half.dtype), "channels_last")
    value = dilated(half, grad, input, weight, dilation, padding)

    def expected(dtype: torch.dtype) -> Tensor:
        source = weight.to(dtype).requires_grad_()
        y = dilated_reference(input.to(dtype), source, dilation=dilation, padding=padding)
        return torch.autograd.grad(y, source, grad.to(dtype))[0]

    assert value.dtype == half.dtype and value.stride() == torch.empty_like(weight).stride()
    assert_as_good(value, expected(torch.float32), expected(torch.float64))
    return value


def nhwc(half: Mode, *shape: int) -> Tensor:
    return laid_out(random(half, *shape), "channels_last")


# ---- parity ----


@pytest.mark.proves(
    "dilated_block",
    equals="the gradients of F.conv2d's weights",
    within="as good as PyTorch",
    dtypes="float16, bfloat16",
)
@every_half
@pytest.mark.parametrize("dilation", [1, 2, 5, (1, 3), 16])
def test_parity(half: Mode, dilation: int | tuple[int, int], backend: str) -> None:
    """Also with dilations larger than the picture, whose outer taps see nothing, and with any padding."""
    torch.manual_seed(0)
    input = nhwc(half, 2, 40, 7, 13)
    for padding in (None, 0, (3, 1), 2 * max(pair(dilation)) + 1):
        if min(s - 2 * d for s, d in zip((7, 13), pair(dilation), strict=True)) < 1 and padding in (0, (3, 1)):
            continue
        value = check_dilated(half, input, 72, dilation, padding)
        assert backend != "emulated" or launched() == "128 x 64"
        if dilation == 16 and padding is None:
            assert not value[:, :, [0, 2]].any() and not value[:, :, :, [0, 2]].any() and value[:, :, 1, 1].all()


@pytest.mark.proves(
    "strided_block",
    "transposed_block",
    equals="the gradients of the weights of F.conv2d with stride 2 and of F.conv_transpose2d",
    within="as good as PyTorch",
    dtypes="float16, bfloat16",
)
@every_half
@pytest.mark.parametrize("taps", [3, 4])
@pytest.mark.parametrize("block", sorted(REFERENCES))
def test_odd_shapes_of_stride_2(half: Mode, taps: int, block: str, backend: str) -> None:
    """Boxes of every second pixel: even sides and odd ones, of one pixel, tails of channels, several images."""
    torch.manual_seed(0)
    for images, channels, out, *sides in ((2, 40, 72, 7, 13), (3, 8, 16, 2, 6), (1, 19, 33, 10, 2), (2, 24, 8, 8, 32)):
        weight = weights(half, out, channels, taps)
        if block == "transposed_block":
            weight = weight.transpose(0, 1).contiguous()
        input = nhwc(half, images, channels, *sides)
        grad = laid_out(random(half, *REFERENCES[block](input.float(), weight.float()).shape), "channels_last")
        value = call(f"{block}_weight_gradient", grad, input, weight, half.tf32)
        assert backend != "emulated" or launched() != "sm_80"

        def expected(dtype: torch.dtype, input: Tensor = input, weight: Tensor = weight, grad: Tensor = grad) -> Tensor:
            source = weight.to(dtype).requires_grad_()
            return torch.autograd.grad(REFERENCES[block](input.to(dtype), source), source, grad.to(dtype))[0]

        assert_as_good(value, expected(torch.float32), expected(torch.float64))


@every_half
def test_every_tail_of_channels(half: Mode) -> None:
    """Read where they lie (multiples of 8), and packed."""
    torch.manual_seed(0)
    for channels, out in ((8, 8), (16, 64), (64, 72), (136, 8), (1, 65), (3, 7), (66, 9), (33, 264)):
        check_dilated(half, nhwc(half, 1, channels, 3, 5), out)


@every_half
def test_odd_shapes_share_a_box(half: Mode) -> None:
    torch.manual_seed(0)
    for images, *sides in ((1, 1, 1), (3, 1, 2), (70, 1, 1), (9, 3, 2), (2, 1, 40), (2, 40, 1), (65, 2, 1)):
        check_dilated(half, nhwc(half, images, 16, *sides), 24, dilation=2)


@given(data=st.data())
def test_any_shape_dilation_and_padding(data: st.DataObject) -> None:
    draw = data.draw
    half = draw(st.sampled_from(HALVES))
    dilation = draw(st.tuples(st.integers(1, 32), st.integers(1, 32)))
    padding = tuple(draw(st.integers(0, 2 * d + 1)) for d in dilation)
    sides = [
        draw(st.integers(side, side + 20))
        for side in (max(1, 2 * (d - p) + 1) for d, p in zip(dilation, padding, strict=True))
    ]
    images, channels, out = draw(st.integers(1, 3)), draw(st.integers(1, 70)), draw(st.integers(1, 70))
    torch.manual_seed(0)
    input = laid_out(random(half, images, channels, *sides), draw(st.sampled_from(["nchw", "channels_last", "sliced"])))
    check_dilated(half, input, out, dilation, padding)


@pytest.mark.parametrize(
    ("half", "scale"), [(HALVES[0], 2.0**-18), (HALVES[0], 2.0**8), (HALVES[1], 1e-30), (HALVES[1], 1e30)], ids=str
)
def test_small_and_large_gradients(half: Mode, scale: float) -> None:
    """Subnormal numbers of float16 and such as are near its largest; the range of bfloat16."""
    torch.manual_seed(0)
    value = check_dilated(half, nhwc(half, 1, 16, 6, 9), 24, scale=scale)
    assert value.isfinite().all() and value.any()


def test_sums_past_float16_are_infinite() -> None:
    half, shape = HALVES[0], (1, 8, 8, 16)
    input, grad = (torch.full(shape, number, dtype=half.dtype) for number in (1.0, 1000.0))
    value = dilated(half, grad, input, weights(half, 8, 8))
    assert (value == torch.inf).all()  # 1000 * 7 * 15 at least
    assert (dilated(half, grad / 10, input, weights(half, 8, 8))[:, :, 1, 1] == 100 * 128).all()


@every_half
@pytest.mark.parametrize("number", [torch.inf, -torch.inf, torch.nan])
def test_what_is_no_number_is_not_hidden(half: Mode, number: float) -> None:
    """Whoever looks for overflow in the gradients finds it, wherever it was."""
    for y, x in ((0, 0), (3, 4), (6, 8)):
        for which in range(2):
            pictures = [nhwc(half, 1, 8, 7, 9) for _ in range(2)]
            pictures[which][0, 5, y, x] = number
            assert not dilated(half, *pictures, weights(half, 8, 8))[:, :, 1, 1].isfinite().all()


# ---- the order of the sums ----


@every_half
@pytest.mark.parametrize(
    ("shape", "out", "dilation"),
    [((2, 16, 13, 23), 64, 4), ((40, 16, 1, 9), 64, 1), ((2, 16, 30, 1), 8, 3), ((2, 72, 33, 31), 130, 2)],
)
def test_many_pixels_in_parts(half: Mode, shape: tuple[int, ...], out: int, dilation: int) -> None:
    """Some parts are empty at the outer taps. Bitwise repeatable, and the same on any GPU."""
    torch.manual_seed(0)
    input, grad = nhwc(half, *shape), nhwc(half, shape[0], out, *shape[2:])
    check_dilated(half, input, out, dilation)
    first = dilated(half, grad, input, weights(half, out, shape[1]), dilation)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INPAINT_FAST_EMULATED_MULTIPROCESSORS", "132")
        assert torch.equal(first, dilated(half, grad, input, weights(half, out, shape[1]), dilation))


@every_half
@pytest.mark.parametrize(
    ("out", "channels", "tile"),
    [(64, 64, 3), (8, 200, 3), (128, 64, 2), (100, 40, 2), (128, 128, 1), (72, 100, 1), (256, 128, 0), (200, 72, 0)],
)
def test_every_tile(half: Mode, out: int, channels: int, tile: int, backend: str) -> None:
    torch.manual_seed(0)
    check_dilated(half, nhwc(half, 1, channels, 9, 11), out, dilation=2)
    assert backend != "emulated" or launched() == "{} x {}".format(*TILES[tile])


@every_half
def test_offsets_of_more_than_32_bits(half: Mode, tmp_path: Path) -> None:
    """Pictures 2^31 elements apart, in a file that is all holes."""
    torch.manual_seed(0)
    apart, size = 2**31 + 16, 5 * 6 * 8
    file = torch.from_file(str(tmp_path / "pictures"), shared=True, size=apart + size, dtype=half.dtype)
    input = file.as_strided((2, 8, 5, 6), (apart, 1, 6 * 8, 8))
    input.copy_(random(half, 2, 8, 5, 6))
    near, grad, weight = laid_out(input.clone(), "channels_last"), nhwc(half, 2, 8, 5, 6), weights(half, 8, 8)
    assert torch.equal(dilated(half, grad, input, weight), dilated(half, grad, near, weight))


# ---- the choice ----


@pytest.fixture
def emulated(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend != "emulated":
        pytest.skip("what is launched is known of the emulation alone")
    load("dilated_block")


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(
    ("code", "make"),
    [
        ("64 x 64", lambda half: random(half, 2, 3, 5, 6)),  # packed
        ("64 x 64", lambda half: nhwc(half, 2, 16, 9, 9)[:, 8:, 1:7, 2:]),
        ("sm_80", lambda half: nhwc(half, 2, 8, 5, 6).transpose(2, 3)),  # columns further apart than rows
        ("sm_80", lambda half: nhwc(half, 1, 8, 5, 6).expand(3, -1, -1, -1)),  # one picture three times
        ("sm_80", lambda half: nhwc(half, 0, 8, 5, 6)),
    ],
)
def test_what_has_no_tensor_map_runs_by_sm_80(code: str, make: Callable[[Mode], Tensor]) -> None:
    torch.manual_seed(0)
    for half in MODES:
        input = make(half)
        grad = nhwc(half, input.shape[0], 8, *input.shape[2:])
        for pictures in ((grad, input), (input, grad)):
            dilated(half, *pictures, weights(half, pictures[0].shape[1], pictures[1].shape[1]))
            assert launched() == (code if half in HALVES else "sm_80")


@pytest.mark.usefixtures("emulated")
def test_the_variable_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset, sm_80's code runs: no GPU has measured the other."""
    input = nhwc(HALVES[0], 1, 8, 4, 4)

    def code() -> str:
        dilated(HALVES[0], input, input, torch.randn(8, 8, 3, 3).half())
        return "sm_80" if launched() == "sm_80" else "sm_90a"

    for wish, convolution, expected in (
        ("sm_90a", "", "sm_90a"), ("sm_90a", "sm_80", "sm_90a"), ("sm_80", "", "sm_80"), ("", "", "sm_80"),
        ("", "sm_90a", "sm_80"),
    ):  # fmt: skip
        monkeypatch.setenv(VARIABLE, wish)
        monkeypatch.setenv("INPAINT_FAST_CUDA_CAPABILITY", convolution)
        assert code() == expected
    for wish, capability, message in (
        ("sm_90", "90", f"{VARIABLE}: sm_80, sm_90a or nothing is expected, got 'sm_90'"),
        ("sm_90a", "80", f"{VARIABLE}: sm_90a needs a GPU of compute capability 9.0 and a build for 9.0a"),
    ):
        monkeypatch.setenv(VARIABLE, wish)
        monkeypatch.setenv("INPAINT_FAST_EMULATED_CAPABILITY", capability)
        with pytest.raises(RuntimeError, match=message):
            code()


def test_the_last_launches_are_told_however_many_came_before(backend: str) -> None:
    """By the emulation, by whose launches these tests know whose code has run."""
    if backend != "emulated":
        pytest.skip("a GPU's launches are not noted")
    half, few = HALVES[0], (1, 8, 1, 1)
    for _ in range(600):  # of two kernels at least
        dilated(half, nhwc(half, *few), nhwc(half, *few), weights(half, 8, 8))
    check_dilated(half, nhwc(half, 2, 40, 7, 13), 72)
    assert launched() == "128 x 64"
