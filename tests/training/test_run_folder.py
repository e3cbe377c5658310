"""A run's folder has one owner, and what is saved in it is of one moment, however the run ends."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from inpaint_fast import _files
from inpaint_fast._files import own_folder, sweep_parts, write_whole, write_whole_folder
from inpaint_fast.completion import WeightsError, load_network, save_network
from inpaint_fast.completion.weights import checkpoints
from inpaint_fast.data import load_caption_encoder
from inpaint_fast.models import UNetGenerator
from inpaint_fast.training import ContextCNNBow1, UNetL2, UNetWGAN, train
from inpaint_fast.training.records import Records

TINY = {"filters": 2, "batch_size": 2, "heldout_crops": 1, "heldout_pictures": 1, "accelerate": False}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a run that is over."""
    recipe = UNetWGAN(steps=1, critic_steps=1, critic_filters=2, **TINY)
    return train(recipe, tmp_path_factory.mktemp("runs") / "run", progress=False)


# ---- the owner ----


KEPT = [
    "metrics.jsonl", "generator.safetensors", "critic.safetensors", "config.toml", "vocabulary.json",
    "checkpoints/step_000100", "pictures/step_000000.png",
]  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_a_folder_that_holds_a_run_weights_or_files_of_such_names_is_left_alone(name: str, tmp_path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("somebody's")
    with pytest.raises(FileExistsError, match=f"holds a run already, or weights .{name}"):
        Records(tmp_path, UNetL2(**TINY))
    left = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert left == [name] and (tmp_path / name).read_text() == "somebody's"


def test_a_finished_run_is_refused_and_other_files_are_no_hindrance(run: Path, tmp_path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file()}
    (run / "checkpoints" / ".0123.part").mkdir()  # of one that was killed
    with pytest.raises(FileExistsError, match="holds a run already"):
        train(UNetL2(steps=0, **TINY), run, progress=False)
    assert before == {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file()}
    assert not list(run.rglob("*.part"))
    (tmp_path / "log.txt").write_text("of `> run/log.txt`")
    Records(tmp_path, UNetL2(**TINY)).close()


def test_a_folder_that_is_being_written_names_its_owner(tmp_path) -> None:
    records = Records(tmp_path, UNetL2(**TINY))
    with pytest.raises(FileExistsError, match=f"is being written by process {os.getpid()} on "):
        Records(tmp_path, UNetL2(**TINY))
    records.close()
    # It died, as it were, before it had saved anything: the same command is welcome again, and sweeps.
    (tmp_path / ".0123.part").write_text("half")
    (tmp_path / "checkpoints" / ".4567.part").mkdir()
    Records(tmp_path, UNetL2(**TINY)).close()
    assert not list(tmp_path.rglob("*.part"))


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(OSError, match="locks no files.*another one"):
        own_folder(tmp_path)


# ---- checkpoints ----


def test_networks_are_saved_as_one_set_and_the_generator_once_more(run: Path) -> None:
    before, checkpoint = checkpoints(run)
    assert [before.name, checkpoint.name] == ["step_000000", "step_000001"]
    assert sorted(path.name for path in checkpoint.iterdir()) == [
        "critic.safetensors", "generator.safetensors", "manifest.json", "training.json", "training.safetensors",
    ]  # fmt: skip
    assert (run / "generator.safetensors").read_bytes() == (checkpoint / "generator.safetensors").read_bytes()
    for kind in ("generator", "critic"):
        for place in (run, checkpoint):
            assert type(load_network(place, kind=kind)).__name__ in ("UNetGenerator", "WassersteinCritic")
    with pytest.raises(WeightsError, match=r"step_000001.decoder\.safetensors: no such file"):
        load_network(run, kind="decoder")


def test_steps_are_ordered_as_numbers(tmp_path) -> None:
    for name in ("step_999999", "step_1000000", "step_000002", "step_best", "other"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert [path.name for path in checkpoints(tmp_path)] == ["step_000002", "step_999999", "step_1000000"]


def test_a_generator_of_another_moment_beside_the_checkpoints_is_an_error(run: Path, tmp_path) -> None:
    other = shutil.copytree(run, tmp_path / "run")
    save_network(other / "generator.safetensors", UNetGenerator(2), {"filters": 2})
    for kind in ("generator", "critic"):
        with pytest.raises(WeightsError, match=r"generator\.safetensors: it is the generator of no checkpoint"):
            load_network(other, kind=kind)
    load_network(other / "generator.safetensors")
    (other / "generator.safetensors").unlink()
    load_network(other)


def test_a_reader_goes_on_to_the_newer_checkpoint_where_the_older_goes_meanwhile(run: Path, tmp_path, monkeypatch):
    from inpaint_fast.completion import weights

    there, read = checkpoints(run), weights._read_file
    gone = [tmp_path / "checkpoints" / "step_000000"]
    answers = iter([gone, gone, there, there])
    monkeypatch.setattr(weights, "checkpoints", lambda _: next(answers, there))
    monkeypatch.setattr(weights, "_expect_one_of", lambda *_: None)
    seen = []
    monkeypatch.setattr(weights, "_read_file", lambda path, kind: (seen.append(path), read(path, kind))[1])
    load_network(run)
    assert [path.parent.name for path in seen] == ["step_000000", "step_000001"]


def test_captions_are_read_as_the_run_did_from_each_of_its_checkpoints(tmp_path) -> None:
    folder = train(ContextCNNBow1(steps=0, code=4, **TINY), tmp_path / "run", progress=False)
    (checkpoint,) = checkpoints(folder)
    for place in (folder, checkpoint, checkpoint / "generator.safetensors", folder / "generator.safetensors"):
        assert load_caption_encoder(place).words == load_caption_encoder(folder).words


# ---- files ----


def test_a_failure_names_the_file_and_leaves_nothing(tmp_path) -> None:
    target = tmp_path / "kept"
    target.write_text("old")

    def full(_: object) -> None:
        raise OSError(28, "No space left on device", "somewhere else")

    def other(_: object) -> None:
        raise OSError("encoder error -2")

    for write, words in ((full, r"No space left on device: '.*kept'"), (other, "kept: encoder error -2")):
        with pytest.raises(OSError, match=words):
            write_whole(target, write)
        with pytest.raises(OSError, match=words.replace("kept", "new")):
            write_whole_folder(tmp_path / "new", write)
    write_whole_folder(tmp_path / "folder", lambda part: (part / "a").write_text("1"))
    with pytest.raises(OSError, match="folder"):
        write_whole_folder(tmp_path / "folder", lambda part: (part / "a").write_text("2"))
    assert target.read_text() == "old" and (tmp_path / "folder" / "a").read_text() == "1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "kept"]


def test_names_are_on_the_disk_before_a_write_is_over(tmp_path, monkeypatch) -> None:
    done = []
    monkeypatch.setattr(_files.os, "replace", lambda *_, do=os.replace: (do(*_), done.append("renamed")))
    monkeypatch.setattr(_files, "_sync_folder", lambda folder: done.append(folder))
    write_whole(tmp_path / "a", lambda file: file.write(b"1"))
    assert done == ["renamed", tmp_path]


def test_sweeping_leaves_everything_else(tmp_path) -> None:
    for name in (".a.part", "deep/.b.part", "whole.part", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    sweep_parts(tmp_path)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == [".hidden", "deep", "whole.part"]
