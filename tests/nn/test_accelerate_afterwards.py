"""What happens to an accelerated network afterwards: hooks, replaced modules, copies, inference with other weights."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from nn.networks import INPUTS, UNet, VGGFeatures
from nn.twins import Chain, X, assert_near, assert_same, fused_modules, notes, outputs, randomised, swapped, twins
from support import always_winograd
from torch import Tensor, nn

import inpaint_fast as ipf
from inpaint_fast.nn import AcceleratedConv2d, DilatedConvBlock
from inpaint_fast.nn.fuse import swap
from inpaint_fast.ops.conv_block import Norm

# ---- hooks, replaced modules, copies of parts ----


@pytest.mark.parametrize("make", [Chain, lambda: nn.Sequential(*Chain().children())], ids=["forward", "sequential"])
def test_hooks(make: Callable) -> None:
    theirs, ours = twins(make())
    for i, name in enumerate(name for name, _ in theirs.named_children()):
        seen: list[Tensor] = []
        handles = [
            network.get_submodule(name).register_forward_hook(lambda m, x, y, seen=seen: seen.append(y.clone()))
            for network in (ours, theirs)
        ]
        assert_same(ours, theirs, X)
        assert_near(*seen)
        for handle in handles:
            handle.remove()
        assert fused_modules(ours, X) == [("relu", "norm_act", True)], i


def test_hooks_from_before() -> None:
    network = Chain()
    network.bn.register_forward_hook(lambda m, x, y: y * 2)
    theirs, ours = twins(network)
    assert swapped(ours)["conv"] == () and "hooks" in notes(ours)["conv"]
    assert_same(ours, theirs, X)


def test_a_hook_for_all_modules() -> None:
    theirs, ours = twins(Chain())
    seen: dict[type, Tensor] = {}
    handle = nn.modules.module.register_module_forward_hook(lambda m, x, y: seen.__setitem__(type(m), y))
    try:
        ours(X), theirs(X)
    finally:
        handle.remove()
    assert_near(seen[AcceleratedConv2d], seen[nn.Conv2d])


@pytest.mark.parametrize("child", ["conv", "bn", "act"])
def test_replaced_children(child: str) -> None:
    theirs, ours = twins(Chain())
    new = {"conv": nn.Conv2d(3, 4, 3), "bn": nn.GroupNorm(2, 4), "act": nn.GELU()}[child]
    for network in (ours, theirs):
        setattr(network, child, copy.deepcopy(new))
    assert_same(ours, theirs, X)


def test_copies_of_one_module_are_what_it_was() -> None:
    theirs, ours = twins(Chain())
    for make in (copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))):
        assert_near(make(ours.conv)(X), theirs.conv(X))
        y = torch.randn(2, 4, 5, 5)
        assert_near(make(ours.act)(y), theirs.act(y))
        assert_near(make(ours.bn)(y), copy.deepcopy(theirs.bn)(y))


def test_twice_is_once_and_other_precision() -> None:
    theirs, ours = twins(UNet())
    before = swapped(ours)
    assert swapped(ipf.accelerate(ours, precision="exact")) == before
    assert {module.precision for module in ours.modules() if isinstance(module, AcceleratedConv2d)} == {"exact"}
    assert_same(ours, theirs, torch.randn(INPUTS["unet"]))


def test_a_dilated_conv_block_inside() -> None:
    block = randomised(DilatedConvBlock(3, 4, 2, precision="exact"))
    theirs, ours = twins(nn.Sequential(block, nn.Conv2d(4, 4, 3)))
    assert type(ours[0]) is DilatedConvBlock and ours[0].precision == "exact"
    assert swapped(ours) == {"0.0": ("0.1", "0.2"), "1": ()}
    assert_same(ours, theirs, X)


# ---- inference ----


def bump(network: nn.Module) -> None:
    """In place, as an optimizer or an EMA does."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(1.1)


def another_state(network: nn.Module) -> None:
    network.load_state_dict({name: tensor * 2 for name, tensor in network.state_dict().items()})


