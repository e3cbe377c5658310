"""A generator fitted to one picture: what it learns from, what it gains, and when it stays as it was."""

from __future__ import annotations

import copy
import math
import runpy
from pathlib import Path

import pytest
import torch

import inpaint_fast as ipf
from inpaint_fast.completion import adapt, adapt_to_picture, load_network
from inpaint_fast.completion.adapt import NothingGained
from inpaint_fast.completion.generators import kind_of
from inpaint_fast.completion.texture import TexturedNetwork
from inpaint_fast.data import box, free_form, samples
from inpaint_fast.models import CompletionNetwork, ResidualCompletionNetwork, UNetGenerator
from inpaint_fast.nn import accelerate

SIZE = (72, 81)
MASK = box(*SIZE, 30, 28, 14, 12)


@pytest.fixture(autouse=True)
def quickly(monkeypatch) -> None:
    """Networks so small as these learn something in few steps."""
    monkeypatch.setattr(adapt, "RATE", 3e-3)


def noise() -> torch.Tensor:
    return torch.randint(0, 256, (3, *SIZE), generator=torch.Generator().manual_seed(1)).byte()


def stripes() -> torch.Tensor:
    """What repeats itself, and has no likeness with the fill from its border."""
    columns = torch.arange(SIZE[1]) // 2 % 2
    return (20 + 200 * columns).expand(3, *SIZE).byte()


def flat() -> torch.Tensor:
    """What the harmonic fill has without an error."""
    return torch.full((3, *SIZE), 90, dtype=torch.uint8)


def residual() -> ResidualCompletionNetwork:
    torch.manual_seed(0)
    return ResidualCompletionNetwork(4, hole=14).eval()


def error(completed: torch.Tensor, picture: torch.Tensor, mask: torch.Tensor = MASK) -> float:
    return (completed.double() - picture)[:, mask[0]].square().mean().item()


def alone(network: torch.nn.Module) -> torch.nn.Module:
    """The copy of the generator, without the texture fill."""
    return network.network if isinstance(network, TexturedNetwork) else network


def without_texture(monkeypatch) -> None:
    monkeypatch.setattr(adapt, "PIXELS", 0)


def test_it_gains_where_there_is_something_to_learn() -> None:
    picture, generator, told = stripes(), residual(), []
    adapted = adapt_to_picture(generator, picture, MASK, seconds=1e4, steps=40, progress=told.append)
    assert adapted.gained and adapted.after > adapted.before + 1 and 0 < adapted.steps <= 40
    assert str(adapted).startswith("adapted: ") and f"{adapted.after:.2f} dB after" in str(adapted)
    assert told == sorted(told) and told[-1] == 1 and len(told) == 40
    assert not adapted.network.training and type(alone(adapted.network)) is ResidualCompletionNetwork
    before, after = (ipf.complete(picture, MASK, weights=each) for each in (generator, adapted.network))
    assert error(after, picture) < 0.8 * error(before, picture)


def test_the_weights_gain_without_the_texture(monkeypatch) -> None:
    without_texture(monkeypatch)
    picture, generator = stripes(), residual()
    adapted = adapt_to_picture(generator, picture, MASK, seconds=1e4, steps=40)
    assert adapted.gained and adapted.after > adapted.before + 1 and not adapted.share and adapted.steps
    assert type(adapted.network) is ResidualCompletionNetwork and str(adapted).endswith(
        "on known pixels held out; the picture's texture was not tried, which is done in pictures of up to 0 pixels, "
        f"and this one has {SIZE[0] * SIZE[1]:,}"
    )
    before, after = (ipf.complete(picture, MASK, weights=each) for each in (generator, adapted.network))
    assert error(after, picture) < 0.8 * error(before, picture)


def test_the_texture_gains_where_weights_learn_nothing() -> None:
    picture, generator = stripes(), residual()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapt, "RATE", 0.0)
        adapted = adapt_to_picture(generator, picture, MASK, seconds=1e4, steps=10)
    assert adapted.gained and not adapted.steps and 0.9 < adapted.share <= 1
    assert f"with {adapted.share:.0%} of the picture's texture" in str(adapted)
    assert error(ipf.complete(picture, MASK, weights=adapted.network), picture) < 200  # the stripes' is 10,000


