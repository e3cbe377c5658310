"""Networks that know nothing of this library, made faster in place: a ResNet, a U-Net, LaMa's generator.

    python examples/accelerate_networks.py --network lama --side 512 --steps 5

`--steps` is how often each of the two is timed, in turn. The weights are random: speed and equality ask for no more.
"""

import argparse
import copy
import time

import torch
from torch import nn

import inpaint_fast as ipf
from inpaint_fast.benchmarks.published.generators import LaMa
from inpaint_fast.benchmarks.published.recognition import BasicBlock, MilesialUNet, TorchvisionResNet
from inpaint_fast.nn import acceleration_report

NETWORKS = {  # the modules of the published code, of any width, and the channels of their inputs
    "resnet18": (lambda width: TorchvisionResNet(BasicBlock, width, (2, 2, 2, 2)), 3),
    "unet": (MilesialUNet, 3),
    "lama": (lambda width: LaMa(width, 9, 3, 0.75, "reflect"), 4),  # the masked picture, and the mask
}
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--network", choices=NETWORKS, default="resnet18")
parser.add_argument("--width", type=int, default=64, help="channels of the first map; all have 64 as published")
parser.add_argument("--side", type=int, default=224)
parser.add_argument("--steps", type=int, default=5)
args = parser.parse_args()

torch.manual_seed(0)
make, channels = NETWORKS[args.network]
plain = make(args.width)
for module in plain.modules():
    if isinstance(module, nn.BatchNorm2d):
        module.momentum = None  # its statistics are the average over what follows
with torch.no_grad():
    plain.train()(torch.randn(4, channels, 64, 64))
plain.eval()
# inference=True is a promise: the weights stay as they are, so what is derived of them is kept from call to call.
fast = ipf.accelerate(copy.deepcopy(plain), inference=True)
print(acceleration_report(fast))  # what was swapped and fused, and why the rest was left

picture = torch.rand(1, channels, args.side, args.side)
seconds: dict[str, list[float]] = {"plain": [], "accelerated": []}
with torch.inference_mode():
    expected, got = plain(picture), fast(picture)  # the first calls prepare
    for _ in range(args.steps):
        for name, network in (("plain", plain), ("accelerated", fast)):
            start = time.perf_counter()
            network(picture)
            seconds[name].append(time.perf_counter() - start)
error = ((got - expected).norm() / expected.norm()).item()
before, after = (sorted(times)[len(times) // 2] for times in seconds.values())
print(f"{args.network} {args.side}x{args.side}: {1e3 * before:.0f} ms plain, {1e3 * after:.0f} ms accelerated, "
      f"{before / after:.2f} times faster; relative difference {error:.1e}")  # fmt: skip
