"""strided_block and transposed_block: every implementation against the float64 reference, and when which one runs."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from support import always_winograd, assert_as_good, exactly, laid_out, relative_error, run, there
from torch import Tensor

import inpaint_fast as ipf
from inpaint_fast._words import ACTIVATIONS, DEFAULT_SLOPE, ORDERS
from inpaint_fast.ops import _dispatch, forget, prepare
from inpaint_fast.ops._dispatch import OPERATORS
from inpaint_fast.ops._plans import Facts
from inpaint_fast.ops.conv_block import HALVING, STRIDED, TRANSPOSED, strided_reference, transposed_reference
from inpaint_fast.ops.conv_block.choice import algorithm
from inpaint_fast.ops.conv_block.plan import Circumstances, Epilogue, Tensors, plan_convolution

STEM = "transposed_block"  # strided_block has the same implementations
compiled = pytest.mark.skipif(ipf._extension.module is None, reason="the extension is not built")
BOUND = 1e-5  # of the relative error in float32 (2-norms), as in dilated_block
LAYOUTS = ("nchw", "channels_last", "sliced", "transposed")
SHAPE = (2, 19, 10, 14)  # no multiple of a vector, a tile or a panel
OUT = 37
SMALL = (1, 3, 5, 4)  # where a program takes milliseconds


@dataclass(frozen=True)
class Block:
    """One of the two with 3x3, 4x4 or 5x5 taps, and what differs between them."""

    stem: str
    taps: int

    @property
    def transposed(self) -> bool:
        return self.stem == "transposed_block"

    def __call__(self, *args, **options) -> Tensor:
        return getattr(ipf, self.stem)(*args, **options)

    def reference(self, *args, **options) -> Tensor:
        return (transposed_reference if self.transposed else strided_reference)(*args, **options)

    def algorithm(self, input: Tensor, weight: Tensor, training: bool = False, kept: bool = False) -> str:
        block = TRANSPOSED if self.transposed else STRIDED
        return algorithm(block, HALVING, input.dtype, input.shape, weight.shape, training, kept)

    @property
    def op(self):
        return getattr(torch.ops.inpaint_fast, self.stem)

    @property
    def op_forward(self):
        return getattr(torch.ops.inpaint_fast, f"{self.stem}_forward")

    @property
    def op_weights(self):
        return getattr(torch.ops.inpaint_fast, f"{self.stem}_weights")

    @property
    def op_weight_gradient(self):
        return getattr(torch.ops.inpaint_fast, f"{self.stem}_weight_gradient")

    def weights(self, channels: int, out: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Weights that keep the input's scale."""
        size = (channels, out) if self.transposed else (out, channels)
        met = 4 if self.transposed else self.taps**2  # taps that meet an output pixel
        weight = torch.randn(*size, self.taps, self.taps, dtype=torch.float64)
        return (weight / (met * max(channels, 1)) ** 0.5).to(dtype)

    def seed(self, shape=SHAPE, out: int = OUT, dtype: torch.dtype = torch.float32) -> Tensor:
        sides = [2 * side if self.transposed else (side + self.taps % 2) // 2 for side in shape[2:]]
        return random(shape[0], out, *sides, dtype=dtype)

    def arguments(self, dtype: torch.dtype = torch.float32, shape=SHAPE, out: int = OUT, affine: bool = True):
        vectors = [random(out), random(out).abs() + 0.5, random(out)] if affine else [random(out), None, None]
        tensors = [random(*shape), self.weights(shape[1], out), *vectors]
        return [t if t is None else t.to(dtype) for t in tensors]


BLOCKS = [Block(stem, taps) for stem in ("strided_block", "transposed_block") for taps in (3, 4, 5)]


@pytest.fixture(params=BLOCKS, ids=lambda block: f"{block.stem}_{block.taps}")
def block(request: pytest.FixtureRequest) -> Block:
    return request.param


def sizes(implementation) -> tuple[tuple[int, ...], int]:
    """(shape of the input, output channels)."""
    return (SMALL, 5) if implementation.slow else (SHAPE, OUT)


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, dtype=torch.float64).to(dtype)


# ---- parity ----


