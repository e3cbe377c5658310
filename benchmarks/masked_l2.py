"""Masked L2, forward and backward, against what a user would write instead.

`train_*` is forward + backward to pred; `forward_*` the loss alone. float32, on a GPU bf16, too; one mask for the three
channels.
`work` counts the least traffic: pred, target and mask read once and, in training, the gradient written once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

import inpaint_fast as ipf
from inpaint_fast.benchmarks import harness, peers
from inpaint_fast.ops import backend_of

SHAPES = {"16x3x256x256": (16, 3, 256, 256), "256x3x64x64": (256, 3, 64, 64)}


def eager(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    return F.mse_loss(pred * mask, target * mask)


def _run(loss: Callable, train: bool, pred: Tensor, target: Tensor, mask: Tensor) -> list[Tensor]:
    """One timed call: the loss, and in training the gradient of pred."""
    if not train:
        with torch.no_grad():
            return [loss(pred, target, mask)]
    pred.grad = None
    value = loss(pred, target, mask)
    value.backward()
    return [value.detach(), pred.grad]


def case(
    train: bool, shape: tuple[int, ...], device: str, memory: str = "fresh", dtype: torch.dtype = torch.float32
) -> harness.Case:
    pred = torch.rand(shape, device=device).to(dtype).requires_grad_(train)
    target = torch.rand(shape, device=device).to(dtype)
    mask = (torch.rand(shape[0], 1, *shape[2:], device=device) > 0.5).to(dtype)

    def channels_last() -> Callable:
        args = [x.detach().to(memory_format=torch.channels_last) for x in (pred, target, mask)]
        return partial(_run, eager, train, args[0].requires_grad_(train), *args[1:])

    def reference() -> list[Tensor]:
        return _run(eager, train, pred.detach().double().requires_grad_(train), target.double(), mask.double())

    implementations = [
        harness.Implementation(
            "inpaint_fast",
            lambda: partial(_run, ipf.masked_l2, train, pred, target, mask),
            lambda: backend_of("masked_l2", device),
        ),
        harness.Implementation("eager", lambda: partial(_run, eager, train, pred, target, mask)),
        harness.Implementation("eager_channels_last", channels_last),
    ]
    modes = ("default",) if device == "cpu" else peers.COMPILE_MODES
    for mode in modes:
        prepare = lambda mode=mode: partial(_run, peers.compiled(eager, mode), train, pred, target, mask)  # noqa: E731
        name = "compile" if device == "cpu" else f"compile_{mode}"
        implementations.append(
            harness.Implementation(name, partial(peers.stepped, prepare), "inductor", graphed=mode == "default")
        )
    if device == "cuda":
        triton = partial(ipf.masked_l2, backend="triton")
        run = partial(_run, triton, train, pred, target, mask)
        implementations.insert(1, harness.Implementation("inpaint_fast_triton", lambda: run, "triton"))
    read = pred.nbytes + target.nbytes + mask.nbytes
    return harness.Case(
        implementations,
        reference=reference,
        bound=1e-6 if dtype == torch.float32 else 1e-2,
        work=read + (pred.nbytes if train else 0),
        unit="GB/s",
        device=device,
        memory=memory if device == "cpu" else "",
    )


def cases(device: str) -> harness.Cases:
    dtypes = {"": torch.float32} if device == "cpu" else {f"{name}_": dtype for name, dtype in peers.GPU_DTYPES.items()}
    found = {
        f"{prefix}{kind}_{name}": partial(case, kind == "train", shape, device, dtype=dtype)
        for prefix, dtype in dtypes.items()
        for kind in ("train", "forward")
        for name, shape in SHAPES.items()
    }
    if device == "cpu":
        found |= {
            f"train_{name}_reused": partial(case, True, shape, device, "reused") for name, shape in SHAPES.items()
        }
    return found


def main(argv: list[str] | None = None) -> int:
    return harness.main(argv, cases, __doc__, module=__name__)


if __name__ == "__main__":
    sys.exit(main())
