"""Runs that are killed (SIGKILL): what is left of them must be whole, loadable and of one moment.

    python tests/training/killed.py --kills 50

kills a small run of unet_wgan, which saves after every step, at so many random moments, prints what it found and ends
with exit code 1 if any of it is bad. `crash_everywhere` kills a writer before each of its file operations in turn. All
processes are forks of this one, which has used no threads.
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
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from inpaint_fast._files import sweep_parts
from inpaint_fast.completion import load_network
from inpaint_fast.completion.weights import checkpoints
from inpaint_fast.training import UNetWGAN, train
from inpaint_fast.training.records import Records

TINY = {"filters": 2, "critic_filters": 2, "critic_steps": 1, "batch_size": 2, "heldout_crops": 1, "device": "cpu"}
# BatchNorm counts the passes of each step: here the generator's and the critic's.
PASSES = {"generator": 2, "critic": 3}


def recipe() -> UNetWGAN:
    return UNetWGAN(steps=100_000, evaluate_every=1, heldout_pictures=1, accelerate=False, **TINY)


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


def steps_of(network: torch.nn.Module, kind: str) -> float:
    """How many steps a network has made, by its own count of passes."""
    counts = [value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")]
    return counts[0].item() / PASSES[kind]


def faults(run: Path) -> list[str]:
    """What is wrong with the folder of a run that was killed."""
    found = []

    def attempt(kind: str, read: Callable[[], object]) -> object:
        try:
            return read()
        except Exception as error:
            found.append(f"{kind}: {type(error).__name__}: {error}")
            return None

    saved = checkpoints(run)
    if saved:
        for where in (run, saved[-1]):
            networks = {kind: attempt("unloadable", lambda: load_network(where, kind=kind)) for kind in PASSES}  # noqa: B023
            if None not in networks.values():
                steps = {steps_of(network, kind) for kind, network in networks.items()} | {int(saved[-1].name[5:])}
                if len(steps) > 1:
                    found.append(f"mixed: {where} has networks of the steps {sorted(steps)}")
    if (generator := run / "generator.safetensors").exists():
        attempt("unloadable", lambda: load_network(generator))
    for path in (path for path in run.rglob("*.*") if path.is_file() and not path.name.endswith(".part")):
        if path.suffix == ".jsonl":
            attempt("half-written", lambda: [json.loads(line) for line in path.read_text().splitlines()])  # noqa: B023
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


def kill_at_random(kills: int, folder: Path, seed: int = 0) -> Counter[str]:
    """Start so many runs and kill each at a moment of its own; counts of what was found."""
    moments, counts = random.Random(seed), Counter(killed=0, before_the_first_checkpoint=0, faults=0)
    for index in range(kills):
        run = folder / f"run{index}"
        child = fork(lambda: train(recipe(), run, progress=False))  # noqa: B023
        while index % 5 != 4 and not checkpoints(run):  # every fifth may die before it has saved anything
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.5))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        counts["killed"] += os.WIFSIGNALED(status)
        counts["before_the_first_checkpoint"] += not checkpoints(run)
        for fault in faults(run):
            counts["faults"] += 1
            print(f"run {index}: {fault}")
        shutil.rmtree(run, ignore_errors=True)
    return counts


def crash_everywhere(folder: Path) -> Counter[str]:
    """Kill a writer of a second checkpoint before its first file operation, its second, and so on to its last."""
    counts = Counter(operations=0, faults=0)
    torch.manual_seed(0)
    system = recipe().build()
    picture = torch.zeros(3, 4, 4, dtype=torch.uint8)

    def pass_to(records: Records, step: int) -> None:
        for kind, network in system.named_children():
            for name, value in network.state_dict().items():
                if name.endswith("num_batches_tracked"):
                    value.fill_(step * PASSES[kind])
        records.add({"step": step, "psnr": 1.0}, picture, system)

    def write(run: Path, last: int) -> None:
        records.folder, done = run, 0

        def hook(event: str, _: tuple) -> None:
            nonlocal done
            if event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"):
                done += 1
                if done > last:
                    os._exit(9)

        sys.addaudithook(hook)
        pass_to(records, 200)

    records = Records(folder / "before", recipe())
    pass_to(records, 100)
    code = 9
    while code == 9:
        run = Path(shutil.copytree(records.folder, folder / f"crash{counts['operations']}"))
        _, status = os.waitpid(fork(lambda: write(run, counts["operations"])), 0)  # noqa: B023
        code = os.waitstatus_to_exitcode(status)
        counts["operations"] += 1
        for fault in faults(run):
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
    return sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 for child in children)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--everywhere", action="store_true", help="the other two as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        results = [kill_at_random(options.kills, Path(name))]
        if options.everywhere:
            results.append(crash_everywhere(Path(name)))
            results.append(Counter(owners=start_at_once(Path(name)), faults=0))
    for counts in results:
        print(", ".join(f"{value} {key.replace('_', ' ')}" for key, value in counts.items()))
    return 1 if any(counts["faults"] for counts in results) or results[-1].get("owners", 1) != 1 else 0


if __name__ == "__main__":
    sys.exit(main())
