"""What is particular to the Triton kernels of strided_block and transposed_block: the phases of a result, odd sizes,
edges of tiles, tails of channels, strides, statistics. Their numbers in general are test_resampling.py's; what stride 2
shares with dilated_block is test_dilated_triton.py's."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from ops.conv_block.small_tiles import take_small_tiles
from support import assert_as_good, exactly, laid_out, relative_error
from torch import Tensor

import inpaint_fast as ipf
from inpaint_fast._words import ACTIVATIONS, DEFAULT_SLOPE, ORDERS
from inpaint_fast.kernels import _walk, conv_block
from inpaint_fast.ops import forget, prepare
from inpaint_fast.ops._activations import activate
from inpaint_fast.ops._dispatch import OPERATORS
from inpaint_fast.ops.conv_block import HALVING, STRIDED, TRANSPOSED
from inpaint_fast.ops.conv_block import geometry as blocks
from inpaint_fast.ops.conv_block.plan import as_tf32

NORM_ACT = ORDERS.index("norm_act")
NOTHING = (None, None, None, None)  # transformed, bias, scale, shift
PLAIN = (0, 0.0, NORM_ACT)


@dataclass(frozen=True)
class Kind:
    """One of the two with 3x3 or 4x4 taps."""

    block: blocks.Block
    taps: int

    def weights(self, channels: int, out: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Weights that keep the input's scale, as a network's do."""
        size = (channels, out) if self.block.transposed else (out, channels)
        return (random(*size, self.taps, self.taps, seed=1) / (self.taps**2 * channels) ** 0.5).to(dtype)

    def public(self, *args: Tensor, **settings) -> Tensor:
        return getattr(ipf, self.block.stem)(*args, backend="triton", **settings)

    def plain(self, *args: Tensor | None) -> Tensor:
        """In plain PyTorch, of (input, weight, bias)."""
        return self.block.convolve(*args, HALVING)

    def call(self, name: str, *args: object) -> Tensor | tuple[Tensor, ...]:
        return OPERATORS[self.block.stem].call("triton", self.block.stem + name, *args)


KINDS = [Kind(block, taps) for block in (STRIDED, TRANSPOSED) for taps in (3, 4)]


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind.block.stem}_{kind.taps}")
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture(params=(STRIDED, TRANSPOSED), ids=lambda block: block.stem)
def kind_of_4(request: pytest.FixtureRequest) -> Kind:
    """Where the number of taps makes no difference."""
    return Kind(request.param, 4)


@pytest.fixture
def small_tiles(monkeypatch) -> None:
    take_small_tiles(monkeypatch)


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def check(kind: Kind, input: Tensor, weight: Tensor, seed: Tensor | None = None) -> list[Tensor]:
    """Result and both gradients against float64, and against plain PyTorch in the same dtype."""

    def run(function, dtype: torch.dtype) -> list[Tensor]:
        x, w = (t.detach().to(dtype).requires_grad_() for t in (input, weight))
        y = function(x, w, None)
        grad = (random(*y.shape, seed=2) if seed is None else seed).to(y.dtype)
        return [y.detach(), *torch.autograd.grad(y, (x, w), grad)]

    values, plain, exact = run(kind.public, input.dtype), run(kind.plain, input.dtype), run(kind.plain, torch.float64)
    for value, same_dtype, wanted in zip(values, plain, exact, strict=True):
        assert value.dtype == input.dtype and value.shape == wanted.shape
        assert_as_good(value, same_dtype, wanted)
    return values


# ---- sizes, taps, channels, strides ----


@pytest.mark.parametrize("size", [(2, 2), (5, 4), (3, 9)])
def test_edges_of_tiles_and_odd_sizes(kind, small_tiles, size) -> None:
    check(kind, random(2, 3, *size), kind.weights(3, 2))


def test_one_pixel() -> None:
    for kind in KINDS:
        if kind.block.transposed or kind.taps == 3:  # 4 taps make nothing of one row
            check(kind, random(1, 3, 1, 1), kind.weights(3, 2))


@pytest.mark.parametrize(
    ("channels", "out", "dtype"), [(1, 1, torch.float32), (15, 17, torch.bfloat16), (40, 3, torch.float16)], ids=str
)
def test_tails_of_channels(kind, small_tiles, channels, out, dtype) -> None:
    check(kind, random(1, channels, 2, 3, dtype=dtype), kind.weights(channels, out, dtype))


