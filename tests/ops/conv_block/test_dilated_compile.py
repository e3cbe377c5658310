"""dilated_block in PyTorch's machinery: opcheck, torch.compile, autocast."""

from __future__ import annotations

import pytest
import torch
from ops.conv_block.blocks import OUT, SHAPE, arguments, compiled, random
from support import assert_as_good, exactly, laid_out, relative_error
from torch import Tensor

import inpaint_fast as ipf
from inpaint_fast._words import ORDERS
from inpaint_fast.ops.conv_block import choice
from inpaint_fast.ops.conv_block import dilated_reference as reference

STEM = "dilated_block"


NORM_ACT = ORDERS.index("norm_act")


@pytest.mark.proves("dilated_block", equals="what torch.library promises", within="opcheck's")
@compiled
def test_opcheck(winograd) -> None:
    input, weight, bias, scale, shift = arguments(shape=(1, 5, 9, 8), out=7)
    settings = ([2, 2, 2, 2], 1, 0.0, NORM_ACT)
    ops = torch.ops.inpaint_fast
    transformed = ops.dilated_block_weights(weight, 4, False)
    grad = random(1, 7, 9, 8)
    last = input.contiguous(memory_format=torch.channels_last)
    wanting = [t.detach().requires_grad_() for t in (input, weight, bias)]
    for op, args in (
        (ops.dilated_block, (input, weight, transformed, bias, scale, shift, *settings, False, False)),
        (ops.dilated_block, (last, weight, None, None, None, None, *settings, True, False)),
        (ops.dilated_block, (*wanting[:2], None, wanting[2], None, None, *settings, False, False)),
        (ops.dilated_block_forward, (input, weight, transformed, bias, scale, shift, *settings, False, False)),
        (ops.dilated_block_forward, (last, weight, None, None, None, None, *settings, True, False)),
        (ops.dilated_block_weights, (weight, 4, False)),
        (ops.dilated_block_weights, (weight, 6, False)),
        (ops.dilated_block_input_gradient, (grad, weight, [2, 2, 2, 2], True, False)),
        (ops.dilated_block_weight_gradient, (grad, input, weight, [2, 2, 2, 2], False)),
    ):
        torch.library.opcheck(op.default, args, rtol=1e-4, atol=1e-4)


@compiled
@pytest.mark.parametrize("channels_last", (False, True))
def test_compile(winograd, channels_last) -> None:
    torch.manual_seed(0)
    tensors = arguments()
    if channels_last:
        tensors[0] = laid_out(tensors[0], "channels_last")
    seed = random(SHAPE[0], OUT, *SHAPE[2:])

    def function(input, weight, bias, scale, shift):
        y = ipf.dilated_block(input, weight, bias, scale=scale, shift=shift, dilation=2, activation="relu")
        return ipf.dilated_block(y, weight.transpose(0, 1), dilation=1).relu()

    def both(f) -> list[Tensor]:
        args = [t.detach().requires_grad_() for t in tensors]
        y = f(*args)
        return [y.detach(), *torch.autograd.grad(y, args, seed[:, : y.shape[1]])]

    faster = torch.compile(function, fullgraph=True)
    for value, wanted in zip(both(faster), both(function), strict=True):
        assert relative_error(value, wanted) < 1e-6
    with torch.no_grad():
        assert relative_error(faster(*tensors), function(*tensors)) < 1e-6


@compiled
def test_autocast(winograd) -> None:
    """As F.conv2d has it: dtypes may be mixed, and the result has autocast's."""
    input, weight, bias = arguments(affine=False)[:3]
    half = input.bfloat16()
    for x in (input, half):
        exact = reference(*exactly([x, weight, bias]))
        with torch.autocast("cpu", torch.bfloat16):
            plain = reference(x, weight, bias)
            for backend in (None, "cpp", "reference"):
                y = ipf.dilated_block(x, weight, bias, backend=backend)
                assert y.dtype == plain.dtype == torch.bfloat16
                assert relative_error(y, exact) < 2**-8
                assert_as_good(y, plain, exact)
            double = ipf.dilated_block(*exactly([x, weight, bias]))
        assert double.dtype == torch.float64 and torch.equal(double, exact)


