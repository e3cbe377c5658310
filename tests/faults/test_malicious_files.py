"""Files that would run code where somebody loads them trustingly: refused by every reader, and nothing has run."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support import times

from inpaint_fast.cli import main as cli
from inpaint_fast.completion import load_network, save_network
from inpaint_fast.completion.convert import read_state_dict
from inpaint_fast.data import SentenceVectors, Vocabulary, read_image
from inpaint_fast.data.layouts import CAPTIONS_DICTIONARY, read_captions
from inpaint_fast.models import UNetGenerator
from inpaint_fast.training import UNetL2, read_recipe, train

ERRORS = (ValueError, OSError, TypeError)  # with words of ours; never what a payload raises


class Call:
    """A pickle that calls this where it is loaded."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.called = function, arguments

    def __reduce__(self) -> tuple:
        return self.called


def touch(canary: Path) -> str:
    return f"__import__('pathlib').Path({str(canary)!r}).touch()"


def zipped(pickled: bytes, name: str = "archive/data.pkl") -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as records:
        records.writestr(name, pickled)
        records.writestr("archive/version", "3\n")
    return content.getvalue()


def legacy_tar(canary: Path) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as records:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            data = pickle.dumps(Call(eval, touch(canary)), 2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            records.addfile(info, io.BytesIO(data))
    return content.getvalue()


def torchscript(canary: Path) -> bytes:
    content = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), content)
    return content.getvalue()


def saved(content: object, **settings: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **settings)
    return file.getvalue()


def safetensors_naming(name: str) -> bytes:
    header = json.dumps({"__metadata__": {"network": name, "arguments": json.dumps({"filters": name})}}).encode()
    return len(header).to_bytes(8, "little") + header


def objects(canary: Path) -> bytes:
    content = io.BytesIO()
    np.save(content, np.array([Call(eval, touch(canary))], dtype=object), allow_pickle=True)
    return content.getvalue()


def opcode(canary: Path) -> bytes:
    return b"cposix\nsystem\n(V" + f"touch {canary}".encode() + b"\ntR."


PAYLOADS: dict[str, Callable[[Path], bytes]] = {
    "os.system by its opcode": opcode,
    "builtins.eval, protocol 2": lambda canary: pickle.dumps(Call(eval, touch(canary)), 2),
    "builtins.exec, protocol 5": lambda canary: pickle.dumps({"a": Call(exec, touch(canary))}, 5),
    "torch.save of eval": lambda canary: saved({"conv.weight": Call(eval, touch(canary))}),
    "the same, as before torch 1.6": lambda canary: saved(
        [Call(exec, touch(canary))], _use_new_zipfile_serialization=False
    ),
    "getattr of a module": lambda canary: pickle.dumps(Call(getattr, Call(__import__, "os"), "system"), 2),
    "a zip in a zip": lambda canary: zipped(zipped(pickle.dumps(Call(eval, touch(canary))))),
    "a zip with a foreign pickle": lambda canary: zipped(pickle.dumps(Call(eval, touch(canary))), "other/data.pkl"),
    "a legacy tar": legacy_tar,
    "a TorchScript archive": torchscript,
    "an array of objects": objects,
    "safetensors that name a module": lambda canary: safetensors_naming("os.system"),
    "safetensors that name an expression": lambda canary: safetensors_naming(touch(canary)),
    "JSON of objects": lambda canary: json.dumps({"py/reduce": ["builtins.eval", touch(canary)]}).encode(),
    "TOML that names a module": lambda canary: f"recipe = 'os.system'\n[settings]\ndata = {touch(canary)!r}".encode(),
    "Python": lambda canary: f"{touch(canary)}\n".encode(),
}  # fmt: skip


