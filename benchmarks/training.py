"""A training step of each recipe that learns from 64x64 pictures, as `inpaint-fast train` runs it on a CPU.

inpaint_fast is the recipe as it is: its networks accelerated and channels_last. The others are the same recipe, with the
same data, losses and optimizers, and its networks as torch.nn has them: contiguous, channels_last, and through
torch.compile (contiguous: channels_last training through it corrupts memory in torch 2.13, pytorch/pytorch#181689). A
step is all that the recipe does with a batch: unet_wgan's has five critic steps and one of the generator. GLCIC, whose
networks are of the fused operators already, has a benchmark of its own: glcic.

The losses of the first step are compared with those in float64. `work` counts the multiplications and additions of its
convolutions and matrix products, as torch.utils.flop_counter finds them.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from inpaint_fast.benchmarks import harness
from inpaint_fast.ops import backend_of
from inpaint_fast.training import RECIPES, Run

NCHW, CHANNELS_LAST = torch.contiguous_format, torch.channels_last
NAMES = [name for name, recipe in RECIPES.items() if not name.startswith("glcic") and name != "mlp_gan"]


def stepping(run: Run) -> harness.Run:
    """Steps on one batch; each answers its losses."""
    batch = run.batches[0]
    return lambda: [value for name, value in run.step(batch).items() if name.endswith("_loss")]


def ours(name: str) -> harness.Run:
    return stepping(Run(RECIPES[name](device="cpu")))


def theirs(name: str, layout: torch.memory_format = NCHW, compiled: bool = False) -> harness.Run:
    run = Run(RECIPES[name](device="cpu", accelerate=False))
    run.system.to(memory_format=layout)
    for network in run.system.children() if compiled else ():
        network.compile()
    return stepping(run)


def reference(name: str) -> list[Tensor]:
    """The losses of a step whose networks compute in float64; what lies between them stays float32."""
    run = Run(RECIPES[name](device="cpu", accelerate=False))
    run.system.double()
    for network in run.system.children():
        network.register_forward_pre_hook(lambda _, args: _as(torch.float64, args))
        network.register_forward_hook(lambda _, args, result: _as(torch.float32, result))
    return stepping(run)()


def _as(dtype: torch.dtype, value: Any) -> Any:
    """The floating tensors in value, one or a tuple, in this dtype."""
    if isinstance(value, tuple):
        return tuple(_as(dtype, item) for item in value)
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def work_of(name: str) -> float:
    """Floating-point operations of the convolutions and matrix products of a step."""
    step = theirs(name)
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def train(name: str) -> harness.Case:
    return harness.Case(
        [
            harness.Implementation("inpaint_fast", partial(ours, name), partial(backend_of, "dilated_block")),
            harness.Implementation("eager", partial(theirs, name)),
            harness.Implementation("eager_channels_last", partial(theirs, name, CHANNELS_LAST)),
            harness.Implementation("compile", partial(theirs, name, compiled=True), "inductor"),
        ],
        reference=partial(reference, name),
        bound=1e-3,
        work=work_of(name),
        unit="GFLOP/s",
        memory="reused",
        note=f"batches of {RECIPES[name]().batch_size}",
    )


CASES = {name: partial(train, name) for name in NAMES}


def main(argv: list[str] | None = None) -> int:
    return harness.main(argv, CASES, __doc__)


if __name__ == "__main__":
    sys.exit(main())