@pytest.mark.parametrize("layout", ("channels_last", "sliced", "transposed", "expanded"))
def test_strides(kind_of_4, layout) -> None:
    kind = kind_of_4

    def like(tensor: Tensor) -> Tensor:
        return tensor[:1].expand_as(tensor) if layout == "expanded" else laid_out(tensor, layout)

    input, weight = random(2, 3, 4, 3), kind.weights(3, 2)
    seed = random(*kind.plain(input, weight, None).shape, seed=2)
    y, grad_input, _ = check(kind, like(input), weight, like(seed))
    assert y.is_contiguous(memory_format=torch.channels_last) == (layout == "channels_last")
    assert grad_input.is_contiguous(memory_format=torch.channels_last) == (layout == "channels_last")


def test_strides_of_the_weight(kind) -> None:
    check(kind, random(1, 3, 3, 2), kind.weights(2, 3).transpose(0, 1).permute(0, 1, 3, 2))


@pytest.mark.parametrize("taps", (3, 4))
def test_a_phase_reads_its_own_taps(small_tiles, taps) -> None:
    """Every second row and column of a transposed convolution's result, by every second row and column of taps."""
    kind = Kind(TRANSPOSED, taps)
    input, weight = random(1, 2, 5, 6), kind.weights(2, 3)
    clean = kind.public(input, weight)
    for row in (0, 1):
        for column in (0, 1):
            others = weight.clone()
            others[:, :, row::2] = others[:, :, :, column::2] = float("nan")
            y = kind.public(input, others)
            phase = (..., slice(row, None, 2), slice(column, None, 2))  # of padding 1: by the other taps
            assert torch.equal(y[phase], clean[phase])
            assert y[..., 1 - row :: 2, :].isnan().any() and y[..., 1 - column :: 2].isnan().any()


def test_no_pictures(kind) -> None:
    values = check(kind, random(0, 3, 4, 4), kind.weights(3, 2))
    assert not values[2].any()


@pytest.mark.usefixtures("overflows_are_errors")
def test_64_bit_indices(kind_of_4, small_tiles, monkeypatch) -> None:
    kind = kind_of_4
    input, weight = random(2, 3, 3, 4).transpose(2, 3), kind.weights(3, 2)
    narrow = check(kind, input, weight)
    monkeypatch.setattr(_walk, "INDEX_LIMIT", 10)
    assert all(torch.equal(a, b) for a, b in zip(narrow, check(kind, input, weight), strict=True))


