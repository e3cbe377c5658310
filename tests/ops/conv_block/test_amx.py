"""float32 on AMX: the sums of bfloat16 products that make up float32's, held to float64; who gets it, and who does not.

The instructions are those of a stand-in in plain C++, and of the processor where it has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from ops.conv_block.blocks import BOUND, arguments, compiled, random, weights
from ops.conv_block.test_winograd_tiles import tiles
from support import exactly, laid_out, relative_error, run
from torch import Tensor

import inpaint_fast as ipf
from inpaint_fast import _extension
from inpaint_fast.cli import info
from inpaint_fast.ops import forget, prepare
from inpaint_fast.ops._plans import forget_plans
from inpaint_fast.ops.conv_block import choice, dilated_reference, plan, strided_reference, transposed_reference
from inpaint_fast.ops.conv_block.kept import prepared

pytestmark = compiled
module = _extension.module
WAYS = ("stand_in", "") if _extension.has_amx() else ("stand_in",)


@contextmanager
def amx(name: str = "stand_in", wish: str = "1") -> Iterator[None]:
    """AMX, or its stand-in, where INPAINT_FAST_AMX is that wish."""
    before = "stand_in" if module.amx() == "stand_in" else ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_extension, "amx_wish", wish)
        module.set_amx(name)
        forget_plans()
        try:
            yield
        finally:
            module.set_amx(before)
            forget_plans()


@pytest.fixture(params=WAYS)
def on_amx(request: pytest.FixtureRequest) -> Iterator[None]:
    with amx(request.param):
        yield


@pytest.fixture(params=module.cpu_capabilities() if module else [])
def capability(request: pytest.FixtureRequest) -> Iterator[str]:
    """Instruction sets of what goes before the products and after them."""
    before = module.cpu_capability()
    module.set_cpu_capability(request.param)
    with amx():
        yield request.param
    module.set_cpu_capability(before)


@pytest.fixture
def no_amx() -> Iterator[None]:
    """A processor without it: CPU kernels may not use as much."""
    before = module.cpu_capability()
    module.set_cpu_capability("baseline")
    with amx("", ""):
        yield
    module.set_cpu_capability(before)


def assert_near(function: Callable, reference: Callable, tensors: list, seed: Tensor, layout: str, **settings) -> None:
    """Within the bound of float64, with the gradients, which are of the same products."""
    exact = run(reference, exactly(tensors), seed.double(), **settings)
    tensors = [laid_out(tensors[0], layout), *tensors[1:]]
    for value, wanted in zip(run(function, tensors, laid_out(seed, layout), **settings), exact, strict=True):
        assert relative_error(value, wanted) < BOUND


@pytest.mark.parametrize("side", (4, 6))
@pytest.mark.parametrize("layout", ("nchw", "channels_last", "sliced"))
@pytest.mark.parametrize("dilation", (1, 2, 4))
def test_parity(winograd, on_amx, side, layout, dilation) -> None:
    """Batches of one and three; channels that are no multiple of 16 or 32; maps whose tiles are cut off."""
    torch.manual_seed(0)
    for images, channels, out in ((1, 33, 40), (3, 21, 37)):
        tensors, seed = arguments(shape=(images, channels, 19, 26), out=out), random(images, out, 19, 26)
        with tiles(side):
            assert_near(ipf.dilated_block, dilated_reference, tensors, seed, layout, dilation=dilation,
                        activation="tanh")  # fmt: skip


@pytest.mark.parametrize("side", (4, 6))
def test_instruction_sets(winograd, capability, side) -> None:
    torch.manual_seed(0)
    tensors, seed = arguments(shape=(1, 48, 21, 20), out=33), random(1, 33, 21, 20)
    with tiles(side):
        assert_near(ipf.dilated_block, dilated_reference, tensors, seed, "channels_last", dilation=2)


@pytest.mark.parametrize("layout", ("nchw", "channels_last"))
@pytest.mark.parametrize("taps", (3, 4, 5))
@pytest.mark.parametrize("stem", ("strided_block", "transposed_block"))
def test_stride_2(winograd, on_amx, stem, taps, layout) -> None:
    torch.manual_seed(0)
    channels, out, transposed = 35, 40, stem == "transposed_block"
    weight = random(*((channels, out) if transposed else (out, channels)), taps, taps) / (taps * channels**0.5)
    tensors = [random(2, channels, 10, 14), weight, random(out), random(out).abs() + 0.5, random(out)]
    reference = transposed_reference if transposed else strided_reference
    seed = random(2, out, *((20, 28) if transposed else (5, 7)))
    assert_near(getattr(ipf, stem), reference, tensors, seed, layout, activation="elu")


@pytest.mark.parametrize("channels", (256, 512))
def test_error_at_many_channels(winograd, on_amx, channels, record_property) -> None:
    """Below 1e-5 of the norm at the most channels of F(6x6, 3x3), and not above that of products in float32."""
    torch.manual_seed(0)
    x, weight = laid_out(random(1, channels, 16, 24), "channels_last"), weights(32, channels)
    exact = dilated_reference(x.double(), weight.double())
    with torch.no_grad():
        for side in (4, 6):
            with tiles(side):
                split = relative_error(ipf.dilated_block(x, weight), exact)
                with amx("", "0"):
                    whole = relative_error(ipf.dilated_block(x, weight), exact)
            record_property(f"F({side}x{side})", (split, whole))
            assert split < BOUND and split < whole


@pytest.mark.parametrize("scale", (1e-28, 1e28))
def test_scales(winograd, on_amx, scale) -> None:
    """The last of three parts of a number is 2^-16 of it: none of these is too small, none too large."""
    torch.manual_seed(0)
    x, weight = random(1, 32, 12, 12), weights(32, 32)
    exact = dilated_reference(x.double(), weight.double())
    with torch.no_grad():
        assert relative_error(ipf.dilated_block(x * scale, weight).double() / scale, exact) < BOUND
        assert relative_error(ipf.dilated_block(x, weight * scale).double() / scale, exact) < BOUND
        subnormal = ipf.dilated_block(x * 1e-39, weight)
        assert (subnormal.double() - 1e-39 * exact).abs().max() < 1e-36  # zeros, or what is left of them


@pytest.mark.parametrize("bad", (float("nan"), float("inf"), -float("inf"), torch.finfo(torch.float32).max))
def test_what_is_no_number(winograd, on_amx, bad) -> None:
    """Where the definition has none there is none, and no more is spoiled than by products in float32."""
    torch.manual_seed(0)
    pictures, kernels = random(2, 40, 13, 15), weights(70, 40)
    clean = dilated_reference(pictures.double(), kernels.double())
    for name in ("input", "weight"):

        def spoiled(by: float, name: str = name) -> tuple[Tensor, Tensor]:
            x, weight = pictures.clone(), kernels.clone()
            (x[1, 37] if name == "input" else weight[67, 37])[1, 1] = by
            return x, weight

        with torch.no_grad():
            found, defined = ipf.dilated_block(*spoiled(bad)), dilated_reference(*spoiled(bad))
            with amx("", "0"):
                ordinary, reached = ipf.dilated_block(*spoiled(bad)), ipf.dilated_block(*spoiled(float("nan"))).isnan()
        assert (found.isfinite() <= defined.isfinite()).all() and not found.isfinite().all()
        assert (found.isfinite() >= ordinary.isfinite()).all()
        assert relative_error(found[~reached], clean[~reached]) < BOUND and not reached.all()


def test_bitwise_equal_for_any_number_of_threads(winograd, on_amx) -> None:
    torch.manual_seed(0)
    x, weight = random(2, 40, 21, 29), weights(35, 40)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found += [ipf.dilated_block(laid_out(x, layout), weight) for layout in ("nchw", "channels_last")]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(y, found[0]) for y in found[1:])


def test_kept_weights(winograd, on_amx) -> None:
    """Kept split, beside those of products in float32; and of the tile that runs."""
    torch.manual_seed(0)
    x, weight = laid_out(random(1, 40, 24, 24), "channels_last"), weights(64, 40)
    with torch.no_grad():
        unkept = [of_tile(x, weight, side) for side in (4, 6)]
        prepare(weight)
        try:
            for _ in range(2):
                assert all(torch.equal(of_tile(x, weight, side), y) for side, y in zip((4, 6), unkept, strict=True))
            with amx("", "0"):
                ordinary = of_tile(x, weight, 4)
            kept = [value for _, value in prepared(weight)._values.values()]
        finally:
            forget(weight)
    assert not torch.equal(ordinary, unkept[0])  # or this file would test nothing
    sizes = {(value.dtype, value.numel()) for value in kept}
    assert sizes == {(torch.bfloat16, 3 * 64 * 64 * 36), (torch.bfloat16, 3 * 64 * 64 * 64),
                     (torch.float32, 40 * 64 * 36)}  # fmt: skip
    assert plan(x, weight, kept=True).transformed_bytes == 2 * 3 * 64 * 64 * 36
    for transformed in (kept[0][:-1], kept[0].float(), kept[-1]):
        with pytest.raises(RuntimeError, match="transformed: "):
            settings = [1, 1, 1, 1], 0, 0.0, 0, True, True
            torch.ops.inpaint_fast.dilated_block(x, weight, transformed, None, None, None, *settings)


def of_tile(x: Tensor, weight: Tensor, side: int) -> Tensor:
    with tiles(side):
        return ipf.dilated_block(x, weight)


def test_compiled(winograd, on_amx) -> None:
    torch.manual_seed(0)
    tensors = [random(1, 32, 16, 16), weights(32, 32), None, None, None]
    compiled = torch.compile(ipf.dilated_block, backend="aot_eager", fullgraph=True)
    wanted, found = (run(f, tensors, torch.ones(()), activation="relu") for f in (ipf.dilated_block, compiled))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_opcheck(winograd, on_amx) -> None:
    x, weight, ops = random(1, 5, 9, 8), weights(7, 5), torch.ops.inpaint_fast
    taps_of_4, settings = random(7, 5, 4, 4), ([2, 2, 2, 2], 1, 0.0, 0, False, True)
    for op, args in (
        (ops.dilated_block_weights, (weight, 4, True)),
        (ops.dilated_block_weights, (weight, 6, True)),
        (ops.strided_block_weights, (taps_of_4, True)),
        (ops.dilated_block, (x, weight, ops.dilated_block_weights(weight, 6, True), None, None, None, *settings)),
        (ops.dilated_block_input_gradient, (random(1, 7, 9, 8), weight, [2, 2, 2, 2], True, True)),
        (ops.strided_block, (x, taps_of_4, ops.strided_block_weights(taps_of_4, True), *[None] * 3, *settings[1:])),
    ):
        torch.library.opcheck(op.default, args)


# ---- who gets it ----


def ran_on_amx(**settings) -> bool:
    """Whether a convolution that Winograd's algorithm runs is another one than in float32."""
    torch.manual_seed(0)
    x, weight = random(1, 32, 24, 24), weights(32, 32)
    with torch.no_grad():
        found = ipf.dilated_block(x, weight, **settings)
        with amx("", "0"):
            return not torch.equal(found, ipf.dilated_block(x, weight, **settings))


