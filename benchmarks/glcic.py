"""GLCIC against the same networks of plain torch.nn modules: completing a picture, and the steps of training.

`infer_*` is the completion network in eval mode on a picture and its mask; the number is the side. inpaint_fast is
`accelerate(network, inference=True)` on channels_last tensors, inpaint_fast_nchw on contiguous ones; the peers run the
network with every module as it is in torch.nn. `train_completion_*` is a step of phase 1 and `train_joint_*` one of
phase 3, optimizers included, batch norms in training mode: inpaint_fast is the recipe's own step, eager a loop written
from the published program with torch.optim.Adadelta. On a GPU pictures are completed in bf16 and float32 (with TF32),
beside every mode of torch.compile; training is float32 on batches of 16.

Outputs are compared with the plain network in float64: completed pictures, and after a step the losses and the
completion network's running statistics. `work` counts the definition of every convolution; in training three times.
"""

from __future__ import annotations

import copy
import functools
import sys
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inpaint_fast.benchmarks import harness, peers
from inpaint_fast.data import ContextBatch
from inpaint_fast.models import CompletionNetwork, ContextDiscriminator
from inpaint_fast.models.glcic import patches
from inpaint_fast.nn import FusedSequential, accelerate
from inpaint_fast.ops import backend_of
from inpaint_fast.training import GLCIC

NCHW, CHANNELS_LAST = torch.contiguous_format, torch.channels_last
ALPHA = 4e-4


class PlainCompletion(CompletionNetwork):
    """The network in the layout that it is given; CompletionNetwork itself goes over to channels_last."""

    def forward(self, picture: Tensor, mask: Tensor) -> Tensor:
        hole = mask > 0
        mean = self.mean_pixel.to(picture.dtype)[:, None, None]
        return nn.Sequential.forward(self, torch.cat([torch.where(hole, mean, picture), hole.to(picture.dtype)], dim=1))


def plain(network: nn.Module) -> nn.Module:
    """A copy in which every nn.Sequential runs its modules one by one, as they would be written from torch.nn."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, FusedSequential):
            module.__class__ = nn.Sequential
        elif isinstance(module, CompletionNetwork):
            module.__class__ = PlainCompletion
    return network


def work_of(network: CompletionNetwork, side: int) -> float:
    """Floating-point operations of all convolutions for one square picture."""
    total, at = 0.0, side
    for module in network.modules():
        if isinstance(module, nn.ConvTranspose2d):
            total += 2.0 * module.weight.numel() * at * at
            at *= 2
        elif isinstance(module, nn.Conv2d):
            at //= module.stride[0]
            total += 2.0 * module.weight.numel() * at * at
    return total


def backend(device: str = "cpu") -> str:
    return backend_of("dilated_block", device) + (", winograd" if device == "cpu" else "")


def pictures(batch: int, side: int) -> tuple[Tensor, Tensor]:
    """Pictures and the masks of their holes, a third of the side."""
    mask = torch.zeros(batch, 1, side, side, dtype=torch.bool)
    mask[..., side // 3 : 2 * side // 3, side // 3 : 2 * side // 3] = True
    return torch.rand(batch, 3, side, side), mask


def settled(network: CompletionNetwork) -> CompletionNetwork:
    """Statistics and norms as after some training: none is 0 or 1, and pictures leave the network with contrast."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
        network.train()
        for _ in range(30):
            network(*pictures(2, 64))
    return network.eval()


# ---- completing ----


