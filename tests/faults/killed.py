"""Runs that are killed (SIGKILL): what is left of them is whole, loads, is of one moment, and goes on.

    python tests/faults/killed.py --kills 200

kills runs of seven recipes at so many random moments, all together, and goes on with each after each kill; in the end
it must be what it would have been undisturbed, bit for bit. It prints what it found and ends with exit code 1 if any of
it is bad. `crash_everywhere` kills a writer before each of its file operations in turn. All processes are forks of this
one, which has used no threads.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image

from inpaint_fast._files import sweep_parts
from inpaint_fast.completion import load_network
from inpaint_fast.completion.weights import checkpoints
from inpaint_fast.training import RECIPES, Recipe, train
from inpaint_fast.training.checkpoints import read_checkpoint
from inpaint_fast.training.records import Records

TINY = {"filters": 2, "critic_filters": 2, "critic_steps": 1, "batch_size": 2, "heldout_crops": 1, "device": "cpu"}
# BatchNorm counts the passes of each step: here the generator's and the critic's.
PASSES = {"generator": 2, "critic": 3}
SMALL = {"batch_size": 4, "heldout_crops": 1, "heldout_pictures": 1, "device": "cpu", "evaluate_every": 3}
PICTURES = {"size": 32, "local": 20, "hole": (8, 18), "edge": None, "heldout_pictures": 1}
NARROW = {"channels": 2, "discriminator_channels": 2, "features": 4}
RUNS = {
    "unet_wgan": TINY | {"evaluate_every": 1, "heldout_pictures": 1, "accelerate": False},
    "unet_l2": SMALL | {"filters": 24},  # wide enough for the fused operators to run
    "context_wgan": SMALL | {"filters": 4, "critic_filters": 4, "code": 8, "real_noise": (1.0, 0.1), "lr_decay": 0.9},
    "context_cnn_gru": SMALL | {"filters": 4, "code": 8, "caption_code": 8},  # captions
    "unet_wgan_caption": SMALL | {"filters": 4, "critic_filters": 4, "vector": 8},  # captions as sentence vectors
    # the second phase, and the third, begin within a dozen steps
    "latent_gan": SMALL | {"width": 4, "code": 8, "autoencoder_steps": 7},
    "glcic_small": SMALL | PICTURES | NARROW | {"completion_steps": 6, "discriminator_steps": 3, "settle": 4},
}


def recipe(name: str = "unet_wgan", steps: int = 100_000) -> Recipe:
    """A small run that saves after every step."""
    return RECIPES[name](steps=steps, checkpoint_every=1, **RUNS[name])


def fork(work: Callable[[], object]) -> int:
    """The process id of a child that does this work and ends with exit code 0, or 1 after an exception."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """The exit code of a child, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def steps_of(network: torch.nn.Module, kind: str) -> float:
    """How many steps a network of unet_wgan has made, by its own count of passes."""
    counts = [value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")]
    return counts[0].item() / PASSES[kind]


def faults(run: Path, passes: dict[str, int] | None = None) -> list[str]:
    """What is wrong with the folder of a run that was killed."""
    found = []

    def attempt(kind: str, read: Callable[[], object]) -> object:
        try:
            return read()
        except Exception as error:
            found.append(f"{kind}: {type(error).__name__}: {error}")
            return None

    saved = checkpoints(run)
    for each in saved:
        attempt("not to be resumed", lambda: read_checkpoint(each))  # noqa: B023
    if saved and passes:
        for where in (run, saved[-1]):
            networks = {kind: attempt("unloadable", lambda: load_network(where, kind=kind)) for kind in passes}  # noqa: B023
            if None not in networks.values():
                steps = {steps_of(network, kind) for kind, network in networks.items()} | {int(saved[-1].name[5:])}
                if len(steps) > 1:
                    found.append(f"mixed: {where} has networks of the steps {sorted(steps)}")
    if (generator := run / "generator.safetensors").exists():
        attempt("unloadable", lambda: load_network(generator))
    for path in (path for path in run.rglob("*.*") if path.is_file() and not path.name.endswith(".part")):
        if path.suffix == ".jsonl":
            rows = attempt("half-written", lambda: [json.loads(line) for line in path.read_text().splitlines()])  # noqa: B023
            if rows and not (saved and rows[-1]["step"] <= int(saved[-1].name[5:])):
                found.append(f"lost: a row of step {rows[-1]['step']} and no checkpoint of it")
        elif path.suffix == ".csv":
            attempt("half-written", lambda: list(csv.DictReader(path.read_text().splitlines(), strict=True)))  # noqa: B023
        elif path.suffix == ".png":
            attempt("half-written", lambda: Image.open(path).load())  # noqa: B023
        elif path.stat().st_size == 0 and path.name != "owner.txt":
            found.append(f"half-written: {path} is empty")
    sweep_parts(run)
    if left := [path for path in run.rglob("*.part")]:
        found.append(f"not swept: {left}")
    return found


def differences(run: Path, straight: Path) -> list[str]:
    """In what the folders of two runs that are over differ, the time that they took left out."""

    def untimed(state: object) -> object:
        if isinstance(state, dict):
            return {k: untimed(v) for k, v in state.items() if k not in ("seconds", "images_per_second", "health")}
        return [untimed(each) for each in state] if isinstance(state, list | tuple) else state

    def flat(state: object, path: str = "") -> dict[str, object]:
        if not isinstance(state, dict | list):
            return {path: state}
        items = state.items() if isinstance(state, dict) else enumerate(state)
        return {name: value for key, each in items for name, value in flat(each, f"{path}/{key}").items()}

    def differ(one: object, other: object) -> bool:
        if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
            return one.dtype != other.dtype or one.shape != other.shape or not torch.equal(one, other)
        return type(one) is not type(other) or one != other

    ours, theirs = (flat(untimed(read_checkpoint(checkpoints(each)[-1]))) for each in (run, straight))
    found = [f"in its state: {name}" for name in {**ours, **theirs} if differ(ours.get(name), theirs.get(name))]
    rows = [
        [untimed(json.loads(line)) for line in (each / "metrics.jsonl").read_text().splitlines()]
        for each in (run, straight)
    ]
    found += [] if rows[0] == rows[1] else ["in its rows"]
    for path in (straight / "pictures").iterdir():
        other = run / "pictures" / path.name
        if not other.exists() or other.read_bytes() != path.read_bytes():
            found.append(f"in its picture {path.name}")
    return found


def kill_at_random(name: str, kills: int, folder: Path, seed: int = 0) -> Counter[str]:
    """Kill a run at so many moments, go on with it each time, and compare the end with that of an undisturbed run."""
    moments, counts = random.Random(f"{name} {seed}"), Counter(killed=0, before_the_first_checkpoint=0, faults=0)
    run, straight = folder / name, folder / f"{name}_straight"
    for _ in range(kills):
        saved = checkpoints(run)
        child = fork(lambda: train(recipe(name), run, resume=bool(saved), progress=False))  # noqa: B023
        if moments.random() < 0.8:  # the others may die before they have saved anything
            while checkpoints(run) == saved:
                time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.6))
        os.kill(child, signal.SIGKILL)
        counts["killed"] += ended(child) == -signal.SIGKILL
        counts["before_the_first_checkpoint"] += not checkpoints(run)
        for fault in faults(run, PASSES if name == "unet_wgan" else None):
            counts["faults"] += 1
            print(f"{name}, kill {counts['killed']}: {fault}")
    steps = (int(checkpoints(run)[-1].name[5:]) if checkpoints(run) else 0) + 5
    last = recipe(name, steps)
    resume = bool(checkpoints(run))
    for out in (run, straight):
        if ended(fork(lambda: train(last, out, resume=resume and out == run, progress=False))):  # noqa: B023
            counts["faults"] += 1
            print(f"{name}: it does not go on")
            return counts
    for difference in differences(run, straight):
        counts["faults"] += 1
        print(f"{name}: unlike an undisturbed run {difference}")
    counts["steps"] = steps
    shutil.rmtree(run)
    shutil.rmtree(straight)
    return counts