@compiled
@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16), ids=str)
@pytest.mark.parametrize("instructions", (False, True))
def test_half_precision_unasked(winograd, monkeypatch, dtype, instructions) -> None:
    """PyTorch's convolution where the processor has instructions for the dtype, ours in float32 where it has none."""
    monkeypatch.setattr(choice, "IN_TORCH", dict.fromkeys(choice.IN_TORCH, instructions))
    monkeypatch.setattr(choice, "INSTRUCTIONS", {"avx512f", "avx512_bf16", "amx_bf16"})
    torch.manual_seed(0)
    tensors, settings = arguments(dtype), {"dilation": 2, "activation": "relu"}
    input, weight, bias, scale, shift = tensors
    y = ipf.dilated_block(input, weight, bias, scale=scale, shift=shift, **settings)
    ours = ipf.dilated_block(input, weight, bias, scale=scale, shift=shift, backend="cpp", **settings)
    plain = reference(input, weight, bias, scale=scale, shift=shift, **settings)
    assert torch.equal(y, plain if instructions else ours)
    assert not torch.equal(plain, ours)  # or neither would tell
    with ipf.use_backend("cpp"):  # is to ask
        assert torch.equal(ipf.dilated_block(input, weight, bias, scale=scale, shift=shift, **settings), ours)


@compiled
@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16), ids=str)
def test_half_precision_compiled_and_exported(dtype) -> None:
    """In one graph: what the processor has was found before."""
    torch.manual_seed(0)
    x, w = torch.randn(1, 128, 32, 32).to(dtype), (torch.randn(128, 128, 3, 3) / 34).to(dtype)

    class Block(torch.nn.Module):
        def forward(self, x, w):
            return ipf.dilated_block(x, w, dilation=2, activation="relu")

    exact, plain = reference(x.double(), w.double(), dilation=2, activation="relu"), reference(
        x, w, dilation=2, activation="relu"
    )  # fmt: skip
    with torch.no_grad():
        for run in (
            torch.compile(Block(), fullgraph=True), torch.export.export(Block(), (x, w), strict=True).module()
        ):  # fmt: skip
            assert_as_good(run(x, w), plain, exact)


@pytest.mark.parametrize("autocast", (False, True))
@pytest.mark.parametrize("channels", (24, 40))
def test_weight_gradients_that_pytorch_loses(channels, autocast) -> None:
    """bfloat16, channels_last, dilated, channels that are no multiple of 16: oneDNN leaves what lay in memory."""
    torch.manual_seed(0)
    last = torch.channels_last
    x, w = torch.randn(1, channels, 48, 48).bfloat16(), (torch.randn(32, channels, 3, 3) / 15).bfloat16()
    conv = torch.nn.Conv2d(channels, 32, 3, padding=2, dilation=2, bias=False)
    conv.weight.data.copy_(w)
    net = ipf.accelerate(torch.nn.Sequential(conv if autocast else conv.bfloat16()).to(memory_format=last))
    picture = (x.float() if autocast else x).to(memory_format=last)
    grads = []
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        for _ in range(3):
            weight = w.to(memory_format=last).requires_grad_()
            y = ipf.dilated_block(x.to(memory_format=last), weight, dilation=2)
            grads += [*torch.autograd.grad(y.float().sum(), weight)]
            grads += [*torch.autograd.grad(net(picture).float().sum(), conv.weight)]
            assert y.is_contiguous(memory_format=last)
    by = {}
    for dtype in (torch.float64, torch.bfloat16):
        weight = w.to(dtype).requires_grad_()
        (by[dtype],) = torch.autograd.grad(reference(x.to(dtype), weight, dilation=2).sum(), weight)
    for grad in grads:
        assert_as_good(grad.bfloat16(), by[torch.bfloat16], by[torch.float64])