def test_bitwise_equal_on_repeat(kind_of_4, small_tiles) -> None:
    kind = kind_of_4
    input, weight = random(2, 5, 3, 6), kind.weights(5, 4)
    first, again = (check(kind, input, weight) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_tf32_is_that_of_rounded_weights(kind) -> None:
    input, weight = random(1, 3, 5, 6), kind.weights(3, 4)
    y = kind.call("", input, weight, *NOTHING, *PLAIN, False, True)
    rounded = as_tf32(weight)
    assert_as_good(y, kind.plain(input, rounded, None), kind.plain(*exactly([input, rounded]), None))
    assert not torch.equal(y, kind.public(input, weight))


# ---- statistics ----


@pytest.mark.parametrize(
    ("activation", "order", "dtype"),
    [("elu", "act_norm", torch.float32), ("elu", "act_norm", torch.bfloat16), ("elu", "norm_act", torch.float32)],
    ids=str,
)
def test_statistics_of_the_rounded_result(kind, small_tiles, activation, order, dtype) -> None:
    """As `ConvNormAct` asks for them: before the activation, or in the order "act_norm" after it."""
    input, weight, bias = random(2, 3, 7, 6, dtype=dtype), kind.weights(3, 5, dtype), random(5, dtype=dtype)
    within = activation if order == "act_norm" else "none"
    slope = DEFAULT_SLOPE.get(within, 0.0)
    args = (input, weight, bias, ACTIVATIONS.index(within), slope, True, False)
    y, mean, var = kind.call("_statistics", *args)
    assert torch.equal(y, kind.public(input.contiguous(memory_format=torch.channels_last), weight, bias))

    def expected(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return torch.var_mean(activate(y.to(dtype), within, slope), (0, 2, 3), correction=0)

    for value, plain, exact in zip((var, mean), expected(torch.float32), expected(torch.float64), strict=True):
        assert value.dtype == torch.float64
        assert_as_good(value.float(), plain, exact)


# ---- PyTorch's machinery ----


def test_kept_weights(kind_of_4, monkeypatch) -> None:
    kind = kind_of_4
    input, weight, made = random(1, 3, 5, 4), torch.nn.Parameter(kind.weights(3, 2)), []
    name = f"{kind.block.stem}_weights"
    transform = getattr(conv_block, name)
    monkeypatch.setattr(conv_block, name, lambda w, *settings: made.append(w.dtype) or transform(w))
    prepare(weight)
    with torch.no_grad():
        for _ in range(2):
            assert relative_error(kind.public(input, weight), kind.plain(input, weight, None)) < 1e-6
        assert made == [torch.float32]
        weight.mul_(2)
        assert relative_error(kind.public(input, weight), kind.plain(input, weight, None)) < 1e-6
    assert len(made) == 2
    forget(weight)


def test_second_derivatives(kind_of_4) -> None:
    kind = kind_of_4

    def penalty(tensors: list[Tensor], **named) -> list[Tensor]:
        input, weight, bias = (t.detach().requires_grad_() for t in tensors)
        y = getattr(ipf, kind.block.stem)(input, weight, bias, activation="elu", **named)
        (grad,) = torch.autograd.grad(y.square().sum(), input, create_graph=True)
        return list(torch.autograd.grad(grad.square().sum(), (input, weight, bias)))

    tensors = [random(1, 2, 4, 5), kind.weights(2, 3), random(3, seed=3)]
    exact = penalty(exactly(tensors), backend="reference")
    for value, wanted in zip(penalty(tensors, backend="triton"), exact, strict=True):
        assert relative_error(value, wanted) < 1e-5


def test_opcheck(kind_of_4) -> None:
    kind = kind_of_4
    input, weight, bias, scale, shift = random(1, 3, 4, 5), kind.weights(3, 4), *(random(4, seed=s) for s in (3, 4, 5))
    seed = random(*kind.plain(input, weight, None).shape, seed=2)
    last = input.contiguous(memory_format=torch.channels_last)
    wanting = [t.detach().requires_grad_() for t in (input, weight, bias)]
    packed = kind.call("_weights", weight, False)
    for name, args in (
        ("", (last, weight, packed, bias, scale, shift, 1, 0.0, NORM_ACT, True, False)),
        ("", (*wanting[:2], None, wanting[2], None, None, 1, 0.0, NORM_ACT, False, False)),
        ("_forward", (input, weight, packed, bias, scale, shift, 1, 0.0, NORM_ACT, False, False)),
        ("_statistics", (*wanting, 2, 1.0, True, False)),
        ("_weights", (weight, False)),
        ("_weight_gradient", (seed, input, weight, False)),
    ):
        op = getattr(torch.ops.inpaint_fast, f"{kind.block.stem}{name}_triton")
        torch.library.opcheck(op.default, args, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("block", (STRIDED, TRANSPOSED), ids=lambda block: block.stem)
def test_five_taps_are_pytorchs(block) -> None:
    """Here and by CUDA, as float64 is; the operators themselves refuse them below."""
    kind = Kind(block, 5)
    input, weight, bias = random(2, 3, 7, 6), kind.weights(3, 4), random(4, seed=3)
    wanting = [t.detach().requires_grad_() for t in (input, weight, bias)]
    y = kind.public(*wanting, activation="relu")
    plain = kind.plain(*wanting).relu()
    assert torch.equal(y, plain)
    seed = random(*y.shape, seed=2)
    for value, expected in zip(*(torch.autograd.grad(each, wanting, seed) for each in (y, plain)), strict=True):
        assert torch.equal(value, expected)
    scale = random(4, seed=4)
    y = kind.public(input, weight, bias, scale=scale)
    assert relative_error(y, kind.plain(*exactly([input, weight, bias])) * scale[:, None, None]) < 1e-6
    prepare(weight)  # nothing of it is kept
    assert torch.equal(kind.public(input, weight, bias), kind.plain(input, weight, bias))
    forget(weight)


def test_weights_of_other_taps_are_errors(kind) -> None:
    input, weight = random(1, 4, 6, 6), random(4, 4, 5, 5)
    rest = (*PLAIN, False, False)
    for name, args in (
        ("", (input, weight, *NOTHING, *rest)),
        ("_statistics", (input, weight, None, 0, 0.0, False, False)),
        ("_weights", (weight, False)),
        ("_weight_gradient", (kind.plain(input, kind.weights(4, 4), None), input, weight, False)),
    ):
        with pytest.raises(RuntimeError, match="weight: 3x3 taps are expected, or 4x4"):
            kind.call(name, *args)