def other_tensors(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = module.running_mean + 1
            module.weight = nn.Parameter(module.weight * 3)


def rounded(network: nn.Module) -> None:
    network.to(torch.bfloat16).to(torch.float32)


def train_a_step(network: nn.Module) -> None:
    network.train()(torch.linspace(-2, 3, 2 * 3 * 16 * 18).view(2, 3, 16, 18))
    network.eval()


def train_a_step_unfused(network: nn.Module) -> None:
    handles = [module.register_forward_hook(lambda m, x, y: None) for module in network.modules()]
    train_a_step(network)  # the norms run by themselves, and no version of their statistics is counted
    for handle in handles:
        handle.remove()


def other_eps(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.5


CHANGES = [bump, another_state, other_tensors, rounded, train_a_step, train_a_step_unfused, other_eps]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("make", [VGGFeatures, lambda: VGGFeatures().features], ids=["forward", "sequential"])
def test_inference_is_never_stale(make: Callable, change: Callable) -> None:
    theirs, ours = twins(make().eval(), inference=True)
    input = torch.randn(INPUTS["vgg"])
    for context in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with context():
            for a, b in zip(outputs(ours, input), outputs(theirs, input), strict=True):
                assert_near(a, b)
    before = outputs(theirs, input)[-1].detach()
    for network in (ours, theirs):
        change(network)
    with torch.no_grad():
        for a, b in zip(outputs(ours, input), outputs(theirs, input), strict=True):
            assert_near(a, b)
    assert not torch.equal(outputs(theirs, input)[-1], before)
    assert_same(ours, theirs, input)  # gradients in eval mode, the norm's too
    assert_same(ours.train(), theirs.train(), input)


def test_a_weight_assigned_to_the_memory_of_a_former_one() -> None:
    """What the first lets go of, the third may get: the same address and version, other numbers."""
    conv = ipf.accelerate(nn.Conv2d(32, 32, 3).eval(), inference=True)
    input, shape = torch.randn(2, 32, 18, 18), conv.weight.shape
    with torch.no_grad():
        for _ in range(40):
            conv.weight.data = torch.randn(shape)
            conv(input)
            conv.weight.data = torch.randn(shape)
            conv.weight.data = torch.randn(shape)
            assert_near(conv(input), nn.functional.conv2d(input, conv.weight, conv.bias))


@pytest.mark.parametrize("winograd", [False, True])
def test_inference_folds_once_and_training_drops_it(monkeypatch: pytest.MonkeyPatch, winograd: bool) -> None:
    x = torch.randn(8, 3, 64, 64)  # for fewer numbers a look at what is kept costs more than it saves
    folds, fold, prepared = [], Norm.scale_and_shift, []
    monkeypatch.setattr(Norm, "scale_and_shift", lambda norm, dtype: folds.append(norm) or fold(norm, dtype))
    monkeypatch.setattr(swap, "keep_transformed", lambda kept, block, weight: prepared.append((kept, weight)))
    with always_winograd() if winograd else nullcontext(), torch.no_grad():
        _, ours = twins(Chain().eval(), inference=True)
        assert [(kept is ours.conv._kept, weight is ours.conv.weight) for kept, weight in prepared] == [(True, True)]
        ours(x), ours(x)
        assert len(folds) == 1
        assert list(ours.state_dict()) == list(Chain().state_dict())
        other = copy.deepcopy(ours)
        other(x), other(x)
        assert len(folds) == 2
        ours.train()(x)
        assert "_kept" not in vars(ours.conv) and len(folds) == 2
        ours.eval()
        ours(x), ours(x)
        # Into the kernel at each call; where the convolution is PyTorch's, not at all.
        assert len(folds) == (4 if winograd else 2)
        other(x)
        assert len(folds) == (4 if winograd else 2)
        assert "_kept" in vars(other.conv) and "_kept" not in vars(ipf.accelerate(other).conv)


def test_inference_tensors_are_never_kept() -> None:
    """Made under inference_mode they have no version counter."""
    with torch.inference_mode():
        network = randomised(Chain()).eval()
        ours = ipf.accelerate(copy.deepcopy(network), inference=True)
        for net in (ours, network):
            net(X), net.bn.running_mean.add_(1)
        assert_near(ours(X), network(X))
