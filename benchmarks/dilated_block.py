"""The dilated-convolution block, 3x3 convolution + BatchNorm + ReLU, against every stack that runs it.

`infer_*` is the block in eval mode under no_grad; `train_*` is forward + backward with the norm in training mode, to
the input and all parameters, `train_conv_*` the same without the norm. b: batch, c: channels in and out, d: dilation;
float32 but for `bf16_*`, padding = dilation. inpaint_fast is nn.DilatedConvBlock, for inference by way of `accelerate`,
on channels_last tensors, the layout to take for speed; inpaint_fast_nchw the same on contiguous ones. The compiled
block is channels_last with its weights frozen for inference, contiguous for training. OpenVINO and ONNX Runtime (pip
install 'inpaint_fast[peers]') run it exported, in latency mode, on as many threads as torch; nothing limits the
instruction set of ONNX Runtime, so that it stays out with `--isa avx2`. On a GPU: bf16 and float32 (with TF32), every
backend of ours, and every mode of torch.compile on channels_last tensors; training in bf16 also by CUDA with the
weights' gradient by the code of sm_80 and by that of sm_90a (inpaint_fast_wgrad_*).

`work` counts the direct convolution with the taps on padding, in training three times. Winograd's algorithm needs up to
4 times fewer multiplications: its rate, set beside the ceiling and the rates of direct convolutions (which may pass a
matrix product by a third), shows what it saves.
"""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from inpaint_fast.benchmarks import harness, peers
from inpaint_fast.nn import DilatedConvBlock, accelerate
from inpaint_fast.ops import backend_of
from inpaint_fast.ops.conv_block import plan

NCHW, CHANNELS_LAST = torch.contiguous_format, torch.channels_last
SIZES = {64: (28, 56, 100, 128), 128: (28, 56, 100, 128), 256: (28, 56, 100, 128), 512: (28, 56)}  # channels: sides
KINK = {"cpu": 1e-4, "cuda": 5e-2}  # far above the rounding errors of the results, which are about 1
BOUND = {"cpu": 1e-5, "cuda": 3e-2}
HALF_BOUND = 3e-2  # bfloat16 on a CPU


class Problem:
    """One block of plain modules and its input; both are copied for whoever runs them."""

    def __init__(
        self, batch: int, channels: int, side: int, dilation: int, *, norm: bool, training: bool, device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        self.channels, self.dilation, self.norm, self.training = channels, dilation, norm, training
        self.device, self.dtype = device, dtype
        layers = [nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)]
        if norm:  # as in a trained network, no statistic or parameter is 0 or 1
            layers.append(nn.BatchNorm2d(channels))
            with torch.no_grad():
                for tensor in (layers[1].running_var, layers[1].weight):
                    tensor.uniform_(0.5, 1.5)
                for tensor in (layers[1].running_mean, layers[1].bias):
                    tensor.normal_(0, 0.2)
        self.block = nn.Sequential(*layers, nn.ReLU(inplace=True)).train(training).to(device, dtype)
        self.input = torch.randn(batch, channels, side, side).to(device, dtype)
        self.work = 2.0 * 9 * channels * self.input.numel()

    def plain(self, layout: torch.memory_format = NCHW, exact: bool = False) -> tuple[nn.Module, Tensor]:
        dtype = torch.float64 if exact else self.dtype
        block = copy.deepcopy(self.block).to(dtype=dtype, memory_format=layout)
        return block, self.input.clone().to(dtype=dtype, memory_format=layout)

    def ours(self, layout: torch.memory_format) -> tuple[nn.Module, Tensor]:
        plain, input = self.plain(layout)
        block = DilatedConvBlock(self.channels, self.channels, self.dilation, norm="batch" if self.norm else None)
        block.load_state_dict(plain.state_dict())
        block.to(self.device, self.dtype, memory_format=layout).train(self.training)
        return (block if self.training else accelerate(block, inference=True)), input

    def backend(self, layout: torch.memory_format) -> str:
        block, input = self.plain(layout)
        chosen = plan(input, block[0].weight, dilation=self.dilation, training=self.training, kept=not self.training)
        return f"{backend_of('dilated_block')}, {chosen.algorithm}"

    def compiled(self, run: Callable[[nn.Module, Tensor], harness.Run], mode: str) -> harness.Run:
        block, input = self.plain(CHANNELS_LAST)
        return run(peers.compiled(block, mode), input)

    def case(self, run: Callable[[nn.Module, Tensor], harness.Run], *others: harness.Implementation) -> harness.Case:
        """`run(block, input)` prepares that block for timing; `others` stand beside the usual ones on a CPU."""
        on_cpu = [
            harness.Implementation(
                "inpaint_fast", lambda: run(*self.ours(CHANNELS_LAST)), lambda: self.backend(CHANNELS_LAST)
            ),
            harness.Implementation("inpaint_fast_nchw", lambda: run(*self.ours(NCHW)), lambda: self.backend(NCHW)),
            harness.Implementation("eager", lambda: run(*self.plain(NCHW))),
            harness.Implementation("eager_channels_last", lambda: run(*self.plain(CHANNELS_LAST))),
        ]
        on_gpu = peers.on_gpu(
            "dilated_block", lambda layout: run(*self.ours(layout)), lambda layout: run(*self.plain(layout)),
            partial(self.compiled, run), weight_gradient=self.training and self.dtype != torch.float32,
        )  # fmt: skip
        return harness.Case(
            [*on_cpu, *others] if self.device == "cpu" else on_gpu,
            reference=lambda: run(*self.plain(exact=True))(),
            bound=BOUND[self.device] if self.dtype == torch.float32 else HALF_BOUND,
            work=(3 if self.training else 1) * self.work,
            unit="GFLOP/s",
            device=self.device,
            dtype=self.dtype,
            memory="reused" if self.device == "cpu" else "",
        )


