"""The texture fill against the equations that it stands for, solved directly; and its mean with a generator's."""

from __future__ import annotations

import math

import pytest
import torch

import inpaint_fast as ipf
from inpaint_fast.completion import complete_batch, harmonic, texture
from inpaint_fast.completion.texture import TexturedNetwork
from inpaint_fast.data import Batch, box, to_float
from inpaint_fast.models import CompletionNetwork, ResidualCompletionNetwork

SIZE = (13, 10)
HOLE = (box(*SIZE, 3, 4, 4, 5) | box(*SIZE, 9, 0, 1, 2))[0]
REACH = 2


def noise(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """With a likeness between neighbours, which differs along and across."""
    values = torch.rand(3, 15, 14, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return (values.unfold(1, 3, 1).mean(-1).unfold(2, 5, 1)).mean(-1)


def directly(picture: torch.Tensor) -> torch.Tensor:
    """What is to be expected in the hole: C_uk C_kk^-1 x_k, the covariances pair by pair."""
    size = [texture._smooth(length + 3 * REACH) for length in SIZE]
    mean = picture[:, ~HOLE].mean(dim=1)
    places = [(row, column) for row in range(SIZE[0]) for column in range(SIZE[1])]
    known = [place for place in places if not HOLE[place]]
    sums, counts = torch.zeros(size, dtype=torch.float64), torch.zeros(size)
    for a in known:
        for b in known:
            lag = (a[0] - b[0]) % size[0], (a[1] - b[1]) % size[1]
            sums[lag] += ((picture[:, a[0], a[1]] - mean) * (picture[:, b[0], b[1]] - mean)).mean()
            counts[lag] += 1
    covariance = sums / counts.clamp(min=1)
    for row in range(size[0]):
        for column in range(size[1]):
            squared = min(row, size[0] - row) ** 2 + min(column, size[1] - column) ** 2
            covariance[row, column] *= math.exp(-squared / (2 * REACH**2))
    spectrum = torch.fft.fft2(covariance).real
    covariance = torch.fft.ifft2(spectrum.clamp(min=texture.LEAST * spectrum.mean())).real

    def between(some, others):
        return torch.stack([torch.stack([covariance[a[0] - b[0], a[1] - b[1]] for b in others]) for a in some])

    unknown = [place for place in places if HOLE[place]]
    values = torch.stack([picture[:, row, column] - mean for row, column in known])
    found = picture.clone()
    found[:, HOLE] = mean[:, None] + (between(unknown, known) @ torch.linalg.solve(between(known, known), values)).T
    return found


def test_it_is_what_is_to_be_expected(monkeypatch) -> None:
    expected = directly(noise())
    assert (expected - noise())[:, HOLE].abs().max() > 0.01 and expected.min() > 0 and expected.max() < 1
    coarse = texture.texture(noise(), HOLE, REACH)
    single = texture.texture(noise().float(), HOLE, REACH)
    monkeypatch.setattr(texture, "TOLERANCE", 1e-10)
    exact = texture.texture(noise(), HOLE, REACH)
    # the condition of the equations is at most the range of the spectrum, 1/LEAST times a few: 1e5 x 1e-10
    assert (exact - expected).abs().max() < 1e-5
    error = (coarse - expected)[:, HOLE].norm() / (expected - expected.mean())[:, HOLE].norm()
    assert 1e-6 < error < 0.1 and (single - coarse).abs().max() < 1e-3
    assert single.dtype == torch.float32 and torch.equal(exact[:, ~HOLE], noise()[:, ~HOLE])


def test_what_repeats_itself_goes_on() -> None:
    rows, columns = torch.meshgrid(torch.arange(60.0), torch.arange(50.0), indexing="ij")
    picture = (0.5 + 0.4 * torch.sin(rows / 2 + columns)).expand(3, -1, -1)
    hole = box(60, 50, 15, 20, 20, 18)[0]

    def error(filled: torch.Tensor) -> float:
        return (filled - picture)[:, hole].square().mean().item()

    assert error(texture.texture(picture, hole, 16)) < 0.05 * error(harmonic(picture[None], hole[None, None])[0])


def test_what_the_hole_holds_does_not_matter_and_one_colour_stays() -> None:
    spoiled = noise().masked_fill(HOLE, math.nan)
    assert torch.equal(texture.texture(spoiled, HOLE, REACH), texture.texture(noise(), HOLE, REACH))
    flat = torch.full((3, *SIZE), 0.25)
    assert torch.equal(texture.texture(flat.masked_fill(HOLE, 1.0), HOLE, REACH), flat)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_mean_with_what_a_generator_completes(share) -> None:
    torch.manual_seed(0)
    picture, mask = (255 * noise(torch.float32)).byte()[:, :12, :8], HOLE[None, :12, :8]
    network = ResidualCompletionNetwork(2, hole=14).eval()
    torch.nn.init.normal_(network.last.weight)  # it would correct nothing
    mixed = TexturedNetwork(network, REACH, share)
    fill = 255 * texture.texture(to_float(picture), mask[0], REACH)
    expected = (1 - share) * ipf.complete(picture, mask, weights=network) + share * fill
    completed = ipf.complete(picture, mask, weights=mixed)
    assert (completed - expected)[:, mask[0]].abs().max() <= 0.5 + 1e-3  # rounding
    assert torch.equal(completed[:, ~mask[0]], picture[:, ~mask[0]])
    batch = Batch(to_float(picture)[None], mask[None])
    assert (255 * complete_batch(mixed, batch)[0] - completed).abs().max() <= 1 + 1e-3  # both are rounded once
    with torch.no_grad():
        called = mixed(harmonic(batch.image, batch.mask), batch.mask.float())
    assert torch.equal(called, complete_batch(mixed, batch)) and not torch.equal(called, harmonic(*batch[:2]))


def test_a_call_learns_and_takes_what_the_network_takes() -> None:
    network = TexturedNetwork(CompletionNetwork(2), REACH, 0.4)
    pictures = to_float((255 * noise(torch.float32)).byte())[:, :12, :8].expand(2, -1, -1, -1)
    masks = torch.stack([HOLE[None, :12, :8], torch.ones(1, 12, 8, dtype=torch.bool)])  # of one all is unknown
    completed = network(pictures, masks)
    assert torch.equal(completed[0][:, ~masks[0, 0]], pictures[0][:, ~masks[0, 0]])
    assert torch.equal(completed[1], network.network(pictures, masks)[1])
    assert network(pictures[:0], masks[:0]).shape == (0, 3, 12, 8)
    gradients = torch.autograd.grad(completed.sum(), list(network.parameters()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients[-2:])
    with pytest.raises(ValueError, match="mask: shape .* is expected"):
        network(pictures, masks[:, 0])
