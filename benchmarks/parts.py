"""Where the time of the CPU's kernels goes: their parts, each beside its own roofline (benchmarks/rooflines.py).

`block_*` is the block of `dilated_block` in eval mode, `gradient_*` the gradient of its weights, both on channels_last
tensors but for `_nchw`; b: batch, c: channels in and out, d: dilation. Their stages are timed inside the kernel, in one
and the same call; they are milliseconds of a thread, the mean of all. `call` is the whole, `rest` what is no stage: the
way to the kernel, memory, threads that wait. `adam_*`, `rmsprop_*` and `sgd_*` (with momentum) are steps that clip:
`step`, and beside it what it is made of: `reads`, its operands read and nothing more; `reads_writes`, parameters and
states also written again, as they are, in the order of the step: a line of each; `reads_writes_ahead` asks for lines
4 KB before they are due, `_blocks` for 4 KB of one operand after the other, `_streamed` writes past the caches;
`arithmetic`, steps of as many parameters that stay in the L2 cache. `machine`: the rooflines (benchmarks/machine.py).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache, partial

import numpy as np
import torch
from torch.nn.functional import conv2d

from inpaint_fast import _extension
from inpaint_fast.benchmarks import dilated_block, harness, machine, peers, weight_clip
from inpaint_fast.benchmarks.rooflines import Needs, Part, Parts
from inpaint_fast.ops import backend_of

NCHW, CHANNELS_LAST = torch.contiguous_format, torch.channels_last
COLUMNS = 32  # output channels that are computed together (csrc/conv_block/cpu/params.h)
CHUNK_BYTES = 20 << 20  # of the weight gradient's patches and tiles (csrc/conv_block/cpu/run.h)
# Vector operations of a transform in one dimension (csrc/conv_block/cpu/winograd.h), a fused multiply-add being one, in
# tiles of 4 and of 6 pixels; and those of the epilogue for a pixel.
PATCH, PIXELS, GRADIENT, TAPS = {4: 12, 6: 26}, {4: 10, 6: 20}, {4: 9, 6: 20}, {4: 11, 6: 17}
EPILOGUE = 3
WAYS = ("ahead", "blocks", "streamed")  # to move the operands, other than the step's
# Rule -> operands read, and written; operations (csrc/weight_clip/cpu/kernels.cpp) and roots for a parameter.
RULES = {"adam": (4, 3, 13, 1), "rmsprop": (3, 2, 10, 1), "sgd": (3, 2, 7, 0)}


def level(size: float) -> str:
    """The cache, or the memory, from which so many bytes come when they are used again."""
    threads = torch.get_num_threads()
    return machine.caches(threads).level(size, threads)


def needs(multiply_adds: float, *moves: tuple[str, float], roots: float = 0) -> Needs:
    """`moves`: rooflines of bytes, with their bytes; those of one name are added up."""
    all_of_them: Counter[str] = Counter()
    for name, amount in (("multiply_adds", multiply_adds), *moves, ("roots", roots)):
        all_of_them[name] += amount  # type: ignore[assignment]
    return {name: float(amount) for name, amount in all_of_them.items() if amount}


class Winograd:
    """What a convolution with as many channels in as out needs, padding = dilation, and the gradient of its weights."""

    def __init__(self, batch: int, channels: int, side: int, dilation: int, channels_last: bool, kept: bool) -> None:
        module = _extension.module
        if module is None:
            raise ImportError(f"the extension is not there: {_extension.error}")
        sizes = batch, channels, channels, side, side, dilation, dilation, channels_last
        self.tile: int = module.winograd_tile(*sizes, kept)
        self.channels, self.all_numbers = channels, (self.tile + 2) ** 2
        self.numbers, self.weights_read = 0, 0.0
        for tasks, shares, tiles, rows, columns in module.winograd_tasks(*sizes, self.tile):
            numbers = (rows + 2) * (columns + 2)
            self.numbers += tiles * numbers  # of all transformed patches, for a channel
            self.weights_read += 4.0 * (tasks // shares) * numbers * channels**2  # bytes, by all tasks together
        self.patches = 4.0 * channels * self.numbers  # bytes, as those that follow
        self.pictures = 4.0 * channels * batch * side**2
        self.weights = 4.0 * self.all_numbers * channels**2
        self.product = float(self.numbers * channels**2)
        self.patches_read = self.patches * -(-channels // COLUMNS)  # by each block of columns

    def operations(self, in_one: Mapping[int, int], lines: int) -> float:
        """Of a transform in two dimensions, of so many rows and columns together, for all tiles and channels."""
        return self.channels * self.numbers / self.all_numbers * lines * in_one[self.tile]

    def block(self) -> dict[str, Needs]:
        pictures, numbers = level(2 * self.pictures + self.weights), self.tile + 2
        epilogue = EPILOGUE * self.pictures / 4
        return {
            "call": needs(self.product),
            "gather": needs(self.operations(PATCH, 2 * numbers), ("l2_copy", 2 * self.patches),
                            (f"{pictures}_read", self.pictures)),
            "product": needs(self.product, ("l2_read", self.patches_read),
                             (f"{level(self.weights)}_read", self.weights_read)),
            "inverse": needs(self.operations(PIXELS, numbers + self.tile) + epilogue, ("l2_read", self.patches),
                             (f"{pictures}_copy", self.pictures)),
        }  # fmt: skip

    def gradient(self) -> dict[str, Needs]:
        chunk, numbers = level(CHUNK_BYTES), self.tile + 2
        pictures = level(2 * self.pictures + CHUNK_BYTES)
        transforms = self.operations(PATCH, 2 * numbers) + self.operations(GRADIENT, self.tile + numbers)
        taps = self.channels**2 * TAPS[self.tile] * (numbers + 3)
        return {
            "call": needs(self.product),
            "gradient_gather": needs(transforms, ("l2_read", self.patches + self.pictures),
                                     (f"{chunk}_copy", 2 * self.patches), (f"{pictures}_read", 2 * self.pictures)),
            "gradient_product": needs(self.product, ("l2_read", self.patches_read),
                                      (f"{chunk}_read", 2 * self.patches)),
            "gradient_inverse": needs(taps, (f"{level(self.weights)}_read", self.weights),
                                      (f"{level(self.weights)}_copy", 4 * 9 * self.channels**2)),
        }  # fmt: skip


def block(batch: int, channels: int, side: int, dilation: int, layout: torch.memory_format = CHANNELS_LAST) -> Parts:
    problem = dilated_block.Problem(batch, channels, side, dilation, norm=True, training=False)

    def winograd() -> Winograd:
        return Winograd(batch, channels, side, dilation, layout == CHANNELS_LAST, kept=True)

    def backend() -> str:
        return f"{problem.backend(layout)}, F({winograd().tile}x{winograd().tile})"

    def prepare() -> harness.Run:
        return peers.inference(*problem.ours(layout))

    def reference() -> harness.Run:
        return peers.inference(*problem.plain(exact=True))()

    return Parts(
        [Part("call", prepare, backend, needs=lambda: winograd().block())], reference, dilated_block.BOUND["cpu"]
    )


def gradient(batch: int, channels: int, side: int, dilation: int) -> Parts:
    input, grad = (torch.randn(batch, channels, side, side).to(memory_format=CHANNELS_LAST) for _ in range(2))
    weight = torch.zeros(channels, channels, 3, 3)

    def winograd() -> Winograd:
        return Winograd(batch, channels, side, dilation, channels_last=True, kept=False)

    def backend() -> str:
        return f"{backend_of('dilated_block')}, winograd, F({winograd().tile}x{winograd().tile})"

    def prepare() -> harness.Run:
        operator = torch.ops.inpaint_fast.dilated_block_weight_gradient
        return partial(operator, grad, input, weight, [dilation] * 4, False)

    def reference() -> torch.Tensor:
        exact = weight.double().requires_grad_()
        output = conv2d(input.double(), exact, padding=dilation, dilation=dilation)
        return torch.autograd.grad(output, exact, grad.double())[0]

    call = Part("call", prepare, backend, needs=lambda: winograd().gradient())
    return Parts([call], reference, dilated_block.BOUND["cpu"])


def step(rule: str, name: str) -> Parts:
    """`name`: of the parameters' shapes, in weight_clip.SHAPES."""
    case = weight_clip.step_case(rule, name, "cpu")
    reads, writes, operations, roots = RULES[rule]
    count = sum(torch.Size(shape).numel() for shape in weight_clip.SHAPES[name])
    at, read, updated = level(4 * reads * count), 4 * (reads - writes) * count, 8 * writes * count  # bytes
    computed = needs(operations * count, roots=roots * count)
    moved = needs(0, (f"{at}_read", read), (f"{at}_update", updated))

    @cache
    def operands() -> list[np.ndarray]:
        return [torch.ones(count).numpy() for _ in range(reads)]

    def passing(rewritten: int, way: str = "plain") -> harness.Run:
        assert (module := _extension.module) is not None
        return partial(module.roofline_pass, operands()[rewritten:], operands()[:rewritten], 1, way)

    def in_cache() -> harness.Run:
        """Of half a cache for each thread, as often in one step as makes up the parameters."""
        threads, (optimizer, _, settings, _) = torch.get_num_threads(), weight_clip.RULES[rule]
        length = min(machine.caches(threads).l2 // 2 // (4 * reads), count // threads)
        parameters = [tensor.requires_grad_() for tensor in weight_clip.tensors([(length,)] * threads, "cpu")]
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        stepping = optimizer(parameters, **settings, clip=weight_clip.BOUND)
        stepping.step()  # makes its states
        often = count // threads // length
        stepping.param_groups[0]["params"] = [parameter for parameter in parameters for _ in range(often)]
        return stepping.step

    def part(name: str, prepare: Callable[[], harness.Run], needed: Needs) -> Part:
        return Part(name, prepare, lambda: backend_of("weight_clip"), needs=lambda: {name: needed})

    return Parts(
        [
            part("step", case.implementations[0].prepare, {**moved, **computed}),
            part("reads", lambda: passing(0), needs(0, (f"{at}_read", 4 * reads * count))),
            part("reads_writes", lambda: passing(writes), moved),
            *(part(f"reads_writes_{way}", partial(passing, writes, way), moved) for way in WAYS),
            part("arithmetic", in_cache, {**needs(0, ("l2_read", read), ("l2_update", updated)), **computed}),
        ],
        case.reference,
        case.bound,
    )


CASES: harness.Cases = {
    "machine": lambda: Parts([], list, 0.0, loops=machine.NAMES),
    **{f"block_b{b}_c256_64x64_d{d}": partial(block, b, 256, 64, d) for b in (1, 4) for d in (1, 2, 8)},
    "block_b1_c256_64x64_d2_nchw": partial(block, 1, 256, 64, 2, NCHW),
    **{f"gradient_b4_c256_64x64_d{d}": partial(gradient, 4, 256, 64, d) for d in (2, 8)},
    **{f"{rule}_{name}": partial(step, rule, name) for rule in RULES for name in ("50m", "critic")},
}


def main(argv: list[str] | None = None) -> int:
    return harness.main(argv, CASES, __doc__, module=__name__)


if __name__ == "__main__":
    sys.exit(main())
