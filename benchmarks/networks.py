"""Networks that people use, completing or recognising: as they are, and after `accelerate`.

`inpaint_fast` is `accelerate(network, inference=True)`, `tuned` the same with `tune=True`, `unpromised` is
`accelerate(network)` in eval mode, `eager` the network as torch.nn has it. All in eval mode, contiguous, and in the
middle of a whole network, where what a layer needs is rarely in a cache. A case ends in batch and side. `work` counts
what PyTorch's formulas count: convolutions and matrix products by their definition.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from inpaint_fast.benchmarks import harness, peers
from inpaint_fast.benchmarks.published import generators, recognition
from inpaint_fast.nn import accelerate
from inpaint_fast.ops import backend_of

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {  # and the channels of their inputs
    "resnet18": (lambda: recognition.TorchvisionResNet(recognition.BasicBlock, 64, (2, 2, 2, 2)), 3),
    "resnet50": (lambda: recognition.TorchvisionResNet(recognition.Bottleneck, 64, (3, 4, 6, 3)), 3),
    "vgg11_bn": (lambda: recognition.VGG(plan=recognition.VGG11), 3),
    "hrnet_w18_small": (recognition.HRNet, 3),
    "unet": (lambda: recognition.MilesialUNet(64), 3),
    "deeplab_head": (lambda: recognition.DeepLabHead(2048, 256, (12, 24, 36)), 2048),
    "cyclegan": (lambda: generators.CycleGANGenerator(64, 9, 2), 3),
    "lama": (lambda: generators.LaMa(64, 9, 3, 0.75, "reflect"), 4),
}
SIZES = {
    "resnet18": ((2, 112), (1, 224)), "resnet50": ((2, 112), (1, 224)), "vgg11_bn": ((2, 112), (1, 224)),
    "hrnet_w18_small": ((2, 128), (1, 256)), "unet": ((1, 128), (1, 256)), "deeplab_head": ((1, 28), (2, 14)),
    "cyclegan": ((1, 128), (1, 256)), "lama": ((1, 128), (1, 256)),
}  # fmt: skip
BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 0.2}  # 8 bits, in up to 53 layers one after the other: eager has 0.1


def settled(network: nn.Module, *input: int) -> nn.Module:
    """Statistics and norms as after some training: none is 0 or 1."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            module.momentum = None  # the average over what follows
    with torch.no_grad():
        for _ in range(2):
            network.train()(torch.randn(input))
    return network.eval()


def case(name: str, batch: int, side: int, dtype: torch.dtype = torch.float32) -> harness.Case:
    make, channels = NETWORKS[name]
    network = settled(make(), 2, channels, 32, 32)
    input = torch.randn(batch, channels, side, side)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(input)

    # All have the same tensors: a copy of the weights is up to 4 % faster or slower by where it happens to lie.
    typed = copy.deepcopy(network).to(dtype)
    shared = {id(tensor): tensor for tensor in (*typed.parameters(), *typed.buffers())}

    def prepare(options: dict | None) -> harness.Run:
        model = copy.deepcopy(typed, dict(shared))
        return peers.inference(model if options is None else accelerate(model, **options), input.to(dtype))

    kernel = backend_of("dilated_block")
    return harness.Case(
        [
            harness.Implementation("inpaint_fast", partial(prepare, {"inference": True}), kernel),
            harness.Implementation("tuned", partial(prepare, {"inference": True, "tune": True}), kernel),
            harness.Implementation("unpromised", partial(prepare, {}), kernel),
            harness.Implementation("eager", partial(prepare, None)),
        ],
        reference=peers.inference(copy.deepcopy(network).double(), input.double()),
        bound=BOUNDS[dtype],
        work=counter.get_total_flops(),
        unit="GFLOP/s",
        dtype=dtype,
        memory="reused",
    )


def main(argv: list[str] | None = None) -> int:
    cases = {
        f"{name}_{batch}_{side}" + ("" if dtype == torch.float32 else "_bf16"): partial(case, name, batch, side, dtype)
        for dtype in BOUNDS
        for name, sizes in SIZES.items()
        for batch, side in sizes[: None if dtype == torch.float32 else 1]
        if dtype == torch.float32 or name != "lama"  # whose Fourier transforms take no bfloat16
    }
    return harness.main(argv, cases, __doc__)


if __name__ == "__main__":
    sys.exit(main())
