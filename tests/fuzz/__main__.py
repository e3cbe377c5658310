"""Counts what died and what was wrong.

PYTHONPATH=tests python -m fuzz --calls 600
PYTHONPATH=tests python -m fuzz --operators "registered clipped_step cpp" --only 217     # one of them again
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fuzz import registered
from fuzz.public import PUBLIC
from inpaint_fast.ops._dispatch import BACKENDS, OPERATORS


@dataclass
class Count:
    """What became of the calls of one operator."""

    tried: int = 0
    deaths: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def operators(backends: Iterable[str]) -> list[str]:
    """Everything that can be called: "public masked_l2 cpp", "registered masked_l2_forward cpp"."""
    found = []
    for backend in backends:
        registered.load(backend)
        for name, public in PUBLIC.items():
            if backend in OPERATORS[public.stem].suffixes and (public.reference or backend in BACKENDS):
                found.append(f"public {name} {backend}")
        found += [f"registered {name} {backend}" for name in registered.names(backend)]
    return found


def run(names: Sequence[str], calls: int, seed: int = 0, only: int | None = None) -> dict[str, Count]:
    """Call each of these operators so often, in as many processes as it takes."""
    counts = {name: Count() for name in names}
    skip, total = 0, len(names) * calls
    while skip < total:
        skip = _one_child(names, calls, seed, only, skip, counts)
    return counts


def _one_child(
    names: Sequence[str], calls: int, seed: int, only: int | None, skip: int, counts: dict[str, Count]
) -> int:
    """One process, to its end; the number of the call with which the next one begins."""
    read, write = os.pipe()
    task = {"operators": list(names), "calls": calls, "seed": seed, "only": only, "skip": skip, "report": write}
    paths = os.pathsep.join(filter(None, sys.path))
    settings = {"PYTHONPATH": paths, "OMP_WAIT_POLICY": "passive", "TRITON_INTERPRET": "1"}
    child = subprocess.Popen(
        [sys.executable, "-m", "fuzz.child", json.dumps(task)],
        pass_fds=[write],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | settings,
    )
    os.close(write)
    begun = None
    with os.fdopen(read) as report:
        for line in report:
            if line[0] == ">":
                begun = int(line[2:])
                counts[names[begun // calls]].tried += 1
            else:
                begun = None
                name, i, wrong = json.loads(line[2:])
                if wrong is not None:
                    counts[name].wrong.append(told(f"{name}, call {i}: {wrong}"))
    words = child.communicate()[1].strip()
    if begun is None:
        if child.returncode:
            raise RuntimeError(f"the process ended between two calls:\n{words[-2000:]}")
        return len(names) * calls
    name, i = names[begun // calls], begun % calls
    code = child.returncode
    how = signal.Signals(-code).name if code < 0 else f"exit {code}"
    counts[name].deaths.append(told(f"{name}, call {i}: {how} {words[:3000]}"))
    return begun + 1


def told(words: str) -> str:
    """These words, printed at once: a run of hours may be ended before its table."""
    print(words, flush=True)
    return words


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=600, help="of each operator")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backends", nargs="+", default=["cpp"], choices=["cpp", "emulated", "triton"])
    parser.add_argument("--operators", nargs="+", help="these alone, by the names of the table")
    parser.add_argument("--only", type=int, help="this one of their calls")
    args = parser.parse_args()
    names = args.operators or operators(args.backends)
    counts = run(names, args.calls if args.only is None else args.only + 1, args.seed, args.only)
    width = max(map(len, names))
    print(f"{'':{width}}  calls  deaths  wrong answers")
    for name, count in counts.items():
        print(f"{name:{width}}  {count.tried:5}  {len(count.deaths):6}  {len(count.wrong):6}")
    tried = sum(count.tried for count in counts.values())
    died = sum(len(count.deaths) for count in counts.values())
    wrong = sum(len(count.wrong) for count in counts.values())
    print(f"{tried} calls of {len(names)} operators, {died} deaths, {wrong} wrong answers")
    sys.exit(bool(died or wrong))


if __name__ == "__main__":
    main()
