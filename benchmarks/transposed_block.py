"""The upsampling block, 4x4 transposed convolution of stride 2 + ReLU + BatchNorm, against PyTorch's stacks.

The block of GLCIC: activation before the norm. `infer_*` is in eval mode under no_grad, `train_*` forward + backward
with the norm in training mode. b: batch, c: channels in and out, then the input's size. inpaint_fast is an
`accelerate`d nn.Sequential on channels_last tensors, inpaint_fast_nchw the same on contiguous ones. On a CPU float32;
on a GPU bf16 and float32 (with TF32), every backend of ours, and every mode of torch.compile on channels_last tensors.

`work` counts the definition, 4 multiplications for each output pixel and pair of channels; in training three times.
"""

from __future__ import annotations

import copy
import sys
from functools import partial

import torch
from torch import Tensor, nn

from inpaint_fast.benchmarks import harness, peers
from inpaint_fast.nn import accelerate
from inpaint_fast.ops import backend_of
from inpaint_fast.ops.conv_block import HALVING, STRIDED, TRANSPOSED, resampling_padding
from inpaint_fast.ops.conv_block.choice import algorithm

NCHW, CHANNELS_LAST = torch.contiguous_format, torch.channels_last
# As in dilated_block.py: no gradient comes from where rounding decides whether it passes.
KINK = {"cpu": 1e-4, "cuda": 5e-2}
# Of (device, training). PyTorch's gradients of channels_last BatchNorm have errors of 1e-4 on a CPU.
BOUND = {("cpu", False): 1e-5, ("cpu", True): 1e-3, ("cuda", False): 3e-2, ("cuda", True): 3e-2}
BLOCKS = {"transposed_block": TRANSPOSED, "strided_block": STRIDED}
# Batch, channels in and out, the input's side, the taps along a side.
SHAPES = {"b1_c256_128_64x64": (1, 256, 128, 64, 4), "b1_c128_64_128x128": (1, 128, 64, 128, 4),
          "b4_c256_128_64x64": (4, 256, 128, 64, 4), "b16_c512_256_8x8": (16, 512, 256, 8, 4)}  # fmt: skip


def case(
    batch: int, channels: int, out: int, side: int, taps: int, training: bool, *, stem: str = "transposed_block",
    device: str = "cpu", dtype: torch.dtype = torch.float32,
) -> harness.Case:  # fmt: skip
    """Of transposed_block or strided_block."""
    which = BLOCKS[stem]
    kind, settings = (nn.ConvTranspose2d, {"output_padding": taps % 2}) if which.transposed else (nn.Conv2d, {})
    convolution = kind(channels, out, taps, stride=2, padding=resampling_padding(taps), **settings)
    block = nn.Sequential(convolution, nn.ReLU(), nn.BatchNorm2d(out))
    with torch.no_grad():  # as in a trained network, no statistic or parameter is 0 or 1
        for tensor in (block[2].running_var, block[2].weight):
            tensor.uniform_(0.5, 1.5)
        for tensor in (block[2].running_mean, block[2].bias):
            tensor.normal_(0, 0.2)
    block.train(training).to(device, dtype)
    input = torch.randn(batch, channels, side, side).to(device, dtype)
    with torch.no_grad():
        result = copy.deepcopy(block[0]).double()(input.double())
        grad = torch.randn_like(result) * (result.abs() > KINK[device])

    def prepare(layout: torch.memory_format, mode: str = "plain", dtype: torch.dtype = dtype) -> harness.Run:
        """mode: "plain", "ours", or one of torch.compile."""
        network = copy.deepcopy(block).to(dtype=dtype, memory_format=layout)
        x, g = (t.clone().to(dtype=dtype, memory_format=layout) for t in (input, grad))
        if mode == "ours":
            network = accelerate(network, inference=not training)
        elif mode != "plain":
            network = peers.compiled(network, mode)
        parameters = list(network.parameters())

        def infer() -> Tensor:
            with torch.no_grad():
                return network(x)

        def train() -> list[Tensor]:
            for tensor in (x, *parameters):
                tensor.grad = None
            y = network(x)
            y.backward(g)
            return [y.detach(), x.grad, *(parameter.grad for parameter in parameters)]

        x.requires_grad_(training)
        return train if training else infer

    def backend() -> str:
        sizes = input.shape, block[0].weight.shape
        return f"{backend_of(stem)}, {algorithm(which, HALVING, input.dtype, *sizes, training, not training)}"

    if device == "cuda":
        implementations = peers.on_gpu(
            stem, partial(prepare, mode="ours"), prepare, lambda mode: prepare(CHANNELS_LAST, mode),
            weight_gradient=training and dtype != torch.float32,
        )  # fmt: skip
    else:
        compiled_layout = NCHW if training else CHANNELS_LAST  # dilated_block.py says why
        implementations = [
            harness.Implementation("inpaint_fast", partial(prepare, CHANNELS_LAST, "ours"), backend),
            harness.Implementation("inpaint_fast_nchw", partial(prepare, NCHW, "ours"), backend),
            harness.Implementation("eager", partial(prepare, NCHW)),
            harness.Implementation("eager_channels_last", partial(prepare, CHANNELS_LAST)),
            harness.Implementation("compile", partial(prepare, compiled_layout, "default"), "inductor"),
        ]
    return harness.Case(
        implementations,
        reference=lambda: prepare(NCHW, dtype=torch.float64)(),
        bound=BOUND[device, training],
        work=(3 if training else 1) * 2.0 * taps**2 * (1 if which.transposed else 1 / 4) * input.numel() * out,
        unit="GFLOP/s",
        device=device,
        dtype=dtype,
        memory="reused" if device == "cpu" else "",
    )


def cases(device: str, shapes: dict[str, tuple[int, ...]] = SHAPES, stem: str = "transposed_block") -> harness.Cases:
    taken = BLOCKS[stem].taps if device == "cpu" else BLOCKS[stem].taps_on_gpus
    dtypes = {"": torch.float32} if device == "cpu" else {f"{name}_": dtype for name, dtype in peers.GPU_DTYPES.items()}
    return {
        f"{prefix}{kind}_{name}": partial(case, *shape, kind == "train", stem=stem, device=device, dtype=dtype)
        for prefix, dtype in dtypes.items()
        for kind in ("infer", "train")
        for name, shape in shapes.items()
        if shape[-1] in taken
    }


def main(argv: list[str] | None = None) -> int:
    return harness.main(argv, cases, __doc__, module=__name__)


if __name__ == "__main__":
    sys.exit(main())