def test_who_asks_gets_it(winograd) -> None:
    for wish in ("", "0", "1"):
        with amx(wish=wish):
            assert ran_on_amx() == (wish == "1")
            assert not ran_on_amx(precision="exact")
            assert not ran_on_amx(backend="reference")


def test_without_it_nothing_runs_in_its_place(no_amx) -> None:
    x, weight = random(1, 32, 8, 8), weights(32, 32)
    settings = [1, 1, 1, 1], 0, 0.0, 0, False, True
    with pytest.raises(RuntimeError, match="matrix_units: False is expected, for there is no AMX"):
        torch.ops.inpaint_fast.dilated_block(x, weight, None, None, None, None, *settings)
    with pytest.raises(ValueError, match="AMX 'tile' is unknown: stand_in is expected"):
        module.set_amx("tile")


@pytest.mark.parametrize(("takes", "way"), [((2, 3, 1), "amx"), ((1, 3, 2), "ours"), ((3, 1, 2), "plain")])
@pytest.mark.parametrize("inference", (False, True))
def test_the_fastest_of_three_is_measured(winograd, monkeypatch, takes, way, inference) -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(32, 32, 3, padding=1)
    x = random(1, 32, 24, 24)
    monkeypatch.setattr("inpaint_fast.ops.conv_block.chain.race", lambda ways, input: takes)
    with torch.no_grad(), amx(wish=""):
        net = ipf.accelerate(torch.nn.Sequential(conv).eval(), inference=inference, tune=True)
        y = net(x)
        (measured,) = next(iter(ipf.nn.acceleration_report(net).measured.values()))
        assert measured.way == way and measured.amx == takes[2]
        named = {"ours": "ours runs", "amx": "ours on AMX runs", "plain": "PyTorch's runs"}[way]
        assert f"on AMX {takes[2]} ms" in str(measured) and named in str(measured)
        with amx(wish="1" if way == "amx" else "0"):
            ours = ipf.dilated_block(x, conv.weight, conv.bias)
        assert torch.equal(y, torch.conv2d(x, conv.weight, conv.bias, padding=1) if way == "plain" else ours)


@pytest.mark.parametrize(("wish", "ways"), [("", ("ours", "plain", "amx")), ("0", ("ours", "plain")),
                                            ("1", ("ours", "plain"))])  # fmt: skip
def test_between_which_ways_is_measured(wish, ways) -> None:
    with amx(wish=wish):
        assert choice.ways() == ways


def test_there_is_no_way_on_a_processor_without_it(no_amx) -> None:
    assert module.amx() == "none"
    assert choice.ways() == ("ours", "plain")
    assert "AMX: there is none" in info.report()


def test_info_says_what_is_in_force() -> None:
    lines = {}
    for wish in ("", "0", "1"):
        with amx(wish=wish):
            (lines[wish],) = [line for line in info.report().splitlines() if line.startswith("AMX: ")]
    assert "accelerate(net, tune=True)" in lines[""]
    assert lines["0"] == "AMX: there, and unused, as INPAINT_FAST_AMX=0 asks"
    assert lines["1"] == "AMX: multiplies float32 in convolutions, as INPAINT_FAST_AMX=1 asks"
