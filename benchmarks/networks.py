"""Networks that people use, completing or recognising: as they are, and after `accelerate`.

`inpaint_fast` is `accelerate(network, inference=True)`, `tuned` the same with `tune=True`, `unpromised` is
`accelerate(network)` in eval mode, `eager` the network as torch.nn has it; for some `eager_channels_last`,
`compile_freezing` and `openvino` besides. All in eval mode, contiguous where nothing else is said, and in the middle of
a whole network, where what a layer needs is rarely in a cache. A case ends in batch and side. `work` counts what
PyTorch's formulas count: convolutions and matrix products by their definition.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from inpaint_fast.benchmarks import harness, peers
from inpaint_fast.benchmarks.published import diffusion, generators, recognition
from inpaint_fast.nn import accelerate
from inpaint_fast.ops import backend_of

WIDTHS = (1, 2, 4, 8, 8, 8, 8, 8)


@dataclass(frozen=True)
class Network:
    """A network and what it is timed on.

    Attributes:
        make: with as many channels as were published, where nothing else is said.
        sizes: (batch, side) of its pictures.
        channels: of its pictures.
        least: the side of the smallest pictures that it takes in training, to settle its statistics.
        more: its other inputs, for a batch.
        peers: it is timed against other stacks, too, which take minutes to prepare.
    """

    make: Callable[[], nn.Module]
    sizes: tuple[tuple[int, int], ...]
    channels: int = 3
    least: int = 32
    more: Callable[[int], tuple[Tensor, ...]] = lambda batch: ()
    peers: bool = False

    def inputs(self, batch: int, side: int) -> tuple[Tensor, ...]:
        return torch.randn(batch, self.channels, side, side), *self.more(batch)


NETWORKS = {
    "resnet18": Network(
        lambda: recognition.TorchvisionResNet(recognition.BasicBlock, 64, (2, 2, 2, 2)), ((2, 112), (1, 224))
    ),
    "resnet50": Network(
        lambda: recognition.TorchvisionResNet(recognition.Bottleneck, 64, (3, 4, 6, 3)), ((2, 112), (1, 224))
    ),
    "vgg11_bn": Network(lambda: recognition.VGG(plan=recognition.VGG11), ((2, 112), (1, 224))),
    "hrnet_w18_small": Network(recognition.HRNet, ((2, 128), (1, 256))),
    "unet": Network(lambda: recognition.MilesialUNet(64), ((1, 128), (1, 256))),
    "deeplab_head": Network(
        lambda: recognition.DeepLabHead(2048, 256, (12, 24, 36)), ((1, 28), (2, 14)), 2048, peers=True
    ),
    "pix2pix": Network(lambda: generators.Pix2PixGenerator(64, WIDTHS), ((1, 256),), least=256, peers=True),
    "cyclegan": Network(lambda: generators.CycleGANGenerator(64, 9, 2), ((1, 128), (1, 256)), peers=True),
    "lama": Network(lambda: generators.LaMa(64, 9, 3, 0.75, "reflect"), ((1, 128), (1, 256), (1, 512)), 4, peers=True),
    "ldm_vae": Network(lambda: diffusion.AutoencoderKL(128, (1, 2, 4, 4), 2, 4, 32), ((1, 128), (1, 256)), peers=True),
    "ldm_unet": Network(  # published with 320 channels: 128 fit a CPU
        lambda: diffusion.UNetModel(9, 128, (1, 2, 4, 4), 2, (1, 2, 4), 768, 8, 32), ((1, 32), (1, 64)), 9,
        more=lambda batch: (torch.arange(1, batch + 1), torch.randn(batch, 77, 768)), peers=True,
    ),
}  # fmt: skip
NO_HALF = ("lama",)  # whose Fourier transforms take no bfloat16
BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 0.2}  # 8 bits, in up to 53 layers one after the other: eager has 0.1


def settled(network: nn.Module, draw: Callable[[], tuple[Tensor, ...]]) -> nn.Module:
    """Statistics and norms as after some training, on inputs that `draw` gives: none is 0 or 1."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            module.momentum = None  # the average over what follows
    with torch.no_grad():
        for _ in range(2):
            network.train()(*draw())
    return network.eval()


def case(name: str, batch: int, side: int, dtype: torch.dtype = torch.float32) -> harness.Case:
    chosen = NETWORKS[name]
    network = settled(chosen.make(), partial(chosen.inputs, 2, chosen.least))
    inputs = chosen.inputs(batch, side)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)

    # All have the same tensors: a copy of the weights is up to 4 % faster or slower by where it happens to lie.
    typed = copy.deepcopy(network).to(dtype)
    shared = {id(tensor): tensor for tensor in (*typed.parameters(), *typed.buffers())}

    def prepare(options: dict | None) -> harness.Run:
        model = copy.deepcopy(typed, dict(shared))
        return peers.inference(model if options is None else accelerate(model, **options), *_as(dtype, inputs))

    def channels_last() -> harness.Run:
        layout = torch.channels_last
        pictures, *more = _as(dtype, inputs)
        model = copy.deepcopy(typed).to(memory_format=layout)
        return peers.inference(model, pictures.contiguous(memory_format=layout), *more)

    others = [
        harness.Implementation("eager_channels_last", channels_last),
        harness.Implementation(
            "compile_freezing", lambda: peers.frozen(copy.deepcopy(typed), *_as(dtype, inputs)), "inductor"
        ),
        harness.Implementation(
            "openvino", lambda: peers.openvino(lambda: peers.onnx(typed, *inputs), *inputs), "openvino"
        ),
    ]
    kernel = backend_of("dilated_block")
    return harness.Case(
        [
            harness.Implementation("inpaint_fast", partial(prepare, {"inference": True}), kernel),
            harness.Implementation("tuned", partial(prepare, {"inference": True, "tune": True}), kernel),
            harness.Implementation("unpromised", partial(prepare, {}), kernel),
            harness.Implementation("eager", partial(prepare, None)),
            *(others if chosen.peers and dtype == torch.float32 else []),
        ],
        reference=peers.inference(copy.deepcopy(network).double(), *_as(torch.float64, inputs)),
        bound=BOUNDS[dtype],
        work=counter.get_total_flops(),
        unit="GFLOP/s",
        dtype=dtype,
        memory="reused",
    )


def _as(dtype: torch.dtype, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    return [x.to(dtype) if x.is_floating_point() else x for x in inputs]


def main(argv: list[str] | None = None) -> int:
    cases = {
        f"{name}_{batch}_{side}" + ("" if dtype == torch.float32 else "_bf16"): partial(case, name, batch, side, dtype)
        for dtype in BOUNDS
        for name, network in NETWORKS.items()
        for batch, side in network.sizes[: None if dtype == torch.float32 else 1]
        if dtype == torch.float32 or name not in NO_HALF
    }
    return harness.main(argv, cases, __doc__, module=__name__)


if __name__ == "__main__":
    sys.exit(main())
