"""The recipe's steps against the published program written out, its phases, and short trainings on the samples."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from inpaint_fast.completion import load_network
from inpaint_fast.data import ContextBatch, ContextBatches, samples
from inpaint_fast.models import CompletionNetwork, ContextDiscriminator
from inpaint_fast.training import GLCIC, GLCICPlaces2, GLCICSmall, Run, train
from inpaint_fast.training.glcic import GLCICSystem, mean_pixel, phases

TINY = {
    "size": 32, "local": 20, "hole": (8, 18), "channels": 2, "discriminator_channels": 2, "features": 4,
    "batch_size": 4, "heldout_crops": 1, "mean_pixel": (0.4, 0.5, 0.6),
}  # fmt: skip


def system_of(recipe: GLCIC) -> GLCICSystem:
    torch.manual_seed(0)
    return recipe.build().double()


def batch_of(recipe: GLCIC, index: int = 0) -> ContextBatch:
    batch = recipe.batches(samples())[index]
    return batch._replace(image=batch.image.double())


def step(system: GLCICSystem, recipe: GLCIC, index: int = 0) -> dict[str, Tensor]:
    """The step at this place of a run, on its batch."""
    system.schedule(index, 0)
    return system.step(batch_of(recipe, index))


class WrittenOut:
    """GLCIC-PyTorch's three loops from plain torch; `mended` as the recipe's defaults mend them."""

    def __init__(self, system: GLCICSystem, *, mended: bool) -> None:
        self.c, self.d = copy.deepcopy(system.generator), copy.deepcopy(system.discriminator)
        self.opt_c, self.opt_d = (torch.optim.Adadelta(n.parameters(), rho=0.9, eps=1e-6) for n in (self.c, self.d))
        self.mended, self.alpha = mended, 4e-4

    def complete(self, b: ContextBatch) -> tuple[Tensor, Tensor]:
        m = b.mask.double()
        output = self.c(b.image, b.mask)
        loss = F.mse_loss(output * m, b.image * m)
        return loss, output * m + b.image * (1 - m) if self.mended else output

    def judge(self, picture: Tensor, corners: Tensor) -> Tensor:
        patch = [p[:, t : t + 20, left : left + 20] for p, (t, left) in zip(picture, corners.tolist(), strict=True)]
        return torch.sigmoid(self.d(torch.stack(patch), picture))

    def discriminator_loss(self, b: ContextBatch, fake: Tensor) -> Tensor:
        zero, one = torch.zeros(len(fake)).double(), torch.ones(len(fake)).double()
        fake_loss = F.binary_cross_entropy(self.judge(fake.detach(), b.hole_corner), zero)
        return (fake_loss + F.binary_cross_entropy(self.judge(b.image, b.real_corner), one)) / 2

    def step(self, phase: int, b: ContextBatch) -> list[float]:
        if phase == 1:
            loss, _ = self.complete(b)
            loss.backward()
            self.opt_c.step(), self.opt_c.zero_grad()
            return [loss.item()]
        self.c.train(phase == 3 or not self.mended)
        reconstruction, fake = self.complete(b)
        self.c.train()
        loss = self.discriminator_loss(b, fake)
        (loss * (self.alpha if phase == 3 and not self.mended else 1)).backward()
        self.opt_d.step(), self.opt_d.zero_grad()
        if phase == 2:
            return [loss.item()]
        adversarial = F.binary_cross_entropy(self.judge(fake, b.hole_corner), torch.ones(len(fake)).double())
        ((reconstruction + self.alpha * adversarial) / 2).backward()
        self.opt_c.step(), self.opt_c.zero_grad()
        if self.mended:
            self.opt_d.zero_grad()
        return [loss.item(), reconstruction.item(), adversarial.item()]


def losses_of(measured: dict[str, Tensor]) -> list[Tensor]:
    return [value for name, value in measured.items() if name.endswith("_loss")]


def test_what_the_health_warnings_need_is_measured() -> None:
    recipe = GLCIC(completion_steps=1, discriminator_steps=1, **TINY)
    system = system_of(recipe)
    first, second, third = (step(system, recipe, index) for index in range(3))
    assert "critic_spread" not in first and second["critic_spread"] > 0 and third["critic_spread"] > 0
    assert -1 <= third["saturated"] <= 1
    with torch.no_grad():  # a discriminator that says one thing, a completion network that says white
        system.discriminator.joint.weight.zero_()
        system.discriminator.joint.bias.zero_()
        for name, parameter in system.generator.layer17.named_parameters():
            parameter.fill_(100.0 if name.endswith("bias") else 0.0)
    ill = step(system, recipe, 3)
    assert ill["critic_spread"] < 1e-6 and ill["saturated"] > 0.9


@pytest.mark.proves(
    "glcic",
    equals="the three phases written out, by the paper and by GLCIC-PyTorch",
    source="Iizuka, Simo-Serra, Ishikawa (2017)",
)
@pytest.mark.parametrize("mended", [True, False])
@pytest.mark.parametrize("order", ["act_norm", "norm_act"])
def test_the_three_phases_are_the_published_ones(mended: bool, order: str) -> None:
    recipe = GLCIC(
        completion_steps=2, discriminator_steps=2, order=order, **TINY, **({} if mended else GLCIC.as_published)
    )
    system = system_of(recipe)
    theirs = WrittenOut(system, mended=mended)
    for index, phase in enumerate((1, 1, 2, 2, 3, 3, 3)):
        losses = [loss.item() for loss in losses_of(step(system, recipe, index))]
        torch.testing.assert_close(losses, theirs.step(phase, batch_of(recipe, index)))
    for ours, expected in ((system.generator, theirs.c), (system.discriminator, theirs.d)):
        for (name, a), b in zip(ours.state_dict().items(), expected.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8, msg=name)


def test_the_paper_saturates() -> None:
    recipe = GLCIC(completion_steps=0, discriminator_steps=0, saturating=True, **TINY)
    loss = step(system_of(recipe), recipe)["adversarial_loss"]
    assert loss < 0 and math.isfinite(loss)  # log(1 - D)


def test_each_phase_leaves_the_other_network_alone() -> None:
    recipe = GLCIC(completion_steps=1, discriminator_steps=1, **TINY)
    system = system_of(recipe)

    def changed(index: int) -> set[str]:
        before = {k: v.clone() for k, v in system.state_dict().items()}
        step(system, recipe, index)
        return {k.split(".")[0] for k, v in system.state_dict().items() if not torch.equal(v, before[k])}

    assert [changed(index) for index in range(3)] == [{"generator"}, {"discriminator"}, {"generator", "discriminator"}]


@pytest.mark.parametrize("count", [6, 7])
@pytest.mark.parametrize("phase", [0, 1, 2])
def test_parts_give_the_gradient_of_the_whole_batch(phase: int, count: int) -> None:
    """Where the norms are fixed; in training each part is normalised by itself."""
    recipe = GLCIC(completion_steps=1, discriminator_steps=1, **{**TINY, "batch_size": count})
    whole = system_of(recipe)
    parted, summed = copy.deepcopy(whole), copy.deepcopy(whole)
    parted.recipe = replace(recipe, micro_batch=3)
    summed.recipe = replace(recipe, micro_batch=3, divide_gradients=False)
    gradients = {}
    for name, system in (("whole", whole), ("parted", parted), ("summed", summed)):
        for module in system.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        kept = gradients[name] = []
        for optimizer in system.optimizers.values():
            optimizer.register_step_pre_hook(
                lambda o, *_, kept=kept: kept.extend(p.grad.clone() for g in o.param_groups for p in g["params"])
            )
        losses = step(system, recipe, phase)
        gradients[name + " losses"] = losses_of(losses)
    torch.testing.assert_close(gradients["parted"], gradients["whole"], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(gradients["parted losses"], gradients["whole losses"])
    assert len(gradients["summed"]) == len(gradients["whole"]) > 0
    if count == 6 and phase < 2:  # two equal parts; in phase 3 the discriminators' step changes the rest
        expected = [2 * gradient for gradient in gradients["whole"]]
        torch.testing.assert_close(gradients["summed"], expected, rtol=1e-6, atol=1e-9)


def test_running_statistics_move_once_a_batch_also_in_parts() -> None:
    recipe = GLCIC(completion_steps=0, discriminator_steps=0, micro_batch=2, **TINY)
    system = system_of(recipe)
    step(system, recipe)
    assert system.generator.layer1[2].num_batches_tracked == 2  # two parts, each seen twice and counted once


def test_the_rate_settles_at_a_tenth() -> None:
    recipe = GLCIC(completion_steps=4, discriminator_steps=0, settle=2, **TINY)
    system, rates = system_of(recipe), []
    for index in range(6):
        step(system, recipe, index)
        rates.append(system.optimizers["generator"].param_groups[0]["lr"])
    assert rates == pytest.approx([1, 1, 1, 0.55, 0.1, 0.1])
    assert system.optimizers["discriminator"].param_groups[0]["lr"] == 1


def test_at_rest_the_completion_network_does_not_move() -> None:
    recipe = GLCIC(completion_steps=0, discriminator_steps=5, **TINY)
    for still in (True, False):
        system = system_of(replace(recipe, still_completion=still))
        before = system.generator.layer1[2].running_mean.clone()
        step(system, recipe)
        assert torch.equal(system.generator.layer1[2].running_mean, before) == still
        assert system.generator.training


def test_a_run_shows_each_phase_and_its_networks_load(tmp_path) -> None:
    recipe = GLCICSmall(steps=5, completion_steps=2, discriminator_steps=1, evaluate_every=100, **TINY)
    folder = train(recipe, tmp_path / "run", progress=False)
    pictures = sorted(path.name for path in (folder / "pictures").iterdir())
    assert pictures == [f"step_00000{index}.png" for index in (0, 2, 3, 5)]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [{key for key in row if key.endswith("_loss")} for row in rows]
    joint = {"discriminator_loss", "reconstruction_loss", "adversarial_loss"}
    assert losses == [set(), {"reconstruction_loss"}, {"discriminator_loss"}, joint]
    assert 0.1 < rows[3]["adversarial_loss"] < 10  # not multiplied by alpha
    network = load_network(folder)
    assert isinstance(network, CompletionNetwork) and network.hole == 18
    torch.testing.assert_close(network.mean_pixel, torch.tensor([0.4, 0.5, 0.6]))
    assert isinstance(load_network(folder, kind="discriminator"), ContextDiscriminator)


def test_a_run_goes_on_where_its_state_was_taken() -> None:
    recipe = GLCICSmall(completion_steps=1, discriminator_steps=1, steps=4, **TINY)
    first, second = Run(recipe), Run(recipe)
    for _ in range(2):
        first.step(first.batches[first.steps_done])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for run in (first, second):
        for _ in range(2):
            run.step(run.batches[run.steps_done])
    for (name, a), b in zip(first.system.state_dict().items(), second.system.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_training_on_a_batch_lowers_its_error() -> None:
    run = Run(GLCICSmall(**{**TINY, "channels": 8}, completion_steps=40, settle=0))
    batch = run.batches[0]
    losses = [run.step(batch)["reconstruction_loss"].item() for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]


def test_mean_pixel_is_of_rgb_pictures_grey_ones_too(tmp_path) -> None:
    from inpaint_fast.data import ImageFolder

    Image.new("L", (3, 5), 51).save(tmp_path / "grey.png")
    Image.new("RGB", (9, 4), (255, 0, 102)).save(tmp_path / "colour.png")
    assert mean_pixel(ImageFolder(tmp_path)) == pytest.approx([0.6, 0.1, 0.3])
    assert mean_pixel(ImageFolder(tmp_path), limit=1) == pytest.approx([1, 0, 0.4])
    recipe = GLCICSmall(data=str(tmp_path), **{**TINY, "mean_pixel": None, "batch_size": 2})
    system = Run(recipe).system
    expected = mean_pixel(Run(recipe).images)
    torch.testing.assert_close(system.generator.mean_pixel, torch.tensor(expected))
    assert system.arguments["generator"]["mean_pixel"] == expected


def test_published_sizes() -> None:
    celeba, places2 = GLCIC(), GLCICPlaces2()
    assert (celeba.size, celeba.local, celeba.hole, celeba.edge) == (160, 96, (48, 96), (160, 178))
    assert (places2.size, places2.local, places2.hole, places2.edge) == (256, 128, (96, 128), (256, 384))
    assert (celeba.milestones, celeba.steps, celeba.alpha) == ((90_000, 100_000), 500_000, 4e-4)
    batch = replace(celeba, batch_size=2).batches(samples())[0]
    assert batch.image.shape == (2, 3, 160, 160) and isinstance(celeba.batches(samples()), ContextBatches)


def test_the_phases_are_told_as_far_as_the_run_goes() -> None:
    assert phases(GLCIC()) == (
        "trains to step 90,000 the completion network, to step 100,000 the discriminators, to step 500,000 both"
    )
    assert phases(GLCIC(steps=20)) == "trains to step 20 the completion network"
    assert phases(GLCIC(steps=20, completion_steps=0, discriminator_steps=0)) == "trains to step 20 both"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"size": 66}, "size: a multiple of 4.*66"),
        ({"local": 38}, "local: a multiple of 4.*38"),
        ({"local": 68}, "hole, local and size.*68"),
        ({"hole": (10, 44)}, "hole, local and size.*44"),
        ({"hole": (9, 8)}, "hole, local and size.*9, 8"),
        ({"micro_batch": 0}, "micro_batch: at least 1.*0"),
        ({"completion_steps": -1}, "completion_steps: at least 0.*-1"),
    ],
)
def test_wrong_settings_are_named(setting, words) -> None:
    with pytest.raises(ValueError, match=words):
        GLCICSmall(**setting)
