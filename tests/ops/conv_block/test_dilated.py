"""dilated_block: every implementation against the float64 reference, and when which algorithm runs."""

from __future__ import annotations

import gc
import weakref
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ops.conv_block.blocks import BOUND, OUT, SHAPE, arguments, compiled, random, weights
from support import always_winograd, assert_as_good, exactly, laid_out, relative_error, run, there
from torch import Tensor
from torch.nn import functional as F

import inpaint_fast as ipf
from inpaint_fast._words import ACTIVATIONS, DEFAULT_SLOPE, ORDERS
from inpaint_fast.ops import forget, prepare
from inpaint_fast.ops.conv_block import Plan, plan
from inpaint_fast.ops.conv_block import dilated_reference as reference

STEM = "dilated_block"
LAYOUTS = ("nchw", "channels_last", "sliced", "transposed")
SMALL = (2, 5, 6, 7)  # where a program takes milliseconds


def sizes(implementation) -> tuple[tuple[int, ...], int]:
    """(shape of the input, output channels)."""
    return (SMALL, 6) if implementation.slow else (SHAPE, OUT)


# ---- parity ----


@pytest.mark.proves(
    "dilated_block",
    equals="F.conv2d, norm and activation, either first, with the gradients of all tensors",
)
@pytest.mark.pairs("activation", "order", "affine")
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("affine", (False, True), ids=("bias", "scale_shift"))
def test_parity(implementation, winograd, activation, order, affine) -> None:
    torch.manual_seed(0)
    shape, out = sizes(implementation)
    tensors = there(arguments(shape=shape, out=out, affine=affine), implementation.device)
    settings = {"dilation": 2, "activation": activation, "order": order, "slope": DEFAULT_SLOPE.get(activation)}
    seed = random(shape[0], out, *shape[2:]).to(implementation.device)
    exact = run(reference, exactly(tensors), seed.double(), **settings)
    values = run(ipf.dilated_block, tensors, seed, backend=implementation.backend, **settings)
    for value, wanted in zip(values, exact, strict=True):
        assert relative_error(value, wanted) < BOUND
    with torch.no_grad():  # the epilogue in the kernel
        named = dict(zip(("input", "weight", "bias", "scale", "shift"), tensors, strict=True))
        y = ipf.dilated_block(**named, backend=implementation.backend, **settings)
    assert relative_error(y, exact[0]) < BOUND


@pytest.mark.proves("dilated_block", equals="the same in other dtypes")
@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16, torch.float64), ids=str)
def test_dtypes(implementation, winograd, dtype) -> None:
    torch.manual_seed(0)
    shape, out = sizes(implementation)
    tensors = there(arguments(dtype, shape, out), implementation.device)
    seed = random(shape[0], out, *shape[2:], dtype=dtype).to(implementation.device)
    settings = {"dilation": 3, "activation": "leaky_relu", "order": "act_norm"}
    exact = run(reference, exactly(tensors), seed.double(), **settings)
    values = run(ipf.dilated_block, tensors, seed, backend=implementation.backend, **settings)
    for value, plain, wanted in zip(values, run(reference, tensors, seed, **settings), exact, strict=True):
        assert value.dtype == dtype
        assert_as_good(value, plain, wanted)


@pytest.mark.pairs("layout", "weight_layout", "dilation")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("weight_layout", ("nchw", "channels_last"))
@pytest.mark.parametrize("dilation", (1, 2, 3, 8))
def test_layouts(implementation, winograd, layout, weight_layout, dilation) -> None:
    torch.manual_seed(0)
    shape, out = sizes(implementation)
    tensors = there(arguments(shape=shape, out=out, affine=False), implementation.device)
    seed = random(shape[0], out, *shape[2:]).to(implementation.device)
    settings = {"dilation": dilation, "activation": "relu"}
    exact = run(reference, exactly(tensors), seed.double(), **settings)
    tensors[:2] = laid_out(tensors[0], layout), laid_out(tensors[1], weight_layout)
    values = run(ipf.dilated_block, tensors, laid_out(seed, layout), backend=implementation.backend, **settings)
    for value, wanted in zip(values, exact, strict=True):
        assert relative_error(value, wanted) < BOUND
    assert values[0].is_contiguous(memory_format=torch.channels_last) == ("channels_last" in (layout, weight_layout))


