"""Batch normalisation + ReLU in training, forward + backward to input and parameters, against PyTorch's modules.

inpaint_fast is norm_act on channels_last tensors, inpaint_fast_nchw the same on contiguous ones. float32; on a GPU
bf16, too, with the norm's parameters and statistics in float32. `work` counts the least traffic: in the forward pass
the input read and the result written once, in the backward pass the input and the gradient read and one gradient
written. The second look that each pass must take at its input may be at a cache.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import inpaint_fast as ipf
from inpaint_fast.benchmarks import harness, peers
from inpaint_fast.ops import backend_of

NCHW, CHANNELS_LAST = torch.contiguous_format, torch.channels_last
KINK = {torch.float32: 1e-4, torch.bfloat16: 5e-2}  # far above the rounding errors of the results, which are about 1
BOUND = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


def ours(norm: nn.BatchNorm2d, input: Tensor) -> Tensor:
    statistics = norm.running_mean, norm.running_var
    return ipf.norm_act(input, *statistics, norm.weight, norm.bias, training=True, activation="relu")


def eager(norm: nn.BatchNorm2d, input: Tensor) -> Tensor:
    return F.relu(norm(input), inplace=True)


def case(
    batch: int, channels: int, side: int, memory: str = "", device: str = "cpu", dtype: torch.dtype = torch.float32
) -> harness.Case:
    input = torch.randn(batch, channels, side, side, device=device).to(dtype)
    norm = nn.BatchNorm2d(channels).to(device)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(0, 0.2)
        # At ReLU's kink a rounding error decides whether a gradient passes, which is no matter of the arithmetic.
        normalised = copy.deepcopy(norm).double()(input.double())
        grad = torch.randn_like(input) * (normalised.abs() > KINK[dtype])

    def prepare(function: Callable, layout: torch.memory_format, exact: bool = False) -> harness.Run:
        own = copy.deepcopy(norm).double() if exact else copy.deepcopy(norm)
        x, g = (tensor.clone().to(memory_format=layout) for tensor in (input, grad))
        x, g = (x.double(), g.double()) if exact else (x, g)
        x.requires_grad_()

        def run() -> list[Tensor]:
            leaves = x, own.weight, own.bias
            for leaf in leaves:
                leaf.grad = None
            y = function(own, x)
            y.backward(g)
            return [y.detach(), *(leaf.grad for leaf in leaves)]

        return run

    def compiled(mode: str, layout: torch.memory_format) -> harness.Run:
        return prepare(peers.compiled(eager, mode), layout)

    if device == "cuda":
        implementations = peers.on_gpu(
            "norm_act", partial(prepare, ours), partial(prepare, eager), partial(compiled, layout=CHANNELS_LAST)
        )
    else:
        backend = partial(backend_of, "norm_act")
        implementations = [
            harness.Implementation("inpaint_fast", partial(prepare, ours, CHANNELS_LAST), backend),
            harness.Implementation("inpaint_fast_nchw", partial(prepare, ours, NCHW), backend),
            harness.Implementation("eager", partial(prepare, eager, NCHW)),
            harness.Implementation("eager_channels_last", partial(prepare, eager, CHANNELS_LAST)),
            # Contiguous, as in benchmarks/dilated_block.py, which says why.
            harness.Implementation("compile", partial(compiled, "default", NCHW), "inductor"),
        ]
    return harness.Case(
        implementations,
        reference=lambda: prepare(eager, NCHW, exact=True)(),
        bound=BOUND[dtype],
        work=5 * input.nbytes,
        unit="GB/s",
        device=device,
        memory=memory,
    )


def cases(device: str) -> harness.Cases:
    if device == "cpu":
        return {
            "train_4x256x64x64": partial(case, 4, 256, 64, "fresh"),
            "train_4x256x64x64_reused": partial(case, 4, 256, 64, "reused"),
        }
    return {
        f"{name}_train_{b}x{c}x{side}x{side}": partial(case, b, c, side, device=device, dtype=dtype)
        for name, dtype in peers.GPU_DTYPES.items()
        for b, c, side in ((16, 256, 64), (16, 64, 256))
    }


def main(argv: list[str] | None = None) -> int:
    return harness.main(argv, cases, __doc__, module=__name__)


if __name__ == "__main__":
    sys.exit(main())
