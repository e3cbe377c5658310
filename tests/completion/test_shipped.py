"""The weights in the package: what the model card says of them, and their names."""

from __future__ import annotations

import math

import pytest
import torch

from inpaint_fast import complete
from inpaint_fast.completion import WeightsError, complete_batch, harmonic, load_network
from inpaint_fast.completion.weights import SHIPPED, shipped
from inpaint_fast.data import box, heldout_crops, samples
from inpaint_fast.training.metrics import hole_metrics


@pytest.fixture(scope="module", params=["center", "free_form"])
def crops(request):
    return request.param, heldout_crops(samples("heldout"), per_image=16, size=64, mask=request.param)


def gain(completed, batch) -> float:
    """In dB of the mean squared error in the holes, over the harmonic fill."""
    errors = [hole_metrics(x, batch.image, batch.mask)["l2"].item() for x in (completed, harmonic(*batch[:2]))]
    return 10 * math.log10(errors[1] / errors[0])


def test_smooth_is_closer_to_the_truth_than_the_harmonic_fill(crops) -> None:
    kind, batch = crops
    assert gain(complete_batch(load_network("smooth"), batch), batch) >= {"center": 0.3, "free_form": 0.5}[kind]


def test_sharp_is_no_farther_from_it_and_sharp(crops) -> None:
    _, batch = crops
    completed = complete_batch(load_network("sharp"), batch)
    assert gain(completed, batch) >= 0
    assert hole_metrics(completed, batch.image, batch.mask)["sharpness"] >= 0.45


@pytest.mark.parametrize("name", SHIPPED)
def test_their_files_are_small(name) -> None:
    assert shipped(name).stat().st_size <= 6e6
    assert sum(p.numel() for p in load_network(name).parameters()) <= 1_500_000


def test_sharp_is_the_default() -> None:
    photograph = samples("heldout")[0][:, :128, :128]
    mask = box(128, 128, 40, 40, 48, 48)
    assert torch.equal(complete(photograph, mask), complete(photograph, mask, weights="sharp"))
    assert not torch.equal(complete(photograph, mask), complete(photograph, mask, weights="smooth"))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_file_of_that_name_makes_it_ambiguous(name, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    with pytest.raises(WeightsError, match="exists, too"):
        load_network(name)