@given(data=st.data())
def test_any_shape_dilation_and_padding(data) -> None:
    draw = data.draw
    dilation = draw(st.tuples(st.integers(1, 32), st.integers(1, 32)))
    padding = tuple(draw(st.integers(0, 2 * d + 1)) for d in dilation)
    sides = [draw(st.integers(max(1, 2 * (d - p) + 1), max(1, 2 * (d - p) + 1) + 24))
             for d, p in zip(dilation, padding, strict=True)]  # fmt: skip
    shape = (draw(st.integers(0, 3)), draw(st.integers(1, 50)), *sides)
    out, layout = draw(st.integers(1, 70)), draw(st.sampled_from(LAYOUTS))
    torch.manual_seed(0)
    tensors = arguments(shape=shape, out=out, affine=False)
    settings = {"dilation": dilation, "padding": padding, "activation": draw(st.sampled_from(ACTIVATIONS))}
    size = [side + 2 * (p - d) for side, d, p in zip(sides, dilation, padding, strict=True)]
    seed = random(shape[0], out, *size)
    exact = run(reference, exactly(tensors), seed.double(), **settings)
    tensors[0] = laid_out(tensors[0], layout)
    with always_winograd():
        values = run(ipf.dilated_block, tensors, seed, **settings)
    for value, wanted in zip(values, exact, strict=True):
        # A result that cancels to nothing has no relative error: 1e-6 of what was added up is allowed besides.
        bound = BOUND * wanted.norm() + 1e-6 * wanted.numel() ** 0.5
        assert (value.double() - wanted).norm() <= bound


@compiled
@pytest.mark.parametrize("dilation", (1, 2, 4, 8, 16))
def test_error_at_256_channels(dilation, record_property) -> None:
    """Below 1e-5 of the norm, forward and both gradients; recorded with the direct convolution's beside it."""
    torch.manual_seed(0)
    tensors = [random(1, 256, 64, 64), weights(256, 256), None, None, None]
    assert plan(*tensors[:2], dilation=dilation, training=True).algorithm == "winograd"
    seed = random(1, 256, 64, 64)
    exact = run(reference, exactly(tensors), seed.double(), dilation=dilation)
    for precision in ("fast", "exact"):
        values = run(ipf.dilated_block, tensors, seed, dilation=dilation, precision=precision)
        errors = [relative_error(value, wanted) for value, wanted in zip(values, exact, strict=True)]
        record_property(precision, errors)
        print(f"dilation {dilation}, {precision}: forward, input gradient, weight gradient "
              + ", ".join(f"{error:.1e}" for error in errors))  # fmt: skip
        assert max(errors) < BOUND


@compiled
def test_error_of_a_weight_that_meets_many_pixels() -> None:
    torch.manual_seed(0)
    tensors = [random(4, 32, 128, 128), weights(32, 32), None, None, None]
    seed = random(4, 32, 128, 128)
    exact = run(reference, exactly(tensors), seed.double())
    for value, wanted in zip(run(ipf.dilated_block, tensors, seed), exact, strict=True):
        assert relative_error(value, wanted) < BOUND


# ---- derivatives ----


@compiled
def test_bitwise_equal_for_any_number_of_threads(winograd) -> None:
    torch.manual_seed(0)
    tensors = arguments(shape=(3, 40, 33, 41), out=70, affine=False)
    before = torch.get_num_threads()
    for layout in ("nchw", "channels_last"):
        tensors[0], seed = laid_out(tensors[0], layout), random(3, 70, 33, 41)
        results = []
        for threads in (1, 2, 4, 2):
            torch.set_num_threads(threads)
            results.append(run(ipf.dilated_block, tensors, seed, dilation=2, activation="relu"))
        torch.set_num_threads(before)
        assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


# ---- what can go wrong ----


