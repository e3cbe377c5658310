"""dilated_block's CUDA kernels: every way of multiplying against float64, every tile, layout and tail."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import torch
from emulation.build import launches
from hypothesis import given
from hypothesis import strategies as st
from ops.conv_block.cuda_modes import (
    MODES,
    NOTHING,
    RUNS,
    TILES,
    Mode,
    call,
    call_all,
    check_forward,
    check_gradients,
    check_launches,
    every_mode,
    every_mode_of,
    forward,
    marks_of,
    pair,
    path_of_code,
    random,
    running,
    shared_bytes,
    weights,
)
from support import assert_as_good, laid_out
from torch import Tensor

from inpaint_fast._words import ACTIVATIONS, DEFAULT_SLOPE
from inpaint_fast.ops._activations import activate
from inpaint_fast.ops.conv_block import dilated_reference as reference

LAYOUTS = ("nchw", "channels_last", "sliced", "transposed")


@pytest.fixture(
    scope="module", autouse=True, params=[pytest.param(run, marks=marks_of(run), id="-".join(run)) for run in RUNS]
)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with running(*request.param) as name:
        yield name


# ---- parity ----


@pytest.mark.proves(
    "dilated_block",
    equals="F.conv2d and its gradients, by the CUDA source for sm_80 and for sm_90a",
    within="as good as PyTorch",
    dtypes="float32, TF32, float16, bfloat16",
)
@every_mode
@pytest.mark.parametrize("dilation", [1, 2, 5, (1, 3), 16])
def test_parity(mode: Mode, dilation: int | tuple[int, int]) -> None:
    torch.manual_seed(0)
    input, weight = random(mode, 1, 40, 7, 13), weights(mode, 72, 40)
    for padding in (None, 0, (3, 1), 2 * max(pair(dilation)) + 1):
        settings = {"dilation": dilation, "padding": dilation if padding is None else padding}
        sides = [s + 2 * (p - d) for s, d, p in zip((7, 13), *map(pair, settings.values()), strict=True)]
        if min(sides) < 1:
            continue
        check_forward(mode, input, weight, (random(mode, 72), None, None), **settings)
        check_gradients(mode, input, weight, random(mode, 1, 72, *sides), False, **settings)


@every_mode
def test_epilogues(mode: Mode) -> None:
    torch.manual_seed(0)
    input, weight = random(mode, 1, 24, 6, 9), weights(mode, 21, 24)
    bias, shift, scale = random(mode, 21), random(mode, 21), random(mode, 21).abs() + 0.5
    for activation, order in product(ACTIVATIONS, ("norm_act", "act_norm")):
        for vectors in (NOTHING, (bias, None, None), (bias, scale, shift), (None, scale, None), (None, None, shift)):
            for slope in (0.3, -0.5) if activation == "leaky_relu" else (0.7,):
                check_forward(mode, input, weight, vectors, activation=activation, slope=slope, order=order)


@every_mode
def test_vectors_of_any_stride(mode: Mode) -> None:
    torch.manual_seed(0)
    input, weight = random(mode, 1, 8, 5, 5), weights(mode, 13, 8)
    vectors = random(mode, 13, 3).abs()
    check_forward(mode, input, weight, tuple(vectors.unbind(1)), activation="tanh", order="act_norm")


@every_mode
def test_activations_keep_nan_and_infinity(mode: Mode) -> None:
    input = torch.tensor([float("nan"), float("inf"), -float("inf"), 200.0, -200.0], dtype=mode.dtype)
    input = input.view(1, 1, 1, 5)
    weight = torch.zeros(1, 1, 3, 3, dtype=mode.dtype)
    weight[0, 0, 1, 1] = 1
    # The columns beside infinities would be infinity times zero: a dilation of the picture's width leaves them out.
    for activation in ACTIVATIONS:
        slope = DEFAULT_SLOPE.get(activation, 0.0)
        value = forward(mode, input, weight, dilation=5, activation=activation, slope=slope)
        wanted = reference(input.float(), weight.float(), dilation=5, activation=activation)
        torch.testing.assert_close(value.float(), wanted, equal_nan=True)


@pytest.mark.pairs
@every_mode
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("weight_layout", ["nchw", "channels_last", "transposed"])
def test_layouts(mode: Mode, layout: str, weight_layout: str) -> None:
    torch.manual_seed(0)
    for channels, out in ((16, 24), (19, 37)):
        input, weight = random(mode, 2, channels, 7, 10), weights(mode, out, channels)
        input, weight = laid_out(input, layout), laid_out(weight, weight_layout)
        grad = laid_out(random(mode, 2, out, 7, 10), layout)
        for channels_last in (False, True):
            value = check_forward(mode, input, weight, dilation=2, channels_last=channels_last)
            assert value.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
            check_gradients(mode, input, weight, grad, channels_last, dilation=2)


@every_mode
def test_every_tail_of_channels(mode: Mode) -> None:
    torch.manual_seed(0)
    for channels, out in ((1, 65), (2, 4), (3, 1), (4, 3), (5, 2), (6, 64), (7, 5), (8, 7), (9, 66), (31, 33), (33, 8)):
        input, weight = random(mode, 1, channels, 3, 5), weights(mode, out, channels)
        check_forward(mode, input, weight, (random(mode, out), None, None), channels_last=True)
        check_gradients(mode, input, weight, random(mode, 1, out, 3, 5), True)


@given(data=st.data())
def test_any_shape_dilation_and_padding(data: st.DataObject) -> None:
    draw = data.draw
    mode = draw(st.sampled_from(MODES))
    dilation = draw(st.tuples(st.integers(1, 32), st.integers(1, 32)))
    padding = tuple(draw(st.integers(0, 2 * d + 1)) for d in dilation)
    least = [max(1, 2 * (d - p) + 1) for d, p in zip(dilation, padding, strict=True)]
    sides = [draw(st.integers(side, side + 20)) for side in least]
    images, channels, out = draw(st.integers(0, 3)), draw(st.integers(1, 50)), draw(st.integers(1, 70))
    layout, channels_last = draw(st.sampled_from(LAYOUTS)), draw(st.booleans())
    torch.manual_seed(0)
    input, weight = laid_out(random(mode, images, channels, *sides), layout), weights(mode, out, channels)
    settings = {"dilation": dilation, "padding": padding}
    value = check_forward(mode, input, weight, channels_last=channels_last, **settings)
    grad = laid_out(random(mode, *value.shape), layout)
    check_gradients(mode, input, weight, grad, channels_last, **settings)


@every_mode
def test_gradients_by_autograd(mode: Mode) -> None:
    torch.manual_seed(0)
    tensors = [random(mode, 2, 16, 6, 9), weights(mode, 24, 16), random(mode, 24)]

    def gradients(function, dtype: torch.dtype) -> tuple[Tensor, ...]:
        sources = [t.to(dtype).requires_grad_() for t in tensors]
        y = function(*sources)
        return torch.autograd.grad(y, sources, torch.linspace(-1, 1, y.numel(), dtype=dtype).view_as(y))

    def plain(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return reference(input, weight, bias, dilation=2, activation="tanh")

    values = gradients(lambda x, w, b: forward(mode, x, w, (b, None, None), dilation=2, activation="tanh"), mode.dtype)
    exact, near = gradients(plain, torch.float64), gradients(plain, mode.dtype)
    # Rounding to TF32 changes each of two factors by 2^-11 of itself at most, their product by 2^-10. A sum of products
    # of random signs is changed by no more than that in its norm, for its terms and their errors add up alike.
    for value, close, wanted in zip(values, near, exact, strict=True):
        assert_as_good(value, close, wanted, ulps=4 + mode.tf32 * 2**-10 / torch.finfo(torch.float32).eps)


# ---- statistics ----


def check_statistics(mode: Mode, input: Tensor, weight: Tensor, activation: str, channels_last: bool) -> None:
    """The result is that of the convolution alone; the statistics are those of it as it is rounded."""
    bias, slope = random(mode, weight.shape[0]), DEFAULT_SLOPE.get(activation, 0.0)
    args = (input, weight, bias, [2, 3, 2, 3], ACTIVATIONS.index(activation), slope, channels_last, mode.tf32)
    y, mean, var = call_all("dilated_block_statistics", *args)
    alone = forward(mode, input, weight, (bias, None, None), dilation=(2, 3), channels_last=channels_last)
    assert torch.equal(y, alone) and y.stride() == alone.stride()

    def expected(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return torch.var_mean(activate(y.to(dtype), activation, slope), (0, 2, 3), correction=0)

    for value, plain, exact in zip((var, mean), expected(torch.float32), expected(torch.float64), strict=True):
        assert value.dtype == torch.float64
        assert_as_good(value.float(), plain, exact)
    again = call_all("dilated_block_statistics", *args)
    assert all(torch.equal(a, b) for a, b in zip(again, (y, mean, var), strict=True))


@pytest.mark.pairs
@every_mode
@pytest.mark.parametrize("activation", ["none", "elu"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_statistics(mode: Mode, activation: str, channels_last: bool) -> None:
    """Of pictures that share a block, of cut ones, and with tails of channels."""
    torch.manual_seed(0)
    for images, out, *size in ((1, 3, 1, 2), (70, 5, 4, 3), (2, 70, 9, 11), (1, 130, 33, 21)):
        check_statistics(mode, random(mode, images, 5, *size), weights(mode, out, 5), activation, channels_last)


@every_mode
def test_statistics_in_every_tile(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    input, weight = laid_out(random(mode, 2, 16, 16, 32), "channels_last"), weights(mode, 128, 16)
    for multiprocessors in (1, 8, 16, 32):
        monkeypatch.setenv("INPAINT_FAST_EMULATED_MULTIPROCESSORS", str(multiprocessors))
        check_statistics(mode, input, weight, "elu", True)


def test_statistics_of_nothing() -> None:
    y, mean, var = call_all(
        "dilated_block_statistics", torch.empty(0, 3, 5, 5), torch.ones(4, 3, 3, 3), None, [1, 1, 1, 1], 0, 0.0, False,
        False,
    )  # fmt: skip
    assert y.shape == (0, 4, 5, 5) and not mean.any() and not var.any()


# ---- the choice of tiles, and what is launched ----


@every_mode
def test_every_tile_has_the_same_sums(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """The more multiprocessors, the smaller the tiles; a tile changes no sum."""
    torch.manual_seed(0)
    input, weight = laid_out(random(mode, 2, 16, 16, 32), "channels_last"), weights(mode, 128, 16)
    packed = call("dilated_block_weights", weight, 4, False)
    first = check_forward(mode, input, weight, dilation=3, packed=packed, channels_last=True)
    chosen = [(count, 227, tile) for count, tile in zip((1, 8, 16, 32), TILES, strict=True)]
    too_little = 99 if path_of_code() == "sm_80" else 180  # for the largest
    for multiprocessors, shared_kb, expected in (*chosen, (1, too_little, TILES[1])):
        monkeypatch.setenv("INPAINT_FAST_EMULATED_MULTIPROCESSORS", str(multiprocessors))
        monkeypatch.setenv("INPAINT_FAST_EMULATED_SHARED_KB", str(shared_kb))
        launches("dilated_block")
        value = forward(mode, input, weight, dilation=3, packed=packed, channels_last=True)
        check_launches(["{} x {}".format(*expected)])  # one kernel, where nothing is to be packed
        assert torch.equal(value, first)


@pytest.mark.parametrize("side", [1, 4, 7])
def test_small_pictures_share_a_block(backend: str, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    mode = MODES[0]
    monkeypatch.setenv("INPAINT_FAST_EMULATED_MULTIPROCESSORS", "1000")
    input, weight = laid_out(random(mode, 64, 8, side, side), "channels_last"), weights(mode, 64, 8)
    packed = call("dilated_block_weights", weight, 4, False)
    launches("dilated_block")
    check_forward(mode, input, weight, packed=packed)
    if backend == "emulated":
        (launch,) = launches("dilated_block")
        assert launch.shared_bytes == shared_bytes(64, 64)
        assert launch.blocks == {1: 1, 4: 16, 7: 64}[side]


@every_mode
def test_taps_of_nothing_but_padding_are_left_out(mode: Mode) -> None:
    """Zero times infinity would be NaN."""
    torch.manual_seed(0)
    input, weight = random(mode, 1, 8, 6, 7), weights(mode, 8, 8)
    outside = torch.ones(3, 3, dtype=torch.bool)
    outside[1, 1] = False
    far = torch.where(outside, torch.inf, weight.double()).to(mode.dtype)
    near = torch.where(outside, 0, weight.double()).to(mode.dtype)
    assert torch.equal(forward(mode, input, far, dilation=9), forward(mode, input, near, dilation=9))
    # Blocks of 8x8 pixels: those of the upper half leave out the upper taps, and so on.
    input = torch.ones(1, 8, 16, 16, dtype=mode.dtype)
    weight = torch.full((64, 8, 3, 3), torch.inf, dtype=mode.dtype)
    weight[:, :, 1, 1] = 1 / 8
    assert (forward(mode, input, weight, dilation=16) == 1).all()


@every_mode
def test_packed_weights_are_those_that_a_call_packs(mode: Mode) -> None:
    torch.manual_seed(0)
    input, weight = random(mode, 1, 19, 6, 9), laid_out(weights(mode, 37, 19), "channels_last")
    packed = call("dilated_block_weights", weight, 4, False)
    assert packed.shape == (9 * 37 * (24 if packed.element_size() == 2 else 20),)
    assert torch.equal(forward(mode, input, weight, packed=packed), forward(mode, input, weight))


# ---- the weights' gradient ----


@every_mode_of("sm_80")
@pytest.mark.parametrize(("out", "channels"), [(64, 16), (130, 72)])
def test_weight_gradient_of_many_pixels(mode: Mode, out: int, channels: int) -> None:
    """Several parts, in both tiles, with ends of rows and of pictures in the middle of a step; bitwise repeatable."""
    torch.manual_seed(0)
    shapes = (((2, 13, 23), 4), ((40, 1, 9), 1), ((7, 13, 3), 2), ((2, 30, 1), 3))
    for shape, dilation in shapes[: 4 if out == 64 else 1]:
        images, height, width = shape
        input, weight = random(mode, images, channels, height, width), weights(mode, out, channels)
        grad = random(mode, images, out, height, width)
        check_gradients(mode, input, weight, grad, False, dilation=dilation)
        numbers = (grad, input, weight, [dilation] * 4, mode.tf32)
        first, again = (call("dilated_block_weight_gradient", *numbers) for _ in range(2))
        assert torch.equal(first, again)


@every_mode
def test_bitwise_equal_on_repeat(mode: Mode) -> None:
    torch.manual_seed(0)
    input, weight = random(mode, 2, 24, 13, 17), weights(mode, 40, 24)
    assert torch.equal(*(forward(mode, input, weight, dilation=2) for _ in range(2)))
    grad = random(mode, 2, 40, 13, 17)
    assert torch.equal(*(call("dilated_block_input_gradient", grad, weight, [2, 2, 2, 2], True, mode.tf32)
                         for _ in range(2)))  # fmt: skip


# ---- sizes ----


@every_mode
@pytest.mark.parametrize("channels", [8, 3])
def test_offsets_of_more_than_32_bits(mode: Mode, channels: int, tmp_path: Path) -> None:
    """Pictures 2^31 elements apart, in a file that is all holes: read where they lie (8 channels), and packed (3)."""
    torch.manual_seed(0)
    apart, size = 2**31 + 16, 5 * 6 * channels
    file = torch.from_file(str(tmp_path / "pictures"), shared=True, size=apart + size, dtype=mode.dtype)
    input = file.as_strided((2, channels, 5, 6), (apart, 1, 6 * channels, channels))
    input.copy_(random(mode, 2, channels, 5, 6))
    weight = weights(mode, 8, channels)
    near = input.contiguous(memory_format=torch.channels_last)
    launches("dilated_block")
    value = forward(mode, input, weight, channels_last=True)
    check_launches(["-"] * (1 if channels == 8 else 2) + ["64 x 64"])
    assert torch.equal(value, forward(mode, near, weight, channels_last=True))
    grad = random(mode, 2, 8, 5, 6)
    numbers = (weight, [1, 1, 1, 1], mode.tf32)
    assert torch.equal(call("dilated_block_weight_gradient", grad, input, *numbers),
                       call("dilated_block_weight_gradient", grad, near, *numbers))  # fmt: skip


@every_mode
def test_nothing_to_compute(mode: Mode) -> None:
    weight, bias = weights(mode, 5, 4), random(mode, 5)
    assert forward(mode, random(mode, 0, 4, 3, 3), weight).shape == (0, 5, 3, 3)
    assert forward(mode, random(mode, 2, 4, 4, 5), weight, dilation=2, padding=0).shape == (2, 5, 0, 1)
    assert forward(mode, random(mode, 2, 4, 3, 3), weight[:0]).shape == (2, 0, 3, 3)
    value = forward(mode, random(mode, 2, 0, 3, 3), weight[:, :0], (bias, None, None), activation="relu")
    assert torch.equal(value, bias.relu().view(1, 5, 1, 1).expand(2, 5, 3, 3))
    for images, sides in ((0, (3, 3)), (2, (2, 3))):
        grad = random(mode, images, 5, *(side - 2 for side in sides))
        args = (grad, random(mode, images, 4, *sides), weight, [1, 1, 0, 0], mode.tf32)
        assert torch.equal(call("dilated_block_weight_gradient", *args), torch.zeros_like(weight))
        assert call("dilated_block_input_gradient", grad, weight, [1, 1, 0, 0], False, mode.tf32).shape == (
            images, 4, *sides
        )  # fmt: skip


def test_what_does_not_fit_is_an_error() -> None:
    mode = MODES[3]
    input, weight = random(mode, 1, 4, 8, 8), weights(mode, 6, 4)
    grad = random(mode, 1, 6, 8, 8)
    for message, run in (
        ("input: its dtype is not float32, float16 or bfloat16", lambda: forward(mode, input.double(), weight)),
        ("weight: its dtype is not that of the pictures", lambda: forward(mode, input, weight.half())),
        ("weight: its channels are not", lambda: forward(mode, input, weights(mode, 6, 5))),
        ("weight: 3x3 taps", lambda: call("dilated_block_weights", random(mode, 6, 4, 5, 5), 4, False)),
        ("bias: one number for each", lambda: forward(mode, input, weight, (random(mode, 7), None, None))),
        ("scale: its dtype", lambda: forward(mode, input, weight, (None, random(mode, 6).half(), None))),
        ("transformed: it is not of this weight", lambda: forward(mode, input, weight, packed=random(mode, 9))),
        ("smaller than the dilated weights", lambda: forward(mode, input, weight, dilation=9, padding=0)),
        ("dilation: at least 1", lambda: forward(mode, input, weight, dilation=0)),
        ("below 2\\^28", lambda: forward(mode, input, weight, dilation=2**28, padding=2**28)),
        (
            "activation: 0 to 5",
            lambda: call("dilated_block", input, weight, *[None] * 4, [1, 1, 1, 1], 6, 0.0, 0, False, False),
        ),
        (
            "grad: its channels",
            lambda: call("dilated_block_input_gradient", input, weight, [1, 1, 1, 1], False, False),
        ),
        (
            "grad: it is not of that input's output",
            lambda: call("dilated_block_weight_gradient", grad[:, :, 1:], input, weight, [1, 1, 1, 1], False),
        ),
    ):
        with pytest.raises(RuntimeError, match=message):
            run()
