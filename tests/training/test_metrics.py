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


INSIDE = (
    ...,
    slice(5, -5),
    slice(5, -5),
)  # where no window reaches over the picture's edge, which others pad otherwise


def noisy() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Completed pictures, true ones, and masks with the hole in the middle, in float64."""
    truth = torch.rand(2, 3, 40, 48, dtype=torch.float64)
    completed = (truth + 0.2 * torch.randn_like(truth)).clamp(0, 1)
    return completed, truth, center_square(40, 48)[None].expand(2, -1, -1, -1)


@pytest.mark.proves("hole_metrics", equals="torchmetrics' PSNR, SSIM, L1, L2", within="1e-6")
def test_metrics_equal_those_of_torchmetrics() -> None:
    functional = pytest.importorskip("torchmetrics.functional", reason="torchmetrics is not installed")
    completed, truth, mask = noisy()
    metrics = hole_metrics(completed, truth, mask)
    hole = (..., slice(10, 30), slice(14, 34))
    assert mask[hole].all() and mask.sum() == mask[hole].numel()
    ours, theirs = completed[hole].contiguous(), truth[hole].contiguous()
    _, full = functional.image.structural_similarity_index_measure(
        completed, truth, data_range=1.0, return_full_image=True
    )
    expected = {
        "psnr": functional.image.peak_signal_noise_ratio(ours, theirs, data_range=1.0, dim=(1, 2, 3)),
        "ssim": full[hole].mean(),
        "l1": functional.mean_absolute_error(ours, theirs),
        "l2": functional.mean_squared_error(ours, theirs),
    }
    for name, value in expected.items():
        assert metrics[name].item() == pytest.approx(value.item(), abs=1e-6), name
    torch.testing.assert_close(ssim_map(completed, truth)[INSIDE], full[INSIDE], atol=1e-6, rtol=0)


@pytest.mark.proves("hole_metrics", equals="scikit-image's PSNR and SSIM", within="1e-6")
def test_metrics_equal_those_of_scikit_image() -> None:
    skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    completed, truth, mask = noisy()
    metrics = hole_metrics(completed, truth, mask)
    hole, psnr, ssim = (slice(None), slice(10, 30), slice(14, 34)), [], []
    for ours, theirs in zip(completed.numpy(), truth.numpy(), strict=True):
        psnr.append(skimage.peak_signal_noise_ratio(theirs[hole], ours[hole], data_range=1.0))
        _, full = skimage.structural_similarity(
            theirs, ours, data_range=1.0, channel_axis=0, full=True,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )  # fmt: skip
        ssim.append(full[hole].mean())
        ours_map = ssim_map(torch.from_numpy(ours)[None], torch.from_numpy(theirs)[None])[0]
        torch.testing.assert_close(ours_map[INSIDE], torch.from_numpy(full)[INSIDE], atol=1e-6, rtol=0)
    assert metrics["psnr"].item() == pytest.approx(sum(psnr) / 2, abs=1e-6)
    assert metrics["ssim"].item() == pytest.approx(sum(ssim) / 2, abs=1e-6)


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
