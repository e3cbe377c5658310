"""What is kept of parameters: nothing without inference=True; with it, nothing that PyTorch can see to be old."""

from __future__ import annotations

import copy
import itertools
import pickle
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from nn.twins import assert_near, assert_same, randomised
from nn.weight_changes import ALL, INVISIBLE, VISIBLE, Change, convolutions
from torch import Tensor, nn
from torch.func import functional_call

import inpaint_fast as ipf

X = torch.randn(2, 24, 20, 20, generator=torch.Generator().manual_seed(0))  # tiles enough for Winograd's algorithm
CONVOLUTIONS = {
    "dilated": lambda: nn.Conv2d(24, 24, 3, padding=2, dilation=2),
    "strided": lambda: nn.Conv2d(24, 24, 4, stride=2, padding=1),
    "transposed": lambda: nn.ConvTranspose2d(24, 24, 4, stride=2, padding=1),
}
CONTEXTS = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode, "grad": torch.enable_grad}


class OneByOne(nn.Module):
    """The same modules, called by a forward of its own."""

    def __init__(self, conv: nn.Module, norm: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm, self.act = conv, norm, act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


def sequential(kind: str) -> nn.Module:
    return nn.Sequential(CONVOLUTIONS[kind](), nn.BatchNorm2d(24), nn.ELU())


def alone(kind: str) -> nn.Module:
    return nn.Sequential(CONVOLUTIONS[kind](), nn.ELU())


def one_by_one(kind: str) -> nn.Module:
    return OneByOne(*sequential(kind))


NETWORKS = {
    f"{make.__name__} {kind}": lambda make=make, kind=kind: randomised(make(kind)).eval()
    for make, kind in (
        (sequential, "dilated"), (alone, "dilated"), (one_by_one, "dilated"), (sequential, "strided"),
        (alone, "transposed"), (one_by_one, "transposed"),
    )
}  # fmt: skip


def used(net: nn.Module, context: str) -> Tensor:
    with CONTEXTS[context]():
        return net(X)


def changed(change: Change, plain: nn.Module, ours: nn.Module, context: str) -> None:
    """Both networks, used, then changed in the same way; the change is one that can be seen in the result."""
    before = used(plain, context).detach().clone()
    for net in (plain, ours):
        used(net, context)
        change(net, lambda net=net: used(net, context))
    with torch.no_grad():
        assert (plain(X) - before).abs().max() > 1e-3 * before.abs().max(), "the change is none"


def same_everywhere(plain: nn.Module, ours: nn.Module) -> None:
    for context in CONTEXTS:
        assert_near(used(ours, context), used(plain, context), context)
    assert_same(ours, plain, X)


@pytest.mark.parametrize("change", ALL.values(), ids=ALL)
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_without_the_promise_every_change_is_seen(make: Callable[[], nn.Module], change: Change) -> None:
    for context in CONTEXTS:
        plain = make()
        ours = ipf.accelerate(copy.deepcopy(plain))
        changed(change, plain, ours, context)
        assert_near(used(ours, context), used(plain, context), context)
        if context == "no_grad":
            same_everywhere(plain, ours)


@pytest.mark.parametrize("change", VISIBLE.values(), ids=VISIBLE)
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_under_the_promise_what_pytorch_sees_is_seen(make: Callable[[], nn.Module], change: Change) -> None:
    for context in CONTEXTS:
        plain = make()
        ours = ipf.accelerate(copy.deepcopy(plain), inference=True)
        changed(change, plain, ours, context)
        assert_near(used(ours, context), used(plain, context), context)


def trained(ours: nn.Module) -> None:
    ours.train().eval()


def accelerated_again(ours: nn.Module) -> None:
    ipf.accelerate(ours)


def promised_again(ours: nn.Module) -> None:
    ipf.accelerate(ours, inference=True)


@pytest.mark.parametrize("end", [trained, accelerated_again, promised_again])
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_the_promise_ends(make: Callable[[], nn.Module], end: Callable[[nn.Module], None]) -> None:
    """A change before its end is seen after it; one after the end is, too, unless the promise was made again."""
    for name in ("data_copied", "Adam_fused", "numpy_views", "memory_written"):
        plain = make()
        ours = ipf.accelerate(copy.deepcopy(plain), inference=True)
        changed(INVISIBLE[name], plain, ours, "no_grad")
        end(ours)
        assert_near(used(ours, "no_grad"), used(plain, "no_grad"), name)
        if end is not promised_again:
            changed(INVISIBLE[name], plain, ours, "no_grad")
            assert_near(used(ours, "no_grad"), used(plain, "no_grad"), name)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_other_parameters_for_one_call(make: Callable[[], nn.Module], inference: bool) -> None:
    plain = make()
    ours = ipf.accelerate(copy.deepcopy(plain), inference=inference)
    for factor in (None, 2.0, 0.5, None, 3.0):
        state = {name: t * factor if t.is_floating_point() and factor else t for name, t in plain.state_dict().items()}
        with torch.no_grad():
            assert_near(functional_call(ours, state, X), functional_call(plain, state, X))
            for tensor in state.values() if factor else ():
                (tensor if inference else tensor.data).mul_(2)  # under the promise so that PyTorch sees it
            assert_near(functional_call(ours, state, X), functional_call(plain, state, X), "the same, written to")
            assert_near(ours(X), plain(X), "its own")


def through_pickle(net: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(net))


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, through_pickle])
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_copies_share_nothing(make: Callable[[], nn.Module], duplicate: Callable, inference: bool) -> None:
    """Copies are made of a used network; then one of the two is changed, in a way that is seen."""
    plain = make()
    ours = ipf.accelerate(copy.deepcopy(plain), inference=inference)
    used(ours, "no_grad")
    other = duplicate(ours)
    assert_near(used(other, "no_grad"), used(plain, "no_grad"))
    changed(VISIBLE["in_place"], (plain_other := copy.deepcopy(plain)), other, "no_grad")
    for net, expected in ((ours, plain), (other, plain_other)):
        assert_near(used(net, "no_grad"), used(expected, "no_grad"))
    if not inference:
        changed(INVISIBLE["data_copied"], plain, ours, "no_grad")
        for net, expected in ((ours, plain), (other, plain_other)):
            assert_near(used(net, "no_grad"), used(expected, "no_grad"))


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_two_convolutions_with_one_weight(kind: str, inference: bool) -> None:
    """Tied, and of other kinds: a 3x3 weight is a convolution's of stride 1 and of stride 2, too."""

    def tied() -> nn.Module:
        first, second = CONVOLUTIONS[kind](), CONVOLUTIONS[kind]()
        layers = [first, nn.ELU(), second, nn.BatchNorm2d(24)]
        if kind == "dilated":
            layers += [nn.Conv2d(24, 24, 3, 2, 1), nn.Tanh(), nn.Conv2d(24, 24, 3, padding=1)]
        for conv in layers:
            if hasattr(conv, "kernel_size"):
                conv.weight = first.weight
        return nn.Sequential(*layers).eval()

    plain = tied()
    ours = ipf.accelerate(copy.deepcopy(plain), inference=inference)
    assert len({id(conv.weight) for conv in convolutions(ours)}) == 1
    assert_near(used(ours, "no_grad"), used(plain, "no_grad"))
    for net in (plain, ours):
        with torch.no_grad():
            convolutions(net)[-1].weight.mul_(0.5)
    assert_near(used(ours, "no_grad"), used(plain, "no_grad"))
    if not inference:
        for net in (plain, ours):
            convolutions(net)[-1].weight.data.mul_(3)
        same_everywhere(plain, ours)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_a_validation_after_every_step(make: Callable[[], nn.Module]) -> None:
    """A run of training: what a validation shows is the weights of its step."""
    plain = make()
    ours = ipf.accelerate(copy.deepcopy(plain))
    change = INVISIBLE["SGD_fused"]
    for _ in range(3):
        for net in (plain, ours):
            net.train()(X)
            change(net.eval(), lambda: None)
        assert_near(used(ours, "no_grad"), used(plain, "no_grad"))


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_promise_is_kept_by_its_network_alone(kind: str) -> None:
    """The same weight in a network with the promise and in one without it."""
    conv = CONVOLUTIONS[kind]()
    promised, free = nn.Sequential(conv, nn.ELU()).eval(), nn.Sequential(CONVOLUTIONS[kind](), nn.ELU()).eval()
    free[0].weight, free[0].bias = conv.weight, conv.bias
    ipf.accelerate(promised, inference=True)
    ipf.accelerate(free)
    plain = nn.Sequential(copy.deepcopy(conv), nn.ELU())
    plain[0].__class__ = nn.ConvTranspose2d if kind == "transposed" else nn.Conv2d
    for net in (promised, free):
        used(net, "no_grad")
    for layer in (conv, plain[0]):
        layer.weight.data.mul_(2)
    assert_near(used(free, "no_grad"), used(plain, "no_grad"))