def infer(batch: int, side: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> harness.Case:
    network = settled(CompletionNetwork()).to(device, dtype)
    picture, mask = (tensor.to(device, dtype) for tensor in pictures(batch, side))
    simple = plain(network)

    def ours(layout: torch.memory_format) -> harness.Run:
        model = accelerate(copy.deepcopy(network).to(memory_format=layout), inference=True)
        return peers.inference(model, picture.to(memory_format=layout), mask)

    def theirs(layout: torch.memory_format, dtype: torch.dtype = dtype) -> tuple[nn.Module, Tensor, Tensor]:
        model = copy.deepcopy(simple).to(dtype=dtype, memory_format=layout)
        return model, picture.to(dtype=dtype, memory_format=layout), mask.to(dtype)

    def compiled(mode: str) -> harness.Run:
        model, *inputs = theirs(CHANNELS_LAST)
        return peers.inference(peers.compiled(model, mode), *inputs)

    model = functools.cache(lambda: peers.onnx(*theirs(NCHW)))
    if device == "cuda":
        implementations = peers.on_gpu("dilated_block", ours, lambda layout: peers.inference(*theirs(layout)), compiled)
    else:
        implementations = [
            harness.Implementation("inpaint_fast", partial(ours, CHANNELS_LAST), backend),
            harness.Implementation("inpaint_fast_nchw", partial(ours, NCHW), backend),
            harness.Implementation("eager", lambda: peers.inference(*theirs(NCHW))),
            harness.Implementation("eager_channels_last", lambda: peers.inference(*theirs(CHANNELS_LAST))),
            harness.Implementation("compile_freezing", lambda: peers.frozen(*theirs(CHANNELS_LAST)), "inductor"),
            harness.Implementation("openvino", lambda: peers.openvino(model, picture, mask), "openvino"),
            harness.Implementation("onnxruntime", lambda: peers.onnxruntime(model, picture, mask), "onnxruntime"),
        ]
    return harness.Case(
        implementations,
        reference=lambda: peers.inference(*theirs(NCHW, torch.float64))(),
        bound=1e-4 if device == "cpu" else 5e-2,
        work=batch * work_of(network, side),
        unit="GFLOP/s",
        device=device,
        dtype=dtype,
        memory="reused" if device == "cpu" else "",
    )


# ---- training ----


def train(batch: int, side: int, phase: int, device: str = "cpu") -> harness.Case:
    local = side * 3 // 5 // 4 * 4
    recipe = GLCIC(
        batch_size=batch, micro_batch=None, size=side, local=local, hole=(side // 3, side // 3), mean_pixel=(0.5,) * 3,
        completion_steps=0 if phase == 3 else 1, discriminator_steps=0,
    )  # fmt: skip
    system = recipe.build()
    image, mask = (tensor.to(device) for tensor in pictures(batch, side))
    corner = torch.full((batch, 2), (side - local) // 2, device=device)
    data = ContextBatch(image, mask, corner, corner)

    def statistics(generator: CompletionNetwork) -> list[Tensor]:
        return [buffer.clone() for name, buffer in generator.named_buffers() if "running" in name]

    def ours(layout: torch.memory_format) -> harness.Run:
        own = copy.deepcopy(system).to(device, memory_format=layout)
        if device == "cpu":  # as `inpaint-fast train` has it
            accelerate(own)
        own.schedule(0, 0)
        part = data._replace(image=data.image.to(memory_format=layout))

        def run() -> list[Tensor]:  # the first call is compared, the others go on from there
            losses = [value for name, value in own.step(part).items() if name.endswith("_loss")]
            return [*losses, *statistics(own.generator)]

        return run

    def eager(layout: torch.memory_format, dtype: torch.dtype = torch.float32) -> harness.Run:
        networks = system.generator, system.discriminator
        c, d = (plain(n).to(device, dtype, memory_format=layout) for n in networks)
        optimizers = [torch.optim.Adadelta(n.parameters(), rho=recipe.rho, eps=recipe.eps) for n in (c, d)]
        picture = image.to(dtype=dtype, memory_format=layout)

        def run() -> list[Tensor]:
            return [*written_out(c, d, *optimizers, picture, mask, corner, local, phase), *statistics(c)]

        return run

    times = 3 * batch * work_of(system.generator, side)
    by = partial(backend, device)
    return harness.Case(
        [
            harness.Implementation("inpaint_fast", partial(ours, CHANNELS_LAST), by),
            harness.Implementation("inpaint_fast_nchw", partial(ours, NCHW), by),
            harness.Implementation("eager", partial(eager, NCHW)),
            harness.Implementation("eager_channels_last", partial(eager, CHANNELS_LAST)),
        ],
        reference=eager(NCHW, torch.float64),
        # PyTorch's channels_last BatchNorm alone has errors of 1e-4; and in phase 3 Adadelta's first step, whose size
        # does not depend on the gradient's, makes more of any rounding in the discriminators.
        bound=3e-2 if device == "cuda" else 1e-2 if phase == 3 else 1e-3,
        work=times,
        unit="GFLOP/s",
        device=device,
        memory="reused" if device == "cpu" else "",
        note="work is that of the completion network alone" if phase == 3 else "",
    )


def written_out(
    c: CompletionNetwork, d: ContextDiscriminator, opt_c: torch.optim.Optimizer, opt_d: torch.optim.Optimizer,
    image: Tensor, mask: Tensor, corner: Tensor, local: int, phase: int,
) -> list[Tensor]:  # fmt: skip
    """A step of the published program, its composites and gradients mended as the recipe mends them."""
    hole = mask.to(image.dtype)
    output = c(image, mask)
    reconstruction = F.mse_loss(output * hole, image * hole)
    if phase == 1:
        reconstruction.backward()
        opt_c.step(), opt_c.zero_grad()
        return [reconstruction.detach()]
    fake = output * hole + image * (1 - hole)
    zero, one = image.new_zeros(len(image)), image.new_ones(len(image))
    cross_entropy = F.binary_cross_entropy_with_logits
    fake_loss = cross_entropy(d(patches(fake.detach(), corner, local), fake.detach()), zero)
    loss = (fake_loss + cross_entropy(d(patches(image, corner, local), image), one)) / 2
    loss.backward()
    opt_d.step(), opt_d.zero_grad()
    adversarial = cross_entropy(d(patches(fake, corner, local), fake), one)
    ((reconstruction + ALPHA * adversarial) / 2).backward()
    opt_c.step(), opt_c.zero_grad(), opt_d.zero_grad()
    return [loss.detach(), reconstruction.detach(), adversarial.detach()]


def cases(device: str) -> harness.Cases:
    phases = (("completion", 1, 256), ("completion", 1, 160), ("joint", 3, 160))
    if device == "cuda":
        found = {
            f"{name}_infer_b{batch}_256": partial(infer, batch, 256, device, dtype)
            for name, dtype in peers.GPU_DTYPES.items()
            for batch in (1, 16)
        }
        return found | {
            f"train_{name}_b16_{side}": partial(train, 16, side, phase, device) for name, phase, side in phases
        }
    found = {f"infer_b{batch}_{side}": partial(infer, batch, side) for batch, side in ((1, 256), (1, 160), (4, 256))}
    return found | {f"train_{name}_b4_{side}": partial(train, 4, side, phase) for name, phase, side in phases}


def main(argv: list[str] | None = None) -> int:
    return harness.main(argv, cases, __doc__, module=__name__)


if __name__ == "__main__":
    sys.exit(main())
