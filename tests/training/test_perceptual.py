"""FID, KID and LPIPS with random weights of the right shapes; without the extra or the weights, what is missing."""

from __future__ import annotations

import pickle
import sys

import pytest
import torch
from torch import nn

from inpaint_fast.cli.main import main
from inpaint_fast.completion import WeightsError
from inpaint_fast.training.perceptual import ALEXNET, INCEPTION, Perceptual

CPU = torch.device("cpu")
LAYERS = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}


def alexnet(folder) -> dict[str, torch.Tensor]:
    """Random features of AlexNet and a part of its classifier, which is not read, in the published file's form."""
    tensors = {"classifier.6.bias": torch.zeros(1000)}
    for layer, (channels, inputs, side) in LAYERS.items():
        weight = nn.init.kaiming_normal_(torch.empty(channels, inputs, side, side))
        tensors |= {f"features.{layer}.weight": weight, f"features.{layer}.bias": torch.zeros(channels)}
    torch.save(tensors, folder / ALEXNET)
    return tensors


def extra(module: str):
    """A module of the extra; the test is skipped where it, or the torchvision under it, cannot be imported."""
    try:
        return pytest.importorskip(module, reason="the extra [metrics] is not installed")
    except RuntimeError as error:
        pytest.skip(f"{module} cannot be imported: {error}")


def test_lpips_is_that_of_the_package_with_these_weights(tmp_path) -> None:
    lpips = extra("lpips")
    tensors = alexnet(tmp_path)
    theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    for name, parameter in theirs.net.named_parameters():
        parameter.data.copy_(tensors[f"features.{name.partition('.')[2]}"])
    truth = torch.rand(40, 3, 64, 64)  # more than go through at once
    completed = (truth + 0.1 * torch.randn_like(truth)).clamp(0, 1)
    measure = Perceptual(["lpips"], tmp_path, CPU)
    with torch.no_grad():
        expected = theirs(completed, truth, normalize=True).mean().item()
    assert measure(completed, truth) == {"lpips": pytest.approx(expected, rel=1e-5)} and expected > 0.01
    assert measure(truth, truth) == {"lpips": 0}


@pytest.mark.long
def test_fid_and_kid_of_the_same_and_of_other_pictures(tmp_path, monkeypatch) -> None:
    inception = extra("torch_fidelity.feature_extractor_inceptionv3")
    network = inception.FeatureExtractorInceptionV3.__new__(inception.FeatureExtractorInceptionV3)
    with monkeypatch.context() as patched:  # its constructor wants weights
        patched.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
        patched.setattr(nn.Module, "load_state_dict", lambda *_: None)
        network.__init__("inception", ["2048"])
    for name, parameter in network.named_parameters():
        if "conv.weight" in name:
            nn.init.kaiming_normal_(parameter)
    torch.save(network.state_dict(), tmp_path / INCEPTION)
    measure = Perceptual(["kid", "fid"], tmp_path, CPU)
    truth = torch.rand(6, 3, 32, 32)
    same, other = measure(truth, truth), measure(1 - truth.square(), truth)
    assert list(same) == ["kid", "fid"]
    assert abs(same["fid"]) < 1e-3 * other["fid"] and same["kid"] < other["kid"] and other["fid"] > 0
    with pytest.raises(ValueError, match="2 pictures"):
        measure(truth[:1], truth[:1])


def test_what_is_missing_is_named(tmp_path, monkeypatch, capsys) -> None:
    with pytest.raises(WeightsError, match=f"{ALEXNET}.*no such file; it is published at https://"):
        Perceptual(["lpips"], tmp_path, CPU)
    with pytest.raises(ValueError, match="metrics: one of 'fid', 'kid', 'lpips' is expected, got 'psnr'"):
        Perceptual(["psnr"], tmp_path, CPU)
    alexnet(tmp_path)
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(ImportError, match=r"lpips is not installed: pip install 'inpaint_fast\[metrics\]'"):
        Perceptual(["lpips"], tmp_path, CPU)
    assert main(["evaluate", str(tmp_path), "--metrics", "lpips"]) == 2
    assert "--metrics and --metrics-weights" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "file"), [("fid", INCEPTION), ("lpips", ALEXNET)])
def test_a_file_that_holds_code_is_refused_and_not_run(name, file, tmp_path) -> None:
    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    (tmp_path / file).write_bytes(pickle.dumps(Harm(), protocol=2))
    with pytest.raises(WeightsError, match=file):
        Perceptual([name], tmp_path, CPU)
    assert not (tmp_path / "harm").exists()


def test_weights_of_another_network_are_named(tmp_path) -> None:
    extra("lpips")
    torch.save({"features.0.weight": torch.zeros(3, 3), "classifier.0.bias": torch.zeros(1)}, tmp_path / ALEXNET)
    with pytest.raises(WeightsError, match=f"{ALEXNET}.*lacks features.0.bias"):
        Perceptual(["lpips"], tmp_path, CPU)
