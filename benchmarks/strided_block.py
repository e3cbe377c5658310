"""The downsampling block, 3x3 convolution of stride 2 + ReLU + BatchNorm, against PyTorch's stacks.

The rest is as in transposed_block.py; `work` counts 9 multiplications for each output pixel and pair of channels.
"""

from __future__ import annotations

import sys

from inpaint_fast.benchmarks import harness, transposed_block

SHAPES = {"b1_c64_128_256x256": (1, 64, 128, 256), "b1_c128_256_128x128": (1, 128, 256, 128),
          "b4_c128_256_128x128": (4, 128, 256, 128), "b16_c256_512_16x16": (16, 256, 512, 16)}  # fmt: skip


def cases(device: str) -> harness.Cases:
    return transposed_block.cases(device, SHAPES, "strided_block")


def main(argv: list[str] | None = None) -> int:
    return harness.main(argv, cases, __doc__, module=__name__)


if __name__ == "__main__":
    sys.exit(main())
