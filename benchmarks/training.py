"""A training step of each recipe that learns from 64x64 pictures, as `inpaint-fast train` runs it.

inpaint_fast is the recipe as it is: its networks accelerated and channels_last, one pass of the generator for all the
steps in which it stands still. eager, eager_channels_last and compile are the loop as its document describes it, with
the same data, losses and optimizers: a pass of the generator for each step, and its networks as torch.nn has them,
contiguous, channels_last, and through torch.compile (contiguous: channels_last training through it corrupts memory in
torch 2.13, pytorch/pytorch#181689). shared_pass is eager_channels_last with our loop: what the loop alone gains. A step
is all that the recipe does with a batch: unet_wgan's has five critic steps and one of the generator. GLCIC, whose
networks are of the fused operators already, has a benchmark of its own: glcic.

On a GPU inpaint_fast is the recipe as it is there, its steps captured as CUDA graphs; uncaptured the same without that.

The first step's losses and running statistics are compared with those in float64. `work` counts the multiplications and
additions of convolutions and matrix products by the formulas of torch.utils.flop_counter.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from inpaint_fast.benchmarks import harness
from inpaint_fast.ops import backend_of
from inpaint_fast.training import RECIPES, Run
from inpaint_fast.training.adversarial import AdversarialSystem
from inpaint_fast.training.recipe import System

NCHW, CHANNELS_LAST = torch.contiguous_format, torch.channels_last
NAMES = [name for name, recipe in RECIPES.items() if not name.startswith("glcic") and name != "mlp_gan"]


def stepping(run: Run) -> harness.Run:
    """Steps on one batch; each answers its losses and the running statistics after it."""
    batch = run.batches[0]
    statistics = [buffer for name, buffer in run.system.named_buffers() if "running" in name]

    def step() -> list[Tensor]:
        losses = [value for name, value in run.step(batch).items() if name.endswith("_loss")]
        return [*losses, *(buffer.clone() for buffer in statistics)]

    return step


def ours(name: str, *, device: str = "cpu", **settings: object) -> harness.Run:
    return stepping(Run(RECIPES[name](device=device, **settings)))


def theirs(
    name: str, layout: torch.memory_format = NCHW, compiled: bool = False, shared_pass: bool = False, *,
    device: str = "cpu", **settings: object,
) -> harness.Run:  # fmt: skip
    run = Run(RECIPES[name](device=device, accelerate=False, cuda_graph=False, **settings))
    if may_share(run.system) and not shared_pass:
        run.system.fresh_draws = True  # of inputs that are the same: a pass for each step
    run.system.to(memory_format=layout)
    for network in run.system.children() if compiled else ():
        network.compile()
    return stepping(run)


def may_share(system: System) -> bool:
    """Whether our loop makes one pass of the generator where the document's makes several."""
    return isinstance(system, AdversarialSystem) and not (system.shared_pass or system.fresh_draws or not system.critic)


def reference(name: str, *, device: str = "cpu", **settings: object) -> list[Tensor]:
    """What a step answers whose networks compute in float64; what lies between them stays float32."""
    run = Run(RECIPES[name](device=device, accelerate=False, cuda_graph=False, **settings))
    run.system.double()
    for module in run.system.modules():
        if module._parameters:
            module.register_forward_pre_hook(lambda _, args: _as(torch.float64, args))
    for network in run.system.children():
        network.register_forward_hook(lambda _, args, result: _as(torch.float32, result))
    return [tensor.double() for tensor in stepping(run)()]


def _as(dtype: torch.dtype, value: Any) -> Any:
    """The floating tensors in value, one or a tuple, in this dtype."""
    if isinstance(value, tuple):
        return tuple(_as(dtype, item) for item in value)
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


class Counter(TorchDispatchMode):
    """Counts floating-point operations. (FlopCounterMode's hooks bear no torch.autograd.grad, which recipes use.)"""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        self.total += count(*args, **(kwargs or {}), out_val=result) if count else 0
        return result


def work_of(name: str, **settings: object) -> float:
    """Floating-point operations of the convolutions and matrix products of a step."""
    step = theirs(name, **settings)
    with Counter() as counter:
        step()
    return float(counter.total)


def train(name: str, *, device: str = "cpu", **settings: object) -> harness.Case:
    """Steps of the recipe of that name, with these settings."""
    settings |= {"device": device}
    plain = partial(theirs, name, **settings)
    backend = partial(backend_of, "dilated_block", device)
    implementations = [
        harness.Implementation("inpaint_fast", partial(ours, name, **settings), backend, graphed=False),
        harness.Implementation("eager", plain, graphed=False),
        harness.Implementation("eager_channels_last", partial(plain, CHANNELS_LAST), graphed=False),
        harness.Implementation("compile", partial(plain, compiled=True), "inductor", graphed=False),
    ]
    if may_share(RECIPES[name](**settings).build()):
        implementations.append(
            harness.Implementation("shared_pass", partial(plain, CHANNELS_LAST, shared_pass=True), graphed=False)
        )
    if device == "cuda":
        uncaptured = partial(ours, name, cuda_graph=False, **settings)
        implementations.insert(1, harness.Implementation("uncaptured", uncaptured, backend, graphed=False))
    return harness.Case(
        implementations,
        reference=partial(reference, name, **settings),
        # Adam's first steps, whose size does not depend on the gradient's, make more of any rounding in a critic:
        # five of them bring PyTorch's own layouts 5e-4 apart.
        bound=1e-2 if device == "cpu" else 5e-2,
        work=work_of(name, **settings),
        unit="GFLOP/s",
        device=device,
        memory="reused" if device == "cpu" else "",
        note=f"batches of {RECIPES[name](**settings).batch_size}",
    )


def cases(device: str) -> harness.Cases:
    return {name: partial(train, name, device=device) for name in NAMES}


def main(argv: list[str] | None = None) -> int:
    return harness.main(argv, cases, __doc__, module=__name__)


if __name__ == "__main__":
    sys.exit(main())