@pytest.mark.parametrize("most, reason", [
    ({"PIXELS": 2**20}, ""), ({"PIXELS": 100}, "up to 100 pixels"),
    ({"FEWEST_OF_TEXTURE": 100}, "100 places as large as the hole are held out, and there were"),
    ({"FILL_SECONDS": 1e3}, "for which 10000 seconds are too few, and "),
])  # fmt: skip
def test_where_no_texture_is_tried_it_is_said(monkeypatch, most, reason) -> None:
    for name, value in most.items():
        monkeypatch.setattr(adapt, name, value)
    for picture in (flat(), stripes()):
        adapted = adapt_to_picture(residual(), picture, MASK, seconds=1e4, steps=10)
        assert bool(reason) == bool(adapted.untried) == ("was not tried" in str(adapted)) and reason in str(adapted)


def test_as_many_texture_fills_as_there_is_time_for(monkeypatch) -> None:
    """By arithmetic: a third of the time, by what a pixel takes."""
    tried = []
    monkeypatch.setattr(adapt, "texture", lambda picture, hole, reach: tried.append(reach) or picture)
    for seconds in (1e4, 6.1e-5, 3.1e-5):
        monkeypatch.setattr(adapt, "FILL_SECONDS", 1e-5 / MASK.numel())
        tried.clear()
        adapt_to_picture(residual(), stripes(), MASK, seconds=seconds, steps=1)
        assert tried == list(adapt.REACHES[: round(min(seconds / 3e-5, 3))])


def test_the_same_steps_are_the_same_weights_and_the_generator_stays() -> None:
    generator = residual()
    before = copy.deepcopy(generator.state_dict())
    spoiled = stripes().masked_fill(MASK, 255)  # what the hole holds does not matter
    first, second = (
        adapt_to_picture(generator, picture, MASK, seconds=1e4, steps=12) for picture in (stripes(), spoiled)
    )
    assert first[1:] == second[1:]
    first, second = alone(first.network), alone(second.network)
    assert first is not generator
    for name, tensor in generator.state_dict().items():
        assert torch.equal(first.state_dict()[name], second.state_dict()[name]) and torch.equal(tensor, before[name])


def test_where_nothing_is_gained_the_generator_is_used_and_it_is_said() -> None:
    generator, told = residual(), []
    adapted = adapt_to_picture(generator, flat(), MASK, seconds=1e4, progress=told.append)
    assert adapted.network is generator and not adapted.gained and "nothing gained" in str(adapted)
    assert len(told) < 200  # it ended by itself
    with pytest.warns(NothingGained, match="nothing gained, the weights are used as they are"):
        completed = ipf.complete(flat(), MASK, weights=generator, adapt=1e-6)
    assert torch.equal(completed, ipf.complete(flat(), MASK, weights=generator))


def test_complete_adapts_and_tells_what_it_does() -> None:
    told: list[tuple[str, float]] = []
    picture, generator = flat(), residual()
    with pytest.warns(NothingGained):
        ipf.complete(picture, MASK, weights=generator, adapt=1e-6, progress=lambda *each: told.append(each))
    assert told[0] == ("adapting", 1.0) and told[-1] == ("completing", 1.0)


