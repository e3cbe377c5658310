"""Every recipe, in small: it trains on the samples, resumes bit for bit, keeps what it needs; some for longer."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from training.each_recipe import EACH_RECIPE, few_critic_steps

from inpaint_fast._files import write_whole_folder
from inpaint_fast.cli.recipes import sizes
from inpaint_fast.completion import WeightsError, complete, load_network
from inpaint_fast.completion.weights import checkpoints
from inpaint_fast.data import center_square, load_caption_encoder, read_image, samples
from inpaint_fast.models import CentreGenerator, CompletionNetwork
from inpaint_fast.training import RECIPES, Run, train
from inpaint_fast.training.checkpoints import fill_checkpoint, read_checkpoint

SMALL = {
    "filters": 8, "critic_filters": 8, "code": 8, "width": 4, "autoencoder_steps": 1, "batch_size": 4, "vector": 8,
    "heldout_crops": 1, "heldout_pictures": 6, "evaluate_every": 2, "completion_steps": 1, "discriminator_steps": 1,
    "channels": 2, "discriminator_channels": 2, "features": 4,
}  # fmt: skip
SMALL_PICTURES = {"size": 32, "local": 20, "hole": (8, 18), "edge": None}


def small(name: str, **settings):
    """The recipe with its networks made small, and its pictures where their size is a setting."""
    known = {field.name for field in fields(RECIPES[name])}
    settings = SMALL | few_critic_steps(name) | (SMALL_PICTURES if "size" in known else {}) | settings
    return RECIPES[name](**{key: value for key, value in settings.items() if key in known})


@pytest.mark.parametrize("name", EACH_RECIPE)
def test_it_trains_and_its_generator_is_kept(name: str, tmp_path) -> None:
    recipe = small(name, steps=4)
    folder = train(recipe, tmp_path / "run", progress=False)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == sorted({0, 2, 4, *recipe.milestones})
    assert all(value is not None and math.isfinite(value) for row in rows for value in row.values())
    for path in folder.glob("*.safetensors"):
        if path.stem != "sentence_vectors":
            load_network(folder, kind=path.stem)
    generator = load_network(folder)
    if not isinstance(generator, CentreGenerator | CompletionNetwork):
        assert {"sharpness", "diversity"} <= rows[-1].keys()
        return
    assert rows[-1]["ring_mean_psnr"] > 0
    picture = read_image(samples("heldout").paths[0])
    mask = center_square(*picture.shape[1:], 40)
    caption = {"caption": "a red flower"} if generator.reads_captions else {}
    first, second = (complete(picture, mask, weights=folder, **caption) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(first[:, ~mask[0]], picture[:, ~mask[0]])
    assert (load_caption_encoder(folder) is not None) == generator.reads_captions


EACH_FLOAT32 = [pytest.param(*each.values, "float32", marks=each.marks) for each in EACH_RECIPE]


@pytest.mark.proves(
    "every recipe",
    equals="an undisturbed run, after it was stopped: networks, optimizers, draws",
    within="bit for bit",
)
@pytest.mark.parametrize(
    ("name", "precision"),
    [*EACH_FLOAT32, ("unet_wgan", "fp16"), ("latent_gan", "fp16"), ("glcic_small", "bf16")],
)
def test_a_resumed_run_goes_on_bit_for_bit(name: str, precision: str, tmp_path) -> None:
    def go(run: Run, count: int) -> None:
        for index in range(run.steps_done, run.steps_done + count):
            run.step(run.batches[index])

    settings = {
        "real_noise": (1.0, 0.1), "real_noise_steps": 3, "lr_decay": 0.9, "autoencoder_steps": 2, "settle": 1,
        "ema": 0.9, "lr_schedule": "cosine", "warmup": 3, "precision": precision,
    }  # fmt: skip
    settings |= {"completion_steps": 0, "discriminator_steps": 1, "clear_gradients": False}  # some are left for later
    straight = Run(small(name, **settings))
    go(straight, 2)
    resumed = Run(small(name, **settings))
    state = straight.state_dict()
    write_whole_folder(tmp_path / "step", lambda folder: fill_checkpoint(folder, straight.system, state))
    resumed.load_state_dict(read_checkpoint(tmp_path / "step"))
    assert tensors(straight.system.optimizers) == tensors(resumed.system.optimizers)
    go(straight, 2)
    go(resumed, 2)
    theirs = dict(resumed.system.learned())
    for key, value in straight.system.learned():
        assert torch.equal(value, theirs.pop(key)), key
    assert not theirs and straight.system.counts() == resumed.system.counts()
    assert straight.system.training_state().keys() == resumed.system.training_state().keys()


def tensors(optimizers: dict[str, torch.optim.Optimizer]) -> list[tuple]:
    """Every state's numbers and how they lie in memory."""
    layouts = (torch.contiguous_format, torch.channels_last)
    return [
        (
            name,
            key,
            *(value.is_contiguous(memory_format=each) for each in layouts[: 1 + (value.dim() == 4)]),
            value.flatten().tolist(),
        )
        for name, optimizer in optimizers.items()
        for state in optimizer.state.values()
        for key, value in state.items()
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_as_published_and_sizes(name: str) -> None:
    recipe = RECIPES[name](**RECIPES[name].as_published)
    assert all(getattr(recipe, key) == value for key, value in recipe.as_published.items())
    assert recipe.source and all(count > 0 for count in sizes(recipe).values())
    assert list(sizes(recipe))[0] == "generator"


@pytest.mark.proves("every recipe", equals="the published sizes of whole systems", within="exactly")
def test_published_sizes_of_whole_systems() -> None:
    def of(name: str, **settings) -> dict[str, int]:
        return sizes(RECIPES[name](**settings))

    assert of("context_cnn") == {"generator": 8_894_615}
    assert of("context_cnn_bow1") == {"generator": 9_713_815 + 757_700}
    assert of("context_wgan") == {"generator": 8_894_615, "critic": 2_117_633}
    assert of("context_gan") == {"generator": 8_894_615, "critic": 2_114_561}
    assert of("latent_gan") == {
        "generator": 4_398_052 + 4_609_475, "decoder": 14_504_067, "critic": 19_538_817,
    }  # fmt: skip
    assert of("mlp_gan") == {"generator": 1_486_352, "critic": 1_460_225}
    assert of("dcgan") == {"generator": 3_576_704, "critic": 2_765_568}
    assert of("glcic") == {"generator": 6_072_131, "discriminator": 39_557_121}
    assert of("glcic_places2") == {"generator": 6_072_131, "discriminator": 45_063_681}


@pytest.mark.parametrize("prefill", ["zero", "mean", "noise", "gaussian_noise", "harmonic"])
def test_every_prefill(prefill: str, tmp_path) -> None:
    for name in ("unet_l2", "context_cnn", "conv_autoencoder"):
        folder = train(small(name, steps=1, prefill=prefill), tmp_path / name, progress=False)
        assert load_network(folder).prefill == prefill


def test_a_run_starts_from_the_networks_of_another(tmp_path, capsys) -> None:
    def same(run: Run, source: Path, kind: str) -> bool:
        weights, network = load_network(source, kind=kind).state_dict(), getattr(run.system, kind)
        return all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())

    cnn = train(small("context_cnn", steps=2), tmp_path / "cnn", progress=False)
    gan = train(small("context_gan", steps=1, init=str(cnn)), tmp_path / "gan")
    assert f"context_gan: starts from generator of {cnn}" in capsys.readouterr().out
    both = Run(small("context_gan", init=str(gan), seed=1))
    assert both.started_from == ["generator", "critic"]
    assert same(both, gan, "generator") and same(both, gan, "critic")
    one = Run(small("context_gan", init=str(gan / "generator.safetensors"), seed=1))
    assert one.started_from == ["generator"] and same(one, gan, "generator") and not same(one, gan, "critic")
    critic = Run(small("context_gan", init=str(checkpoints(gan)[-1] / "critic.safetensors"), seed=1))
    assert critic.started_from == ["critic"] and same(critic, gan, "critic")
    for path, words in (
        (cnn, "holds generator ContextCNN; generator UNetGenerator is expected"),
        (cnn / "generator.safetensors", "holds generator ContextCNN; generator UNetGenerator is expected"),
        (tmp_path, "holds no network; generator UNetGenerator is expected"),
        (tmp_path / "nowhere", "no such file"),
    ):
        with pytest.raises(WeightsError, match=words):
            Run(small("unet_l2", init=str(path)))
    with pytest.raises(WeightsError, match="shape .* is expected, got"):
        Run(small("context_gan", init=str(gan), filters=4))