def infer(
    batch: int, channels: int, side: int, dilation: int, every: bool = True, dtype: torch.dtype = torch.float32
) -> harness.Case:
    """`every`: with the stacks that take seconds to prepare."""
    problem = Problem(batch, channels, side, dilation, norm=True, training=False, dtype=dtype)
    if not every:
        return problem.case(peers.inference)
    model = functools.cache(lambda: peers.onnx(*problem.plain()))
    return problem.case(
        peers.inference,
        harness.Implementation("compile_freezing", lambda: peers.frozen(*problem.plain(CHANNELS_LAST)), "inductor"),
        harness.Implementation("openvino", lambda: peers.openvino(model, problem.input), "openvino"),
        harness.Implementation("onnxruntime", lambda: peers.onnxruntime(model, problem.input), "onnxruntime"),
    )


def infer_on_gpu(batch: int, dilation: int, dtype: torch.dtype) -> harness.Case:
    problem = Problem(batch, 256, 64, dilation, norm=True, training=False, device="cuda", dtype=dtype)
    return problem.case(peers.inference)


def train(
    batch: int, channels: int, side: int, dilation: int, norm: bool = True, device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> harness.Case:  # fmt: skip
    problem = Problem(batch, channels, side, dilation, norm=norm, training=True, device=device, dtype=dtype)
    # At ReLU's kink a rounding error decides whether a gradient passes, and would be measured as an error of that whole
    # gradient, hundreds of times the arithmetic's. So none comes from there.
    with torch.no_grad():
        block, input = problem.plain(exact=True)
        grad = torch.randn_like(problem.input) * (block[:-1](input).abs() > KINK[device])

    def compiled() -> harness.Run:
        # Contiguous: channels_last, Inductor's BatchNorm writes past its buffers, and at times the process is aborted
        # (torch 2.13 on AVX-512; pytorch/pytorch#181689 has the same fault in other norms).
        block, input = problem.plain()
        return _training(grad, peers.compiled(block), input)

    return problem.case(partial(_training, grad), harness.Implementation("compile", compiled, "inductor"))


# ---- how each of them runs ----


def _training(grad: Tensor, block: nn.Module, input: Tensor) -> harness.Run:
    """One call: the result, the gradients of the input and of the parameters."""
    grad = torch.empty_like(input).copy_(grad)  # in the layout and dtype of input
    input.requires_grad_()
    parameters = list(block.parameters())
    # The convolution's bias has a gradient that is computed, but before a norm it is 0 but for rounding.
    compared = [p for i, p in enumerate(parameters) if not (i == 1 and len(parameters) == 4)]

    def run() -> list[Tensor]:
        for tensor in (input, *parameters):
            tensor.grad = None
        output = block(input)
        output.backward(grad)
        return [output.detach(), input.grad, *(parameter.grad for parameter in compared)]

    return run


def cases(device: str) -> harness.Cases:
    if device == "cuda":
        found = {
            f"{name}_infer_b{batch}_c256_64x64_d{d}": partial(infer_on_gpu, batch, d, dtype)
            for name, dtype in peers.GPU_DTYPES.items()
            for batch in (1, 16)
            for d in (1, 2, 4, 8, 16)
        }
        return found | {
            f"{name}_train_b16_c256_64x64_d{d}": partial(train, 16, 256, 64, d, True, device, dtype)
            for name, dtype in peers.GPU_DTYPES.items()
            for d in (2, 8)
        }
    found = {
        f"infer_b{batch}_c256_64x64_d{dilation}": partial(infer, batch, 256, 64, dilation)
        for batch in (1, 4)
        for dilation in (1, 2, 4, 8, 16)
    }
    for kind, norm in (("train", True), ("train_conv", False)):
        found |= {f"{kind}_b4_c256_64x64_d{d}": partial(train, 4, 256, 64, d, norm) for d in (2, 8)}
    found |= {
        f"infer_b1_c{channels}_{side}x{side}_d{dilation}": partial(infer, 1, channels, side, dilation, every=False)
        for channels, sides in SIZES.items()
        for side in sides
        for dilation in (1, 2)
    }
    half = torch.bfloat16
    found |= {
        f"bf16_infer_b1_c{channels}_{side}x{side}_d{dilation}": partial(infer, 1, channels, side, dilation, False, half)
        for channels, side, dilations in ((256, 64, (1, 2, 8)), (128, 56, (1, 2)))
        for dilation in dilations
    }
    return found | {"bf16_train_b4_c256_64x64_d2": partial(train, 4, 256, 64, 2, dtype=half)}


def main(argv: list[str] | None = None) -> int:
    return harness.main(argv, cases, __doc__, module=__name__)


if __name__ == "__main__":
    sys.exit(main())