# ---- tensors that change places ----


@pytest.fixture
def conversion_by_swapping() -> Iterator[None]:
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


def doubled_state(net: nn.Module) -> dict[str, Tensor]:
    return {name: t * 2 if t.is_floating_point() else t.clone() for name, t in net.state_dict().items()}


CONVERSIONS = {
    "to float64": lambda net: net.to(torch.float64),
    "to channels_last": lambda net: net.to(memory_format=torch.channels_last),
    "to bfloat16 and back": lambda net: net.bfloat16().float(),
    "load_state_dict": lambda net: net.load_state_dict(doubled_state(net)),
    "load_state_dict, assigned": lambda net: net.load_state_dict(doubled_state(net), assign=True),
    "swap_tensors": lambda net: [
        torch.utils.swap_tensors(tensor, type(tensor)(tensor.detach() * 2))
        for tensor in itertools.chain(net.parameters(), net.buffers())
        if tensor.is_floating_point()
    ],
}


@pytest.mark.usefixtures("conversion_by_swapping")
@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("conversion", CONVERSIONS.values(), ids=CONVERSIONS)
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_parameters_can_be_swapped(make: Callable[[], nn.Module], conversion: Callable, inference: bool) -> None:
    plain = make()
    ours = ipf.accelerate(copy.deepcopy(plain), inference=inference)
    for context in CONTEXTS:
        for net in (plain, ours):
            conversion(net)  # the first one before any call
        dtype = next(plain.parameters()).dtype
        with CONTEXTS[context]():
            for _ in range(2):
                assert_near(ours(X.to(dtype)).detach(), plain(X.to(dtype)).detach(), context)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_nobody_refers_to_parameters_weakly(make: Callable[[], nn.Module], inference: bool) -> None:
    """Which torch.utils.swap_tensors refuses."""
    ours = ipf.accelerate(make(), inference=inference)
    for context in CONTEXTS:
        used(ours, context)
        assert not any(map(weakref.getweakrefcount, itertools.chain(ours.parameters(), ours.buffers()))), context


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_tensor_in_another_place_is_another(kind: str) -> None:
    """The norm's weight becomes its bias: the same tensors, but for where they stand."""
    plain = NETWORKS.get(f"sequential {kind}", lambda: randomised(sequential(kind)).eval())()
    ours = ipf.accelerate(copy.deepcopy(plain), inference=True)
    with torch.no_grad():
        for net in (plain, ours):
            net[1].bias = None
            net(X)
            net[1].weight, net[1].bias = None, net[1].weight
        assert_near(ours(X), plain(X))
