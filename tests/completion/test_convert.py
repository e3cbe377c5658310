"""Public weights in and out; and every kind of file that is none."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections import OrderedDict

import pytest
import torch
from torch import nn

from inpaint_fast.cli.main import main
from inpaint_fast.completion import WeightsError, load_network, save_network
from inpaint_fast.completion.convert import from_public, read_state_dict, to_public
from inpaint_fast.models import CompletionNetwork, ContextDiscriminator, UNetGenerator
from inpaint_fast.models.glcic import public_names

PIXEL = [0.25, 0.5, 0.75]


def public(network: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a network, random, by their public names."""
    own = network.state_dict()
    return {name: torch.rand_like(own[key].float()).to(own[key].dtype) for name, key in public_names(network).items()}


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return public(CompletionNetwork(4))


def saved(tensors: object, path) -> str:
    torch.save(tensors, path)
    return str(path)


@pytest.mark.parametrize("order", ["act_norm", "norm_act"])
@pytest.mark.parametrize("zip_file", [True, False])
def test_completion_network_there_and_back(tensors, tmp_path, order, zip_file) -> None:
    source, middle, back = tmp_path / "cn.pth", tmp_path / "cn.safetensors", tmp_path / "back.pth"
    torch.save(tensors, source, _use_new_zipfile_serialization=zip_file)  # False: as files were before torch 1.6
    from_public(source, middle, order=order, mean_pixel=PIXEL, hole=64)
    network = load_network(middle)
    assert isinstance(network, CompletionNetwork) and network.hole == 64 and network.mean_pixel.tolist() == PIXEL
    assert type(network.layer3[1]) is (nn.ReLU if order == "act_norm" else nn.BatchNorm2d)
    to_public(middle, back)
    again = torch.load(back, weights_only=True)
    assert list(again) == list(tensors)
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("sizes", [(96, 160), (128, 256)])
def test_discriminator_there_and_back(tmp_path, sizes) -> None:
    tensors = public(ContextDiscriminator(*sizes, 4, 8))
    source, middle, back = tmp_path / "cd.pth", tmp_path / "cd.safetensors", tmp_path / "back.pth"
    network = from_public(saved(tensors, source), middle)
    assert (network.local_branch.size, network.global_branch.size) == sizes
    to_public(middle, back)
    again = torch.load(back, weights_only=True)
    assert list(again) == list(tensors) and all(torch.equal(again[name], tensors[name]) for name in tensors)


def test_old_files_have_no_counts_of_batches(tensors, tmp_path) -> None:
    old = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    assert len(old) == 98
    network = from_public(saved(old, tmp_path / "old.pth"), tmp_path / "out.safetensors", mean_pixel=PIXEL)
    assert network.layer1[2].num_batches_tracked == 0
    assert torch.equal(network.layer1[0].weight, tensors["conv1.weight"])


WRAPPED = {
    "DataParallel": lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()},
    "torch.compile": lambda tensors: {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()},
    "both": lambda tensors: {f"_orig_mod.module.{name}": tensor for name, tensor in tensors.items()},
    "a larger module": lambda tensors: {f"net.generator.{name}": tensor for name, tensor in tensors.items()},
    "compiled in part": lambda tensors: {name.replace(".w", "._orig_mod.w"): value for name, value in tensors.items()},
    "state_dict": lambda tensors: {"state_dict": tensors, "epoch": 3, "optimizer": {"state": {0: {"step": PIXEL}}}},
    "model": lambda tensors: {"model": {f"module.{name}": tensor for name, tensor in tensors.items()}, "best": 0.5},
    "deep": lambda tensors: {"checkpoint": {"ema": OrderedDict(tensors), "lr": 1e-3}, "names": ["a"]},
    "beside its optimizer": lambda tensors: {
        "net": tensors,
        "optimizer": {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(4)}}, "param_groups": []},
    },
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_what_people_save_is_taken(tensors, tmp_path, kind) -> None:
    source = saved(WRAPPED[kind](tensors), tmp_path / "cn.pth")
    network = from_public(source, tmp_path / "out.safetensors", mean_pixel=PIXEL)
    own = network.state_dict()
    assert all(torch.equal(own[ours], tensors[name]) for name, ours in public_names(network).items())