@compiled
@pytest.mark.parametrize("bad", (float("nan"), float("inf"), -float("inf")))
def test_nan_and_inf(winograd, bad) -> None:
    torch.manual_seed(0)
    input, weight = random(1, 8, 24, 24), weights(32, 8)
    clean = ipf.dilated_block(input, weight, dilation=2)
    input[0, 3, 11, 9] = bad
    direct = F.conv2d(input, weight, padding=2, dilation=2)
    ours = ipf.dilated_block(input, weight, dilation=2)
    assert not torch.isfinite(ours[~torch.isfinite(direct)]).any()
    changed = (ours != clean).any(1)[0].nonzero()
    distance = (changed - torch.tensor([11, 9])).abs().amax()
    assert distance <= 5 * 2  # patches are 6 pixels wide, 2 apart
    far = torch.ones(24, 24, dtype=torch.bool)
    far[1:22, :20] = False
    assert torch.equal(ours[0, :, far], clean[0, :, far])


@compiled
@pytest.mark.parametrize("promised", (False, True))
def test_weights_follow_every_change(winograd, promised) -> None:
    """Nothing is kept of a weight; or, under `prepare`, until it changes in a way that PyTorch can see."""
    torch.manual_seed(0)
    input, weight = random(1, 20, 9, 9), torch.nn.Parameter(weights(20, 20))
    if promised:
        prepare(weight)

    def right() -> Tensor:
        with torch.no_grad():
            y = ipf.dilated_block(input, weight)
        assert relative_error(y, reference(input.double(), weight.double())) < BOUND
        return y

    right()
    right()
    with torch.no_grad():
        weight.mul_(2)  # as an optimizer does
    right()
    weight.data = weights(20, 20)
    before = right()
    weight.data.zero_()  # PyTorch does not count this one
    if promised:
        with torch.no_grad():
            assert torch.equal(ipf.dilated_block(input, weight), before)
        forget(weight)
    right()
    half = weight.detach().bfloat16()
    assert ipf.dilated_block(input.bfloat16(), half).dtype == torch.bfloat16
    with torch.inference_mode():
        right()
        assert torch.equal(ipf.dilated_block(input, weights(20, 20) * 0), torch.zeros(1, 20, 9, 9))


@compiled
def test_a_promise_is_kept_for_its_weight_alone(winograd) -> None:
    input, weight = random(1, 20, 9, 9), torch.nn.Parameter(weights(20, 20))
    prepare(weight)
    forget(weight)
    forget(weight)  # of one that nobody promised
    with torch.no_grad():
        ipf.dilated_block(input, weight)
        weight.data.zero_()
        assert torch.equal(ipf.dilated_block(input, weight), torch.zeros(1, 20, 9, 9))
    alive = weakref.ref(weight)
    del weight
    gc.collect()
    assert alive() is None
    with pytest.raises(TypeError, match="weight: a torch.Tensor is expected, got list"):
        prepare([1])


@pytest.mark.proves("dilated_block", equals='F.conv2d, by precision="exact"')
def test_exact_is_the_direct_convolution() -> None:
    input, weight, bias, _, _ = arguments(shape=(1, 32, 24, 24), out=32)
    y = ipf.dilated_block(input, weight, bias, dilation=2, precision="exact", activation="relu")
    assert torch.equal(y, F.conv2d(input, weight, bias, padding=2, dilation=2).relu())


def test_plan_without_the_extension(monkeypatch) -> None:
    monkeypatch.setattr(ipf._extension, "module", None)
    assert plan(torch.empty(1, 64, 64, 64), torch.empty(64, 64, 3, 3)) == Plan("direct", 0, 0)


