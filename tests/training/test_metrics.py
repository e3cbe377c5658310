from __future__ import annotations

import math

import pytest
import torch

from inpaint_fast.data import center_square
from inpaint_fast.training import hole_metrics
from inpaint_fast.training.metrics import generation_metrics, ssim_map


def test_metrics_look_at_the_hole_alone() -> None:
    truth, mask = torch.rand(2, 3, 32, 32), center_square(32, 32)[None]
    completed = truth.clone()
    completed[..., 8:24, 8:24] += 0.1
    metrics = hole_metrics(completed, truth, mask)
    assert metrics["l1"].item() == pytest.approx(0.1, rel=1e-5)
    assert metrics["l2"].item() == pytest.approx(0.01, rel=1e-5)
    assert metrics["psnr"].item() == pytest.approx(20, rel=1e-5)
    assert metrics["sharpness"].item() == pytest.approx(1, rel=1e-5)
    outside = torch.where(mask, truth, torch.rand_like(truth))
    assert hole_metrics(outside, truth, mask)["l2"] == 0


def test_psnr_is_a_mean_over_pictures() -> None:
    truth = torch.zeros(2, 1, 16, 16)
    completed = torch.stack([torch.full((1, 16, 16), 0.1), torch.full((1, 16, 16), 0.01)])
    metrics = hole_metrics(completed, truth, torch.ones(1, 1, 16, 16))
    assert metrics["psnr"].item() == pytest.approx((20 + 40) / 2, rel=1e-4)


def test_sharpness_of_flat_and_doubled_contrast() -> None:
    truth, mask = torch.rand(1, 3, 16, 16), torch.ones(1, 1, 16, 16)
    assert hole_metrics(torch.full_like(truth, 0.5), truth, mask)["sharpness"] == 0
    assert hole_metrics(2 * truth, truth, mask)["sharpness"].item() == pytest.approx(2)


def test_psnr_and_ssim_equal_those_of_torchmetrics() -> None:
    functional = pytest.importorskip("torchmetrics.functional.image")
    truth = torch.rand(2, 3, 40, 48)
    completed = (truth + 0.2 * torch.randn_like(truth)).clamp(0, 1)
    everything = torch.ones(1, 1, 40, 48)
    metrics = hole_metrics(completed, truth, everything)
    psnr = functional.peak_signal_noise_ratio(completed, truth, data_range=1.0, dim=(1, 2, 3))
    torch.testing.assert_close(metrics["psnr"], psnr)
    _, full = functional.structural_similarity_index_measure(completed, truth, data_range=1.0, return_full_image=True)
    inside = (..., slice(5, -5), slice(5, -5))  # their image is padded another way
    torch.testing.assert_close(ssim_map(completed, truth)[inside], full[inside], atol=1e-4, rtol=1e-4)


def test_identical_pictures() -> None:
    truth = torch.rand(1, 3, 24, 24)
    metrics = hole_metrics(truth, truth, center_square(24, 24)[None])
    assert metrics["ssim"].item() == pytest.approx(1) and metrics["psnr"].item() == pytest.approx(100)
    assert math.isfinite(metrics["psnr"])


def test_generated_pictures_beside_real_ones() -> None:
    real = torch.rand(6, 3, 16, 16)
    metrics = generation_metrics(real.flip(0), real)
    assert metrics["sharpness"].item() == pytest.approx(1) and metrics["diversity"].item() == pytest.approx(1)
    metrics = generation_metrics(real[:1].expand(6, -1, -1, -1), real)
    assert metrics["diversity"] == 0 and metrics["sharpness"] > 0.9  # one picture over and over
    assert generation_metrics(torch.full_like(real, 0.5), real)["sharpness"] == 0
