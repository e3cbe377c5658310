"""The step that every system is made of, against the same written out; how turns, schedules and draws are taken."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from inpaint_fast.data import Batch, Batches, samples
from inpaint_fast.training import DCGAN, MLPGAN, ContextGAN, ContextWGAN, LatentGAN, Run
from inpaint_fast.training.adversarial import optimizer_of

TINY = {"filters": 2, "critic_filters": 2, "code": 4, "batch_size": 4, "heldout_crops": 1}


def batch_of(count: int = 4) -> Batch:
    return Batches(samples(), batch_size=count)[0]


def gradients(optimizer: torch.optim.Optimizer, network: nn.Module) -> list[dict[str, torch.Tensor]]:
    """A list that gets the network's gradients at each step of the optimizer."""
    seen: list[dict[str, torch.Tensor]] = []
    optimizer.register_step_pre_hook(
        lambda *_: seen.append({name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None})
    )
    return seen


@pytest.mark.proves(
    "context_gan",
    equals="the gradients of the printed losses",
    source="S. Larocque, IFT6266 project (2017)",
    dtypes="float64",
)
@pytest.mark.parametrize("saturating", [False, True])
def test_the_joint_gradient_is_that_of_the_printed_loss(saturating: bool) -> None:
    torch.manual_seed(0)
    recipe = ContextGAN(a=0.3, saturating=saturating, clip_penalty=0.7, critic="v4", real_target=0.9, **TINY)
    system = recipe.build().double()
    theirs = copy.deepcopy(system)
    batch = batch_of().map(lambda part: part.double() if part.is_floating_point() else part)
    of_generator = gradients(system.optimizers["generator"], system.generator)
    of_critic = gradients(system.optimizers["critic"], system.critic)
    measured = system.step(batch)

    generator, critic = theirs.generator, theirs.critic
    contour = batch.image.clone()
    contour[..., 16:48, 16:48] = 0
    truth = batch.image[..., 16:48, 16:48]
    fake, before_clip = generator(contour, unclipped=True)
    whole = contour + F.pad(fake, (16,) * 4)
    d_real, d_fake = torch.sigmoid(critic(batch.image)), torch.sigmoid(critic(whole.detach()))
    bce = F.binary_cross_entropy
    critic_loss = bce(d_real, torch.full_like(d_real, 0.9)) + bce(d_fake, torch.zeros_like(d_fake))
    critic_loss.backward()
    for name, parameter in critic.named_parameters():
        torch.testing.assert_close(of_critic[0][name], parameter.grad)
    torch.testing.assert_close(measured["critic_loss"], critic_loss.detach())

    trained = system.critic  # after its step; its own running statistics play no part
    judged = torch.sigmoid(trained(whole))
    adversarial = torch.log(1 - judged).mean() if saturating else -torch.log(judged).mean()
    penalty = 0.7 * F.mse_loss(before_clip, before_clip.clamp(0, 1))
    (0.3 * F.mse_loss(fake, truth) + 0.7 * adversarial + penalty).backward()
    for name, parameter in generator.named_parameters():
        torch.testing.assert_close(of_generator[0][name], parameter.grad, msg=name)
    torch.testing.assert_close(measured["adversarial_loss"], 0.7 * adversarial.detach())


def test_turns() -> None:
    system = ContextGAN(critic_steps=3, generator_steps=2, **TINY).build()
    order = []
    for name, optimizer in system.optimizers.items():
        optimizer.register_step_pre_hook(lambda *_, name=name: order.append(name))
    passes = []
    system.generator.register_forward_hook(lambda *_: passes.append(1))
    system.step(batch_of())
    assert order == ["critic"] * 3 + ["generator"] * 2
    assert len(passes) == 2  # one for the critic's steps and the generator's first


def test_the_critic_gets_nothing_from_the_generators_step() -> None:
    system = ContextGAN(**TINY).build()
    seen = gradients(system.optimizers["critic"], system.critic)
    batch = batch_of()
    system.step(batch)
    fresh = copy.deepcopy(system)
    assert all(p.requires_grad for p in system.critic.parameters())
    for p in system.critic.parameters():
        p.grad = None
    system.generator_step(batch, system.truth(batch), system.inputs(batch))
    assert all(p.grad is None for p in system.critic.parameters()) and len(seen) == 1
    assert all(torch.equal(a, b) for a, b in zip(system.critic.parameters(), fresh.critic.parameters(), strict=True))


def test_learning_rates_fall_at_the_start_of_each_epoch_the_first_included() -> None:
    run = Run(ContextGAN(lr=0.1, critic_lr=0.2, lr_decay=0.9, **TINY))  # 18 photographs: an epoch is 4.5 batches
    seen = []
    for name, optimizer in run.system.optimizers.items():
        optimizer.register_step_pre_hook(lambda o, *_, name=name: seen.append((name, o.param_groups[0]["lr"])))
    for index in range(6):
        run.step(run.batches[index])
    expected = [0.9] * 5 + [0.81]
    assert [lr for name, lr in seen if name == "generator"] == pytest.approx([0.1 * factor for factor in expected])
    assert [lr for name, lr in seen if name == "critic"] == pytest.approx([0.2 * factor for factor in expected])


