"""A step of every recipe makes no GPU wait and could be a CUDA graph: no value is read by the host, none decides a
shape, nothing is drawn or made on the host and brought over.

Where there is no GPU the meta device stands for one: it holds no values, so that reading one is an error there, and
tensors of the CPU do not go with its own.
"""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor
from training.each_recipe import EACH_RECIPE, few_critic_steps

from inpaint_fast import _graphs
from inpaint_fast._graphs import Obstacles
from inpaint_fast.ops import _dispatch
from inpaint_fast.training import RECIPES, Run
from inpaint_fast.training.iterations import Iterations

SMALL = {
    "filters": 8, "critic_filters": 8, "code": 8, "width": 4, "autoencoder_steps": 2, "batch_size": 4, "vector": 8,
    "heldout_crops": 1, "heldout_pictures": 2, "completion_steps": 2, "discriminator_steps": 2, "channels": 2,
    "discriminator_channels": 2, "features": 4, "real_noise": (1.0, 0.1), "ema": 0.9, "accelerate": False,
}  # fmt: skip
SMALL_PICTURES = {"size": 32, "local": 20, "hole": (8, 18), "edge": None}


def elsewhere(name: str, **settings) -> Run:
    """A run of a small recipe on the meta device."""
    known = {field.name for field in fields(RECIPES[name])}
    settings = SMALL | few_critic_steps(name) | (SMALL_PICTURES if "local" in known else {}) | settings
    run = Run(RECIPES[name](device="cpu", **{key: value for key, value in settings.items() if key in known}))
    run.device, before = torch.device("meta"), list(run.system.parameters())
    run.system.to(run.device)
    moved = dict(zip(before, run.system.parameters(), strict=True))  # others, on the meta device
    for optimizer in run.system.optimizers.values():
        for group in optimizer.param_groups:
            group["params"] = [moved[parameter] for parameter in group["params"]]
    run.system.average = None
    run.system.begin_average()
    run.iterate = Iterations(run.system, run.device)
    return run


@pytest.fixture(autouse=True)
def meta(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_graphs, "DEVICE", "meta")
    # Triton's operators tell shapes on the meta device, too; where there is none PyTorch's run.
    monkeypatch.setitem(_dispatch.PREFERENCE, "meta", ("triton", "reference"))


@pytest.mark.parametrize("name", EACH_RECIPE)
def test_a_step(name: str) -> None:
    check(elsewhere(name))


SETTINGS = {
    "parts": ("unet_wgan", {"micro_batch": 2}),
    "as otenim": ("glcic", RECIPES["glcic"].as_published | {"edge": None, "micro_batch": 2}),
    "nesterov": ("context_wgan", {"optimizer": "nesterov", "critic_optimizer": "nesterov"}),
    "rmsprop": ("context_wgan", {"optimizer": "rmsprop", "critic_optimizer": "adamw", "clip_penalty": 0.1}),
    "mean": ("unet_l2", {"prefill": "mean"}),
    "noise": ("context_gan", {"prefill": "gaussian_noise", "critic": "v2"}),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_other_settings(case: str) -> None:
    name, settings = SETTINGS[case]
    check(elsewhere(name, **settings))


def check(run: Run) -> None:
    """The steps of each phase but its first, which makes what is kept from then on."""
    phases = set()
    several = {"completion_steps", "autoencoder_steps"} & vars(run.recipe).keys()
    for index in range(6 if several else 3):
        run.system.schedule(index, 0)
        batch = run.batches[index].map(lambda part: part.to("meta"))
        with Obstacles("meta") as obstacles:
            measured = run.iterate._iterate(batch)
        if run.system.phase in phases:
            assert obstacles.found == [], run.system.phase
        phases.add(run.system.phase)
        assert any(optimizer.state for optimizer in run.system.optimizers.values())
        assert all(value.device.type == "meta" and value.dim() == 0 for value in measured.values())


def test_what_cannot_be_captured_is_named(monkeypatch) -> None:
    run = elsewhere("unet_l2")
    plain_step = run.system.step
    monkeypatch.setattr(run.system, "step", lambda batch: batch.image.sum().item() and plain_step(batch))
    with pytest.raises(Exception, match="meta|item"):
        check(run)


@pytest.mark.parametrize(
    ("work", "why"),
    [
        (lambda x: x.sum().item(), "the host reads a tensor"),
        (lambda x: bool(x.sum() > 0), "the host reads a tensor"),
        (lambda x: x.nonzero(), "values decide a shape"),
        (lambda x: x[x > 0], "values decide a shape"),
        (lambda x: x.masked_select(x > 0), "values decide a shape"),
        (lambda x: x.unique(), "values decide a shape"),
        (lambda x: x.to("meta"), "a copy between cpu and meta"),
        (lambda x: x.copy_(torch.zeros(3)), ""),
        (lambda x: torch.where(x > 0, x, 0.0) + torch.randn_like(x), ""),
    ],
)
def test_obstacles_are_noted_with_their_place(work, why: str) -> None:
    with Obstacles("cpu") as obstacles:
        work(torch.arange(3.0))
    if why:
        assert any(why in found and "test_nothing_waits.py:" in found for found in obstacles.found)
    else:
        assert obstacles.found == []


def test_draws_on_the_host_are_noted() -> None:
    def draws(x: Tensor) -> Tensor:
        return x + torch.randn(3, device="cpu").to("meta")

    with Obstacles("meta") as obstacles:
        draws(torch.zeros(3, device="meta"))
    assert any("a random draw on the host (randn)" in found for found in obstacles.found)
    assert any("a copy between cpu and meta" in found for found in obstacles.found)
