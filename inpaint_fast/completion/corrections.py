"""Holes of any shape, filled harmonically and then corrected by a `ResidualCompletionNetwork`.

The fill has the picture's own resolution, and joins what is known without a seam. The correction comes from regions
round the hole, as those of `inpaint_fast.completion.regions`: of the size that the network was trained on, to which
those round thicker holes are reduced. It is enlarged and added, so that what it does not know leaves the fill as it is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from inpaint_fast.completion.fills import harmonic, paste
from inpaint_fast.completion.regions import to_multiple_of_4, views
from inpaint_fast.completion.scaling import answer, enlarge_into, reduced
from inpaint_fast.data import Batch
from inpaint_fast.models.residual import ResidualCompletionNetwork


def complete_residual(network: ResidualCompletionNetwork, batch: Batch, *, at_once: int = 64) -> Tensor:
    """A batch's holes filled, (N, 3, H, W), at most `at_once` pictures at a time; known pixels as they were."""
    image, mask = batch.image, batch.mask.expand(len(batch.image), -1, -1, -1)
    filled = harmonic(image, batch.mask)
    parts = zip(filled.split(at_once), mask.split(at_once), strict=True)
    return paste(torch.cat([network(picture, hole) for picture, hole in parts]), image, mask)


def correct_regions(
    network: ResidualCompletionNetwork,
    picture: Tensor,
    hole: Tensor,
    part: Tensor,
    captions: Tensor | None = None,
    told: Callable[[float], object] = lambda done: None,
) -> Tensor:
    """Fill a part of the holes of a picture; arguments and result as `inpaint_fast.completion.regions.fill_regions`."""
    device = next(network.parameters()).device
    filled = harmonic(picture[None], hole[None, None], told=lambda done: told(done / 2))[0]
    result = torch.where(part, filled, picture)
    found = views(part, network.hole)
    for done, (window, wanted, _, region, size) in enumerate(found, 1):
        small, unknown = reduced(picture, hole, region, size)
        known = harmonic(small[None], unknown[None])
        inputs = (to_multiple_of_4(x).to(device) for x in (known, unknown[None].float()))
        with torch.inference_mode():
            correction = answer(network.correction(*inputs)[0, :, : size[0], : size[1]])
        enlarge_into(result, wanted, window, region, correction, add=True)
        told(0.5 + done / len(found) / 2)
    return result
