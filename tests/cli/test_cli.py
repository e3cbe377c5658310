"""The command line as a user types it: exit codes, one-sentence errors, files written."""

from __future__ import annotations

import pytest
import torch

from inpaint_fast.cli.main import COMMANDS, main
from inpaint_fast.completion import FILLS, save_network
from inpaint_fast.data import box, read_image, samples, write_png
from inpaint_fast.models import UNetGenerator
from inpaint_fast.training import RECIPES


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "run"
    folder.mkdir()
    save_network(folder / "generator.safetensors", UNetGenerator(2), {"filters": 2})
    return str(folder)


def run(*arguments: object) -> int:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argument parsing leaves this way
        return int(stop.code or 0)


def test_usage_names_every_command(capsys) -> None:
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)
    assert run() == 2
    assert run("nonsense") == 2
    assert "nonsense" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["complet"], "did you mean complete?"),
        (["train", "unet_wgann"], "did you mean unet_wgan?"),
        (["recipes", "glicic"], "did you mean glcic?"),
        (["bench", "masked_l1"], "did you mean masked_l2?"),
        (["evaluate", "run", "--heldout-crop", "1"], "--heldout-crops"),
        (["train", "dcgan", "--as-publishd"], "--as-published"),
        (["evaluate", "run", "--mask", "centre"], "center"),
    ],
)
def test_what_was_meant_is_asked(words, meant, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert run(*words) == 2
    assert meant in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys) -> None:
    assert run(command, "--help") == 0
    assert capsys.readouterr().out.strip()


