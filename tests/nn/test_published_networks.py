"""Networks that people use, written in plain torch.nn: accelerated they are what they were, and this much is fused."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from nn.twins import assert_near, left, notes, outputs, randomised, swapped
from support import always_winograd, relative_error
from torch import Tensor, nn

import inpaint_fast as ipf
from inpaint_fast.benchmarks.published import diffusion, generators, recognition
from inpaint_fast.nn import acceleration_report


@dataclass
class Network:
    """How it is made, the sizes of its inputs (more: besides pictures), and what the report says: name -> what is fused
    with it."""

    make: Callable[[], nn.Module]
    fused: dict[str, tuple[str, ...]]
    input: tuple[int, ...] = (2, 3, 32, 40)
    more: tuple[tuple[int, ...], ...] = ()
    left: tuple[str, ...] = ()  # a part of the names of those that stay PyTorch's


def run(*names: str) -> dict[str, tuple[str, ...]]:
    """Of "a + b + c": a is fused with b and c."""
    return {first: tuple(rest) for first, *rest in (name.split(" + ") for name in names)}


def in_a_row(prefix: str, *chains: tuple[int, ...]) -> dict[str, tuple[str, ...]]:
    """Of an nn.Sequential, by number."""
    return {f"{prefix}{first}": tuple(f"{prefix}{i}" for i in rest) for first, *rest in chains}


TWICE = (0, 1, 2), (3, 4, 5)
TWO_BY_TWO = tuple(itertools.product((1, 2), (1, 2)))
RESIDUAL = (
    *(f"input_blocks.{i}.0" for i in (1, 3)), "middle_block.0", "middle_block.2",
    *(f"output_blocks.{i}.0" for i in range(4)),
)  # fmt: skip
NETWORKS = {
    # relu is called twice, so that norm alone is fused; `self.downsample is not None` asks for an identity
    "torchvision ResNet, BasicBlock": Network(
        recognition.TorchvisionResNet,
        run(*(f"layer{i}.{j}.conv{k} + layer{i}.{j}.bn{k}" for i, j, k in itertools.product((1, 2), (0, 1), (1, 2)))),
        left=("conv1", "layer2.0.downsample.0"),
    ),
    "torchvision ResNet, Bottleneck": Network(
        lambda: recognition.TorchvisionResNet(recognition.Bottleneck),
        run(*(f"layer{i}.{j}.conv2 + layer{i}.{j}.bn2" for i, j in itertools.product((1, 2), (0, 1)))),
        left=("conv1", "layer1.0.conv1", "layer1.0.conv3", "layer1.0.downsample.0", "layer2.0.downsample.0"),
    ),
    # drop_block stands between norm and activation; `self.aa is not None` and others ask for identities
    "timm ResNet": Network(
        recognition.TimmResNet,
        run("conv1.0 + conv1.1 + conv1.2", "conv1.3")
        | run(*(f"layer1.{j}.conv{k} + layer1.{j}.bn{k}" for j, k in itertools.product((0, 1), (1, 2))))
        | run("layer2.0.conv1 + layer2.0.bn1", "layer2.0.conv2 + layer2.0.bn2"),
        left=("layer1.1.se.fc1", "layer2.0.downsample.0"),
    ),
    # nothing follows the convolutions of its layers
    "DenseNet": Network(
        recognition.DenseNet,
        run("features.conv0 + features.norm0 + features.relu0")
        | run("features.denseblock1.denselayer1.conv2", "features.denseblock1.denselayer2.conv2"),
        left=("features.denseblock1.denselayer1.conv1",),
    ),
    "VGG": Network(recognition.VGG, in_a_row("features.", (0, 1, 2), (3, 4, 5), (7, 8, 9), (10, 11, 12))),
    "VGG without norm": Network(
        lambda: recognition.VGG(batch_norm=False), in_a_row("features.", (0, 1), (2, 3), (5, 6), (7, 8))
    ),
    "U-Net": Network(
        recognition.MilesialUNet,
        in_a_row("inc.double_conv.", *TWICE)
        | in_a_row("down1.1.double_conv.", *TWICE)
        | in_a_row("down2.1.double_conv.", *TWICE)
        | in_a_row("down3.1.double_conv.", *TWICE)
        | in_a_row("down4.1.double_conv.", *TWICE)
        | in_a_row("up1.conv.double_conv.", *TWICE)
        | in_a_row("up2.conv.double_conv.", *TWICE)
        | in_a_row("up3.conv.double_conv.", *TWICE)
        | in_a_row("up4.conv.double_conv.", *TWICE),
        (2, 3, 35, 38),
        left=("up1.up", "outc"),
    ),  # fmt: skip
    # subclasses of nn.Sequential: their forward is its
    "DeepLab v3": Network(
        recognition.DeepLabHead,
        in_a_row("0.convs.1.", (0, 1, 2)) | in_a_row("0.convs.2.", (0, 1, 2)) | in_a_row("", (1, 2, 3)),
        (2, 24, 18, 16),
        left=("0.convs.0.0", "0.convs.3.1", "0.project.0", "4"),
    ),
    "pix2pix": Network(
        generators.Pix2PixGenerator,
        in_a_row("model.model.", (0,), (3, 4))
        | in_a_row("model.model.1.model.", (1, 2), (5, 6))
        | in_a_row("model.model.1.model.3.model.", (1, 2), (3, 4)),
    ),
    "CycleGAN": Network(
        generators.CycleGANGenerator,
        in_a_row("model.", (4, 5, 6), (8, 9, 10), (12, 13)) | in_a_row("model.7.conv_block.", (1, 2, 3), (5, 6)),
        (2, 3, 24, 28),
        left=("model.1",),
    ),
    "PatchGAN": Network(generators.PatchGAN, in_a_row("model.", (0, 1), (2, 3, 4)), left=("model.5", "model.8")),
    # what its FFC's convolutions give is added; `type(x) is tuple` asks an argument
    "LaMa": Network(
        generators.LaMa,
        run("model.2.ffc.convl2l", "model.2.ffc.convl2g")
        | run(*(f"model.3.conv{i}.ffc.{name}" for i in (1, 2) for name in ("convl2l", "convl2g", "convg2l")))
        | in_a_row("model.", (5, 6, 7), (9, 10)),
        (2, 4, 20, 20),
        left=("model.1.ffc.convl2l", "model.3.conv1.ffc.convg2g.conv1.0", "model.3.conv1.ffc.convg2g.fu.conv_layer"),
    ),
    # as its authors train it: what halves stays PyTorch's
    "LaMa, reflecting": Network(
        lambda: generators.LaMa(padding_mode="reflect"),
        run(*(f"model.3.conv{i}.ffc.{name}" for i in (1, 2) for name in ("convl2l", "convl2g", "convg2l")))
        | in_a_row("model.", (5, 6, 7), (9, 10)),
        (2, 4, 20, 24),
        left=("model.1.ffc.convl2l", "model.2.ffc.convl2l", "model.2.ffc.convl2g"),
    ),
    # group norm and swish follow; `temb is not None` asks an argument
    "VAE": Network(
        diffusion.AutoencoderKL,
        run(*(f"{name}.conv_{end}" for name in ("encoder", "decoder") for end in ("in", "out")))
        | run("decoder.up.1.upsample.conv")
        | run(*(f"{name}.mid.block_{i}.conv{k}" for name in ("encoder", "decoder") for i, k in TWO_BY_TWO))
        | run(*(f"encoder.down.{i}.block.0.conv{k}" for i, k in itertools.product((0, 1), (1, 2))))
        | run(*(f"decoder.up.{i}.block.{j}.conv{k}" for i, j, k in itertools.product((0, 1), (0, 1), (1, 2)))),
        (2, 3, 24, 20),
        left=("encoder.down.0.downsample.conv", "encoder.mid.attn_1.q", "quant_conv", "post_quant_conv"),
    ),
    # group norm and SiLU come before each convolution, not after it
    "latent diffusion's U-Net": Network(
        diffusion.UNetModel,
        run("input_blocks.0.0", "input_blocks.2.0.op", "output_blocks.1.2.conv", "out.2")
        | run(*(f"{block}.{name}" for block in RESIDUAL for name in ("in_layers.2", "out_layers.3"))),
        (2, 9, 12, 8),
        more=((2,), (2, 5, 12)),
        left=("input_blocks.1.1.proj_in", "output_blocks.0.0.skip_connection"),
    ),
}  # fmt: skip


def twins(network: Network, dtype: torch.dtype = torch.float64, train: bool = True, **options) -> list[nn.Module]:
    torch.manual_seed(0)
    plain = randomised(network.make()).to(dtype).train(train)
    return [plain, ipf.accelerate(copy.deepcopy(plain), **options)]


def inputs(network: Network, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    shapes = [network.input, *network.more]
    return [torch.randn(s, dtype=dtype, generator=torch.Generator().manual_seed(i)) for i, s in enumerate(shapes)]


def step(net: nn.Module, given: list[Tensor]) -> dict[str, Tensor | None]:
    """The result, the gradients, the buffers, and a step of SGD."""
    given = [x.clone().requires_grad_() for x in given]
    torch.manual_seed(1)  # of its drop path
    made = outputs(net, *given)
    loss = sum((y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)).sum() for y in made)
    named = dict(net.named_parameters()) | {f"input {i}": x for i, x in enumerate(given)}
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    with torch.no_grad():
        for p, gradient in zip(net.parameters(), gradients, strict=False):
            if gradient is not None:
                p.sub_(gradient, alpha=1e-5)
    found = {f"output {i}": y.detach() for i, y in enumerate(made)}
    found |= {f"gradient of {name}": g for name, g in zip(named, gradients, strict=True)}
    return found | {name: buffer.clone() for name, buffer in net.named_buffers()}


def assert_equal_steps(
    ours: dict[str, Tensor | None], plain: dict[str, Tensor | None], tolerance: float, of_gradients: float
) -> None:
    """By norms. In float32 a ReLU may open where the plain one is shut; gradients know it: their own tolerance."""
    assert list(ours) == list(plain)
    largest = max(t.norm().item() for name, t in plain.items() if t is not None and name.startswith("gradient"))
    for name, wanted in plain.items():
        assert (ours[name] is None) == (wanted is None), name
        if wanted is None:
            continue
        gradient = name.startswith("gradient")
        scale = max(wanted.double().norm().item(), largest if gradient else 0) or 1.0
        error = (ours[name].double() - wanted.double()).norm().item() / scale
        assert error <= (of_gradients if gradient else tolerance), f"{name}: relative error {error:.3g}"


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_two_steps(network: Network, train: bool) -> None:
    for dtype, *tolerances in ((torch.float64, 1e-9, 1e-9), (torch.float32, 1e-4, 2e-2)):
        plain, ours = twins(network, dtype, train)
        for _ in range(2):
            given = inputs(network, dtype)
            assert_equal_steps(step(ours, given), step(plain, given), *tolerances)


@pytest.mark.proves(
    "accelerate",
    equals="networks that people use, as they were, under inference=True and without",
    within="of the largest value, 1e-9 in float64 and 1e-4 in float32",
    dtypes="float64, float32",
)
@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_inference(network: Network, inference: bool) -> None:
    for dtype in (torch.float64, torch.float32):
        plain, ours = twins(network, dtype, train=False, inference=inference)
        for context in (torch.no_grad, torch.inference_mode):
            given = inputs(network, dtype)
            with context():
                for a, b in zip(outputs(ours, *given), outputs(plain, *given), strict=True):
                    assert_near(a, b)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_inference_by_winograd_against_float64(network: Network) -> None:
    """Twice the plain network's error, and 1e-5 for each convolution, as `dilated_block` promises."""
    plain, ours = twins(network, torch.float32, train=False, inference=True)
    exact, given = copy.deepcopy(plain).double(), inputs(network, torch.float32)
    with torch.no_grad():
        with always_winograd():
            got = outputs(ours, *given)
        expected, wanted = outputs(plain, *given), outputs(exact, *(x.double() for x in given))
    for a, b, c in zip(got, expected, wanted, strict=True):
        assert relative_error(a, c) <= 2 * relative_error(b, c) + 1e-5 * len(swapped(ours))


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_the_state_is_the_same(network: Network) -> None:
    plain, ours = twins(network)
    assert list(ours.state_dict()) == list(plain.state_dict())
    for a, b in ((ours, plain), (plain, ours)):
        a.load_state_dict(b.state_dict())


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_what_is_fused(network: Network) -> None:
    """And what is not, with a reason; "line" where it is a condition of the forward."""
    _, ours = twins(network)
    assert swapped(ours) == network.fused
    assert set(network.left) <= set(left(ours)) and all(left(ours).values())
    convolutions = [name for name, m in ours.named_modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    assert sorted([*swapped(ours), *left(ours)]) == sorted(convolutions)
    for name, fused in swapped(ours).items():
        assert len(fused) == 2 or notes(ours)[name], name
    text = str(acceleration_report(ours))
    assert re.match(rf"{len(network.fused)} of {len(convolutions)} convolutions swapped", text)


def test_a_condition_on_an_argument_leaves_the_chain_and_is_named() -> None:
    """Were the norm of the VAE's block a batch norm, the time embedding between would still be an argument."""
    block = diffusion.VAEResnetBlock(in_channels=24, temb_channels=4)
    block.norm2 = nn.BatchNorm2d(24)
    plain = block.double()
    ours = ipf.accelerate(copy.deepcopy(plain))
    assert swapped(ours)["conv1"] == () and re.search(r"\bline \d+", notes(ours)["conv1"])
    x, temb = torch.randn(2, 24, 8, 8).double(), torch.randn(2, 4).double()
    for given in (None, temb):
        assert_near(ours(x, given), plain(x, given))


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (lambda: diffusion.AutoencoderKL(128, (1, 2, 4, 4), 2, 4, 32), 83_653_863),  # Stable Diffusion v1
        (lambda: diffusion.UNetModel(4, 320, (1, 2, 4, 4), 2, (1, 2, 4), 768, 8, 32), 859_520_964),
        (lambda: diffusion.UNetModel(9, 320, (1, 2, 4, 4), 2, (1, 2, 4), 768, 8, 32), 859_535_364),  # for inpainting
    ],
)
def test_as_many_parameters_as_published(make: Callable[[], nn.Module], parameters: int) -> None:
    with torch.device("meta"):
        network = make()
    assert sum(p.numel() for p in network.parameters()) == parameters