@compiled
def test_plan() -> None:
    def of(shape, out, layout=torch.contiguous_format, dtype=torch.float32, **settings):
        input = torch.empty(shape, device="meta", dtype=dtype).to(memory_format=layout)
        return plan(input, torch.empty(out, shape[1], 3, 3, device="meta", dtype=dtype), **settings)

    for dilation, layout in product((1, 2, 4, 8, 16), (torch.contiguous_format, torch.channels_last)):
        found = of((1, 256, 64, 64), 256, layout, dilation=dilation)
        assert found.algorithm == "winograd" and found.transformed_bytes == 256 * 256 * 36 * 4
        assert 0 < found.workspace_bytes < 4 << 20
    assert of((1, 3, 256, 256), 64).algorithm == "direct"  # few channels
    assert of((1, 256, 64, 64), 256, dilation=32).algorithm == "direct"  # 2x2 pixels for each tile of 4x4
    assert of((1, 256, 8, 8), 256, kept=True).algorithm == "winograd"
    assert of((1, 256, 16, 16), 256).algorithm == "direct"  # 16 tiles for one transform
    assert of((1, 256, 28, 28), 256).algorithm == "winograd"
    assert of((1, 256, 8, 8), 256, training=True).algorithm == "direct"  # 4 tiles for two transforms
    assert of((1, 256, 64, 64), 256, dtype=torch.float64).algorithm == "direct"
    for backend in ("triton", "cuda"):
        assert of((1, 3, 8, 8), 64, dtype=torch.float16, backend=backend) == Plan("implicit_gemm", 0, 9 * 3 * 64 * 2)
        assert of((1, 3, 8, 8), 64, dtype=torch.float64, backend=backend).algorithm == "direct"
    assert of((1, 256, 64, 64), 256, backend="reference").algorithm == "direct"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"input": [1]}, TypeError, "input: a torch.Tensor is expected, got list"),
        ({"input": torch.ones(1, 4, 8, 8, dtype=torch.int32)}, TypeError, "input: float32"),
        ({"input": torch.ones(4, 8, 8)}, ValueError, r"input: \(N, C, H, W\) is expected"),
        ({"input": torch.ones(1, 4, 3, 8), "padding": 0, "dilation": 2}, ValueError, "its height must be at least 5"),
        ({"input": torch.ones(1, 4, 8, 8).to_sparse()}, TypeError, "input: a dense tensor"),
        ({"input": torch.ones(1, 4, 8, 8).to_sparse(), "backend": "reference"}, TypeError, "input: a dense tensor"),
        ({"weight": torch.ones(6, 4, 3, 3).to_sparse()}, TypeError, "weight: a dense tensor"),
        ({"bias": torch.ones(6).to_sparse()}, TypeError, "bias: a dense tensor"),
        ({"weight": torch.ones(6, 4, 5, 5)}, ValueError, r"weight: \(C_out, 4, 3, 3\) is expected"),
        ({"weight": torch.ones(6, 2, 3, 3)}, ValueError, r"weight: \(C_out, 4, 3, 3\) is expected"),
        ({"weight": torch.ones(6, 4, 3, 3, dtype=torch.float64)}, TypeError, "weight: the dtype of input"),
        ({"bias": torch.ones(5)}, ValueError, r"bias: \(6,\)"),
        ({"scale": torch.ones(6, 1)}, ValueError, r"scale: \(6,\)"),
        ({"shift": torch.ones(6, device="meta")}, TypeError, "shift: it is on meta"),
        ({"padding": 10**30}, ValueError, "padding: at most 64 bits"),
        ({"dilation": 0}, ValueError, "dilation: at least 1 is expected, got 0"),
        ({"dilation": 1.5}, TypeError, "dilation: a whole number or a pair"),
        ({"dilation": (1, 2, 3)}, TypeError, "dilation: a whole number or a pair"),
        ({"padding": -1}, ValueError, "padding: at least 0"),
        ({"padding": True}, TypeError, "padding: a whole number"),
        ({"activation": "gelu"}, ValueError, "activation: one of 'none'"),
        ({"activation": "relu", "slope": 0.1}, TypeError, "slope: 'relu' takes none"),
        ({"activation": "elu", "slope": "x"}, TypeError, "slope: a number is expected"),
        ({"order": "act"}, ValueError, "order: 'norm_act' or 'act_norm'"),
        ({"precision": "best"}, ValueError, "precision: 'fast' or 'exact'"),
        ({"backend": "tpu"}, ValueError, "backend: one of"),
    ],
)
def test_bad_input(changes, error, message) -> None:
    named = {"input": torch.ones(1, 4, 8, 8), "weight": torch.ones(6, 4, 3, 3)} | changes
    with pytest.raises(error, match=message):
        ipf.dilated_block(named.pop("input"), named.pop("weight"), **named)
