"""inpaint-fast profile RECIPE"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from inpaint_fast._names import printable
from inpaint_fast.cli._options import check_output
from inpaint_fast.cli.train import recipe_of, taken
from inpaint_fast.training.profile import PHASES, Profile, profile

USAGE = """\
usage: inpaint-fast profile RECIPE [--steps N] [--out FILE] [--json] [options of the recipe]

Where the time of a training step goes, by phases; the rate, the time of an evaluation, the peak of memory; and a trace
for a viewer. Nothing is saved of what the steps learn.

  --steps N    so many steps are timed; 10
  --out FILE   the trace, Chrome's JSON, which ui.perfetto.dev shows; trace.json
  --json       print the result as JSON

and every option of inpaint-fast train RECIPE that is the recipe's: --data, --batch-size, --device, ..."""


def main(argv: Sequence[str]) -> int:
    """Run the command with these arguments; returns the exit code."""
    if not argv or argv[0] in ("-h", "--help") or {"-h", "--help"} & set(argv):
        print(USAGE)
        return 0 if argv else 2
    steps, args = taken(argv, "--steps")
    out, args = taken(args, "--out")
    as_json = "--json" in args
    recipe, _ = recipe_of(args[0], [word for word in args[1:] if word != "--json"])
    if steps is not None and not steps.isdecimal():
        raise ValueError(f"--steps: a number of steps is expected, got {steps!r}")
    trace = Path(out or "trace.json")
    check_output("--out", trace, [".json"])
    found = profile(recipe, steps=int(steps or 10), trace=trace)
    print(json.dumps(asdict(found), indent=2) if as_json else table(found))
    return 0


def table(found: Profile) -> str:
    """A profile as lines of text."""
    total = sum(found.phases.values())
    rows = [
        f"{name:10}  {1000 * seconds:9.2f} ms  {seconds / total:5.1%}  {PHASES[name]}"
        for name, seconds in found.phases.items()
    ]
    return "\n".join(
        [
            f"{found.recipe} on {found.device}, batches of {found.batch_size}, {found.threads} CPU threads; "
            f"the mean of {found.steps} steps",
            *rows,
            f"{'a step':10}  {1000 * found.step:9.2f} ms         as in a run: {found.images_per_second:.1f} images/s",
            f"evaluation  {1000 * found.evaluation:9.2f} ms         one, with its metrics and picture",
            f"{'memory':10}  {found.peak_bytes / 1e6:9.1f} MB         at its peak",
            *([f"{printable(found.trace)}: a trace of some steps more, for ui.perfetto.dev"] if found.trace else []),
        ]
    )
