"""Learning rates over a run: a factor of every optimizer's own, a function of the step alone."""

from __future__ import annotations

import math


def rate_factor(schedule: str, step: int, steps: int, *, warmup: int = 0, end: float = 0.0) -> float:
    """The factor of the learning rates in a step; 1.0 throughout for "constant" without warm-up.

    Args:
        schedule: "constant", "cosine" or "linear": how the factor goes from 1, where the warm-up ends, to `end`, where
            the run does.
        step: the steps before this one.
        steps: of the run.
        warmup: over so many first steps the factor rises in equal parts to 1.
        end: the factor at the end of the run, in [0, 1]; "constant" stays at 1.
    """
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    gone = min(1.0, (step - warmup) / max(1, steps - warmup))
    fallen = (1 - math.cos(math.pi * gone)) / 2 if schedule == "cosine" else gone
    return 1.0 - (1.0 - end) * fallen
