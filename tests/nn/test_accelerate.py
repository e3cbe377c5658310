"""accelerate: the same network, its state, its outputs and its gradients, by the fused operators."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from nn.networks import INPUTS, NETWORKS, ResNet, UNet, VGGFeatures
from nn.twins import (
    Chain,
    X,
    assert_near,
    assert_same,
    fused_modules,
    left,
    notes,
    outputs,
    randomised,
    swapped,
    twins,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, weight_norm

import inpaint_fast as ipf
from inpaint_fast.nn import AcceleratedConv2d, FusedSequential, acceleration_report

# ---- published networks ----


@pytest.mark.proves(
    "accelerate",
    equals="the network as it was: results, gradients, state_dict",
    within="of the largest value, 1e-9 in float64 and 1e-4 in float32",
    dtypes="float64, float32",
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_published_networks(name: str, train: bool, dtype: torch.dtype) -> None:
    theirs, ours = twins(NETWORKS[name]().to(dtype))
    assert any(swapped(ours).values())
    assert_same(ours.train(train), theirs.train(train), torch.randn(INPUTS[name], dtype=dtype))


@pytest.mark.parametrize("name", NETWORKS)
def test_state_parameters_and_copies(name: str) -> None:
    network = randomised(NETWORKS[name]())
    theirs = copy.deepcopy(network)
    parameters, children = list(network.parameters()), list(network.modules())
    assert ipf.accelerate(network) is network
    assert list(network.state_dict()) == list(theirs.state_dict())
    assert all(a is b for a, b in zip(network.parameters(), parameters, strict=True))
    assert all(a is b for a, b in zip(network.modules(), children, strict=True))
    theirs.load_state_dict(network.state_dict())
    network.load_state_dict(theirs.state_dict())
    input = torch.randn(INPUTS[name])
    stream = io.BytesIO()
    torch.save(network, stream)
    stream.seek(0)
    fused = fused_modules(network, input)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), torch.load(stream, weights_only=False)):
        assert swapped(other) == swapped(network)
        assert fused_modules(other, input) == fused
        assert_same(other, copy.deepcopy(theirs), input)


def test_the_operators_get_what_the_report_says() -> None:
    for name, make in NETWORKS.items():
        network = ipf.accelerate(make())
        calls = fused_modules(network, torch.randn(INPUTS[name]))
        assert len(calls) == len(swapped(network))
        fused = sum(norm + (activation != "none") for activation, _, norm in calls)
        known = [entry.fused for entry in acceleration_report(network).swapped if "as a whole" not in entry.note]
        assert fused == sum(map(len, known)), name
        # It takes its nn.Sequential apart, by a tuple of its own.
        assert (len(known) < len(calls)) == (name == "vgg") and (not known) == (name == "vgg")


def test_an_optimizer_made_before_goes_on() -> None:
    theirs = randomised(ResNet())
    ours = copy.deepcopy(theirs)
    steps = []
    for network in (ours, theirs):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
        if network is ours:
            ipf.accelerate(network)
        torch.manual_seed(1)
        for _ in range(3):
            optimizer.zero_grad()
            network(torch.randn(INPUTS["resnet"])).square().mean().backward()
            optimizer.step()
        steps.append(network.state_dict())
    for name, tensor in steps[1].items():
        assert_near(steps[0][name], tensor, name)


def test_what_the_report_says() -> None:
    network = ipf.accelerate(UNet())
    assert swapped(network)["down1.conv1"] == ("down1.bn1", "down1.act1")
    assert swapped(network)["down1.conv2"] == ("down1.act2", "down1.bn2")
    assert swapped(network)["last"] == ()
    assert notes(network)["last"].startswith("the forward of the model is not proved: line ")
    assert notes(network)["last"].endswith("of UNet.forward: the condition `x.shape[2:] != skip.shape[2:]`")
    assert set(left(network)) == {"raise1", "raise2"}  # 2x2 transposed convolutions
    network = ipf.accelerate(NETWORKS["aspp"]())
    assert swapped(network)["head"] == ("head_norm",) and "function relu" in notes(network)["head"]
    assert left(network)["classes"] == "its kernel is 1x1, not 3x3"
    text = str(acceleration_report(network))
    assert text.startswith("3 of 7 convolutions swapped") and "branches.2.0 + branches.2.1 + branches.2.2" in text
    network = ipf.accelerate(ResNet())
    assert swapped(network)["layer1.0.conv1"] == ("layer1.0.bn1",)
    assert (
        "several times" in notes(network)["layer1.0.conv1"]
        and "an expression takes it" in notes(network)["layer1.0.conv2"]
    )
    assert swapped(network)["layer2.0.conv1"] == ("layer2.0.bn1",)  # stride 2


# ---- which convolutions ----


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 0},
        {"padding": "valid"},
        {"padding": "same", "dilation": (2, 3)},
        {"padding": (3, 1), "dilation": 2, "bias": False},
    ],
    ids=str,
)
def test_all_paddings(options: dict) -> None:
    theirs, ours = twins(nn.Conv2d(3, 4, 3, dtype=torch.float64, **options))
    assert type(ours) is AcceleratedConv2d and isinstance(ours, nn.Conv2d)
    assert_same(ours, theirs, X.double())
    assert_same(ours, theirs, X[0].double())  # one picture without a batch


class OwnConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


@pytest.mark.parametrize(
    ("conv", "reason"),
    [
        (nn.Conv2d(3, 20, 5), "5x5"),
        (nn.Conv2d(3, 4, 4), "its kernel is 4x4, not 3x3"),
        (nn.Conv2d(3, 4, (4, 3), stride=2), "its kernel is 4x3, not 3x3 or 4x4 or 5x5"),
        (nn.ConvTranspose2d(3, 4, 3, 2, 1), "output_padding (0, 0), with stride 2 and a kernel of 3x3"),
        (nn.Conv2d(3, 4, 3, stride=2), "padding (0, 0), with stride 2"),
        (nn.Conv2d(3, 4, 5, stride=2, padding=1), "padding (1, 1), with stride 2 and a kernel of 5x5"),
        (nn.ConvTranspose2d(3, 4, 5, 2, 2), "output_padding (0, 0), with stride 2 and a kernel of 5x5"),
        (nn.Conv2d(3, 4, 3, stride=2, padding=2, dilation=2), "padding (2, 2), with stride 2"),
        (nn.Conv2d(3, 4, 3, stride=(1, 2), padding=1), "stride (1, 2)"),
        (nn.Conv2d(3, 6, 3, groups=3), "groups 3"),
        (nn.Conv2d(3, 4, 3, 2, padding=1, padding_mode="reflect"), "padding_mode 'reflect', with stride 2"),
        (nn.LazyConv2d(4, 3), "LazyConv2d"),
        (OwnConv(3, 4, 3), "OwnConv"),
        (parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), "Parametrized"),
        (parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)), "Parametrized"),
        (weight_norm(nn.Conv2d(3, 4, 3)), "weight_norm"),
        (nn.Conv2d(3, 4, 3, dtype=torch.complex64), "complex64"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_left(conv: nn.Module, reason: str) -> None:
    before = type(conv)
    network = ipf.accelerate(nn.Sequential(conv, nn.ReLU()))
    assert reason in left(network)["0"] and not swapped(network)
    assert type(conv) is before and type(network) is nn.Sequential


def test_nothing_to_swap() -> None:
    network = ipf.accelerate(nn.Sequential(nn.Linear(3, 4), nn.ReLU()))
    assert acceleration_report(network).swapped == acceleration_report(network).left == []
    assert str(acceleration_report(network)) == "0 of 0 convolutions swapped"


def test_a_convolution_that_is_changed_afterwards() -> None:
    theirs, ours = twins(Chain())
    for network in (ours, theirs):
        network.conv.stride = (2, 2)
    assert_same(ours, theirs, X)
    for network in (ours, theirs):
        network.conv.stride, network.conv.padding, network.conv.dilation = (1, 1), (3, 3), (3, 3)
    assert_same(ours, theirs, X)
    for network in (ours, theirs):
        torch.manual_seed(0)
        parametrizations.weight_norm(network.conv)
    assert_same(ours, theirs, X)


# ---- what is fused, and what is not ----


def activation_first(net: Chain, x: Tensor) -> Tensor:
    return net.bn(net.act(net.conv(x)))


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU(inplace=True), nn.LeakyReLU(0.3), nn.ELU(0.7, inplace=True), nn.Sigmoid(), nn.Tanh()],
    ids=str,
)
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("forward", [None, activation_first], ids=["norm_act", "act_norm"])
def test_activations_in_both_orders(forward: Callable | None, train: bool, activation: nn.Module) -> None:
    theirs, ours = twins(Chain(forward, activation).double())
    assert len(swapped(ours)["conv"]) == 2
    assert_same(ours.train(train), theirs.train(train), X.double())
    [(_, order, scaled)] = fused_modules(ours, X.double())
    assert scaled and order == ("norm_act" if forward is None else "act_norm")


def used_between(net: Chain, x: Tensor) -> Tensor:
    y = net.conv(x)
    return net.act(net.bn(y)) + y


def used_after_the_norm(net: Chain, x: Tensor) -> Tensor:
    y = net.bn(net.conv(x))
    return net.act(y) + y


def called_twice(net: Chain, x: Tensor) -> Tensor:
    return net.act(net.bn(net.conv(x))) + net.act(net.bn(net.conv(x.flip(3))))


def in_place_between(net: Chain, x: Tensor) -> Tensor:
    y = net.conv(x)
    y.mul_(2)
    return net.act(net.bn(y))


def kept_in_an_attribute(net: Chain, x: Tensor) -> Tensor:
    net.seen = net.conv(x)
    return net.act(net.bn(net.seen))


def kept_in_an_attribute_besides(net: Chain, x: Tensor) -> Tensor:
    net.seen = y = net.conv(x)
    return net.act(net.bn(y))


def kept_after_the_norm(net: Chain, x: Tensor) -> Tensor:
    net.seen = y = net.bn(net.conv(x))
    return net.act(y)


LIST: list[Tensor] = []


def kept_in_a_list(net: Chain, x: Tensor) -> Tensor:
    LIST.append(net.conv(x))
    return net.act(net.bn(LIST[-1]))


def otherwise_in_training(net: Chain, x: Tensor) -> Tensor:
    y = net.conv(x)
    return net.act(net.bn(y)) + (y if net.training else 0)


def by_the_flag(net: Chain, x: Tensor) -> Tensor:
    y = net.conv(x)
    return net.act(net.bn(y)) + (y if net.flag else 0)


def by_the_values(net: Chain, x: Tensor) -> Tensor:
    return net.act(net.bn(net.conv(x))) if x.sum() > 0 else net.act(net.conv(x))


def functional(net: Chain, x: Tensor) -> Tensor:
    return F.elu(net.bn(net.conv(x)))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    ("call", "fused", "note"),
    [
        (used_between, (), "used 2 times"),
        (used_after_the_norm, ("bn",), "used 2 times"),
        (called_twice, (), "called several times"),
        (in_place_between, (), "used 2 times"),
        (kept_in_an_attribute, (), "of kept_in_an_attribute: there is no self.seen"),
        (kept_in_an_attribute_besides, (), "used 2 times"),
        (kept_after_the_norm, ("bn",), "used 2 times"),
        (kept_in_a_list, (), "of kept_in_a_list: a call of `LIST.append`"),
        (otherwise_in_training, (), "used 2 times"),
        (by_the_flag, ("bn", "act"), ""),
        (by_the_values, (), "of by_the_values: the condition `x.sum() > 0`"),
        (functional, ("bn",), "function elu"),
    ],
)
def test_forwards_of_every_kind(call: Callable, fused: tuple, note: str, train: bool) -> None:
    theirs, ours = twins(Chain(call).double())
    LIST.clear()
    assert swapped(ours)["conv"] == fused and note in notes(ours)["conv"]
    for input in (X.double(), -X.double()):
        assert_same(ours.train(train), theirs.train(train), input)
    if "attribute" in call.__name__ or call is kept_after_the_norm:
        assert_near(ours.seen, theirs.seen)
    if call is kept_in_a_list:
        assert_near(LIST[0], LIST[1])


def test_a_setting_changed_afterwards() -> None:
    theirs, ours = twins(Chain(by_the_flag))
    ours.flag = theirs.flag = True
    assert_same(ours, theirs, X)
    ipf.accelerate(ours)
    assert swapped(ours)["conv"] == ()
    theirs, ours = twins(VGGFeatures())
    ours.taps = theirs.taps = (1, 3, 11)
    assert_same(ours, theirs, torch.randn(INPUTS["vgg"]))


def test_tracing_leaves_no_trace() -> None:
    network = Chain(kept_in_an_attribute)
    before, generator = set(vars(network)), torch.get_rng_state()
    ipf.accelerate(network)
    assert set(vars(network)) - before == {"_acceleration_report"} and "seen" not in vars(network)
    assert torch.equal(torch.get_rng_state(), generator) and network.training and network.bn.num_batches_tracked == 0


def test_shared_modules() -> None:
    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = Chain(), Chain()
            self.right.conv, self.right.act = self.left.conv, self.left.act

        def forward(self, x: Tensor) -> Tensor:
            return self.left(x) + self.right(x)

    theirs, ours = twins(Siamese())
    assert swapped(ours) == {"left.conv": ()} and "called from 2 places" in notes(ours)["left.conv"]
    assert_same(ours, theirs, X)
    conv, relu = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(inplace=True)  # in an nn.Sequential sharing is no hindrance
    theirs, ours = twins(nn.Sequential(conv, nn.BatchNorm2d(3), relu, conv, relu, conv))
    assert_same(ours, theirs, X)
    assert [scaled for _, _, scaled in fused_modules(ours, X)] == [True, False, False]


def test_a_subclass_of_sequential_keeps_its_class() -> None:
    class ConvNormAct(nn.Sequential):
        pass

    theirs, ours = twins(nn.Sequential(ConvNormAct(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())))
    assert type(ours[0]) is ConvNormAct and swapped(ours)["0.0"] == ("0.1", "0.2")
    assert_same(ours, theirs, X)


def test_a_sequential_taken_apart() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())
    theirs, ours = twins(layers)
    assert isinstance(ours, FusedSequential) and isinstance(ours, nn.Sequential)
    a = b = X
    for mine, other in zip(ours, theirs, strict=True):
        a, b = mine(a), other(b)
        assert_near(a, b)
    for end in range(1, 6):
        assert_same(ours[:end], theirs[:end], X)
    assert_same(nn.Sequential(*list(ours.children())[:-1]), nn.Sequential(*list(theirs.children())[:-1]), X)
    assert_same(ours.append(nn.Tanh()), theirs.append(nn.Tanh()), X)


# ---- other systems ----


@pytest.mark.parametrize("name", ["vgg", *(pytest.param(name, marks=pytest.mark.long) for name in NETWORKS)])
def test_compile_and_export(name: str) -> None:
    theirs, ours = twins(NETWORKS[name]())
    input = torch.randn(INPUTS[name])
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    for train in (True, False):
        ours.train(train), theirs.train(train)
        for a, b in zip(outputs(compiled, input), outputs(theirs, input), strict=True):
            assert_near(a, b)
    exported = torch.export.export(ours, (input,)).module()
    for a, b in zip(outputs(exported, input), outputs(theirs, input), strict=True):
        assert_near(a, b)


def test_functional_call_and_half_precision() -> None:
    theirs, ours = twins(Chain().eval())
    state = {name: tensor * 1.5 for name, tensor in theirs.state_dict().items()}
    assert_near(torch.func.functional_call(ours, state, X), torch.func.functional_call(theirs, state, X))
    ours.bfloat16(), theirs.bfloat16()
    torch.testing.assert_close(ours(X.bfloat16()), theirs(X.bfloat16()), rtol=0.03, atol=0.03)
    assert ours(X.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"model": "net"}, TypeError, "model"),
        ({"model": nn.ReLU(), "precision": "high"}, ValueError, "precision"),
        ({"model": nn.ReLU(), "inference": True}, ValueError, "inference"),
    ],
    ids=["model", "precision", "inference"],
)
def test_a_wrong_argument_is_named(arguments: dict, error: type, name: str) -> None:
    with pytest.raises(error, match=f"^{name}: .*expected"):
        ipf.accelerate(**arguments)


def test_the_report_of_a_model_that_was_not_accelerated() -> None:
    with pytest.raises(ValueError, match=r"model: this ReLU was not accelerated; call accelerate\(model\)"):
        acceleration_report(nn.ReLU())
