"""A network and its accelerated copy, and how the two are compared."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import inpaint_fast as ipf
from inpaint_fast.nn import acceleration_report
from inpaint_fast.ops.conv_block import ConvNormAct


def randomised(network: nn.Module) -> nn.Module:
    """With statistics and affine parameters of no special value."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return network


def twins(network: nn.Module, **options) -> tuple[nn.Module, nn.Module]:
    """The network, and an accelerated copy."""
    theirs = randomised(network)
    return theirs, ipf.accelerate(copy.deepcopy(theirs), **options)


def outputs(network: nn.Module, *input: Tensor) -> list[Tensor]:
    output = network(*input)
    return list(output) if isinstance(output, (list, tuple)) else [output]


def assert_near(ours: Tensor, theirs: Tensor, name: str = "") -> None:
    scale = theirs.detach().double().abs().max().item() or 1.0
    tolerance = (1e-9 if theirs.dtype == torch.float64 else 1e-4) * scale
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance, msg=lambda text: f"{name}: {text}")


def assert_same(ours: nn.Module, theirs: nn.Module, *input: Tensor) -> None:
    """Outputs, gradients of all parameters and of the input, and buffers afterwards."""
    results = []
    for network in (ours, theirs):
        leaves = [x.clone().requires_grad_() for x in input]
        made = outputs(network, *leaves)
        loss = sum((y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)).sum() for y in made)
        named = {**dict(network.named_parameters()), **{f"input{i}": leaf for i, leaf in enumerate(leaves)}}
        gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
        results.append((made, dict(zip(named, gradients, strict=True)), buffers))
    (ours_made, ours_gradients, ours_buffers), (made, gradients, buffers) = results
    for i, (a, b) in enumerate(zip(ours_made, made, strict=True)):
        assert_near(a, b, f"output {i}")
    # A bias before a norm has no gradient but rounding errors: the scale is that of the largest gradient.
    largest = max(g.abs().max().item() for g in gradients.values() if g is not None)
    tolerance = 1e-9 if made[0].dtype == torch.float64 else 1e-4
    assert list(ours_gradients) == list(gradients)
    for name, gradient in gradients.items():
        assert (ours_gradients[name] is None) == (gradient is None), name
        if gradient is not None:
            torch.testing.assert_close(ours_gradients[name], gradient, rtol=0, atol=tolerance * largest)
    assert list(ours_buffers) == list(buffers)
    for name, buffer in buffers.items():
        assert_near(ours_buffers[name], buffer, name)


def everything(net: nn.Module, call: Callable[[nn.Module], Tensor]) -> dict[str, Tensor | None]:
    """The result of a call, the gradients of all parameters and the buffers afterwards."""
    y = call(net)
    found = {"result": y.detach()}
    if y.requires_grad:
        loss = (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)).sum()
        parameters = {name: p for name, p in net.named_parameters() if p.requires_grad}
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        found |= {f"gradient of {name}": g for name, g in zip(parameters, gradients, strict=True)}
    return found | {name: buffer.clone() for name, buffer in net.named_buffers()}


def assert_equal_calls(ours: nn.Module, plain: nn.Module, call: Callable[[nn.Module], Tensor]) -> None:
    got, expected = everything(ours, call), everything(plain, call)
    assert list(got) == list(expected)
    scale = max(t.double().abs().max().item() for t in expected.values() if t is not None)
    for name, tensor in expected.items():
        assert (got[name] is None) == (tensor is None), name
        if tensor is not None:
            torch.testing.assert_close(
                got[name], tensor, rtol=0, atol=1e-9 * scale, msg=lambda text, name=name: f"{name}: {text}"
            )


def assert_twins_equal(make: Callable[[], nn.Module], *calls: Callable[[nn.Module], Tensor]) -> nn.Module:
    """Accelerated, it gives what the plain network gives, called so in training and in eval mode; the accelerated."""
    plain, ours = twins(make().double())
    for train in (True, False, True):
        plain.train(train), ours.train(train)
        for call in (*calls, *reversed(calls)):
            assert_equal_calls(ours, plain, call)
    return ours


def relative_errors_within(
    ours: dict[str, Tensor | None], plain: dict[str, Tensor | None], exact: dict[str, Tensor | None], eps: float
) -> None:
    """Each of ours is as near to the float64 one as the plain network's is, twice its error and some units allowed.

    The scale of the gradients is that of the largest one: a bias before a norm has rounding errors alone.
    """
    largest = (
        max(t.norm().item() for name, t in exact.items() if t is not None and name.startswith("gradient"))
        if any(name.startswith("gradient") for name in exact)
        else 0.0
    )
    for name, wanted in exact.items():
        if wanted is None:
            continue
        scale = max(wanted.double().norm().item(), largest if name.startswith("gradient") else 0.0) or 1.0
        error, other = ((t[name].double() - wanted.double()).norm().item() / scale for t in (ours, plain))
        assert error <= 2 * other + 16 * eps, f"{name}: relative error {error:.3g}, the plain network's {other:.3g}"


def swapped(network: nn.Module) -> dict[str, tuple[str, ...]]:
    return {entry.name: entry.fused for entry in acceleration_report(network).swapped}


def left(network: nn.Module) -> dict[str, str]:
    return {entry.name: entry.reason for entry in acceleration_report(network).left}


def notes(network: nn.Module) -> dict[str, str]:
    return {entry.name: entry.note for entry in acceleration_report(network).swapped}


class Chain(nn.Module):
    """One convolution with its norm and activation, called one by one, or by a forward that a test gives."""

    def __init__(self, forward: Callable | None = None, activation: nn.Module | None = None) -> None:
        super().__init__()
        if forward is not None:
            self.__class__ = type(forward.__name__, (Chain,), {"forward": forward})
        self.conv, self.bn, self.act = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), activation or nn.ReLU()
        self.flag = False

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


def fused_modules(network: nn.Module, input: Tensor) -> list[tuple[str, str, bool]]:
    """What each call for a convolution had fused in eval mode, activation, order and whether a norm: the fusion is
    there, and not only the result."""
    calls, run = [], ConvNormAct.__call__

    def recorded(layer: ConvNormAct, x: Tensor, weight: Tensor, bias: Tensor | None, norm: object, kept: object):
        _, _, epilogue, _ = layer.settings
        calls.append((epilogue.activation, epilogue.order, norm is not None))
        return run(layer, x, weight, bias, norm, kept)

    modes = {module: module.training for module in network.modules()}
    network.eval()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConvNormAct, "__call__", recorded)
        network(input)
    for module, mode in modes.items():
        module.training = mode
    return calls


X = torch.linspace(-1, 1, 2 * 3 * 8 * 9).view(2, 3, 8, 9).sin()