def test_a_wrapped_discriminator(tmp_path) -> None:
    tensors = public(ContextDiscriminator(96, 160, 2, 4))
    for wrap in (WRAPPED["DataParallel"], WRAPPED["a larger module"], WRAPPED["model"]):
        network = from_public(saved(wrap(tensors), tmp_path / "cd.pth"), tmp_path / "out.safetensors")
        own = network.state_dict()
        assert all(torch.equal(own[ours], tensors[name]) for name, ours in public_names(network).items())


def test_one_of_several_networks_is_named(tensors, tmp_path, capsys) -> None:
    other = {name: tensor + 1 for name, tensor in tensors.items()}
    source = saved({"model": tensors, "ema": {"module": other}}, tmp_path / "cn.pth")
    target = tmp_path / "out.safetensors"
    with pytest.raises(WeightsError, match=r"several networks: model, ema.module; name one.*--entry"):
        from_public(source, target, mean_pixel=PIXEL)
    with pytest.raises(WeightsError, match=r"entry: 'emma' is no .*model, ema.module"):
        from_public(source, target, mean_pixel=PIXEL, entry="emma")
    assert torch.equal(
        from_public(source, target, mean_pixel=PIXEL, entry="ema.module").layer1[0].weight, other["conv1.weight"]
    )
    assert main(["convert", source, "--out", str(target), "--entry", "model", "--mean-pixel", *map(str, PIXEL)]) == 0
    with pytest.raises(WeightsError, match="twice"):
        from_public(saved({**tensors, "module.conv1.weight": torch.zeros(1)}, tmp_path / "t.pth"), target)


def test_a_runs_folder_goes_back(tmp_path) -> None:
    network = CompletionNetwork(4, mean_pixel=PIXEL)
    (tmp_path / "run").mkdir()
    save_network(tmp_path / "run" / "generator.safetensors", network, {"channels": 4, "mean_pixel": PIXEL})
    assert main(["convert", str(tmp_path / "run"), "--out", str(tmp_path / "back.pth")]) == 0
    assert torch.equal(read_state_dict(tmp_path / "back.pth")["conv1.weight"], network.layer1[0].weight)


OTHERS = {
    b"<!DOCTYPE html><html>please sign in</html>": "an HTML page",
    b"\n <HTML>": "an HTML page",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 24\n": "a Git LFS pointer.*git lfs pull",
    b"\x1f\x8b\x08\x00": "a gzip archive",
    b'{"message": "Not Found"}': "not a whole PyTorch file, it begins otherwise",
    b"Entry not found": "not a whole PyTorch file",
    b"\x89HDF\r\n": "an HDF5 file",
}


@pytest.mark.parametrize("content", OTHERS)
def test_what_was_downloaded_instead_is_called_by_its_name(tmp_path, content) -> None:
    (tmp_path / "cn.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=f"cn.pth: {OTHERS[content]}") as caught:
        from_public(tmp_path / "cn.pth", tmp_path / "out.safetensors", mean_pixel=PIXEL)
    assert "code" not in str(caught.value)


def test_a_zip_archive_of_something_else(tensors, tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "cn.pth", "w") as archive:
        archive.writestr("weights/cn.pth", "inside")
    with pytest.raises(WeightsError, match="a zip archive to unpack, of weights/cn.pth"):
        read_state_dict(tmp_path / "cn.pth")
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "cn.pth")
    with pytest.raises(WeightsError, match="a TorchScript program"):
        read_state_dict(tmp_path / "cn.pth")


def test_the_mean_pixel_comes_from_the_configuration_beside_the_file(tensors, tmp_path) -> None:
    source, target = saved(tensors, tmp_path / "cn.pth"), tmp_path / "out.safetensors"
    with pytest.raises(WeightsError, match="mean pixel.*no config.json.*--mean-pixel"):
        from_public(source, target)
    (tmp_path / "config.json").write_text(json.dumps({"mpv": PIXEL, "alpha": 4e-4}))
    assert from_public(source, target).mean_pixel.tolist() == PIXEL
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="mpv"):
        from_public(source, target)
    with pytest.raises(WeightsError, match="mean_pixel.*117"):
        from_public(source, target, mean_pixel=(117, 104, 123))


