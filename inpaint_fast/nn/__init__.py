"""Modules over the operators, and `accelerate`, which swaps them into any network.

block = DilatedConvBlock(256, 256, dilation=4)   # nn.Sequential(Conv2d, BatchNorm2d, ReLU), fused
net = accelerate(net)                            # its 3x3 convolutions, faster, same state_dict
print(acceleration_report(net))                  # what was swapped, and why the rest was left
net = restore(net)                               # plain torch.nn again
"""

from inpaint_fast.nn.blocks import DilatedConvBlock
from inpaint_fast.nn.fuse.modules import AcceleratedConv2d
from inpaint_fast.nn.fuse.report import Report, acceleration_report
from inpaint_fast.nn.fuse.sequential import FusedSequential
from inpaint_fast.nn.fuse.swap import accelerate, restore

__all__ = [
    "AcceleratedConv2d", "DilatedConvBlock", "FusedSequential", "Report", "accelerate", "acceleration_report",
    "restore",
]  # fmt: skip