def test_help_is_running_text(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert run("complete", "--help") == 0
    assert (
        "or the mean colour of the pixels round all holes of the picture" in capsys.readouterr().out
    )  # two lines of the source
    assert run("train", "glcic_places2", "--help") == 0
    text = capsys.readouterr().out
    assert "all holes of a batch inside one random square" in text  # of an inherited setting
    assert "a multiple of 4. (default: 256)" in text  # of one with another default


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_field_of_a_recipe_can_be_set(recipe, capsys) -> None:
    from dataclasses import fields

    assert run("train", recipe, "--help") == 0
    text = capsys.readouterr().out
    for setting in fields(RECIPES[recipe]):
        assert "--" + setting.name.replace("_", "-") in text


def test_info(capsys) -> None:
    assert run("info") == 0
    text = capsys.readouterr().out
    assert "masked_l2" in text and torch.__version__ in text and "runs" in text


def test_train_then_evaluate_then_complete(tmp_path, capsys) -> None:
    out = tmp_path / "trained"
    tiny = ["--steps", 2, "--filters", 2, "--batch-size", 2, "--heldout-crops", 1, "--evaluate-every", 1]
    assert run("train", "unet_l2", "--data", "samples", "--out", out, *tiny) == 0
    assert run("evaluate", out, "--heldout-crops", 2, "--picture", tmp_path / "grid.png") == 0
    assert "harmonic" in capsys.readouterr().out and (tmp_path / "grid.png").exists()
    photograph = samples("heldout").paths[0]
    completed = tmp_path / "completed.png"
    assert run("complete", photograph, "--box", 30, 40, 50, 60, "--weights", out, "--out", completed) == 0
    before, after = read_image(photograph), read_image(completed)
    known = ~box(*before.shape[1:], 30, 40, 50, 60)[0]
    assert torch.equal(before[:, known], after[:, known])


def test_glcic_from_training_to_a_blended_picture(tmp_path, capsys) -> None:
    out, completed = tmp_path / "trained", tmp_path / "completed.png"
    tiny = "--size 32 --local 20 --hole 8 18 --channels 2 --discriminator-channels 2 --features 4 --batch-size 2"
    phases = "--completion-steps 1 --discriminator-steps 1 --steps 3 --heldout-crops 1"
    assert run("train", "glcic_small", "--out", out, *tiny.split(), *phases.split()) == 0
    assert run("evaluate", out, "--size", 32, "--mask", "rectangle", "--heldout-crops", 1) == 0
    assert "harmonic" in capsys.readouterr().out
    photograph = samples("heldout").paths[0]
    arguments = [photograph, "--box", 30, 40, 50, 60, "--weights", out, "--out", completed]
    assert run("complete", *arguments, "--blend") == 0
    before, after = read_image(photograph), read_image(completed)
    known = ~box(*before.shape[1:], 30, 40, 50, 60)[0]
    assert torch.equal(before[:, known], after[:, known]) and not torch.equal(before, after)
    assert run("complete", *arguments, "--caption", "a red flower") == 2
    assert "CompletionNetwork reads none" in capsys.readouterr().err


@pytest.mark.parametrize("fill", [*FILLS, "mean"])
def test_a_fill_needs_no_weights(fill, tmp_path) -> None:
    photograph, completed = samples("heldout").paths[0], tmp_path / "completed.png"
    assert run("complete", photograph, "--box", 30, 40, 50, 6, "--fill", fill, "--out", completed) == 0
    picture = read_image(photograph)
    expected = FILLS.get(fill, FILLS["ring_mean"])(picture[None], box(*picture.shape[1:], 30, 40, 50, 6)[None])[0]
    assert torch.equal(read_image(completed), expected)


def test_weights_or_a_fill(weights, tmp_path, capsys) -> None:
    arguments = ["complete", samples("heldout").paths[0], "--box", 3, 4, 5, 6, "--out", tmp_path / "completed.png"]
    assert run(*arguments, "--weights", weights, "--fill", "harmonic") == 2
    assert "--weights and --fill: one of them is expected, got both" in capsys.readouterr().err
    assert run(*arguments, "--fill", "harmonic", "--caption", "a flower") == 2
    assert "--caption" in capsys.readouterr().err
    assert run(*arguments, "--fill", "harmonic", "--adapt", 20) == 2
    assert "--adapt: --fill harmonic learns nothing" in capsys.readouterr().err
    assert run(*arguments, "--weights", weights, "--adapt", 20) == 2
    assert "adapt: a CompletionNetwork or" in capsys.readouterr().err
    assert not (tmp_path / "completed.png").exists()


def test_evaluate_names_what_a_network_of_central_holes_takes(weights, capsys) -> None:
    assert run("evaluate", weights, "--mask", "free_form") == 2
    assert "UNetGenerator takes 64 and center" in capsys.readouterr().err


def test_a_captioned_generator_from_the_shell(tmp_path, capsys) -> None:
    out = tmp_path / "trained"
    tiny = ["--steps", 1, "--filters", 2, "--code", 4, "--batch-size", 2, "--heldout-crops", 1]
    assert run("train", "context_cnn_gru", "--data", "samples", "--out", out, *tiny) == 0
    assert (out / "vocabulary.json").exists()
    assert run("evaluate", out, "--heldout-crops", 1) == 0
    photograph = samples("heldout").paths[0]
    arguments = ["complete", photograph, "--box", 30, 40, 50, 60, "--weights", out, "--out", tmp_path / "done.png"]
    assert run(*arguments) == 2
    assert "caption" in capsys.readouterr().err
    assert run(*arguments, "--caption", "a red flower") == 0
    (out / "vocabulary.json").unlink()
    assert run("evaluate", out, "--heldout-crops", 1) == 2
    assert "vocabulary" in capsys.readouterr().err


def test_what_makes_pictures_from_nothing_completes_none(tmp_path, capsys) -> None:
    out = tmp_path / "digits"
    assert run("train", "mlp_gan", "--steps", 1, "--width", 2, "--batch-size", 2, "--out", out) == 0
    assert "diversity" in capsys.readouterr().out
    photograph = samples("heldout").paths[0]
    assert run("complete", photograph, "--box", 1, 1, 9, 9, "--weights", out, "--out", tmp_path / "done.png") == 2
    assert run("evaluate", out) == 2
    assert capsys.readouterr().err.count("MLPGenerator") == 2


def test_recipes_are_listed_with_source_sizes_and_settings(capsys) -> None:
    assert run("recipes") == 0
    text = capsys.readouterr().out
    assert all(f"{name}: " in text for name in RECIPES)
    assert "generator 8,894,615 parameters, critic 2,117,633 parameters" in " ".join(text.split())
    assert run("recipes", "dcgan") == 0
    text = capsys.readouterr().out
    assert "Radford" in text and "betas 0.5 0.999" in text and "batch_size 128" in text
    assert run("recipes", "nothing") == 2


def test_the_rmsprop_run_of_the_wasserstein_critic_is_the_one_its_help_gives(tmp_path, capsys) -> None:
    assert run("train", "context_wgan", "--help") == 0
    words = capsys.readouterr().out.replace("│", " ").split()
    start = words.index("--optimizer")
    settings = words[start : words.index("0.001", words.index("--clip-penalty")) + 1]
    tiny = ["--batch-size", 2, "--steps", 1, "--filters", 2, "--code", 4, "--critic-filters", 2, "--heldout-crops", 1]
    assert run("train", "context_wgan", *settings, *tiny, "--out", tmp_path / "run") == 0
    assert "[-0.02, 0.02]" in capsys.readouterr().out
    text = (tmp_path / "run" / "config.toml").read_text()
    assert 'critic_optimizer = "rmsprop"' in text and 'critic = "v4_deep"' in text and "lr_decay = 0.99" in text


def test_as_published(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert run("train", "context_cnn", "--as-published", "--help") == 0
    assert "(default: 512)" in capsys.readouterr().out
    assert run("train", "context_cnn", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: 32)" in text and "--as-published" in text
    for recipe, expected in (("unet_wgan", not RECIPES["unet_wgan"].as_published), ("context_cnn", False)):
        assert run("train", recipe, "--as-published", "--help") == 0
        assert ("--as-published changes nothing" in capsys.readouterr().out) == expected


def test_a_single_picture_is_not_called_held_out(tmp_path, weights, capsys) -> None:
    (tmp_path / "one").mkdir()
    write_png(tmp_path / "one" / "a.png", torch.randint(0, 256, (3, 70, 70), dtype=torch.uint8))
    tiny = ["--steps", 0, "--filters", 2, "--batch-size", 1, "--heldout-crops", 1]
    assert run("train", "unet_l2", "--data", tmp_path / "one", "--out", tmp_path / "trained", *tiny) == 0
    assert run("evaluate", weights, "--data", tmp_path / "one", "--heldout-crops", 1) == 0
    assert capsys.readouterr().out.count("none is held out") == 3


def test_complete_a_folder_with_one_bad_file_and_a_mask_each(tmp_path, weights, capsys) -> None:
    pictures, masks = tmp_path / "pictures", tmp_path / "masks"
    for folder in (pictures / "deep", masks / "deep"):
        folder.mkdir(parents=True)
    for name in ("a", "deep/b", "c"):
        write_png(pictures / f"{name}.png", torch.randint(0, 256, (3, 70, 80), dtype=torch.uint8))
    (pictures / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    for name in ("a", "deep/b"):
        write_png(masks / f"{name}.png", box(70, 80, 5, 5, 20, 30).to(torch.uint8) * 255)
    write_png(masks / "c.png", torch.zeros(1, 9, 9, dtype=torch.uint8))
    out = tmp_path / "out"
    assert run("complete", pictures, "--mask", masks, "--weights", weights, "--out", out) == 1
    errors = capsys.readouterr().err
    assert "bad.jpg" in errors and "c.png" in errors and "Traceback" not in errors
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png")) == ["a.png", "deep/b.png"]


def test_pictures_that_differ_in_their_suffix_alone_keep_apart(tmp_path, weights) -> None:
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (70, 70), "red").save(folder / "a.png")
    Image.new("RGB", (70, 70), "blue").save(folder / "a.jpg")
    out = tmp_path / "out"
    assert run("complete", folder, "--box", 1, 1, 9, 9, "--weights", weights, "--out", out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["a.jpg.png", "a.png.png"]


def test_nothing_is_ever_written_over(tmp_path, weights, capsys) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a", "b"):
        write_png(folder / f"{name}.png", torch.randint(0, 256, (3, 70, 70), dtype=torch.uint8))
    mask = tmp_path / "mask.png"
    write_png(mask, box(70, 70, 5, 5, 9, 9).to(torch.uint8) * 255)
    (folder / "c.jpg").write_bytes((folder / "a.png").read_bytes())
    (folder / "c.png").write_bytes(b"cannot be read")
    before = {path: path.read_bytes() for path in (*folder.iterdir(), mask)}
    for arguments in (
        (folder / "a.png", "--out", folder),
        (folder, "--out", folder),
        (folder / "a.png", "--out", mask),
    ):
        assert run("complete", *arguments, "--mask", mask, "--weights", weights) == 2
        assert "written over" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in before}


def test_the_mask_is_the_one_of_that_very_name(tmp_path, weights, capsys) -> None:
    pictures, masks, out = (tmp_path / name for name in ("pictures", "masks", "out"))
    pictures.mkdir(), masks.mkdir()
    picture = torch.randint(0, 256, (3, 70, 70), dtype=torch.uint8)
    for name in ("photo", "b[1]"):
        write_png(pictures / f"{name}.png", picture)
        write_png(masks / f"{name}.png", box(70, 70, 40, 40, 9, 9).to(torch.uint8) * 255)
    write_png(masks / "photo.1.png", box(70, 70, 5, 5, 9, 9).to(torch.uint8) * 255)
    assert run("complete", pictures, "--mask", masks, "--weights", weights, "--out", out) == 0
    known = ~box(70, 70, 40, 40, 9, 9)[0]
    for name in ("photo", "b[1]"):
        assert torch.equal(read_image(out / f"{name}.png")[:, known], picture[:, known])
    (masks / "photo.jpg").write_bytes((masks / "photo.png").read_bytes())
    assert run("complete", pictures / "photo.png", "--mask", masks, "--weights", weights, "--out", tmp_path / "o") == 2
    assert "one mask" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["complete", "nowhere.png", "--box", "1", "1", "5", "5"], "nowhere.png"),
        (["complete", "PICTURE"], "--mask or --box"),
        (["complete", "PICTURE", "--box", "300", "1", "500", "5"], "left"),
        (["complete", "PICTURE", "--box", "1", "1", "5", "5", "--out", "x.jpg"], "only PNG"),
        (["complete", "PICTURE", "--mask", "nomask.png"], "nomask.png"),
        (["complete", "PICTURE", "--box", "1", "1", "5", "5", "--device", "cuda:77"], "device"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(arguments, words, weights, capsys) -> None:
    arguments = [str(samples("heldout").paths[0]) if word == "PICTURE" else word for word in arguments]
    assert run(*arguments, "--weights", weights) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


def test_a_folder_that_cannot_be_written_is_named(tmp_path, weights, capsys) -> None:
    picture, target = samples("heldout").paths[0], tmp_path / "nowhere" / "crops.png"
    assert run("evaluate", weights, "--heldout-crops", 1, "--picture", target) == 2
    assert str(target) in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert (
        run("complete", picture, "--box", 1, 1, 5, 5, "--weights", weights, "--out", tmp_path / "file" / "o.png") == 2
    )
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_a_damaged_vocabulary_is_named(tmp_path, weights, capsys) -> None:
    file = tmp_path / "run" / "vocabulary.json"
    for text in ("", "{", "[]", '{"words": ["dog"]}', '{"length": 3, "words": 4}', '{"length": "3", "words": []}'):
        file.write_text(text)
        assert run("complete", samples("heldout").paths[0], "--box", 1, 1, 5, 5, "--weights", weights) == 2
        assert str(file) in capsys.readouterr().err


def test_more_mistakes(tmp_path, capsys) -> None:
    assert run("evaluate", tmp_path, "--heldout-pictures", 0) == 2
    assert "--heldout-pictures: at least 1" in capsys.readouterr().err
    assert run("train", "unet_what") == 2
    assert run("train", "unet_l2", "--lr", "fast") == 2
    assert run("train", "unet_l2", "--data", tmp_path / "nowhere", "--out", tmp_path / "run") == 2
    assert run("evaluate", tmp_path / "nothing") == 2
    assert run("bench", "nothing") == 2
    assert "Traceback" not in capsys.readouterr().err


def test_bench_names_what_it_can_run(capsys) -> None:
    assert run("bench", "--help") == 0
    stems = capsys.readouterr().out.partition("benchmarks: ")[2].partition("   ")[0].split(", ")
    assert "masked_l2" in stems
    for stem in stems:
        assert run("bench", stem, "--help") == 0
        assert capsys.readouterr().out.startswith(f"usage: inpaint-fast bench {stem} ")


def test_bench_lists_its_cases(capsys) -> None:
    assert run("bench", "masked_l2", "--list") == 0
    assert "train_16x3x256x256" in capsys.readouterr().out


def test_a_hole_larger_than_the_demonstrations_pictures_is_said_before_training(tmp_path, capsys) -> None:
    assert run("demo", "--hole", 1000, "--out", tmp_path / "demo") == 2
    assert "hole" in capsys.readouterr().err and not (tmp_path / "demo").exists()


def test_demo_in_a_second(tmp_path, capsys) -> None:
    assert run("demo", "--seconds", 1, "--out", tmp_path / "demo") == 0
    text = capsys.readouterr().out
    assert "unet_wgan" in text and "harmonic" in text
    assert (tmp_path / "demo" / "crops.png").exists() and (tmp_path / "demo" / "photographs.png").exists()