@pytest.mark.proves(
    "strided_block",
    "transposed_block",
    equals="F.conv2d with stride 2 and F.conv_transpose2d, norm and activation, with the gradients of all tensors",
)
@pytest.mark.pairs("block", "activation", "order", "affine")
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("affine", (False, True), ids=("bias", "scale_shift"))
def test_parity(block, implementation, winograd, activation, order, affine) -> None:
    torch.manual_seed(0)
    shape, out = sizes(implementation)
    tensors = there(block.arguments(shape=shape, out=out, affine=affine), implementation.device)
    settings = {"activation": activation, "order": order, "slope": DEFAULT_SLOPE.get(activation)}
    seed = block.seed(shape, out).to(implementation.device)
    exact = run(block.reference, exactly(tensors), seed.double(), **settings)
    values = run(block, tensors, seed, backend=implementation.backend, **settings)
    for value, wanted in zip(values, exact, strict=True):
        assert relative_error(value, wanted) < BOUND
    with torch.no_grad():  # the epilogue in the kernel, the weights kept
        named = dict(zip(("input", "weight", "bias", "scale", "shift"), tensors, strict=True))
        y = block(**named, backend=implementation.backend, **settings)
    assert relative_error(y, exact[0]) < BOUND


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16, torch.float64), ids=str)
def test_dtypes(block, implementation, winograd, dtype) -> None:
    torch.manual_seed(0)
    shape, out = sizes(implementation)
    tensors = there(block.arguments(dtype, shape, out), implementation.device)
    seed = block.seed(shape, out, dtype).to(implementation.device)
    settings = {"activation": "leaky_relu", "order": "act_norm"}
    exact = run(block.reference, exactly(tensors), seed.double(), **settings)
    values = run(block, tensors, seed, backend=implementation.backend, **settings)
    for value, plain, wanted in zip(values, run(block.reference, tensors, seed, **settings), exact, strict=True):
        assert value.dtype == dtype
        assert_as_good(value, plain, wanted)


@pytest.mark.pairs("block", "layout", "weight_layout")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("weight_layout", ("nchw", "channels_last"))
def test_layouts(block, implementation, winograd, layout, weight_layout) -> None:
    torch.manual_seed(0)
    shape, out = sizes(implementation)
    tensors = there(block.arguments(shape=shape, out=out, affine=False), implementation.device)
    seed = block.seed(shape, out).to(implementation.device)
    exact = run(block.reference, exactly(tensors), seed.double(), activation="relu")
    tensors[:2] = laid_out(tensors[0], layout), laid_out(tensors[1], weight_layout)
    values = run(block, tensors, laid_out(seed, layout), backend=implementation.backend, activation="relu")
    for value, wanted in zip(values, exact, strict=True):
        assert relative_error(value, wanted) < BOUND
    assert values[0].is_contiguous(memory_format=torch.channels_last) == ("channels_last" in (layout, weight_layout))


@examples(max_examples=80)
@given(data=st.data())
def test_any_shape(data) -> None:
    draw = data.draw
    block = draw(st.sampled_from(BLOCKS))
    least = 2 if block.taps == 4 and not block.transposed else 1
    shape = tuple(draw(st.integers(low, high)) for low, high in ((0, 3), (1, 50), (least, 40), (least, 40)))
    out, layout = draw(st.integers(1, 70)), draw(st.sampled_from(LAYOUTS))
    settings = {"activation": draw(st.sampled_from(ACTIVATIONS))}
    torch.manual_seed(0)
    tensors, seed = block.arguments(shape=shape, out=out, affine=False), block.seed(shape, out)
    exact = run(block.reference, exactly(tensors), seed.double(), **settings)
    tensors[0] = laid_out(tensors[0], layout)
    with always_winograd():
        values = run(block, tensors, seed, **settings)
    for value, wanted in zip(values, exact, strict=True):
        # A result that cancels to nothing has no relative error: 1e-6 of what was added up is allowed besides.
        assert (value.double() - wanted).norm() <= BOUND * wanted.norm() + 1e-6 * wanted.numel() ** 0.5


@compiled
def test_error_at_256_channels(block, record_property) -> None:
    torch.manual_seed(0)
    input, weight = random(1, 256, 96, 96), block.weights(256, 128)
    assert block.algorithm(input, weight) == "winograd"
    exact = block.reference(input.double(), weight.double())
    for precision in ("fast", "exact"):
        error = relative_error(block(input, weight, precision=precision), exact)
        record_property(precision, error)
        assert error < BOUND


@compiled
def test_error_of_a_weight_that_meets_many_pixels(block) -> None:
    torch.manual_seed(0)
    tensors = block.arguments(shape=(4, 32, 128, 128), out=32, affine=False)
    seed = block.seed((4, 32, 128, 128), 32)
    exact = run(block.reference, exactly(tensors), seed.double())
    for value, wanted in zip(run(block, tensors, seed), exact, strict=True):
        assert relative_error(value, wanted) < BOUND