def readers(path: Path) -> dict[str, Callable[[], object]]:
    return {
        "load_network": lambda: load_network(path),
        "read_state_dict": lambda: read_state_dict(path),
        "read_recipe": lambda: read_recipe(path),
        "read_image": lambda: read_image(path),
        "Vocabulary.load": lambda: Vocabulary.load(path),
        "SentenceVectors.load": lambda: SentenceVectors.load(path),
    }


SUFFIXES = (".pth", ".safetensors", ".png", ".json", ".toml", ".pkl")


@pytest.mark.parametrize("payload", PAYLOADS)
def test_every_reader_refuses(payload: str, tmp_path) -> None:
    canary = tmp_path / "canary"
    content = PAYLOADS[payload](canary)
    for suffix in SUFFIXES:
        path = tmp_path / f"file{suffix}"
        path.write_bytes(content)
        for name, read in readers(path).items():
            if payload == "a TorchScript archive" and name == "read_state_dict":
                continue  # tensors alone may be taken from it, below
            with pytest.raises(ERRORS) as refused:
                read()
            assert str(refused.value), name
        assert not canary.exists()


def test_a_torchscript_archive_is_not_run(tmp_path) -> None:
    path = tmp_path / "scripted.pth"
    path.write_bytes(torchscript(path))
    with pytest.raises(ERRORS, match="scripted.pth"):
        read_state_dict(path)


@pytest.mark.parametrize("payload", list(PAYLOADS)[:: times(3, 1)])
def test_commands_refuse_in_a_sentence(payload: str, tmp_path, capsys) -> None:
    canary, path = tmp_path / "canary", tmp_path / "file.pth"
    path.write_bytes(PAYLOADS[payload](canary))
    (tmp_path / "captions").mkdir()
    for command in (
        ["convert", str(path), "--out", str(tmp_path / "out.safetensors")],
        ["evaluate", str(path)],
        ["train", "--config", str(path), "--out", str(tmp_path / "run")],
        ["train", "unet_l2", "--init", str(path), "--out", str(tmp_path / "run"), "--steps", "1"],
        ["train", "--resume", str(path)],
    ):
        assert cli.main(command) not in (0, None), command
        said = capsys.readouterr()
        assert said.err.strip() and "Traceback" not in said.err, (command, said.err)
        assert not canary.exists() and not (tmp_path / "out.safetensors").exists(), command


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    recipe = UNetL2(
        steps=1, evaluate_every=1, batch_size=2, filters=2, heldout_crops=1, heldout_pictures=1, accelerate=False
    )
    return train(recipe, tmp_path_factory.mktemp("runs") / "run", progress=False)


@pytest.mark.parametrize("payload", list(PAYLOADS)[:: times(6, 1)])
def test_in_the_place_of_each_file_of_a_run(payload: str, run: Path, tmp_path, capsys) -> None:
    canary = tmp_path / "canary"
    checkpoint = next(path for path in sorted(run.glob("checkpoints/step_*"), reverse=True))
    for file in [run / "config.toml", *sorted(checkpoint.iterdir())]:
        shutil.copytree(run, tmp_path / "run")
        (tmp_path / "run" / file.relative_to(run)).write_bytes(PAYLOADS[payload](canary))
        cli.main(["train", "--resume", str(tmp_path / "run"), "--steps", "2"])
        said = capsys.readouterr()
        assert "Traceback" not in said.err and not canary.exists(), (file, said.err)
        shutil.rmtree(tmp_path / "run")


def test_captions_refuse(tmp_path) -> None:
    for payload, make in PAYLOADS.items():
        canary = tmp_path / "canary"
        (tmp_path / CAPTIONS_DICTIONARY).write_bytes(make(canary))
        with pytest.raises(ERRORS):
            read_captions(tmp_path)
        assert not canary.exists(), payload


def test_what_is_no_payload_loads(tmp_path) -> None:
    save_network(tmp_path / "good.safetensors", UNetGenerator(2), {"filters": 2})
    assert isinstance(load_network(tmp_path / "good.safetensors"), UNetGenerator)
