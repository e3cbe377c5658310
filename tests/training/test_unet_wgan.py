"""The recipes' step against the algorithm written out, and short trainings on the sample photographs."""

from __future__ import annotations

import copy
import csv

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from inpaint_fast.data import Batch, Batches, samples
from inpaint_fast.training import Run, UNetL2, UNetWGAN, train
from inpaint_fast.training.adversarial import repeated_batch_statistics


def batch_of(count: int = 8) -> Batch:
    return Batches(samples(), batch_size=count)[0]


def written_out(system, batch: Batch, steps: int, bound: float) -> None:
    """Subramanian's iteration, line by line: a generator pass for each critic step, all on one minibatch."""
    generator, critic = system.generator, system.critic
    adam_g = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
    adam_d = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.999))
    contour = batch.image.clone()
    contour[..., 16:48, 16:48] = 0
    truth = batch.image[..., 16:48, 16:48]
    for _ in range(steps):
        adam_d.zero_grad()
        (-0.5 * (critic(truth) - critic(generator(contour))).mean()).backward()
        adam_d.step()
        for parameter in critic.parameters():
            parameter.data.clamp_(-bound, bound)
    adam_g.zero_grad()
    completion = generator(contour)
    (F.mse_loss(completion, truth) - 0.5 * critic(completion).mean()).backward()
    adam_g.step()


@pytest.mark.proves(
    "unet_wgan",
    equals="an iteration written out: critic steps, clip, generator step",
    source="S. Subramanian, IFT6266 project (2017)",
)
@pytest.mark.parametrize(("steps", "bound"), [(5, 0.03), (1, 0.05)])
def test_a_step_is_the_published_iteration(steps: int, bound: float) -> None:
    torch.manual_seed(0)
    ours = UNetWGAN(critic_steps=steps, filters=8, critic_filters=8).build()
    theirs = copy.deepcopy(ours)
    batch = batch_of()
    ours.step(batch)
    written_out(theirs, batch, steps, bound)
    # Adam divides by the gradient's own size: where that is rounding noise, a step of lr may differ in sign.
    for (name, value), expected in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        if "running" in name or "tracked" in name:
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6, msg=name)
        else:
            assert ((value - expected).abs() > 1e-5).float().mean() < 0.01, name
    assert all(parameter.abs().max() <= bound for parameter in ours.critic.parameters())


def test_no_norm_leaves_the_norms_alone() -> None:
    torch.manual_seed(0)
    system = UNetWGAN(filters=4, critic_filters=4, clip_params="no_norm").build()
    system.step(batch_of())
    for name, parameter in system.critic.named_parameters():
        if name.endswith("weight"):  # BatchNorm's scales start at 1
            assert (parameter.abs().max() <= 0.03) == name.startswith("conv"), name
    assert "BatchNorm's are not" in system.notes[0]


def test_repeated_batch_statistics_are_those_of_repeated_passes() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5))
    repeated = copy.deepcopy(network)
    x = torch.rand(4, 3, 9, 9)
    for _ in range(6):
        repeated(x)
    with repeated_batch_statistics(network, 6):
        network(x)
    for (name, value), expected in zip(network.state_dict().items(), repeated.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, msg=name)
    assert network[1].momentum == 0.1


def test_completion_keeps_known_pixels_and_the_training_mode() -> None:
    system = UNetL2(filters=4).build()
    batch = batch_of()
    completed = system.complete(batch)
    known = ~batch.mask.expand_as(batch.image)
    assert torch.equal(completed[known], batch.image[known])
    assert system.generator.training


@pytest.mark.parametrize("recipe", [UNetL2, UNetWGAN], ids=["unet_l2", "unet_wgan"])
def test_a_resumed_run_goes_on_bit_for_bit(recipe) -> None:
    settings = {"filters": 4, "batch_size": 4, "heldout_crops": 1}

    def steps(run: Run, count: int) -> None:
        for index in range(run.steps_done, run.steps_done + count):
            run.step(run.batches[index])

    straight = Run(recipe(**settings))
    steps(straight, 5)
    first = Run(recipe(**settings))
    steps(first, 2)
    second = Run(recipe(**settings, seed=0))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(second, 3)
    for name, value in straight.system.state_dict().items():
        assert torch.equal(value, second.system.state_dict()[name]), name


def test_training_draws_nothing_from_the_callers_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run = Run(UNetL2(filters=4, batch_size=4, heldout_crops=1))
    run.step(run.batches[0])
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("recipe", "steps"),
    [
        pytest.param(UNetL2(filters=16), 80, marks=pytest.mark.long, id="unet_l2"),
        pytest.param(UNetWGAN(filters=16, adversarial_weight=0.05), 40, id="unet_wgan"),
    ],
)
def test_training_on_the_samples_brings_the_heldout_error_down(tmp_path, recipe, steps: int) -> None:
    recipe.steps, recipe.evaluate_every, recipe.heldout_crops = steps, steps, 8
    if recipe.name == "unet_wgan":
        recipe.critic_steps, recipe.critic_filters = 2, 8
    train(recipe, tmp_path / "run", progress=False)
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        first, *_, last = ({name: float(value or "nan") for name, value in row.items()} for row in csv.DictReader(file))
    run = Run(recipe)
    heldout = run.evaluation.heldout
    constant = run.evaluation.measure(torch.where(heldout.mask, 0.5, heldout.image))
    assert last["l2"] < first["l2"]
    assert last["l2"] < constant["l2"]


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="critic_steps.*0"):
        UNetWGAN(critic_steps=0)
    with pytest.raises(ValueError, match="clip.*-1"):
        UNetWGAN(clip=-1)
    for name, value in (("steps", -5), ("batch_size", 0), ("evaluate_every", 0), ("seconds", float("nan"))):
        with pytest.raises(ValueError, match=f"{name}.*at least"):
            UNetWGAN(**{name: value})