# ---- derivatives ----


@pytest.mark.proves(
    "strided_block",
    "transposed_block",
    equals="finite differences",
    within="gradcheck's",
    dtypes="float64",
)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("order", ORDERS)
def test_gradcheck(block, activation, order) -> None:
    torch.manual_seed(0)
    tensors = [t.requires_grad_() for t in block.arguments(torch.float64, (1, 2, 3, 2), 2)]

    def function(input, weight, bias, scale, shift):
        return block(input, weight, bias, scale=scale, shift=shift, activation=activation, order=order)

    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors, fast_mode=True)


@compiled
@pytest.mark.parametrize("activation", ("none", "elu", "tanh"))
def test_second_derivatives(block, winograd, activation) -> None:
    torch.manual_seed(0)

    def penalty(function, tensors) -> list[Tensor]:
        input, weight, bias = (t.detach().requires_grad_() for t in tensors[:3])
        y = function(input, weight, bias, activation=activation)
        (grad,) = torch.autograd.grad(y.square().sum(), input, create_graph=True)
        return list(torch.autograd.grad(grad.square().sum(), (input, weight, bias)))

    tensors = block.arguments(affine=False)
    exact = penalty(block.reference, exactly(tensors[:3]))
    for value, wanted in zip(penalty(block, tensors), exact, strict=True):
        assert relative_error(value, wanted) < 3 * BOUND


@compiled
def test_a_negative_slope(block, winograd) -> None:
    torch.manual_seed(0)
    tensors, seed, settings = block.arguments(affine=False), block.seed(), {"activation": "leaky_relu", "slope": -0.5}
    exact = run(block.reference, exactly(tensors), seed.double(), **settings)
    for value, wanted in zip(run(block, tensors, seed, **settings), exact, strict=True):
        assert relative_error(value, wanted) < BOUND


@compiled
def test_only_the_gradients_that_are_wanted(block, winograd) -> None:
    tensors = block.arguments(affine=False)
    for index in range(3):
        args = [t.detach().requires_grad_(i == index) for i, t in enumerate(tensors[:3])]
        block(*args).sum().backward()
        assert [a.grad is not None for a in args] == [i == index for i in range(3)]
        exact = [t.detach().double().requires_grad_(i == index) for i, t in enumerate(tensors[:3])]
        block.reference(*exact).sum().backward()
        assert relative_error(args[index].grad, exact[index].grad) < BOUND


# ---- PyTorch's machinery ----


@pytest.mark.proves("strided_block", "transposed_block", equals="what torch.library promises", within="opcheck's")
@compiled
def test_opcheck(block, winograd) -> None:
    input, weight, bias, scale, shift = block.arguments(shape=(1, 5, 6, 7), out=7)
    settings = (1, 0.0, ORDERS.index("norm_act"))
    planes, rows = (False, False), (True, False)
    last = input.contiguous(memory_format=torch.channels_last)
    wanting = [t.detach().requires_grad_() for t in (input, weight, bias)]
    transformed = block.op_weights(weight, False)
    for op, args in (
        (block.op, (input, weight, transformed, bias, scale, shift, *settings, *planes)),
        (block.op, (last, weight, None, None, None, None, *settings, *rows)),
        (block.op, (*wanting[:2], None, wanting[2], None, None, *settings, *planes)),
        (block.op_forward, (input, weight, transformed, bias, scale, shift, *settings, *planes)),
        (block.op_forward, (last, weight, None, None, None, None, *settings, *rows)),
        (block.op_weights, (weight, False)),
        (block.op_weight_gradient, (block.seed(input.shape, 7), input, weight, False)),
    ):
        torch.library.opcheck(op.default, args, rtol=1e-4, atol=1e-4)


@compiled
@pytest.mark.parametrize("shape", [SHAPE, (3, 7, 5, 33), (0, 19, 4, 6)], ids=str)
def test_both_layouts_hold_the_same(block, shape) -> None:
    input, weight, bias, *_ = block.arguments(shape=shape)
    rows, planes = (
        block.op_forward(input, weight, None, bias, None, None, ACTIVATIONS.index("relu"), 0.0, 0, channels_last, False)
        for channels_last in (True, False)
    )
    assert rows.is_contiguous(memory_format=torch.channels_last) and planes.is_contiguous()
    assert torch.equal(rows, planes)


