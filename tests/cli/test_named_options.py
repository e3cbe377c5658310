"""What is wrong with an option is said by the option's name, with what came and what is expected."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inpaint_fast.cli.main import main
from inpaint_fast.completion import load_network, save_network
from inpaint_fast.data import write_png
from inpaint_fast.models import CompletionNetwork
from inpaint_fast.training import RECIPES, UNetWGAN, train


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder with a file in it and weights beside it, where the test is."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("afile").write_text("somebody's own")
    save_network("../net.safetensors", CompletionNetwork(2), {"channels": 2})
    return tmp_path / "here"


HUGE = 10**15


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["train", "--resume", ""], "--resume: a path is expected after it, got nothing"),
        (["train", "--resume="], "--resume: a path is expected after it, got nothing"),
        (["train", "--config"], "--config: a path is expected after it, got nothing"),
        (["train", "--resume", "afile"], "--resume: the folder of a run is expected, got the file afile"),
        (["train", "unet_l2", "--out", "afile"], "out: a folder is expected, got afile, where a file is"),
        (["train", "unet_l2", "--out", "afile/run"], "out: a folder is expected, got afile/run, where a file is"),
        (["train", "unet_l2", "--seed", 10**21], f"seed: a whole number of 64 bits is expected, got {10**21}"),
        (["train", "unet_l2", "--lr", "nan"], "lr: a finite number is expected, got nan"),
        (["train", "unet_l2", "--lr", "inf"], "lr: a finite number is expected, got inf"),
        (["train", "unet_l2", "--lr", -1], "lr: a number of at least 0 is expected, got -1"),
        (["train", "unet_l2", "--betas", 0.5, "nan"], "betas: a finite number is expected, got (0.5, nan)"),
        (["train", "unet_l2", "--betas", 0.5, 1], "betas: two numbers from 0 to 1, 1 excluded, are expected"),
        (["train", "unet_l2", "--reconstruction-weight", "nan"], "reconstruction_weight: a finite number"),
        (["train", "unet_l2", "--reconstruction-weight", -1], "reconstruction_weight: a number of at least 0"),
        (["train", "unet_l2", "--heldout-crops", HUGE], f"heldout_crops: at most 65,536 pictures are expected, got {HUGE:,}"),  # noqa: E501
        (["train", "unet_l2", "--batch-size", HUGE], f"batch_size: at most 65,536 pictures are expected, got {HUGE:,}"),
        (["report", "run", "--out", "no/such/report.html"], "--out: no/such/report.html is to be written in a folder"),
        (["convert", "a.pth", "--out", "no/such/a.safetensors"], "--out: no/such/a.safetensors is to be written in a"),
        (["evaluate", "../net.safetensors", "--seed", 10**21], "--seed: a whole number of 64 bits is expected"),
        (["evaluate", "../net.safetensors", "--heldout-crops", HUGE], "--heldout-crops: 1 to 65,536 is expected"),
        (["evaluate", "../net.safetensors", "--heldout-crops", 0], "--heldout-crops: at least 1 is expected, got 0"),
    ],
)  # fmt: skip
def test_mistakes(here, command, words, capsys) -> None:
    code, error = main([str(word) for word in command]), capsys.readouterr().err
    assert code == 2 and words in error and error.count("\n") == 1
    assert [path.name for path in here.iterdir()] == ["afile"] and Path("afile").read_text() == "somebody's own"


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_refuses_a_rate_that_is_no_number(name) -> None:
    for setting in ("lr", "critic_lr", "autoencoder_lr"):
        if hasattr(RECIPES[name], setting):
            with pytest.raises(ValueError, match=f"{setting}: a finite number is expected, got nan"):
                RECIPES[name](**{setting: float("nan")})


@pytest.mark.parametrize(("option", "suffix"), [("--csv", "csv"), ("--json", "json"), ("--picture", "png")])
def test_evaluate_writes_over_its_own_files_alone(here, option, suffix, capsys) -> None:
    def evaluate() -> int:
        tiny = ["--heldout-crops", "1", "--heldout-pictures", "1", "--device", "cpu"]
        return main(["evaluate", "../net.safetensors", "--size", "32", *tiny, option, f"o.{suffix}"])

    file = Path(f"o.{suffix}")
    for others in (b"size,mine\n", b'{"rows": []}', None):
        if others is None:
            write_png(file, torch.zeros(3, 4, 4, dtype=torch.uint8))
        else:
            file.write_bytes(others)
        before = file.read_bytes()
        assert evaluate() == 2 and file.read_bytes() == before
        assert f"{option}: o.{suffix} is none that this command wrote" in capsys.readouterr().err
    file.unlink()
    file.symlink_to("nowhere")
    assert evaluate() == 2 and file.is_symlink()
    file.unlink()
    file.touch()  # as mktemp leaves it
    for _ in range(2):
        assert evaluate() == 0 and file.stat().st_size


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt"])
def test_weights_of_pytorch_are_told_how_to_become_ones(here, suffix, capsys) -> None:
    write_png("a.png", torch.zeros(3, 9, 9, dtype=torch.uint8))
    torch.save({"weight": torch.zeros(3)}, f"my glcic{suffix}")
    assert main(["complete", "a.png", "--box", "1", "1", "3", "3", "--weights", f"my glcic{suffix}"]) == 2
    error = capsys.readouterr().err
    assert f"inpaint-fast convert 'my glcic{suffix}' --out 'my glcic'.safetensors" in error
    assert "a safetensors file is expected" in error


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (torch.no_grad, "torch.no_grad"),
        (torch.inference_mode, "torch.inference_mode"),
        (lambda: torch.autocast("cpu", torch.bfloat16), "torch.autocast"),
    ],
)
def test_train_is_called_in_no_mode_of_pytorch(here, mode, words) -> None:
    with mode(), pytest.raises(RuntimeError, match=f"train: it is called under {words}"):
        train(UNetWGAN(), "run")
    assert not Path("run").exists()


def test_train_is_called_with_float32_for_the_default(here) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(RuntimeError, match="set_default_dtype.torch.float64"):
            train(UNetWGAN(), "run")
    finally:
        torch.set_default_dtype(torch.float32)
    assert not Path("run").exists() and load_network("../net.safetensors") is not None
