"""DilatedConvBlock against the nn.Sequential that it stands for."""

from __future__ import annotations

import copy
import io
import pickle
import re

import pytest
import torch
from support import always_winograd
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import inpaint_fast as ipf
from inpaint_fast.kernels.norm_act import forward as norm_act_kernels
from inpaint_fast.nn import DilatedConvBlock, FusedSequential

MODULES = {
    "none": None,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


def plain(
    channels: int, out: int, dilation=1, *, padding=None, bias=True, norm="batch", activation="relu", slope=None,
    order="norm_act", **batch_norm,
) -> nn.Sequential:  # fmt: skip
    padding = dilation if padding is None else padding
    rest = [nn.BatchNorm2d(out, **batch_norm)] if norm else []
    if activation != "none":
        rest.append(MODULES[activation]() if slope is None else MODULES[activation](slope))
    convolution = nn.Conv2d(channels, out, 3, padding=padding, dilation=dilation, bias=bias)
    return nn.Sequential(convolution, *(rest if order == "norm_act" else rest[::-1]))


def twins(channels: int = 3, out: int = 5, *args, dtype=torch.float64, **options) -> tuple[nn.Sequential, nn.Module]:
    """The nn.Sequential with statistics and weights of no special value, and the block with the same."""
    torch.manual_seed(0)
    theirs = plain(channels, out, *args, **options).to(dtype)
    for module in theirs:
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                if tensor is not None:
                    nn.init.uniform_(tensor, 0.5, 1.5)
    ours = DilatedConvBlock(channels, out, *args, dtype=dtype, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def step(network: nn.Module, input: Tensor) -> list[Tensor]:
    """Output, gradients of the input and of all parameters, and buffers after a forward and a backward pass."""
    input = input.clone().requires_grad_()
    output = network(input)
    weight = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view_as(output)
    parameters = list(network.parameters())
    gradients = torch.autograd.grad((output * weight).sum(), [input, *parameters])
    return [output.detach(), *gradients, *(buffer.clone() for buffer in network.buffers())]


def assert_equal_steps(ours: nn.Module, theirs: nn.Module, input: Tensor) -> None:
    tolerance = 1e-9 if input.dtype == torch.float64 else 1e-4
    wanted = step(theirs, input)
    # A bias before a norm has no gradient but rounding errors: no scale is below a hundredth of the largest.
    least = 1e-2 * max(b.double().abs().max().item() for b in wanted)
    for a, b in zip(step(ours, input), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * max(b.double().abs().max().item(), least))


@pytest.mark.parametrize("order", ["norm_act", "act_norm"])
@pytest.mark.parametrize("activation", ["none", "relu", "elu"])
def test_the_convolution_finds_the_statistics(activation: str, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its kernel does, norm_act's own kernel for them never runs."""
    monkeypatch.setattr(norm_act_kernels, "moments_kernel", None)
    theirs, ours = twins(3, 5, 2, activation=activation, order=order, dtype=torch.float32)
    with ipf.use_backend("triton"):
        assert_equal_steps(ours, theirs, torch.randn(2, 3, 9, 11))


# ---- the state ----


@pytest.mark.parametrize("order", ["norm_act", "act_norm"])
@pytest.mark.parametrize("norm", ["batch", None])
@pytest.mark.parametrize("bias", [True, False])
def test_the_state_dict_is_that_of_the_sequential(order: str, norm: str | None, bias: bool) -> None:
    ours = DilatedConvBlock(3, 5, 2, norm=norm, bias=bias, order=order)
    theirs = plain(3, 5, 2, norm=norm, bias=bias, order=order)
    shapes = [(name, tensor.shape, tensor.dtype) for name, tensor in theirs.state_dict().items()]
    assert [(name, tensor.shape, tensor.dtype) for name, tensor in ours.state_dict().items()] == shapes
    assert [type(module) for module in ours] == [type(module) for module in theirs]
    for a, b in ((ours, theirs), (theirs, ours)):
        a.load_state_dict(b.state_dict())
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
            assert torch.equal(x, y)


def test_initial_weights_are_those_of_the_sequential() -> None:
    torch.manual_seed(1)
    ours = DilatedConvBlock(3, 5)
    torch.manual_seed(1)
    assert torch.equal(ours[0].weight, plain(3, 5)[0].weight)


# ---- the numbers ----


@pytest.mark.proves(
    "DilatedConvBlock",
    equals="nn.Sequential of convolution, norm and activation, with gradients",
    within="of the largest value, 1e-9 in float64 and 1e-4 in float32",
    dtypes="float64, float32",
)
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("order", ["norm_act", "act_norm"])
@pytest.mark.parametrize("norm", ["batch", None])
@pytest.mark.parametrize("activation", MODULES)
def test_equals_the_sequential(activation: str, norm: str | None, order: str, train: bool) -> None:
    input = torch.randn(2, 3, 9, 11, dtype=torch.float64)
    for dtype in (torch.float64, torch.float32):
        theirs, ours = twins(3, 5, 2, norm=norm, activation=activation, order=order, dtype=dtype)
        assert_equal_steps(ours.train(train), theirs.train(train), input.to(dtype))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"padding": 0},
        {"padding": (0, 4)},
        {"dilation": (1, 3)},
        {"bias": False},
        {"activation": "leaky_relu", "slope": 0.2},
        {"activation": "elu", "slope": 0.7, "order": "act_norm"},
        {"eps": 0.1, "momentum": 0.9},
        {"momentum": None},
    ],
    ids=str,
)
def test_options(options: dict, train: bool) -> None:
    theirs, ours = twins(**{"dilation": 2, **options})
    for _ in range(2):  # the second step sees the statistics of the first
        assert_equal_steps(ours.train(train), theirs.train(train), torch.randn(2, 3, 9, 11, dtype=torch.float64))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("change", [{"track_running_stats": False}, {"affine": False}], ids=str)