@compiled
def test_compile(block, winograd) -> None:
    torch.manual_seed(0)
    tensors, seed = block.arguments(), block.seed()

    def function(input, weight, bias, scale, shift):
        return block(input, weight, bias, scale=scale, shift=shift, activation="relu").relu()

    def both(f) -> list[Tensor]:
        args = [t.detach().requires_grad_() for t in tensors]
        y = f(*args)
        return [y.detach(), *torch.autograd.grad(y, args, seed)]

    faster = torch.compile(function, fullgraph=True)
    for value, wanted in zip(both(faster), both(function), strict=True):
        assert relative_error(value, wanted) < 1e-6


@compiled
def test_autocast(block, winograd) -> None:
    """As PyTorch's convolutions have it: dtypes may be mixed, and the result has autocast's."""
    input, weight, bias = block.arguments(affine=False)[:3]
    half = input.bfloat16()
    for x in (input, half):
        exact = block.reference(*exactly([x, weight, bias]))
        with torch.autocast("cpu", torch.bfloat16):
            plain = block.reference(x, weight, bias)
            for backend in (None, "cpp", "reference"):
                y = block(x, weight, bias, backend=backend)
                assert y.dtype == plain.dtype == torch.bfloat16
                assert relative_error(y, exact) < 2**-8
                assert_as_good(y, plain, exact)


@compiled
def test_bitwise_equal_for_any_number_of_threads(block, winograd) -> None:
    torch.manual_seed(0)
    tensors = block.arguments(shape=(3, 40, 17, 21), out=70, affine=False)
    before = torch.get_num_threads()
    try:
        for layout in ("nchw", "channels_last"):
            results = []
            for threads in (1, 2, 4, 2):
                torch.set_num_threads(threads)
                results.append(block(laid_out(tensors[0], layout), *tensors[1:3], activation="relu"))
            assert all(torch.equal(results[0], other) for other in results[1:])
    finally:
        torch.set_num_threads(before)


def test_functional_transforms_run_the_reference(block) -> None:
    input, *args = block.arguments(affine=False)[:3]
    stacked = torch.func.vmap(lambda x: block(x, *args))(input[None])
    torch.testing.assert_close(stacked[0], block.reference(input, *args))
    with pytest.raises(ipf.BackendError, match="only 'reference' can"):
        torch.func.vmap(lambda x: block(x, *args, backend="cpp"))(input[None])


# ---- what can go wrong ----


@compiled
@pytest.mark.parametrize("promised", (False, True))
def test_weights_follow_every_change(block, winograd, promised) -> None:
    """Nothing is kept of a weight; or, under `prepare`, until it changes in a way that PyTorch can see."""
    torch.manual_seed(0)
    input, weight = random(1, 20, 9, 9), torch.nn.Parameter(block.weights(20, 20))
    if promised:
        prepare(weight)

    def right() -> Tensor:
        with torch.no_grad():
            y = block(input, weight)
        assert relative_error(y, block.reference(input.double(), weight.double())) < BOUND
        return y

    right()
    right()
    with torch.no_grad():
        weight.mul_(2)
    right()
    weight.data = block.weights(20, 20)
    before = right()
    weight.data.zero_()  # PyTorch does not count this one
    if promised:
        with torch.no_grad():
            assert torch.equal(block(input, weight), before)
        forget(weight)
    right()


def test_exact_is_the_direct_convolution(block) -> None:
    input, weight, bias, _, _ = block.arguments(shape=(1, 32, 12, 12), out=32)
    y = block(input, weight, bias, precision="exact", activation="relu")
    assert torch.equal(y, block.reference(input, weight, bias).relu())


def test_where_winograd_pays(block) -> None:
    def of(images: int, channels: int, side: int, out: int, dtype=torch.float32, **settings: bool) -> str:
        """`side`: of the smaller picture."""
        side = side if block.transposed else 2 * side
        weight = torch.empty_like(block.weights(channels, out), device="meta", dtype=dtype)
        input = torch.empty((images, channels, side, side), device="meta", dtype=dtype)
        return block.algorithm(input, weight, **settings)

    assert of(1, 256, 64, 128) == "winograd"
    few = block.stem == "strided_block" and block.taps == 3  # of its multiplications are saved
    assert of(1, 256, 16, 128, kept=True) == ("direct" if few else "winograd")  # 16 tiles
    assert of(1, 256, 32, 128, kept=True) == "winograd"
    assert of(1, 256, 64, 64, kept=True) == "winograd"  # 64 channels
    assert of(1, 256, 32, 64, kept=True) == "winograd"  # and 64 tiles
    assert of(1, 256, 16, 128) == "direct"  # 16 tiles for one transform
    assert of(1, 256, 64, 33) == ("winograd" if block.taps == 5 else "direct")  # 33 channels cost as many as 64
    assert of(1, 256, 64, 3) == "direct"  # few channels
    assert of(1, 256, 8, 128, kept=True) == "direct"  # four tiles
    assert of(64, 256, 1, 128) == "direct"  # one pixel of a tile's sixteen
    assert of(1, 256, 64, 128, torch.float64) == "direct"
    assert of(1, 256, 64, 128, training=True) == "winograd"  # 256 tiles
    assert of(1, 256, 40, 128, training=True) == ("direct" if block.taps == 3 else "winograd")  # 100
    assert of(1, 256, 24, 128, training=True) == "direct"  # 36