@pytest.mark.parametrize("holes", ["one", "several", "strokes", "thick"])
def test_what_is_held_out_is_not_learned_from(holes: str) -> None:
    mask = {
        "one": MASK,
        "several": MASK | box(*SIZE, 2, 50, 9, 9) | box(*SIZE, 60, 3, 5, 20),
        "strokes": free_form(*SIZE, torch.Generator().manual_seed(0)),
        "thick": box(*SIZE, 20, 16, 36, 30),  # which the network sees reduced
    }[holes][0]

    def examples(picture: torch.Tensor) -> adapt._Examples:
        generator = residual()
        return adapt._Examples(kind_of(generator), generator, picture, mask, torch.Generator().manual_seed(0))

    first = examples(noise())
    held_out = first._unknown & ~mask
    assert 0 < held_out.sum() <= (~mask).sum() * (0.25 if len(first.held_out) > 1 else 0.5) and not first._made
    other = examples(torch.where(held_out, 255 - noise(), noise()))
    assert len(first.held_out) == len(other.held_out)
    for step in range(1, 4):
        for one, two in zip(first.batch(step), other.batch(step), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
            assert one.wanted.any() and not (one.wanted & ~one.mask).any()
    differ = [not torch.equal(a.picture, b.picture) for a, b in zip(first.held_out, other.held_out, strict=True)]
    assert all(differ)


@pytest.mark.parametrize("size", [(19, 30), (33, 18), (64, 50)])
def test_pictures_smaller_than_a_region_and_of_odd_sizes(size) -> None:
    picture = torch.randint(0, 256, (3, *size), generator=torch.Generator().manual_seed(0)).byte()
    mask = box(*size, 4, 5, 7, 6) | box(*size, 13, 9, 4, 3)
    assert adapt_to_picture(residual(), picture, mask, seconds=1e4, steps=2).before > 0


def test_a_network_that_fills_instead_of_correcting() -> None:
    torch.manual_seed(0)
    generator = CompletionNetwork(4, hole=14).eval()
    statistics = {name: tensor.clone() for name, tensor in generator.named_buffers()}
    adapted = adapt_to_picture(generator, stripes(), MASK, seconds=1e4, steps=30)
    assert adapted.gained
    assert all(torch.equal(tensor, statistics[name]) for name, tensor in alone(adapted.network).named_buffers())
    scratch = box(*SIZE, 5, 5, 60, 3)
    adapted = adapt_to_picture(generator, noise(), scratch, seconds=1e4, steps=2)
    assert math.isnan(adapted.before) and adapted.network is generator and "no hole is thick" in str(adapted)


def test_where_hardly_anything_is_known() -> None:
    mask = torch.ones(1, *SIZE, dtype=torch.bool)
    mask[0, 0, 0] = False
    adapted = adapt_to_picture(residual(), noise(), mask, seconds=1e4, steps=2)
    assert adapted.network is not None and not adapted.gained


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_in_any_mode_of_the_caller_and_accelerated(mode) -> None:
    generator = accelerate(residual().requires_grad_(False), inference=True)
    with mode():
        adapted = adapt_to_picture(generator, stripes(), MASK, seconds=1e4, steps=12)
    assert adapted.gained and not any(parameter.requires_grad for parameter in generator.parameters())


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="adapt: a CompletionNetwork or .* is expected, got a UNetGenerator"):
        adapt_to_picture(UNetGenerator(2), noise(), MASK)
    with pytest.raises(ValueError, match="weights.*Linear"):
        adapt_to_picture(torch.nn.Linear(1, 1), noise(), MASK)
    for seconds in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="adapt: a number of seconds, more than 0, is expected"):
            ipf.complete(noise(), MASK, weights=residual(), adapt=seconds)
    with pytest.raises(TypeError, match="adapt: a number is expected, got str"):
        ipf.complete(noise(), MASK, weights=residual(), adapt="20")
    with pytest.raises(ValueError, match="fill and adapt"):
        ipf.complete(noise(), MASK, fill="harmonic", adapt=20)
    with pytest.raises(ValueError, match="mask: shape"):
        adapt_to_picture(residual(), noise(), MASK[:, 1:])


def test_the_script_that_measures_what_is_gained() -> None:
    script = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "adapting.py"))
    for draw, least in (("squares", 0.25), ("strokes", 0.1)):
        assert least <= script[draw](80, 160).float().mean() <= 0.25
    picture, mask = samples("heldout")[5][:, :80, :80], script["squares"](80, 80)
    found = script["measured"](picture, mask, "smooth", 1)
    assert found[0] == script["psnr"](ipf.complete(picture, mask, fill="harmonic"), picture, mask)
    assert len(found) == 4 and all(5 < each < 40 for each in found)


def test_a_hole_that_leaves_one_place_to_hold_out() -> None:
    """Of a dandelion on green, measured on one place: a gain of 0.8 dB was told, in the true hole 6 dB were lost."""
    picture, mask = samples("train")[0][:, :160, :200], torch.zeros(1, 160, 200, dtype=torch.bool)
    mask[0, 20:130, 30:170] = True
    adapted = adapt_to_picture(load_network("smooth"), picture, mask, steps=1)
    assert math.isnan(adapted.before) and not adapted.gained and adapted.steps == 0 == adapted.share
    assert "too little is known" in str(adapted)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"steps": 0}, ValueError), ({"steps": -1}, ValueError), ({"steps": 1.5}, TypeError),
        ({"steps": True}, TypeError), ({"seed": 1.5}, TypeError), ({"seed": -1}, ValueError),
        ({"seconds": True}, TypeError),
    ],
)  # fmt: skip
def test_numbers_that_are_none(settings, error) -> None:
    name = next(iter(settings))
    with pytest.raises(error, match="adapt" if name == "seconds" else name):
        adapt_to_picture(load_network("smooth"), samples("train")[0], torch.ones(1, 8, 8), **settings)
    with pytest.raises(TypeError, match="mask: a tensor"):
        adapt_to_picture(load_network("smooth"), samples("train")[0], [[True]])
