"""Iterations as CUDA graphs, on a double of torch.cuda: the same numbers as without, for every recipe and through every
change of phase, shape and learning rate; what cannot be captured says why."""

from __future__ import annotations

import copy
from dataclasses import fields

import pytest
import torch
from recorded_cuda import RecordedCuda, cuda
from training.each_recipe import EACH_RECIPE

from inpaint_fast.training import RECIPES, Run
from inpaint_fast.training.iterations import WARM

__all__ = ["cuda"]

SMALL = {
    "filters": 8, "critic_filters": 8, "critic_steps": 2, "code": 8, "width": 4, "autoencoder_steps": 7,
    "batch_size": 4, "vector": 8, "heldout_crops": 1, "heldout_pictures": 2,
    "completion_steps": 6, "discriminator_steps": 6, "settle": 3,
    "channels": 2, "discriminator_channels": 2, "features": 4,
    "real_noise": (1.0, 0.1), "real_noise_steps": 5, "lr_decay": 0.9, "warmup": 4, "lr_schedule": "cosine", "ema": 0.9,
    "steps": 50,
}  # fmt: skip
SMALL_PICTURES = {"size": 32, "local": 20, "hole": (8, 18), "edge": None}


def small(name: str, **settings):
    known = {field.name for field in fields(RECIPES[name])}
    settings = SMALL | (SMALL_PICTURES if "local" in known else {}) | settings
    settings = {key: value for key, value in settings.items() if key in known}
    return RECIPES[name](device="cpu", **settings)


def steps(run: Run, count: int) -> list[dict[str, float]]:
    return [{name: value.item() for name, value in run.step(run.batches[run.steps_done]).items()} for _ in range(count)]


def check(name: str, count: int, **settings) -> Run:
    """Captured and not, the same is measured and learned."""
    captured, plain = (Run(small(name, cuda_graph=wanted, **settings)) for wanted in (True, False))
    found, wanted = steps(captured, count), steps(plain, count)
    assert captured.iterate.news() == []
    for one, another in zip(found, wanted, strict=True):
        assert one.keys() == another.keys()
        assert all(one[key] == pytest.approx(another[key], rel=1e-5, abs=1e-6) for key in one), (one, another)
    theirs = dict(plain.system.learned())
    for key, value in captured.system.learned():
        torch.testing.assert_close(value, theirs.pop(key), rtol=1e-5, atol=1e-6, msg=key)
    assert not theirs and captured.system.guard.state_dict() == plain.system.guard.state_dict()
    return captured


@pytest.mark.parametrize("name", EACH_RECIPE)
def test_every_recipe(name: str, cuda: RecordedCuda) -> None:
    phases = 3 if "glcic" in name else 2 if name in ("latent_gan",) else 1
    count = 16 if phases > 1 else WARM + 4
    check(name, count)
    assert cuda.captures >= phases and cuda.replays >= count - phases * WARM - 1


SETTINGS = {
    "fp16": ("unet_wgan", {"precision": "fp16"}),
    "bf16": ("unet_wgan", {"precision": "bf16"}),
    "parts": ("unet_wgan", {"micro_batch": 2}),
    "as otenim": ("glcic_small", RECIPES["glcic"].as_published | {"edge": None, "batch_size": 4, "micro_batch": 2}),
    "rmsprop": ("context_wgan", {"optimizer": "rmsprop", "critic_optimizer": "adamw", "clip_penalty": 0.1}),
    "nesterov": ("context_wgan", {"optimizer": "nesterov", "critic_optimizer": "nesterov"}),
}


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.long if c == "as otenim" else ()) for c in SETTINGS]
)
def test_other_settings(case: str, cuda: RecordedCuda) -> None:
    name, settings = SETTINGS[case]
    check(name, 18 if name in ("glcic_small", "latent_gan") else WARM + 4, **settings)
    assert cuda.captures and cuda.replays


def test_fifty_steps(cuda: RecordedCuda) -> None:
    check("unet_wgan", 50, warmup=20, critic_steps=1, filters=4, critic_filters=4)
    assert cuda.captures == 1 and cuda.replays == 50 - WARM


def test_another_shape_is_captured_beside(cuda: RecordedCuda) -> None:
    run, plain = (Run(small("unet_wgan", cuda_graph=wanted)) for wanted in (True, False))
    for index in range(2 * WARM + 4):
        rows = 4 if index % 2 else 2
        batch = run.batches[index].map(lambda part, rows=rows: part[:rows])
        found, wanted = run.step(batch), plain.step(batch)
        for key, value in wanted.items():
            torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6)
    assert cuda.captures == 2 and cuda.replays == 4


