"""What is particular to dilated_block's Triton kernels: edges of tiles, taps that are left out, tails of channels,
strides, 64-bit indices, TF32. Its numbers are test_dilated.py's; stride 2 is test_resampling_triton.py's."""

from __future__ import annotations

import pytest
import torch
from ops.conv_block.small_tiles import take_small_tiles
from support import assert_as_good, exactly, laid_out, relative_error
from torch import Tensor
from torch.nn import functional as F

import inpaint_fast as ipf
from inpaint_fast._layout import is_channels_last
from inpaint_fast._words import ACTIVATIONS, ORDERS
from inpaint_fast.kernels import _walk, conv_block
from inpaint_fast.kernels.conv_block import convolution as kernels
from inpaint_fast.kernels.conv_block import tiles
from inpaint_fast.ops import forget, prepare
from inpaint_fast.ops._dispatch import OPERATORS
from inpaint_fast.ops._plans import facts
from inpaint_fast.ops.conv_block import DILATED, Epilogue, Geometry, dilated_reference
from inpaint_fast.ops.conv_block.kept import prepared
from inpaint_fast.ops.conv_block.plan import Circumstances, Convolution, Tensors, allows_tf32, as_tf32, plan_convolution

NORM_ACT = ORDERS.index("norm_act")


@pytest.fixture
def small_tiles(monkeypatch) -> None:
    take_small_tiles(monkeypatch)


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def weights(out: int, channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Weights that keep the input's scale, as a network's do."""
    return (random(out, channels, 3, 3, seed=1) / (9 * max(channels, 1)) ** 0.5).to(dtype)


def call(name: str, *args: object) -> Tensor:
    return OPERATORS["dilated_block"].call("triton", name, *args)


def forward(input: Tensor, weight: Tensor, dilation: tuple[int, int], padding: tuple[int, int], tf32=False) -> Tensor:
    nothing = (None, None, None, None)
    return call("dilated_block", input, weight, *nothing, [*dilation, *padding], 0, 0.0, NORM_ACT, False, tf32)


def check(
    input: Tensor, weight: Tensor, dilation: tuple[int, int], padding: tuple[int, int], seed: Tensor | None = None
) -> list[Tensor]:
    """Result and both gradients against float64, and against plain PyTorch in the same dtype."""

    def expected(dtype: torch.dtype) -> list[Tensor]:
        x, w = (t.detach().to(dtype).requires_grad_() for t in (input, weight))
        y = F.conv2d(x, w, padding=padding, dilation=dilation)
        return [y.detach(), *torch.autograd.grad(y, (x, w), grad.to(dtype))]

    y = forward(input, weight, dilation, padding)
    grad = random(*y.shape, dtype=y.dtype, seed=2) if seed is None else seed
    geometry = [*dilation, *padding]
    last = is_channels_last(input)
    values = [
        y,
        call("dilated_block_input_gradient", grad, weight, geometry, last, False),
        call("dilated_block_weight_gradient", grad, input, weight, geometry, False),
    ]
    for value, plain, exact in zip(values, expected(input.dtype), expected(torch.float64), strict=True):
        assert value.dtype == input.dtype and value.shape == exact.shape
        assert_as_good(value, plain, exact)
    assert values[1].stride() == torch.empty_like(input, memory_format=torch.preserve_format).stride() or not last
    assert values[2].stride() == torch.empty_like(weight).stride()
    return values


# ---- tiles, taps, channels ----


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (3, 5), (9, 4), (5, 13)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 3)])
def test_edges_of_tiles(small_tiles, size, dilation) -> None:
    check(random(2, 3, *size), weights(2, 3), dilation, dilation)


@pytest.mark.parametrize(
    ("dilation", "padding"),
    [((3, 1), (0, 0)), ((1, 2), (7, 9)), ((2, 2), (1, 4)), ((5, 4), (11, 3)), ((40, 1), (40, 2))],
)
def test_any_padding(small_tiles, dilation, padding) -> None:
    """Less than the dilation, and more than twice that, which makes the gradient's negative."""
    size = (max(5, 1 + 2 * (dilation[0] - padding[0])), max(6, 1 + 2 * (dilation[1] - padding[1])))
    check(random(1, 2, *size), weights(3, 2), dilation, padding)


@pytest.mark.parametrize(
    ("taps", "rows", "columns"),
    [
        ((slice(0, 1), slice(None)), slice(0, 4), slice(None)),  # above
        ((slice(2, 3), slice(None)), slice(8, None), slice(None)),  # below
        ((slice(None), slice(0, 1)), slice(None), slice(0, 4)),  # to the left
        ((slice(None), slice(2, 3)), slice(None), slice(8, None)),  # to the right
        ((slice(0, 1), slice(0, 1)), slice(0, 4), slice(None)),
    ],
)
def test_taps_in_the_padding_are_left_out(small_tiles, taps, rows, columns) -> None:
    """NaN times the zeros of the padding would be NaN: tiles at that edge do not read that weight."""
    input, weight = random(1, 2, 10, 11), weights(2, 2)
    clean = forward(input, weight, (4, 4), (4, 4))
    weight[(..., *taps)] = float("nan")
    y = forward(input, weight, (4, 4), (4, 4))
    assert torch.equal(y[:, :, rows, columns], clean[:, :, rows, columns])
    assert y.isnan().any()


def test_dilation_beyond_the_picture(small_tiles) -> None:
    input, weight = random(1, 3, 6, 7), weights(4, 3)
    centre = weight[:, :, 1:2, 1:2].clone()
    outer = torch.full_like(weight, float("nan"))
    outer[:, :, 1:2, 1:2] = centre
    assert_as_good(
        forward(input, outer, (16, 16), (16, 16)), F.conv2d(input, centre), F.conv2d(input.double(), centre.double())
    )
    check(input, weight, (16, 16), (16, 16))


@pytest.mark.parametrize("dtype", (torch.float32, torch.float16, torch.bfloat16), ids=str)
@pytest.mark.parametrize(("channels", "out"), [(1, 1), (15, 17), (16, 32), (33, 3)])
def test_tails_of_channels(small_tiles, channels, out, dtype) -> None:
    check(random(1, channels, 4, 5, dtype=dtype), weights(out, channels, dtype), (1, 1), (1, 1))


@pytest.mark.parametrize("layout", ("channels_last", "sliced", "transposed", "expanded"))
def test_strides(layout) -> None:
    def like(tensor: Tensor) -> Tensor:
        return tensor[:1].expand_as(tensor) if layout == "expanded" else laid_out(tensor, layout)

    input, weight, seed = random(2, 5, 4, 5), weights(4, 5), random(2, 4, 4, 5, seed=2)
    check(like(input), weight, (2, 2), (2, 2))
    check(input, weight, (2, 2), (2, 2), like(seed))
    check(like(input), weights(5, 4).transpose(0, 1), (2, 2), (2, 2), like(seed))
    check(input, weight.flip(0).permute(0, 1, 3, 2), (2, 2), (2, 2))


def test_strided_vectors(arguments) -> None:
    input, weight, *vectors = arguments
    strided = [torch.stack((vector, vector), dim=1)[:, 1] for vector in vectors]
    results = [
        ipf.dilated_block(input, weight, bias, scale=scale, shift=shift, backend="triton")
        for bias, scale, shift in (vectors, strided)
    ]
    assert strided[0].stride() == (2,) and torch.equal(*results)


def test_empty_tensors() -> None:
    check(random(0, 3, 5, 5), weights(2, 3), (2, 2), (2, 2))
    for channels, out in ((3, 0), (0, 3)):  # PyTorch has no such convolution
        input, weight, grad = random(2, channels, 5, 5), weights(out, channels), random(2, out, 3, 5)
        assert torch.equal(forward(input, weight, (2, 1), (1, 1)), torch.zeros(2, out, 3, 5))
        zeros = call("dilated_block_input_gradient", grad, weight, [2, 1, 1, 1], False, False)
        assert torch.equal(zeros, torch.zeros_like(input))
        empty = call("dilated_block_weight_gradient", grad, input, weight, [2, 1, 1, 1], False)
        assert empty.shape == weight.shape
    assert call("dilated_block_weights", weights(0, 3), 4, False).shape == (0,)


@pytest.mark.parametrize(("architecture", "precision"), tiles.TILES, ids=str)
def test_tiles_and_their_boxes(architecture, precision) -> None:
    for tile in tiles.TILES[architecture, precision]:
        assert all(number & (number - 1) == 0 for number in (tile.pixels, tile.rows, tile.channels, tile.warps))
        assert tile.warps <= 4
    assert tiles.WEIGHT_GRADIENT_TILES[architecture, precision].warps <= 4
    for pixels in (16, 64, 128):
        for height, width in ((1, 1), (1, 300), (300, 1), (3, 3), (64, 64), (5, 40)):
            box = tiles.box_of(pixels, height, width)
            assert box["TILE_H"] * box["TILE_W"] == pixels
            assert box["TILE_H"] < 2 * height
    assert tiles.box_of(128, 64, 64) == {"TILE_H": 8, "TILE_W": 16}


def test_a_large_batch_takes_large_tiles(monkeypatch) -> None:
    monkeypatch.setattr(tiles, "_device", lambda index: ("sm_90", 132))
    half = torch.empty(0, dtype=torch.bfloat16)
    found = [tiles.tile_of(half, True, batch, side, side, 256, 256)[0] for batch, side in ((16, 64), (1, 64), (1, 32))]
    assert [(tile["TILE_H"] * tile["TILE_W"], tile["BLOCK_N"]) for tile in found] == [(128, 128), (128, 64), (64, 64)]
    fewer, _ = tiles.tile_of(half, True, 16, 64, 64, 256, 256, tiles.MOST_WITH_STATISTICS)
    assert (fewer["TILE_H"] * fewer["TILE_W"], fewer["BLOCK_N"]) == (128, 64)
    narrow, _ = tiles.tile_of(half, True, 16, 64, 64, 3, 4)
    assert (narrow["BLOCK_N"], narrow["BLOCK_K"]) == (16, 16)
    *_, shares = tiles.weight_gradient_tile_of(half, True, 16, 64, 64, 3, 256, 256)
    assert shares == 8  # of 9 * 2 * 2 programs, for twice 132


@pytest.mark.usefixtures("overflows_are_errors")
def test_64_bit_indices(small_tiles, monkeypatch) -> None:
    input, weight = random(2, 3, 4, 5).transpose(2, 3), weights(2, 3)
    narrow = check(input, weight, (1, 2), (1, 2))
    assert not kernels.is_wide(weight, input)
    monkeypatch.setattr(_walk, "INDEX_LIMIT", 10)
    assert kernels.is_wide(weight, input)
    wide = check(input, weight, (1, 2), (1, 2))
    assert all(torch.equal(a, b) for a, b in zip(narrow, wide, strict=True))


def test_which_pictures_need_64_bits() -> None:
    weight = torch.empty(2, 1, 3, 3, device="meta")
    assert not kernels.is_wide(weight, torch.empty(4, 1, 2**15, 2**16, device="meta"))  # pictures have their own origin
    assert kernels.is_wide(weight, torch.empty(1, 1, 2**15, 2**16 + 1, device="meta"))
    assert kernels.is_wide(torch.empty(2**14, 2**14, 3, 3, device="meta"))


def test_bitwise_equal_on_repeat(small_tiles) -> None:
    input, weight = random(2, 5, 5, 6), weights(4, 5)
    *_, shares = tiles.weight_gradient_tile_of(input, False, 2, 5, 6, 3, 4, 5)
    assert shares > 1
    first, again = (check(input, weight, (2, 1), (2, 1)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


# ---- the epilogue ----


@pytest.mark.parametrize("activation", range(1, len(ACTIVATIONS)), ids=ACTIVATIONS[1:])
@pytest.mark.parametrize("scale", (1e-4, 0.2, 1.0, 40.0))
def test_activations_near_and_far_from_0(activation, scale) -> None:
    input, weight = scale * random(1, 2, 5, 6), weights(3, 2)
    args = (None, None, None, None, [1, 1, 1, 1], activation, 0.5, NORM_ACT, False, False)
    y = call("dilated_block", input, weight, *args)

    def plain(dtype: torch.dtype) -> Tensor:
        settings = {"slope": 0.5} if ACTIVATIONS[activation] in ("leaky_relu", "elu") else {}
        return dilated_reference(input.to(dtype), weight.to(dtype), activation=ACTIVATIONS[activation], **settings)

    assert_as_good(y, plain(torch.float32), plain(torch.float64), ulps=8)
    input[0, 0, 2, 2] = float("nan")
    assert call("dilated_block", input, weight, *args)[0, :, 1:4, 1:4].isnan().all()


# ---- TF32 ----


def test_weights_are_rounded_to_tf32() -> None:
    bits = torch.tensor(
        [0x3F800FFF, 0x3F801000, 0x3F802FFF, -0x407FF000, 0x7F800000, 0x7FFFFFFF, 0x7F7FFFFF, 0x00000FFF]
    )
    weight = bits.to(torch.int32).view(torch.float32).repeat(9)[:36].reshape(2, 2, 3, 3)
    rounded = as_tf32(weight)
    packed = kernels.packed(weight, transposed=False, tf32=True).view(2, 3, 3, 2).permute(0, 3, 1, 2)
    assert torch.equal(packed.contiguous().view(torch.int32), rounded.view(torch.int32))
    numbers = rounded.flatten()[:8].view(torch.int32).tolist()
    assert numbers[:4] == [0x3F800000, 0x3F802000, 0x3F802000, -0x407FE000]
    assert numbers[4:] == [0x7F800000, 0x7FFFFFFF, 0x7F800000, 0]
    swapped = kernels.packed(weight, transposed=True, tf32=False).view(2, 3, 3, 2).permute(3, 0, 1, 2)
    assert torch.equal(swapped.contiguous().view(torch.int32), weight.view(torch.int32))


def test_tf32_is_that_of_rounded_weights() -> None:
    input, weight, dilation = random(1, 3, 5, 6), weights(4, 3), (2, 2)
    rounded = as_tf32(weight)
    assert not torch.equal(rounded, weight)
    plain, exact = (F.conv2d(x, w, padding=2, dilation=2) for x, w in ((input, rounded), exactly((input, rounded))))
    assert_as_good(forward(input, weight, dilation, dilation, tf32=True), plain, exact)
    half = weight.half()  # nothing to round
    assert torch.equal(
        forward(input.half(), half, dilation, dilation, tf32=True), forward(input.half(), half, dilation, dilation)
    )


def test_tf32_where_pytorch_takes_it() -> None:
    """Whatever flags were set and mixed: reading them raises nothing."""
    cudnn, before = torch.backends.cudnn, torch.backends.cudnn.allow_tf32
    try:
        for allowed in (False, True):
            cudnn.allow_tf32 = allowed
            assert allows_tf32() == allowed
        with cudnn.flags(enabled=True, allow_tf32=False):
            assert not allows_tf32()
        cudnn.conv.fp32_precision = "ieee"
        assert not allows_tf32()
        cudnn.conv.fp32_precision = "tf32"
        assert allows_tf32()
    finally:
        cudnn.allow_tf32 = before


@pytest.mark.parametrize(
    ("dtype", "precision", "autocast", "expected"),
    [
        (torch.float32, "fast", None, True),
        (torch.float32, "exact", None, False),
        (torch.float32, "fast", torch.bfloat16, False),
        (torch.float16, "fast", None, False),
        (torch.float64, "fast", None, False),
    ],
)
def test_tf32_is_for_float32_alone(dtype, precision, autocast, expected) -> None:
    found = plan_where_tf32_is_allowed(random(1, 3, 5, 5, dtype=dtype), weights(2, 3, dtype), precision, autocast)
    assert found.tf32 == expected and found.is_ours == (dtype != torch.float64)
    if found.is_ours:
        assert found.settings[-1] == expected


def plan_where_tf32_is_allowed(
    input: Tensor, weight: Tensor, precision: str = "fast", autocast: torch.dtype | None = None
) -> Convolution:
    circumstances = Circumstances(precision, "triton", False, False, autocast, True, (None, False))
    tensors = Tensors(facts(input), facts(weight), None)
    return plan_convolution(DILATED, Geometry.of(1, None), Epilogue(), tensors, circumstances)


# ---- the public function ----


@pytest.fixture
def arguments() -> list[Tensor]:
    return [random(1, 3, 6, 5), weights(4, 3), random(4), random(4, seed=3), random(4, seed=4)]


def test_float16_stays_float16(arguments, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(kernels, "convolution_kernel", Recorder(kernels.convolution_kernel, seen))
    half = [t.half() for t in arguments]
    y = ipf.dilated_block(half[0], half[1], half[2], scale=half[3], shift=half[4], backend="triton")
    assert y.dtype == torch.float16 and {t.dtype for t in seen} == {torch.float16}
    double = [t.double() for t in arguments]
    assert torch.equal(ipf.dilated_block(*double[:3], backend="triton"), F.conv2d(*double[:3], padding=1))


class Recorder:
    """A kernel that notes the tensors it is launched with."""

    def __init__(self, kernel, seen: list[Tensor]) -> None:
        self.kernel, self.seen = kernel, seen

    def __getitem__(self, grid):
        def launch(*args, **named):
            self.seen += [arg for arg in args if isinstance(arg, Tensor)]
            return self.kernel[grid](*args, **named)

        return launch


def test_autocast_takes_its_dtype_as_a_convolution_does(arguments) -> None:
    tensors = [t.requires_grad_() for t in arguments[:3]]
    with torch.autocast("cpu", torch.bfloat16):
        y = ipf.dilated_block(*tensors, backend="triton")
        mixed = ipf.dilated_block(tensors[0].detach().bfloat16(), *tensors[1:], backend="triton")
        double = ipf.dilated_block(*(t.detach().double() for t in tensors), backend="triton")
    assert y.dtype == mixed.dtype == torch.bfloat16 and double.dtype == torch.float64
    assert torch.equal(y, mixed)
    grads = torch.autograd.grad(y.float().sum(), tensors)
    assert [g.dtype for g in grads] == [torch.float32] * 3


def test_weights_are_kept_for_one_backend_and_dtype(monkeypatch) -> None:
    input, weight, made = random(1, 3, 5, 5), torch.nn.Parameter(weights(2, 3)), []
    transform = conv_block.dilated_block_weights

    def noted(weight: torch.Tensor, *settings: int) -> torch.Tensor:
        made.append(weight.dtype)
        return transform(weight, *settings)

    monkeypatch.setattr(conv_block, "dilated_block_weights", noted)

    @torch.no_grad()
    def right(backend: str | None = "triton") -> None:
        y = ipf.dilated_block(input, weight, backend=backend)
        assert relative_error(y, F.conv2d(input, weight, padding=1)) < 1e-6

    right()
    assert not made and prepared(weight) is None  # the kernel's own call packs them
    prepare(weight)
    right()
    right()
    with ipf.use_backend("triton"):
        right(None)
    right("reference")
    assert made == [torch.float32]
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        ipf.dilated_block(input, weight, backend="triton")
    right()
    assert made == [torch.float32, torch.bfloat16]
    rounded = plan_where_tf32_is_allowed(input, weight).transformed(prepared(weight), weight, weight)
    assert torch.equal(rounded, kernels.packed(weight.detach(), transposed=False, tf32=True))
    right()
    assert made == [torch.float32, torch.bfloat16, torch.float32]
    with torch.no_grad():
        weight.mul_(2)
    right()
    right()
    assert len(made) == 4
    forget(weight)


def test_second_derivatives(arguments) -> None:
    def penalty(tensors: list[Tensor], **named) -> list[Tensor]:
        input, weight, bias = (t.detach().requires_grad_() for t in tensors[:3])
        y = ipf.dilated_block(input, weight, bias, dilation=2, activation="elu", **named)
        (grad,) = torch.autograd.grad(y.square().sum(), input, create_graph=True)
        return list(torch.autograd.grad(grad.square().sum(), (input, weight, bias)))

    exact = penalty(exactly(arguments), backend="reference")
    for value, wanted in zip(penalty(arguments, backend="triton"), exact, strict=True):
        assert relative_error(value, wanted) < 1e-5


def test_opcheck(arguments) -> None:
    input, weight, bias, scale, shift = arguments
    ops, settings = torch.ops.inpaint_fast, ([2, 2, 2, 2], 1, 0.0, NORM_ACT)
    last, grad = input.contiguous(memory_format=torch.channels_last), random(1, 4, 6, 5)
    wanting = [t.detach().requires_grad_() for t in (input, weight, bias)]
    packed = ops.dilated_block_weights_triton(weight, 4, False)
    for op, args in (
        (ops.dilated_block_triton, (last, weight, packed, bias, scale, shift, *settings, True, False)),
        (ops.dilated_block_triton, (*wanting[:2], None, wanting[2], None, None, *settings, False, False)),
        (ops.dilated_block_forward_triton, (last, weight, packed, bias, scale, shift, *settings, True, False)),
        (ops.dilated_block_weights_triton, (weight, 4, False)),
        (ops.dilated_block_input_gradient_triton, (grad, weight, [2, 2, 2, 2], True, False)),
        (ops.dilated_block_weight_gradient_triton, (grad, input, weight, [2, 2, 2, 2], False)),
    ):
        torch.library.opcheck(op.default, args, rtol=1e-4, atol=1e-4)


def test_compile(arguments) -> None:
    def function(input, weight, bias, scale, shift):
        settings = {"scale": scale, "shift": shift, "dilation": 2, "activation": "relu", "backend": "triton"}
        return ipf.dilated_block(input, weight, bias, **settings).sigmoid()

    seed = random(1, 4, 6, 5, seed=5)

    def both(f) -> list[Tensor]:
        args = [t.detach().requires_grad_() for t in arguments]
        y = f(*args)
        return [y.detach(), *torch.autograd.grad(y, args, seed)]

    faster = torch.compile(function, fullgraph=True)
    for value, wanted in zip(both(faster), both(function), strict=True):
        assert relative_error(value, wanted) < 1e-6
    with torch.no_grad():
        assert relative_error(faster(*arguments), function(*arguments)) < 1e-6
    flags = torch.compile(lambda t: t + allows_tf32())
    assert flags(torch.zeros(1)) == 1