def test_a_residual_network_on_the_harmonic_fill_starts_as_that_fill(tmp_path) -> None:
    recipe = small("context_cnn", steps=0, prefill="harmonic", residual=True, output="clip")
    row = json.loads((train(recipe, tmp_path / "run", progress=False) / "metrics.jsonl").read_text())
    assert row["psnr"] == pytest.approx(row["harmonic_psnr"], abs=1e-3)


LONGER = (pytest.param(name, marks=pytest.mark.long) for name in ("context_cnn_gru", "conv_autoencoder"))


@pytest.mark.parametrize("name", ["context_cnn", *LONGER])
def test_a_short_training_brings_the_heldout_error_down(name: str, tmp_path) -> None:
    settings = {"steps": 80, "batch_size": 8, "heldout_crops": 4, "evaluate_every": 1000}
    recipe = small(name, filters=16 if name == "conv_autoencoder" else 4, code=32, lr=3e-3, **settings)
    folder = train(recipe, tmp_path / "run", progress=False)
    with open(folder / "metrics.csv", newline="") as file:
        first, last = ({key: float(value or "nan") for key, value in row.items()} for row in csv.DictReader(file))
    assert last["l2"] < 0.95 * first["l2"]  # which is that of plain grey


WHOLE = {name: (name, {}) for name in RECIPES} | {"context_gan, a 0.5": ("context_gan", {"a": 0.5})}


@pytest.mark.long
@pytest.mark.parametrize(("name", "settings"), WHOLE.values(), ids=WHOLE)
def test_two_thousand_steps_without_a_number_that_is_none(name: str, settings: dict, tmp_path) -> None:
    """Networks of the published sizes, batches of 16; every step's measurements are in the means that are looked at."""
    if "completion_steps" in {field.name for field in fields(RECIPES[name])}:
        settings = settings | {"completion_steps": 800, "discriminator_steps": 200}
    recipe = RECIPES[name](steps=2000, batch_size=16, evaluate_every=100, heldout_crops=1, **settings)
    folder = train(recipe, tmp_path / "run")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 2000
    assert all(value is not None for row in rows for value in row.values())
    for path in folder.glob("*.safetensors"):
        if path.stem != "sentence_vectors":
            assert all(value.isfinite().all() for value in load_network(folder, kind=path.stem).state_dict().values())