def test_norms_of_other_settings(change: dict, train: bool) -> None:
    theirs, ours = twins()
    theirs[1] = nn.BatchNorm2d(5, dtype=torch.float64, **change)
    ours[1] = copy.deepcopy(theirs[1])
    assert_equal_steps(ours.train(train), theirs.train(train), torch.randn(2, 3, 9, 11, dtype=torch.float64))


@pytest.mark.parametrize("track", [True, False])
def test_tracking_may_be_switched(track: bool) -> None:
    theirs, ours = twins()
    theirs[1].track_running_stats = ours[1].track_running_stats = track
    for train in (True, False):
        assert_equal_steps(ours.train(train), theirs.train(train), torch.randn(2, 3, 9, 11, dtype=torch.float64))


def test_a_frozen_norm_in_training() -> None:
    theirs, ours = twins()
    for network in (theirs, ours):
        network.train()[1].eval()
    assert_equal_steps(ours, theirs, torch.randn(2, 3, 9, 11, dtype=torch.float64))


class Operators(TorchDispatchMode):
    """Names of the operators of ours, and of PyTorch's convolutions, norms and activations, that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function.overloadpacket)
        if re.search("inpaint_fast|convolution|norm|relu", name):
            self.names.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.skipif(ipf._extension.module is None, reason="the extension is not built")
@pytest.mark.parametrize("order", ["norm_act", "act_norm"])
def test_eval_is_one_operator_and_training_two(order: str) -> None:
    def operators(block: nn.Module) -> list[str]:
        with Operators() as ran:
            block(torch.randn(2, 24, 40, 40))  # so many that norm_act pays
        return ran.names

    block = DilatedConvBlock(24, 24, 2, order=order)
    ours = [f"inpaint_fast.{name}_forward" for name in ("dilated_block", "norm_act")]
    with always_winograd():
        assert operators(block.train()) == ours
        assert operators(block.eval()) == ours  # with gradients
        with torch.no_grad():
            assert operators(block) == ours[:1]
            block.precision = "exact"
            first, *rest = operators(block)
            assert first == "aten.convolution" and "inpaint_fast.dilated_block_forward" not in rest


# ---- as a module ----


@pytest.mark.parametrize("train", [True, False])
def test_children_replaced_by_hand(train: bool) -> None:
    theirs, ours = twins()
    input = torch.randn(2, 3, 9, 11, dtype=torch.float64)
    for index, module in ((2, nn.Tanh()), (1, nn.InstanceNorm2d(5)), (0, nn.Conv2d(3, 5, 3, stride=2)), (1, nn.ReLU())):
        theirs[index] = module.double()
        ours[index] = copy.deepcopy(theirs[index])
        assert_equal_steps(ours.train(train), theirs.train(train), input)


def test_hooks_see_what_they_would_see() -> None:
    theirs, ours = twins()
    input = torch.randn(2, 3, 9, 11, dtype=torch.float64)
    for i in range(3):
        seen: list[Tensor] = []
        handles = [net[i].register_forward_hook(lambda m, x, y, seen=seen: seen.append(y)) for net in (ours, theirs)]
        ours(input), theirs(input)
        torch.testing.assert_close(*seen)
        for handle in handles:
            handle.remove()


def test_copies_pickles_and_parts() -> None:
    theirs, ours = twins()
    input = torch.randn(2, 3, 9, 11, dtype=torch.float64)
    stream = io.BytesIO()
    torch.save(ours, stream)
    stream.seek(0)
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), torch.load(stream, weights_only=False)):
        assert isinstance(other, DilatedConvBlock)
        assert_equal_steps(other, copy.deepcopy(theirs), input)
    assert isinstance(ours[:2], FusedSequential) and list(ours[:2]) == [ours[0], ours[1]]
    torch.testing.assert_close(ours.eval()[:2](input), theirs.eval()[:2](input))
    half = ours.to(torch.bfloat16)(input.bfloat16())
    assert half.dtype == torch.bfloat16


def test_a_picture_without_a_batch_as_torch_takes_it() -> None:
    theirs, ours = twins(norm=None)
    picture = torch.randn(3, 9, 11, dtype=torch.float64)
    torch.testing.assert_close(ours(picture), theirs(picture))
    with pytest.raises(ValueError, match="expected 4D input"):
        twins()[1](picture)


def test_compile() -> None:
    theirs, ours = twins(dtype=torch.float32)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    for train in (True, False):
        theirs.train(train), ours.train(train)
        assert_equal_steps(compiled, theirs, torch.randn(2, 3, 9, 11))


# ---- bad arguments ----


@pytest.mark.parametrize(
    ("arguments", "options", "error", "name"),
    [
        ((0, 5), {}, ValueError, "in_channels"),
        ((3, 5.0), {}, TypeError, "out_channels"),
        ((3, 5, 0), {}, ValueError, "dilation"),
        ((3, 5, (1, 2, 3)), {}, ValueError, "dilation"),
        ((3, 5), {"padding": -1}, ValueError, "padding"),
        ((3, 5), {"padding": "same"}, TypeError, "padding"),
        ((3, 5), {"norm": "layer"}, ValueError, "norm"),
        ((3, 5), {"activation": "gelu"}, ValueError, "activation"),
        ((3, 5), {"slope": 0.1}, TypeError, "slope"),
        ((3, 5), {"order": "act"}, ValueError, "order"),
        ((3, 5), {"eps": 0}, ValueError, "eps"),
        ((3, 5), {"momentum": "0.1"}, TypeError, "momentum"),
        ((3, 5), {"precision": "exactly"}, ValueError, "precision"),
    ],
)
def test_a_wrong_argument_is_named(arguments: tuple, options: dict, error: type, name: str) -> None:
    with pytest.raises(error, match=f"^{name}: .*expected|^{name}: .*takes none"):
        DilatedConvBlock(*arguments, **options)


def test_reached_from_the_package() -> None:
    assert ipf.nn.DilatedConvBlock is DilatedConvBlock
