"""Every operator in a CUDA graph: captured once, replayed on other numbers, the same bits as the calls themselves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import inpaint_fast as ipf
from inpaint_fast._words import triton_interpreted
from inpaint_fast.ops._dispatch import why_not
from inpaint_fast.optim import ClippedAdam, ClippedRMSprop

# What a call returns, and every tensor that it reads or changes.
Case = tuple[Callable[[], list[Tensor]], list[Tensor]]


def masked_l2(device: str) -> Case:
    pred, target = (torch.randn(2, 3, 33, 35, device=device) for _ in range(2))
    mask = torch.rand(2, 1, 33, 35, device=device)

    def run() -> list[Tensor]:
        found = []
        for reduction in ("mean", "mask_mean"):
            leaf = pred.detach().requires_grad_()
            loss, composite = ipf.masked_l2_composite(leaf, target, mask, reduction=reduction)
            (grad,) = torch.autograd.grad(2 * loss + composite.sum(), leaf)
            found += [loss.detach(), composite.detach(), grad, ipf.masked_l2(pred, target, mask, reduction=reduction)]
        return found

    return run, [pred, target, mask]


def weight_clip(device: str) -> Case:
    tensors = [torch.randn(shape, device=device) for shape in ((33, 35), (5,), (1, 3, 7, 2))]

    def run() -> list[Tensor]:
        ipf.clip_weights_(tensors, 0.5)
        return tensors

    return run, tensors


def clipped_step(device: str) -> Case:
    params = [torch.randn(shape, device=device).requires_grad_() for shape in ((33, 35), (5,))]
    for param in params:
        param.grad = torch.randn_like(param)
    capturable = {"capturable": True} if device == "cuda" else {}
    optimizers = [ClippedAdam(params, clip=0.5, **capturable), ClippedRMSprop(params, clip=0.5, **capturable)]

    def run() -> list[Tensor]:
        for optimizer in optimizers:
            optimizer.step()
        return [param.detach() for param in params]

    run()  # the states are there from now on
    states = [tensor for o in optimizers for state in o.state.values() for tensor in state.values()]
    return run, [*(p.detach() for p in params), *(p.grad for p in params), *states]


def norm_act(device: str) -> Case:
    x, grad = (torch.randn(2, 24, 7, 9, device=device) for _ in range(2))
    norm = nn.BatchNorm2d(24).to(device)

    def run() -> list[Tensor]:
        found = []
        for training in (True, False):
            leaf = x.detach().requires_grad_()
            statistics = norm.running_mean, norm.running_var
            y = ipf.norm_act(leaf, *statistics, norm.weight, norm.bias, training=training, activation="elu")
            found += [y.detach(), *torch.autograd.grad(y, (leaf, norm.weight, norm.bias), grad)]
        return [*found, norm.running_mean, norm.running_var]

    return run, [x, grad, norm.running_mean, norm.running_var]


def block(device: str, function: Callable[..., Tensor], weight: tuple[int, ...], **settings: int) -> Case:
    x = torch.randn(2, 32, 18, 22, device=device).contiguous(memory_format=torch.channels_last)
    w, bias = torch.randn(weight, device=device) / 17, torch.randn(32, device=device)

    def run() -> list[Tensor]:
        leaves = [tensor.detach().requires_grad_() for tensor in (x, w, bias)]
        y = function(*leaves, activation="relu", **settings)
        return [y.detach(), *torch.autograd.grad(y.square().sum(), leaves)]

    return run, [x, w, bias]


CASES = {"masked_l2": masked_l2, "weight_clip": weight_clip, "clipped_step": clipped_step, "norm_act": norm_act,
         "dilated_block": lambda device: block(device, ipf.dilated_block, (32, 32, 3, 3), dilation=2),
         "strided_block_3": lambda device: block(device, ipf.strided_block, (32, 32, 3, 3)),
         "strided_block_4": lambda device: block(device, ipf.strided_block, (32, 32, 4, 4)),
         "strided_block_5": lambda device: block(device, ipf.strided_block, (32, 32, 5, 5)),
         "transposed_block_3": lambda device: block(device, ipf.transposed_block, (32, 32, 3, 3)),
         "transposed_block_4": lambda device: block(device, ipf.transposed_block, (32, 32, 4, 4)),
         "transposed_block_5": lambda device: block(device, ipf.transposed_block, (32, 32, 5, 5))}  # fmt: skip
STEMS = {name: "weight_clip" if name == "clipped_step" else name.rstrip("_345") for name in CASES}


def check(run: Callable[[], list[Tensor]], again: Callable[[], list[Tensor]], tensors: list[Tensor]) -> None:
    """Both leave the same results and the same tensors behind."""
    before = [tensor.clone() for tensor in tensors]
    expected = [tensor.clone() for tensor in [*run(), *tensors]]
    for tensor, value in zip(tensors, before, strict=True):
        tensor.copy_(value)
    found = [*again(), *tensors]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_a_call_repeated_gives_the_same_bits(name: str) -> None:
    """On the CPU: what the next test does, but for the graph."""
    for backend in ("cpp", "reference"):
        if why_not(STEMS[name], backend, "cpu") is None:
            with ipf.use_backend(backend):
                run, tensors = CASES[name]("cpu")
                check(run, run, tensors)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cuda"] if triton_interpreted() else ["cuda", "triton"])
@pytest.mark.parametrize("name", CASES)
def test_replay_of_a_captured_call(name: str, backend: str) -> None:
    reason = why_not(STEMS[name], backend, "cuda")
    if reason is not None:
        pytest.skip(reason)
    with ipf.use_backend(backend):
        run, tensors = CASES[name]("cuda")
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = run()

        def replay() -> list[Tensor]:
            graph.replay()
            return results

        for seed in range(3):
            torch.manual_seed(seed)
            for tensor in tensors:
                if tensor.dim() > 1:  # no variance may turn negative, no step a fraction
                    tensor.copy_(torch.rand_like(tensor))
            check(run, replay, tensors)
