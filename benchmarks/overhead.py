"""What a call costs beside its arithmetic: tensors of a few numbers, one thread, against PyTorch's own calls.

Where there is next to nothing to compute, what is left is the way to the kernel: arguments that are looked at, a plan
that is found, dispatch, autograd. On a GPU every call pays as much before its kernel starts. `work` counts the bytes of
the tensors, so that rates say nothing here; the milliseconds do.
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
from inpaint_fast.benchmarks import harness
from inpaint_fast.ops import backend_of
from inpaint_fast.ops.conv_block import plan
from inpaint_fast.ops.norm_act import LEAST_ELEMENTS_TRAINING
from inpaint_fast.optim import ClippedAdam

CHANNELS, SIDE = 4, 4
BOUND = 1e-5
PLANNED = "pytorch, as planned"  # PyTorch's own operators, for so few numbers


def case(implementations: dict[str, harness.Run], reference: harness.Run, backend: str) -> harness.Case:
    """`inpaint_fast` and peers, all prepared. backend: what runs for ours."""
    return harness.Case(
        [
            harness.Implementation(name, lambda run=run: run, "pytorch" if name == "pytorch" else backend)
            for name, run in implementations.items()
        ],
        reference,
        BOUND,
        work=4 * CHANNELS * SIDE**2,
        unit="GB/s",
    )


def masked_l2(backward: bool) -> harness.Case:
    pred, target = torch.randn(1, CHANNELS, SIDE, SIDE), torch.randn(1, CHANNELS, SIDE, SIDE)
    mask = (torch.rand(1, 1, SIDE, SIDE) < 0.5).float()

    def prepare(function: Callable, dtype: torch.dtype = torch.float32) -> harness.Run:
        p, t, m = (tensor.to(dtype) for tensor in (pred.clone(), target, mask))
        p = p.detach().requires_grad_(backward)

        def run() -> list[Tensor]:
            p.grad = None
            loss = function(p, t, m)
            if backward:
                loss.backward()
            return [loss.detach(), p.grad] if backward else [loss]

        return run

    def plain(p: Tensor, t: Tensor, m: Tensor) -> Tensor:
        return F.mse_loss(p * m, t * m)

    runs = {"inpaint_fast": prepare(ipf.masked_l2), "pytorch": prepare(plain)}
    return case(runs, prepare(plain, torch.float64), backend_of("masked_l2"))


def _steps(network: nn.Module, input: Tensor, training: bool) -> harness.Run:
    """A forward pass; in training a backward pass, too."""
    network, input = network.train(training), input.to(next(network.parameters()).dtype)
    if not training:

        def infer() -> Tensor:
            with torch.no_grad():
                return network(input)

        return infer
    seed, leaves = torch.ones_like(input), [input.clone().requires_grad_(), *network.parameters()]

    def train() -> list[Tensor]:
        for leaf in leaves:
            leaf.grad = None
        output = network(leaves[0])
        output.backward(seed)
        return [output.detach(), leaves[0].grad]

    return train


def block(training: bool) -> harness.Case:
    """Convolution, normalisation and ReLU: an nn.Sequential, the same accelerated, the block that stands for it."""
    input = torch.randn(1, CHANNELS, SIDE, SIDE)
    plain = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS), nn.ReLU()).eval()
    ours = ipf.nn.DilatedConvBlock(CHANNELS, CHANNELS)
    ours.load_state_dict(plain.state_dict())
    networks = {"inpaint_fast": ours, "accelerated": ipf.accelerate(copy.deepcopy(plain)), "pytorch": plain}
    if not training:
        networks["accelerated_inference"] = ipf.accelerate(copy.deepcopy(plain), inference=True)
    exact = _steps(copy.deepcopy(plain).double(), input, training)
    chosen = plan(input, plain[0].weight, training=training).algorithm
    runs = {name: _steps(network, input, training) for name, network in networks.items()}
    return case(runs, exact, PLANNED if chosen == "direct" else backend_of("dilated_block"))


class Forward(nn.Module):
    """The same three modules, called one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))


def forward(training: bool) -> harness.Case:
    """A forward of somebody's: whether its modules may be run as one is asked at each call."""
    input, plain = torch.randn(1, CHANNELS, SIDE, SIDE), Forward().eval()
    networks = {"inpaint_fast": ipf.accelerate(copy.deepcopy(plain)), "pytorch": plain}
    if not training:
        networks["accelerated_inference"] = ipf.accelerate(copy.deepcopy(plain), inference=True)
    runs = {name: _steps(network, input, training) for name, network in networks.items()}
    return case(runs, _steps(copy.deepcopy(plain).double(), input, training), PLANNED)


def norm_act() -> harness.Case:
    input, seed = torch.randn(2, CHANNELS, SIDE, SIDE), torch.randn(2, CHANNELS, SIDE, SIDE)

    def prepare(function: Callable, dtype: torch.dtype = torch.float32) -> harness.Run:
        norm = nn.BatchNorm2d(CHANNELS).to(dtype)
        leaves = [input.to(dtype).clone().requires_grad_(), norm.weight, norm.bias]

        def run() -> list[Tensor]:
            for leaf in leaves:
                leaf.grad = None
            output = function(norm, leaves[0])
            output.backward(seed.to(dtype))
            return [output.detach(), leaves[0].grad]

        return run

    def ours(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
        statistics = norm.running_mean, norm.running_var
        return ipf.norm_act(x, *statistics, norm.weight, norm.bias, training=True, activation="relu")

    def plain(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
        return F.relu(norm(x))

    backend = PLANNED if input.numel() < LEAST_ELEMENTS_TRAINING else backend_of("norm_act")
    return case({"inpaint_fast": prepare(ours), "pytorch": prepare(plain)}, prepare(plain, torch.float64), backend)


def adam() -> harness.Case:
    """A step of twelve parameters of eight numbers: ours clips as well, within bounds that nothing reaches."""

    def prepare(cls: type, dtype: torch.dtype = torch.float32, **settings: object) -> harness.Run:
        generator = torch.Generator().manual_seed(0)
        leaves = [torch.randn(8, generator=generator).to(dtype).requires_grad_() for _ in range(12)]
        for leaf in leaves:
            leaf.grad = torch.ones_like(leaf)
        optimizer = cls(leaves, lr=1e-6, **settings)

        def run() -> list[Tensor]:
            optimizer.step()
            return [leaf.detach() for leaf in leaves]

        return run

    exact = prepare(torch.optim.Adam, torch.float64)
    runs = {"inpaint_fast": prepare(ClippedAdam, clip=10.0), "pytorch": prepare(torch.optim.Adam, fused=True)}
    return case(runs, exact, backend_of("weight_clip"))


CASES = {
    "masked_l2_forward": partial(masked_l2, False),
    "masked_l2_forward_backward": partial(masked_l2, True),
    "block_eval": partial(block, False),
    "forward_eval": partial(forward, False),
    "forward_training": partial(forward, True),
    "block_training": partial(block, True),
    "norm_act_training": norm_act,
    "adam_12_parameters": adam,
}


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return harness.main(argv if "--threads" in argv else ["--threads", "1", *argv], CASES, __doc__, module=__name__)


if __name__ == "__main__":
    sys.exit(main())