def test_results_are_the_caller_s_own(cuda: RecordedCuda) -> None:
    run = Run(small("unet_l2"))
    steps(run, WARM + 1)
    first = run.step(run.batches[run.steps_done])
    kept = {name: value.clone() for name, value in first.items()}
    steps(run, 2)
    assert all(torch.equal(first[name], value) for name, value in kept.items())


def test_a_run_that_goes_on_is_captured_anew(cuda: RecordedCuda) -> None:
    run, other = Run(small("unet_wgan")), Run(small("unet_wgan"))
    steps(run, 6)
    state = copy.deepcopy(run.state_dict())
    assert all(type(group["lr"]) is float for group in state["system"]["optimizers"]["critic"]["param_groups"])
    other.load_state_dict(state)
    assert steps(run, 6) == [
        {name: pytest.approx(value, rel=1e-5, abs=1e-6) for name, value in row.items()} for row in steps(other, 6)
    ]
    captures = cuda.captures
    run.load_state_dict(copy.deepcopy(other.state_dict()))
    steps(run, 2)
    assert cuda.captures == captures + 1


def test_a_step_without_numbers_changes_nothing(cuda: RecordedCuda) -> None:
    run = Run(small("unet_wgan", ema=None))
    steps(run, WARM + 2)
    before = {name: value.clone() for name, value in run.system.learned()}
    batch = run.batches[run.steps_done]
    run.step(batch._replace(image=torch.full_like(batch.image, float("nan"))))
    assert run.system.guard.skipped.item() == 1 and not run.system.guard.good
    assert all(torch.equal(before[name], value) for name, value in run.system.learned())
    run.step(run.batches[run.steps_done])
    assert run.system.guard.good and run.system.guard.in_a_row.item() == 0


def test_what_is_not_captured_says_why_and_is_trained_all_the_same(cuda: RecordedCuda, monkeypatch) -> None:
    run = Run(small("unet_l2"))
    plain_l2_step = type(run.system).step

    def choosing_step(system, batch):
        batch.image[batch.image > 0.5]
        return plain_l2_step(system, batch)

    with monkeypatch.context() as patch:
        patch.setattr(type(run.system), "step", choosing_step)
        steps(run, 6)
    (reason,) = run.iterate.news()
    assert reason.startswith("steps are not captured as CUDA graphs: values decide a shape (")
    assert "test_captured.py" in reason
    assert run.iterate.news() == [] and not cuda.captures

    counting = Run(small("unet_wgan"))
    plain_step = type(counting.system).step

    def step(system, batch):
        system.times = getattr(system, "times", 0) + 1
        return plain_step(system, batch)

    monkeypatch.setattr(type(counting.system), "step", step)
    steps(counting, 6)
    (reason,) = counting.iterate.news()
    assert "a step replaces or counts times of UNetWGANSystem on the host" in reason and not cuda.replays


def test_a_capture_that_breaks_off_costs_no_step(cuda: RecordedCuda) -> None:
    run, plain = Run(small("unet_wgan", precision="fp16")), Run(small("unet_wgan", precision="fp16", cuda_graph=False))
    cuda.fails = RuntimeError("CUDA out of memory.")
    found, wanted = steps(run, 8), steps(plain, 8)
    assert found == wanted and "CUDA out of memory" in run.iterate.news()[0]


def test_on_a_cpu_nothing_is_captured() -> None:
    run = Run(small("unet_l2"))
    steps(run, WARM + 2)
    assert not run.iterate.wanted and run.iterate.news() == []
    assert all(type(group["lr"]) is float for group in run.system.optimizers["generator"].param_groups)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["unet_wgan", "glcic_small", "latent_gan", "context_wgan", "mlp_gan"])
def test_on_a_gpu(name: str) -> None:
    """The same losses within 1e-5 over 50 steps, in full float32 and by deterministic convolutions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee")
        patch.setattr(torch.backends.cuda.matmul, "fp32_precision", "ieee")
        patch.setattr(torch.backends.cudnn, "deterministic", True)
        known = {field.name for field in fields(RECIPES[name])}
        phases = {"autoencoder_steps": 20, "completion_steps": 20, "discriminator_steps": 10, "steps": 60}
        settings = {key: value for key, value in phases.items() if key in known} | {"batch_size": 8}
        captured, plain = (
            Run(RECIPES[name](device="cuda", cuda_graph=wanted, heldout_pictures=2, **settings))
            for wanted in (True, False)
        )
        found, wanted = steps(captured, 50), steps(plain, 50)
    assert captured.iterate.news() == [] and any(captured.iterate._graphs.values())
    for index, (one, another) in enumerate(zip(found, wanted, strict=True)):
        for key, value in another.items():
            assert one[key] == pytest.approx(value, rel=1e-5, abs=1e-5), (index, key)
