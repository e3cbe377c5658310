"""Weight clipping, alone and as the last act of an optimizer step, against what a user would write instead.

`adam_critic`: the critic of `unet_wgan` (0.33 M parameters); `*_50m`: 50 M parameters in 20 tensors; `*_60_small`: 60
tensors of 64x64; `clip_*`: the clip alone. `foreach_loop_clamp` is torch's foreach optimizer and a loop of clamps,
`foreach_foreach_clamp` the same with two foreach clamps, `fused_no_clip` torch's fused optimizer and no clip at all.
`work` counts the least traffic: parameter, gradient and states read once; parameter and states written once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import inpaint_fast as ipf
from inpaint_fast.benchmarks import harness
from inpaint_fast.models import WassersteinCritic
from inpaint_fast.ops import backend_of
from inpaint_fast.optim import ClippedAdam, ClippedRMSprop, ClippedSGD

BOUND = 0.03
Shapes = list[tuple[int, ...]]
CRITIC: Shapes = [tuple(p.shape) for p in WassersteinCritic().parameters()]
SHAPES: dict[str, Shapes] = {
    "critic": CRITIC,
    "50m": [(1250, 2000)] * 20,
    "60_small": [(64, 64)] * 60,
    "20x1m": [(1000, 1000)] * 20,
    "1000_small": [(16, 16)] * 1000,
}
RULES: dict[str, tuple[Callable, Callable, dict[str, Any], int]] = {
    "adam": (ClippedAdam, torch.optim.Adam, {"lr": 1e-3, "betas": (0.5, 0.999)}, 7),
    "rmsprop": (ClippedRMSprop, torch.optim.RMSprop, {"lr": 5e-5}, 5),
    "sgd": (ClippedSGD, torch.optim.SGD, {"lr": 5e-5, "momentum": 0.9}, 5),
}
"""Rule -> ours, torch's, settings, operands that are read or written."""


def tensors(shapes: Shapes, device: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """The same numbers for every implementation, within the bound but for some."""
    generator = torch.Generator().manual_seed(0)
    scale = 1.2 * BOUND
    return [(torch.rand(shape, generator=generator) * 2 - 1).mul_(scale).to(device, dtype) for shape in shapes]


def clamp_loop(parameters: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter in parameters:
            parameter.clamp_(-BOUND, BOUND)


def clamp_foreach(parameters: list[Tensor]) -> None:
    with torch.no_grad():
        torch._foreach_clamp_min_(parameters, -BOUND)
        torch._foreach_clamp_max_(parameters, BOUND)


def stepping(make: Callable, clamp: Callable | None, shapes: Shapes, device: str, dtype=torch.float32) -> Callable:
    """A call that steps on fixed gradients and clips; returns the parameters."""
    parameters = [t.requires_grad_() for t in tensors(shapes, device, dtype)]
    generator = torch.Generator().manual_seed(1)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(device, dtype)
    optimizer = make(parameters)

    def run() -> list[Tensor]:
        optimizer.step()
        if clamp:
            clamp(parameters)
        return parameters

    return run


def checked_clipped(run: Callable) -> Callable:
    """For the peer that does not clip: its first answer, the one that is checked, is clipped outside the timing."""
    answers = []

    def first_clipped() -> list[Tensor]:
        parameters = run()
        if not answers:
            answers.append([parameter.detach().clamp(-BOUND, BOUND) for parameter in parameters])
            return answers[0]
        return parameters

    return first_clipped


def step_case(rule: str, name: str, device: str) -> harness.Case:
    shapes = SHAPES[name]
    ours, theirs, settings, operands = RULES[rule]

    def plain(clamp: Callable | None, **options: object) -> Callable:
        return partial(stepping, partial(theirs, **settings, **options), clamp, shapes, device)

    def compiled() -> Callable:
        run = stepping(partial(theirs, **settings, foreach=True), clamp_foreach, shapes, device)
        return torch.compile(run)

    def exact() -> list[Tensor]:
        make = partial(theirs, **settings, foreach=False)
        return [p.detach() for p in stepping(make, clamp_loop, shapes, device, torch.float64)()]

    implementations = [
        harness.Implementation(
            "inpaint_fast",
            partial(stepping, partial(ours, **settings, clip=BOUND), None, shapes, device),
            lambda: backend_of("weight_clip", device),
        ),
        harness.Implementation("loop_loop_clamp", plain(clamp_loop, foreach=False)),
        harness.Implementation("foreach_loop_clamp", plain(clamp_loop, foreach=True)),
        harness.Implementation("foreach_foreach_clamp", plain(clamp_foreach, foreach=True)),
        harness.Implementation("compile", compiled, "inductor"),
    ]
    if rule == "adam":
        implementations += [
            harness.Implementation("fused_no_clip", lambda: checked_clipped(plain(None, fused=True)())),
            harness.Implementation("fused_loop_clamp", plain(clamp_loop, fused=True)),
        ]
    numel = sum(torch.Size(shape).numel() for shape in shapes)
    return harness.Case(
        implementations,
        reference=exact,
        bound=2e-6,
        work=4 * operands * numel,
        unit="GB/s",
        device=device,
        memory="reused" if device == "cpu" else "",
        note="fused_no_clip does less: it does not clip",
    )


def clip_case(name: str, device: str) -> harness.Case:
    shapes = SHAPES[name]

    def clipping(clip: Callable) -> Callable:
        parameters = tensors(shapes, device)

        def run() -> list[Tensor]:
            clip(parameters)
            return parameters[:1]

        return run

    implementations = [
        harness.Implementation(
            "inpaint_fast",
            lambda: clipping(lambda parameters: ipf.clip_weights_(parameters, BOUND)),
            lambda: backend_of("weight_clip", device),
        ),
        harness.Implementation("loop", lambda: clipping(clamp_loop)),
        harness.Implementation("foreach", lambda: clipping(clamp_foreach)),
        harness.Implementation("compile", lambda: clipping(torch.compile(clamp_foreach)), "inductor"),
    ]
    if "1000" in name:
        implementations.pop()  # compiling a thousand tensors takes minutes
    return harness.Case(
        implementations,
        reference=lambda: [tensors(shapes, device)[0].double().clamp(-BOUND, BOUND)],
        bound=1e-6,
        work=8 * sum(torch.Size(shape).numel() for shape in shapes),
        unit="GB/s",
        device=device,
        memory="reused" if device == "cpu" else "",
        note="nothing is left to clip after the first call; work counts a write of everything all the same",
    )


def cases(device: str) -> harness.Cases:
    found = {
        f"{rule}_{name}": partial(step_case, rule, name, device)
        for rule, names in (("adam", ("critic", "50m")), ("rmsprop", ("50m", "60_small")))
        for name in names
    }
    return found | {f"clip_{name}": partial(clip_case, name, device) for name in ("20x1m", "1000_small")}


def main(argv: list[str] | None = None) -> int:
    return harness.main(argv, cases, __doc__, module=__name__)


if __name__ == "__main__":
    sys.exit(main())