@pytest.mark.skipif(torch.cuda.is_available(), reason="the table is asked for that GPU")
def test_what_runs_on_a_gpu_unasked(block) -> None:
    operator, gpu = OPERATORS[block.stem], torch.device("cuda")
    assert operator.choose(gpu, None) == "reference"  # no GPU has been measured
    assert "no measurements for this GPU; backend='cuda' or 'triton' runs ours" in operator.describe(gpu)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"input": [1]}, TypeError, "input: a torch.Tensor is expected, got list"),
        ({"input": torch.ones(4, 8, 8)}, ValueError, r"input: \(N, C, H, W\) is expected"),
        ({"input": torch.ones(1, 4, 0, 8)}, ValueError, "input: at least one pixel"),
        ({"input": torch.ones(1, 4, 1, 0)}, ValueError, "input: at least one pixel"),
        ({"weight": torch.ones(4, 4, 6, 6)}, ValueError, r"weight: \((4, C_out|C_out, 4), 3, 3\) or .* is expected"),
        ({"weight": torch.ones(4, 4, 3, 4)}, ValueError, r"weight: \((4, C_out|C_out, 4), 3, 3\) or .* is expected"),
        ({"weight": torch.ones(2, 2, 4, 4)}, ValueError, r"weight: \((4, C_out|C_out, 4), 3, 3\) or .* is expected"),
        ({"weight": torch.ones(4, 6, 4, 4, dtype=torch.float64)}, TypeError, "weight: the dtype of input"),
        ({"bias": torch.ones(5)}, ValueError, r"bias: \(6,\)"),
        ({"scale": torch.ones(6, 1)}, ValueError, r"scale: \(6,\)"),
        ({"shift": torch.ones(6, device="meta")}, TypeError, "shift: it is on meta"),
        ({"activation": "gelu"}, ValueError, "activation: one of 'none'"),
        ({"order": "act"}, ValueError, "order: 'norm_act' or 'act_norm'"),
        ({"precision": "best"}, ValueError, "precision: 'fast' or 'exact'"),
        ({"backend": "tpu"}, ValueError, "backend: one of"),
    ],
)
def test_bad_input(block, changes, error, message) -> None:
    named = {"input": torch.ones(1, 4, 8, 8), "weight": torch.ones_like(block.weights(4, 6))} | changes
    with pytest.raises(error, match=message):
        block(named.pop("input"), named.pop("weight"), **named)


@pytest.mark.parametrize("backend", ("cuda", "triton"))
def test_what_gpus_leave_to_pytorch(block, monkeypatch, backend) -> None:
    """Its plan says so."""
    monkeypatch.setattr(_dispatch, "why_not", lambda *_: None)  # as if one were there
    tensors = block.arguments()
    gpu = [Facts(t.shape, t.stride(), t.dtype, torch.device("cuda")) for t in tensors]
    circumstances = Circumstances("fast", backend, False, False, None, True, _dispatch.elsewhere())
    kind = TRANSPOSED if block.transposed else STRIDED
    plan = plan_convolution(kind, HALVING, Epilogue("relu"), Tensors(*gpu), circumstances)
    ours = block.taps in (3, 4)
    assert (plan.algorithm, plan.is_ours, plan.tf32) == (("implicit_gemm" if ours else "direct"), ours, ours)
    alone = plan_convolution(kind, HALVING, Epilogue("relu"), Tensors(*gpu[:3]), circumstances)
    assert alone.algorithm == ("implicit_gemm" if ours else "plain")


def test_four_taps_need_two_pixels() -> None:
    with pytest.raises(ValueError, match=r"input: at least 2x2 pixels is expected, got shape \(1, 4, 1, 8\)"):
        ipf.strided_block(torch.ones(1, 4, 1, 8), torch.ones(6, 4, 4, 4))
