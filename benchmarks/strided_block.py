"""The downsampling block, 3x3 convolution of stride 2 + ReLU + BatchNorm, against PyTorch's stacks on a CPU.

The rest is as in transposed_block.py; `work` counts 9 multiplications for each output pixel and pair of channels.
"""

from __future__ import annotations

import sys
from functools import partial

from inpaint_fast.benchmarks import harness
from inpaint_fast.benchmarks.transposed_block import case


def main(argv: list[str] | None = None) -> int:
    shapes = {"b1_c64_128_256x256": (1, 64, 128, 256), "b1_c128_256_128x128": (1, 128, 256, 128),
              "b4_c128_256_128x128": (4, 128, 256, 128), "b16_c256_512_16x16": (16, 256, 512, 16)}  # fmt: skip
    cases = {
        f"{kind}_{name}": partial(case, *shape, kind == "train", stem="strided_block")
        for kind in ("infer", "train")
        for name, shape in shapes.items()
    }
    return harness.main(argv, cases, __doc__)


if __name__ == "__main__":
    sys.exit(main())
