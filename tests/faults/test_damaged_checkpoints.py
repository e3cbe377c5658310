"""Checkpoints that are cut short or whose bits flip: refused with a reason; the one before is taken, which is said."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import times

from inpaint_fast.cli import main as cli
from inpaint_fast.completion import WeightsError, load_network
from inpaint_fast.completion.weights import DamagedCheckpoint, checkpoints, newest
from inpaint_fast.training import UNetWGAN, train
from inpaint_fast.training.checkpoints import read_checkpoint

TINY = {"filters": 2, "critic_filters": 2, "critic_steps": 1, "batch_size": 2, "heldout_crops": 1, "accelerate": False}
TRUNCATIONS, FLIPS = times(4, 64), times(20, 1000)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a run that is over, with the checkpoints of the steps 1 and 2."""
    recipe = UNetWGAN(steps=2, evaluate_every=1, heldout_pictures=1, **TINY)
    folder = train(recipe, tmp_path_factory.mktemp("runs") / "run", progress=False)
    for checkpoint in checkpoints(folder)[:-2]:
        shutil.rmtree(checkpoint)
    return folder


@contextmanager
def damaged(path: Path, data: bytes) -> Iterator[None]:
    """Inside, the file holds this."""
    whole = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(whole)


def expect_the_one_before(run: Path, what: str) -> None:
    """A run would go on from the checkpoint before the newest, and says so."""
    with pytest.warns(DamagedCheckpoint, match="step_000002: .*step_000001 is taken in its place"):
        state = newest(run, read_checkpoint)
    assert state["run"]["steps_done"] == 1, what
    with pytest.raises(WeightsError):
        read_checkpoint(checkpoints(run)[-1])


def test_cut_short(run: Path) -> None:
    """Each file, at each 64th of its length where the whole is run."""
    for path in sorted(checkpoints(run)[-1].iterdir()):
        whole = path.read_bytes()
        for i in range(TRUNCATIONS):
            with damaged(path, whole[: len(whole) * i // TRUNCATIONS]):
                expect_the_one_before(run, f"{path.name} cut at {i}/{TRUNCATIONS}")


def test_bits_that_flip(run: Path) -> None:
    """Anywhere in the checkpoint, each as likely as another; and as many again in its JSON alone."""
    draws, files = random.Random(0), sorted(checkpoints(run)[-1].iterdir())
    places = [(path, bit) for path in files for bit in range(8 * path.stat().st_size)]
    chosen = draws.sample(places, FLIPS)
    chosen += draws.sample([place for place in places if place[0].suffix == ".json"], FLIPS)
    for path, bit in chosen:
        flipped = bytearray(path.read_bytes())
        flipped[bit // 8] ^= 1 << bit % 8
        with damaged(path, bytes(flipped)):
            expect_the_one_before(run, f"bit {bit} of {path.name}")


def test_the_networks_of_a_run_are_read_from_the_one_before(run: Path, tmp_path) -> None:
    other = shutil.copytree(run, tmp_path / "run")
    network = checkpoints(other)[-1] / "generator.safetensors"
    data = bytearray(network.read_bytes())
    data[-3] ^= 1
    network.write_bytes(bytes(data))
    with pytest.warns(DamagedCheckpoint, match="generator.safetensors is damaged.*step_000001 is taken in its place"):
        found = load_network(other)
    before = load_network(checkpoints(other)[0])
    assert all(value.equal(before.state_dict()[name]) for name, value in found.state_dict().items())
    with pytest.raises(WeightsError, match="generator.safetensors is damaged"):
        load_network(checkpoints(other)[-1])
    load_network(other, kind="critic")  # of the newest, whose critic is whole
    # From the shell it is a sentence, without the line of code that has it.
    assert cli._formatted(DamagedCheckpoint("a\x1b, b is taken"), DamagedCheckpoint, "weights.py", 1) == (
        "inpaint-fast: a\\x1b, b is taken\n"
    )


def test_a_run_goes_on_from_the_one_before_and_puts_the_other_aside(run: Path, tmp_path) -> None:
    other = shutil.copytree(run, tmp_path / "run")
    rows = (other / "metrics.jsonl").read_text().splitlines()
    (checkpoints(other)[-1] / "training.safetensors").write_bytes(b"")
    recipe = UNetWGAN(steps=2, evaluate_every=1, heldout_pictures=1, **TINY)
    with pytest.warns(DamagedCheckpoint):
        train(recipe, other, resume=True, progress=False)
    assert [path.name for path in checkpoints(other)] == ["step_000001", "step_000002"]
    assert (other / "checkpoints" / "damaged_step_000002").is_dir()
    for kind in ("generator", "critic"):
        networks = [load_network(folder, kind=kind).state_dict() for folder in (run, other)]
        assert all(value.equal(networks[1][name]) for name, value in networks[0].items())
    again = (other / "metrics.jsonl").read_text().splitlines()
    assert len(again) == len(rows) == 3 and again[:2] == rows[:2]


def test_where_all_are_damaged_nothing_is_touched(run: Path, tmp_path) -> None:
    other = shutil.copytree(run, tmp_path / "run")
    for checkpoint in checkpoints(other):
        (checkpoint / "training.json").write_bytes(b"{}")
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    recipe = UNetWGAN(steps=2, evaluate_every=1, heldout_pictures=1, **TINY)
    with pytest.raises(WeightsError, match="step_000002: training.json is damaged"):
        train(recipe, other, resume=True, progress=False)
    assert before == {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}


@pytest.mark.parametrize("missing", ["manifest.json", "training.json", "training.safetensors", "critic.safetensors"])
def test_a_checkpoint_that_lacks_a_file_is_none(missing: str, run: Path, tmp_path) -> None:
    other = shutil.copytree(run, tmp_path / "run")
    (checkpoints(other)[-1] / missing).unlink()
    with pytest.warns(DamagedCheckpoint, match=f"step_000002: .*{missing}"):
        assert newest(other, read_checkpoint)["run"]["steps_done"] == 1