def crash_everywhere(folder: Path) -> Counter[str]:
    """Kill a writer of a third checkpoint before its first file operation, its second, and so on to its last."""
    counts = Counter(operations=0, faults=0)
    torch.manual_seed(0)
    system = recipe().build()
    picture = torch.zeros(3, 4, 4, dtype=torch.uint8)

    def pass_to(records: Records, step: int) -> None:
        for kind, network in system.named_children():
            for name, value in network.state_dict().items():
                if name.endswith("num_batches_tracked"):
                    value.fill_(step * PASSES[kind])
        records.rows.append({"step": step, "psnr": 1.0, "l2": 1 / step})
        records.write_picture(step, picture)
        records.save(step, system, {"system": system.training_state(), "records": records.state_dict()})
        records.tidy()
        records.write_rows()

    def write(run: Path, last: int) -> None:
        records.folder, done = run, 0

        def hook(event: str, _: tuple) -> None:
            nonlocal done
            if event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"):
                done += 1
                if done > last:
                    os._exit(9)

        sys.addaudithook(hook)
        pass_to(records, 300)

    records = Records(folder / "before", recipe())
    pass_to(records, 100)
    pass_to(records, 200)
    code = 9
    while code == 9:
        run = Path(shutil.copytree(records.folder, folder / f"crash{counts['operations']}"))
        code = ended(fork(lambda: write(run, counts["operations"])))  # noqa: B023
        counts["operations"] += 1
        for fault in faults(run, PASSES):
            counts["faults"] += 1
            print(f"before operation {counts['operations']}: {fault}")
        shutil.rmtree(run)
    counts["faults"] += code != 0
    return counts


def start_at_once(folder: Path, processes: int = 8) -> int:
    """Let so many processes take one new folder at the same moment; how many of them got it."""
    run, start = folder / "shared", time.monotonic() + 0.3

    def take() -> None:
        time.sleep(max(0.0, start - time.monotonic()))
        records = Records(run, recipe())
        time.sleep(0.7)
        records.close()

    children = [fork(take) for _ in range(processes)]
    return sum(ended(child) == 0 for child in children)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--recipes", nargs="*", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--everywhere", action="store_true", help="the other two as well")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        results = {}
        for i, run in enumerate(options.recipes):
            kills = len(range(i, options.kills, len(options.recipes)))
            results[run] = kill_at_random(run, kills, Path(name))
            print(f"{run}: {', '.join(f'{count} {what}' for what, count in results[run].items())}", flush=True)
        results["together"] = sum(results.values(), Counter(faults=0))
        if options.everywhere:
            results["everywhere"] = crash_everywhere(Path(name))
            results["at once"] = Counter(owners=start_at_once(Path(name)), faults=0)
    for run in list(results)[len(options.recipes) :]:
        print(f"{run}: {', '.join(f'{count} {what}' for what, count in results[run].items())}")
    return (
        1
        if any(counts["faults"] for counts in results.values()) or results.get("at once", {"owners": 1})["owners"] != 1
        else 0
    )


if __name__ == "__main__":
    sys.exit(main())
