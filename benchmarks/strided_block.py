"""The downsampling block, 3x3 convolution of stride 2 + ReLU + BatchNorm, against PyTorch's stacks.

`*_5x5` are layers of GLCIC's discriminators: 16 patches of 96 pixels, or 16 pictures of 160, on their way down. The
rest is as in transposed_block.py; `work` counts the taps, 9 or 25 multiplications for each output pixel and pair of
channels.
"""

from __future__ import annotations

import sys

from inpaint_fast.benchmarks import harness, transposed_block

SHAPES = {"b1_c64_128_256x256": (1, 64, 128, 256, 3), "b1_c128_256_128x128": (1, 128, 256, 128, 3),
          "b4_c128_256_128x128": (4, 128, 256, 128, 3), "b16_c256_512_16x16": (16, 256, 512, 16, 3),
          "b16_c64_128_48x48_5x5": (16, 64, 128, 48, 5), "b16_c128_256_24x24_5x5": (16, 128, 256, 24, 5),
          "b16_c256_512_20x20_5x5": (16, 256, 512, 20, 5)}  # fmt: skip


def cases(device: str) -> harness.Cases:
    return transposed_block.cases(device, SHAPES, "strided_block")


def main(argv: list[str] | None = None) -> int:
    return harness.main(argv, cases, __doc__, module=__name__)


if __name__ == "__main__":
    sys.exit(main())
