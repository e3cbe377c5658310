"""Holes by their thickness: what is known beside a scratch, inside an L or a ring is used, whatever the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import inpaint_fast as ipf
from inpaint_fast.completion import FILLS, harmonic
from inpaint_fast.completion.generators import THIN
from inpaint_fast.completion.holes import thick_part
from inpaint_fast.data import samples, to_float
from inpaint_fast.models import CompletionNetwork, ContextCNN, UNetGenerator

H, W = 140, 180


def drawn(draw) -> torch.Tensor:
    """A mask, bool (1, H, W), of what was drawn in white."""
    picture = Image.new("1", (W, H))
    draw(ImageDraw.Draw(picture))
    return torch.from_numpy(np.array(picture))[None]


def star(d: ImageDraw.ImageDraw) -> None:
    d.ellipse((60, 40, 110, 90), fill=1)
    for end in ((5, 5), (175, 70), (90, 139)):
        d.line((85, 65, *end), fill=1, width=4)


THIN_HOLES = {
    "a scratch": lambda d: d.line((3, 130, 170, 4), fill=1),
    "wide scratches": lambda d: [d.line((3, 60, 176, 70), fill=1, width=5), d.line((60, 2, 66, 137), fill=1, width=7)],
    "text": lambda d: d.text((10, 60), "HOLES IN A PICTURE"),
    "a thin L": lambda d: d.line((20, 10, 20, 120, 160, 120), fill=1, width=6),
    "a thin ring": lambda d: d.ellipse((30, 20, 140, 130), outline=1, width=4),
    "the edges": lambda d: d.rectangle((0, 0, W - 1, H - 1), outline=1, width=8),
    "specks": lambda d: d.point([(x * 7 % W, x * 5 % H) for x in range(400)], fill=1),
    "diagonal pixels": lambda d: d.point([(x, x) for x in range(100)], fill=1),
}
THICK_HOLES = {
    "an L": lambda d: d.line((30, 10, 30, 120, 160, 120), fill=1, width=24),
    "a ring": lambda d: d.ellipse((30, 10, 150, 130), outline=1, width=20),
    "two near ones": lambda d: [d.rectangle((20, 50, 59, 89), fill=1), d.rectangle((65, 50, 104, 89), fill=1)],
    "at the edge": lambda d: d.rectangle((0, 30, 24, 110), fill=1),
    "a blob with thin arms": star,
    "a square": lambda d: d.rectangle((60, 40, 121, 101), fill=1),
}


class White(UNetGenerator):
    """Fills every hole with white."""

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(picture), 3, 32, 32)


class WhiteAnywhere(CompletionNetwork):
    """The same."""

    def forward(self, picture: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(picture)


GENERATORS = {"centre": lambda: White(1), "anywhere": lambda: WhiteAnywhere(2, hole=40)}


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    return samples("heldout")[0][:, 60 : 60 + H, 40 : 40 + W].clamp(max=200)


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("hole", THIN_HOLES)
def test_thin_holes_are_filled_harmonically(picture, hole, generator) -> None:
    mask = drawn(THIN_HOLES[hole])
    completed = ipf.complete(picture, mask, weights=GENERATORS[generator]())
    assert torch.equal(completed, harmonic(picture[None], mask[None])[0])
    assert torch.equal(completed, ipf.complete(picture, mask, fill="harmonic"))


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("hole", THICK_HOLES)
def test_thick_parts_are_the_networks_and_thin_ones_join_them_to_the_picture(picture, hole, generator) -> None:
    mask = drawn(THICK_HOLES[hole])
    thick = thick_part(mask[0], THIN + 1)
    completed = ipf.complete(picture, mask, weights=GENERATORS[generator]())
    assert torch.equal(completed[:, ~mask[0]], picture[:, ~mask[0]])
    # nothing is white but what the network gave; what is brought back from another scale has a softened edge
    assert (completed[:, thick] == 255).float().mean() > 0.7 and (
        completed[:, thick] > picture.max()
    ).float().mean() > 0.9
    joined = harmonic(torch.where(thick, completed, picture)[None], (mask[0] & ~thick)[None, None])[0]
    assert torch.equal(completed, joined)
    assert hole != "a blob with thin arms" or 0 < int(thick.sum()) < int(mask.sum()) - 400


@pytest.mark.parametrize("hole", THICK_HOLES)
def test_a_network_of_small_squares_is_given_what_is_known_inside_the_holes_box(hole) -> None:
    """One that answers with the harmonic fill that it is given is about as good as that fill of the hole itself."""
    picture, mask = samples("heldout")[4][:, :H, :W], drawn(THICK_HOLES[hole])
    network = ContextCNN(filters=1, code=2, prefill="harmonic", residual=True, output="clip")  # untrained: adds 0

    def error(completed: torch.Tensor) -> float:
        return (to_float(completed) - to_float(picture))[:, mask[0]].square().mean().item()

    harmonically = error(ipf.complete(picture, mask, fill="harmonic"))
    assert error(ipf.complete(picture, mask, weights=network)) < 1.25 * harmonically


@pytest.mark.parametrize("fill", FILLS)
def test_a_fill_instead_of_weights(picture, fill) -> None:
    mask = drawn(star)
    completed = ipf.complete(picture, mask, fill=fill)
    assert completed.dtype == torch.uint8 and torch.equal(completed, FILLS[fill](picture[None], mask[None])[0])
    assert torch.equal(completed, ipf.complete(picture.masked_fill(mask, 7), mask, fill=fill, device="cpu"))


def test_what_fills_the_hole_is_said_once(picture) -> None:
    mask = drawn(star)
    with pytest.raises(TypeError, match="weights.*or instead a fill.*'harmonic'.*int"):
        ipf.complete(picture, mask, weights=3)
    with pytest.raises(ValueError, match="fill: 'ring_mean' or 'harmonic' is expected, got 'mean'"):
        ipf.complete(picture, mask, fill="mean")
    with pytest.raises(ValueError, match="fill and weights.*both"):
        ipf.complete(picture, mask, fill="harmonic", weights=White(1))
    with pytest.raises(ValueError, match="fill and caption.*both"):
        ipf.complete(picture, mask, fill="harmonic", caption="a house")