class Trap:
    """A pickle that leaves a file where it is loaded carelessly."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("how", ["torch", "legacy", "pickle"])
def test_code_in_a_pickle_is_refused_and_does_not_run(tensors, tmp_path, how) -> None:
    trap, source = tmp_path / "sprung", tmp_path / "cn.pth"
    content = {**tensors, "conv1.weight": Trap(str(trap))}
    if how == "pickle":
        source.write_bytes(pickle.dumps(Trap(str(trap))))
    else:
        torch.save(content, source, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(WeightsError, match=r"cn\.pth: refused.*code"):
        from_public(source, tmp_path / "out.safetensors", mean_pixel=PIXEL)
    assert not trap.exists() and not (tmp_path / "out.safetensors").exists()


def test_a_whole_model_instead_of_its_state_dict_is_refused(tmp_path) -> None:
    with pytest.raises(WeightsError, match="refused.*state_dict"):
        read_state_dict(saved(nn.Linear(2, 2), tmp_path / "model.pth"))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.99])
@pytest.mark.parametrize("zip_file", [True, False])
def test_a_truncated_file_is_named(tensors, tmp_path, share, zip_file) -> None:
    source = tmp_path / "cn.pth"
    torch.save(tensors, source, _use_new_zipfile_serialization=zip_file)
    whole = source.read_bytes()
    source.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(WeightsError, match=r"cn\.pth: (not a whole PyTorch file|refused)"):
        from_public(source, tmp_path / "out.safetensors", mean_pixel=PIXEL)


def test_other_files_are_named(tensors, tmp_path) -> None:
    def error(content: object) -> str:
        with pytest.raises(WeightsError) as caught:
            from_public(saved(content, tmp_path / "cn.pth"), tmp_path / "out.safetensors", mean_pixel=PIXEL)
        assert not (tmp_path / "out.safetensors").exists()
        return str(caught.value)

    assert "lacks conv5.bias" in error({k: v for k, v in tensors.items() if k != "conv5.bias"})
    assert "lacks conv1.weight" in error({k: v for k, v in tensors.items() if k != "conv1.weight"})
    assert "holds extra.weight" in error({**tensors, "extra.weight": torch.zeros(1)})
    wrong = error({**tensors, "bn3.weight": torch.zeros(9)})
    assert "bn3.weight" in wrong and "(8,)" in wrong and "(9,)" in wrong
    assert "channels" in error({**tensors, "conv1.weight": torch.zeros(3, 4, 5, 5)})
    assert "too few dimensions" in error({**tensors, "conv1.weight": torch.tensor(1.0)})
    assert "neither" in error({"weight": torch.zeros(1)})
    assert "got Tensor" in error(torch.zeros(3))
    assert "'epoch' is int" in error({**tensors, "epoch": 3})
    discriminator = public(ContextDiscriminator(96, 160, 2, 4))
    assert "model_gd.conv1.weight" in error({k: v for k, v in discriminator.items() if "gd." not in k})
    assert "model_ld.linear6" in error({**discriminator, "model_ld.linear6.weight": torch.zeros(4, 7)})
    with pytest.raises(WeightsError, match="no such file"):
        from_public(tmp_path / "nothing.pth", tmp_path / "out.safetensors")


def test_only_networks_with_public_names_go_back(tmp_path) -> None:
    source = tmp_path / "generator.safetensors"
    save_network(source, UNetGenerator(2), {"filters": 2})
    with pytest.raises(WeightsError, match="UNetGenerator.*CompletionNetwork or ContextDiscriminator"):
        to_public(source, tmp_path / "out.pth")


def test_command_line(tensors, tmp_path, capsys) -> None:
    source, middle = saved(tensors, tmp_path / "cn.pth"), str(tmp_path / "generator.safetensors")
    assert main(["convert", source, "--out", middle, "--mean-pixel", "0.25", "0.5", "0.75"]) == 0
    assert "CompletionNetwork" in capsys.readouterr().out
    assert main(["convert", middle, "--out", str(tmp_path / "back.pth")]) == 0
    assert "0.250000, 0.500000, 0.750000" in capsys.readouterr().out
    for arguments, words in (
        ([source, "--out", middle.replace("safetensors", "bin")], ".safetensors file is expected"),
        ([middle, "--out", middle], ".pth file is expected"),
        ([source, "--out", str(tmp_path / "x.safetensors")], "mean pixel"),
    ):
        assert main(["convert", *arguments]) == 2
        assert words in capsys.readouterr().err