def test_noise_on_real_holes_alone_by_its_schedule() -> None:
    recipe = ContextGAN(real_noise=(1.0, 0.2), real_noise_steps=4, **TINY)
    system, batch = recipe.build(), batch_of(16)
    scales = []
    for step in range(6):
        system.schedule(step, 0)
        scales.append((system.disturbed(system.truth(batch)) - system.truth(batch)).std().item())
    assert scales == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.2], rel=0.05)
    contour = system.judged(torch.zeros(16, 3, 32, 32), batch)
    assert contour.shape == (16, 3, 32, 32)  # v4_hole: it sees the hole as it is
    whole = ContextGAN(critic="v4", **TINY).build().judged(system.truth(batch), batch)
    assert torch.equal(whole, batch.image)


def test_wasserstein_clip_and_scaling() -> None:
    torch.manual_seed(0)
    for clip_params in ("all", "no_norm"):
        system = ContextWGAN(clip=0.02, clip_params=clip_params, critic_lr=0.1, **TINY).build()
        measured = system.step(batch_of())
        norms = [m.weight for m in system.critic.modules() if isinstance(m, nn.BatchNorm2d)]
        assert all((p.abs().max() <= 0.02) == (clip_params == "all") for p in norms)
        assert all(m.weight.abs().max() <= 0.02 for m in system.critic.modules() if isinstance(m, nn.Conv2d))
        assert "adversarial_loss" in measured
    torch.manual_seed(0)
    halves = ContextWGAN(critic_weight=0.5, adversarial_weight=0.5, **TINY).build()
    torch.manual_seed(0)
    ones = ContextWGAN(critic_weight=1.0, adversarial_weight=1.0, **TINY).build()
    first, second = halves.critic_step(*steps_of(halves)), ones.critic_step(*steps_of(ones))
    torch.testing.assert_close(2 * first["critic_loss"], second["critic_loss"])


def steps_of(system) -> tuple:
    batch = batch_of()
    return batch, system.truth(batch), torch.zeros(4, 3, 32, 32)


@pytest.mark.proves(
    "latent_gan",
    equals="the published order of steps; the encoder stays as it is",
    source="G. Bernard, IFT6266 project (2017)",
)
def test_latent_gan_takes_two_generator_steps_from_the_same_codes() -> None:
    recipe = LatentGAN(width=2, code=4, autoencoder_steps=2, batch_size=4, heldout_crops=1)
    run = Run(recipe)
    order, codes = [], []
    for name, optimizer in run.system.optimizers.items():
        optimizer.register_step_pre_hook(lambda *_, name=name: order.append(name))
    run.system.generator.decoder.register_forward_pre_hook(lambda _, inputs: codes.append(inputs[0]))
    for index in range(2):
        run.step(run.batches[index])
    frozen = copy.deepcopy(run.system.generator.encoder)
    run.step(run.batches[2])
    assert order == ["autoencoder"] * 2 + ["critic", "generator", "generator"]
    assert len(codes) == 2 and torch.equal(codes[0], codes[1])
    encoder = run.system.generator.encoder
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), frozen.parameters(), strict=True))
    assert run.system.codes is None


def test_fresh_noise_for_each_step_or_the_same_fakes() -> None:
    for recipe, same in ((MLPGAN(width=4, batch_size=4), False), (DCGAN(width=2, batch_size=4), True)):
        run = Run(recipe)
        seen = []
        run.system.critic.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0].detach()))
        run.step(run.batches[0])
        assert len(seen) == 3  # real, fake, and fake for the generator
        assert torch.equal(seen[1], seen[2]) == same
        low = run.system.values[0]
        assert low == -1 and seen[0].min() < -0.5


def test_the_literal_range_of_digits() -> None:
    run = Run(MLPGAN(width=4, batch_size=4, literal_range=True))
    truth = run.system.truth(run.batches[0])
    assert truth.min() == 0 and truth.max() == 1 and truth.shape == (4, 1, 28, 28)


def test_optimizers_by_name() -> None:
    p = [nn.Parameter(torch.zeros(3))]
    lasagne = optimizer_of("rmsprop", p, lr=0.1).param_groups[0]
    assert (lasagne["alpha"], lasagne["eps"], lasagne["eps_inside"]) == (0.9, 1e-6, True)
    pytorch = optimizer_of("rmsprop", p, lr=0.1, lasagne=False).param_groups[0]
    assert (pytorch["alpha"], pytorch["eps"], pytorch["eps_inside"]) == (0.99, 1e-8, False)
    adamw = optimizer_of("adamw", p, lr=0.1).param_groups[0]
    assert (adamw["weight_decay"], adamw["decoupled_weight_decay"]) == (0.01, True)
    assert optimizer_of("nesterov", p, lr=0.1).param_groups[0]["momentum"] == 0.9
    with pytest.raises(ValueError, match="optimizer.*'sgd'"):
        optimizer_of("sgd", p, lr=0.1)


def test_wrong_settings_are_named() -> None:
    for recipe, options, words in (
        (ContextGAN, {"a": 1.5}, "a: .*1.5"),
        (ContextGAN, {"critic_steps": 0}, "critic_steps.*0"),
        (ContextGAN, {"real_noise": (1.0, -1.0)}, "real_noise"),
        (ContextWGAN, {"clip": 0.0}, "clip.*0"),
        (LatentGAN, {"generator_steps": 0}, "generator_steps.*0"),
    ):
        with pytest.raises(ValueError, match=words):
            recipe(**options)
