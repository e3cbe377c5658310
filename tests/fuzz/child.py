"""Runs drawn calls of some operators and tells of each, before it and after it: the process may die in between.

python -m fuzz.child '{"operators": [...], "calls": 600, "skip": 0, "seed": 0, "report": 3}'
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import sys
import traceback
import warnings
from pathlib import Path

import torch
from support import always_winograd

from fuzz.registered import load, recorded, stem_of
from fuzz.trial import public_trial, registered_trial
from inpaint_fast import _extension

MEMORY = 4 << 30  # bytes, besides what the libraries take
PATIENCE = 60  # seconds for one call


def main() -> None:
    task = json.loads(sys.argv[1])
    report = os.fdopen(task["report"], "w", buffering=1)
    faulthandler.enable()
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    torch.ones(1 << 20).sin()  # threads start while there is memory for them
    is_sanitized = "ASAN_OPTIONS" in os.environ
    if is_sanitized:
        module = Path(_extension.module.__file__)
        assert b"__asan_init" in module.read_bytes(), module
    else:  # the shadow memory of the others is larger than all limits
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    if any(operator.endswith(" triton") for operator in task["operators"]):
        from triton_interpreter import make_fast

        make_fast()
    with always_winograd():
        for number, (operator, i) in enumerate((o, i) for o in task["operators"] for i in range(task["calls"])):
            if number < task["skip"] or (task["only"] is not None and i != task["only"]):
                continue
            kind, name, backend = operator.split()
            load(backend)
            if kind == "registered":
                recorded(stem_of(name), backend)  # many calls, which take longer than one may
            faulthandler.dump_traceback_later(PATIENCE, exit=True)
            report.write(f"> {number}\n")
            trial = public_trial if kind == "public" else registered_trial
            try:
                wrong = trial(name, backend, f"{operator} {task['seed']} {i}", backend == "cpp" and not is_sanitized)
            except Exception:
                wrong = f"the trial itself: {traceback.format_exc()[-900:]}"
            report.write(f"< {json.dumps([operator, i, wrong])}\n")


if __name__ == "__main__":
    main()
