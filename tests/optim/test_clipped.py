"""The clipped optimizers against those of torch.optim followed by a clamp, on the real critic."""

from __future__ import annotations

import copy
import functools
import math
import pickle

import pytest
import torch
from torch import nn

from inpaint_fast.models import WassersteinCritic
from inpaint_fast.optim import Adadelta, ClippedAdam, ClippedAdamW, ClippedRMSprop, ClippedSGD

STEM = "weight_clip"
CASES = {
    "adam": (ClippedAdam, torch.optim.Adam, {"lr": 1e-3, "betas": (0.5, 0.999)}, 0.03),
    "adam-amsgrad-decay": (ClippedAdam, torch.optim.Adam, {"amsgrad": True, "weight_decay": 0.01}, None),
    "adam-maximize": (ClippedAdam, torch.optim.Adam, {"maximize": True}, (-0.02, 0.05)),
    "adamw": (ClippedAdamW, torch.optim.AdamW, {"lr": 1e-2, "amsgrad": True}, 0.05),
    "rmsprop": (ClippedRMSprop, torch.optim.RMSprop, {"lr": 5e-5}, 0.01),
    "rmsprop-centered": (ClippedRMSprop, torch.optim.RMSprop, {"lr": 5e-4, "centered": True, "momentum": 0.9}, 0.05),
    "sgd": (ClippedSGD, torch.optim.SGD, {"lr": 1e-2}, 0.05),
    "sgd-nesterov": (ClippedSGD, torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9, "nesterov": True}, 0.05),
    "sgd-dampening": (ClippedSGD, torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9, "dampening": 0.3}, 0.05),
    "adadelta": (Adadelta, torch.optim.Adadelta, {"weight_decay": 1e-3}, None),
}


def set_gradients(*networks: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameters in zip(*(network.parameters() for network in networks), strict=True):
        grad = torch.randn(parameters[0].shape, generator=generator) * 0.1
        for parameter in parameters:
            parameter.grad = grad.to(parameter)


def clamp(network: nn.Module, clip) -> None:
    if clip is not None:
        low, high = clip if isinstance(clip, tuple) else (-clip, clip)
        for parameter in network.parameters():
            parameter.data.clamp_(low, high)


def assert_close(ours: nn.Module, theirs: nn.Module, limit: float = 1e-6) -> None:
    for (name, value), expected in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        error = ((value - expected).norm() / expected.norm().clamp(min=1e-12)).item()
        assert error <= limit, f"{name}: {error:.2g}"


@functools.cache
def trained_by_torch(name: str, filters: int, steps: int) -> tuple[nn.Module, nn.Module]:
    """A critic before and after so many steps of torch.optim, each with its clamps."""
    _, theirs_class, settings, clip = CASES[name]
    torch.manual_seed(0)
    before = WassersteinCritic(filters)
    after = copy.deepcopy(before)
    plain = theirs_class(after.parameters(), **settings)
    for step in range(steps):
        set_gradients(after, step=step)
        plain.step()
        clamp(after, clip)
    return before, after


@pytest.mark.proves(
    "ClippedAdam",
    "ClippedAdamW",
    "ClippedRMSprop",
    "ClippedSGD",
    "Adadelta",
    equals="torch.optim's class and a loop of clamps, for 200 steps on a critic",
    within="1e-6 of a parameter's norm",
)
@pytest.mark.parametrize("name", CASES)
def test_200_steps_on_the_critic(implementation, name) -> None:
    ours_class, _, settings, clip = CASES[name]
    filters, steps = (4, 10) if implementation.slow else (6, 200)
    before, after = trained_by_torch(name, filters, steps)
    ours = copy.deepcopy(before).to(implementation.device)
    optimizer = ours_class(ours.parameters(), clip=clip, backend=implementation.backend, **settings)
    for step in range(steps):
        set_gradients(ours, step=step)
        optimizer.step()
    assert_close(ours.cpu(), after)


def test_rmsprop_with_epsilon_inside_the_root() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = ClippedRMSprop([parameter], lr=0.1, alpha=0.9, eps=1e-2, eps_inside=True)
    parameter.grad = torch.tensor([0.5, 0.25])
    optimizer.step()
    square = 0.1 * torch.tensor([0.25, 0.0625])
    expected = torch.tensor([1.0, -2.0]) - 0.1 * torch.tensor([0.5, 0.25]) / (square + 1e-2).sqrt()
    torch.testing.assert_close(parameter.detach(), expected)


@pytest.mark.proves(
    "ClippedAdam",
    "ClippedAdamW",
    "ClippedRMSprop",
    "ClippedSGD",
    "Adadelta",
    equals="torch.optim's class that goes on from its state, and the other way round",
    within="1e-6 of a parameter's norm",
)
@pytest.mark.parametrize("name", CASES)
def test_state_dict_goes_to_the_torch_optimizer_and_back(name) -> None:
    ours_class, theirs_class, settings, clip = CASES[name]
    networks = [WassersteinCritic(4) for _ in range(3)]
    first, second, third = networks
    ours = ours_class(first.parameters(), clip=clip, **settings)
    for step in range(3):
        set_gradients(first, step=step)
        ours.step()
    theirs = theirs_class(second.parameters(), **settings)
    second.load_state_dict(first.state_dict())
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    back = ours_class(third.parameters(), clip=clip, **settings)
    plain = theirs_class(third.parameters(), **settings).state_dict()
    assert plain["param_groups"][0].keys() <= ours.state_dict()["param_groups"][0].keys()
    for step in range(3, 6):
        set_gradients(first, second, step=step)
        ours.step()
        theirs.step()
        clamp(second, clip)
    assert_close(first, second)
    third.load_state_dict(second.state_dict())
    saved = copy.deepcopy(theirs.state_dict())
    for group in saved["param_groups"]:
        group.pop("clip", None), group.pop("eps_inside", None)  # as a checkpoint that torch alone wrote
    back.load_state_dict(saved)
    assert back.param_groups[0]["clip"] == clip
    for step in range(6, 9):
        set_gradients(first, third, step=step)
        ours.step()
        back.step()
    assert_close(first, third)


def test_groups_have_their_own_bound_and_schedulers_work() -> None:
    a, b = nn.Parameter(torch.full((5,), 9.0)), nn.Parameter(torch.full((5,), 9.0))
    optimizer = ClippedSGD([{"params": [a], "clip": 1.0}, {"params": [b], "clip": None}], lr=1.0)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for _ in range(2):
        a.grad, b.grad = torch.ones(5), torch.ones(5)
        optimizer.step()
        schedule.step()
    assert (a == 0.5).all() and (b == 9 - 1 - 0.5).all()


def test_grad_scaler_skips_and_unscales() -> None:
    parameter = nn.Parameter(torch.ones(4))
    optimizer = ClippedAdam([parameter], lr=0.1, clip=5.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale((parameter * torch.tensor([1.0, 2, 3, math.inf])).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert (parameter == 1).all() and scaler.get_scale() == 4.0
    optimizer.zero_grad()
    scaler.scale((parameter * torch.tensor([1.0, 2, 3, 4])).sum()).backward()
    scaler.step(optimizer)
    torch.testing.assert_close(parameter.detach(), torch.full((4,), 0.9))


@pytest.mark.parametrize("name", CASES)
def test_a_copy_and_a_pickle_go_on(name) -> None:
    ours_class, _, settings, clip = CASES[name]
    network = WassersteinCritic(4)
    optimizer = ours_class(network.parameters(), clip=clip, **settings)
    set_gradients(network, step=0)
    optimizer.step()
    for again, other in (
        copy.deepcopy((network, optimizer)),
        pickle.loads(pickle.dumps((network, optimizer))),
    ):
        set_gradients(again, step=1)
        other.step()
        other.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
        assert other.param_groups[-1]["clip"] == clip
        expected = copy.deepcopy((network, optimizer))
        set_gradients(expected[0], step=1)
        expected[1].step()
        assert_close(again, expected[0], 0)


def test_closure_parameters_without_gradient_and_mixed_dtypes() -> None:
    a, b, idle = (nn.Parameter(torch.ones(3, dtype=t)) for t in (torch.float32, torch.bfloat16, torch.float32))
    optimizer = ClippedRMSprop([a, b, idle], lr=0.5, clip=0.25)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (a * a).sum() + (b * b).float().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 6
    assert all((parameter.abs() <= 0.25).all() for parameter in (a, b, idle))


@pytest.mark.parametrize("name", CASES)
def test_infinite_parameters_are_what_torch_makes_of_them(implementation, name) -> None:
    """Clipped to finite numbers, and no state is NaN for it, where no weight decays; otherwise as NaN as torch's."""
    ours_class, theirs_class, settings, _ = CASES[name]
    start = torch.tensor([math.inf, -math.inf, 1.0, -2.0])
    for decay in (0.0, settings.get("weight_decay", 0.0)):
        settings = {**settings, "weight_decay": decay}
        ours, theirs = nn.Parameter(start.to(implementation.device)), nn.Parameter(start.clone())
        clipped = ours_class([ours], clip=0.5, backend=implementation.backend, **settings)
        plain = theirs_class([theirs], **settings)
        for step in range(3):
            for parameter in (ours, theirs):
                parameter.grad = torch.linspace(-1, 2, 4).mul(step + 1).to(parameter)
            clipped.step(), plain.step()
            with torch.no_grad():
                theirs.clamp_(-0.5, 0.5)
            torch.testing.assert_close(ours.detach().cpu(), theirs.detach(), equal_nan=True)


IDLE = {name: CASES[name] for name in ("adam", "adamw", "rmsprop", "sgd", "adadelta")}


@pytest.mark.parametrize("name", IDLE)
def test_the_clip_holds_for_parameters_without_a_gradient(implementation, name) -> None:
    ours_class, _, settings, _ = CASES[name]
    device = implementation.device
    moved, frozen, free = (torch.full((5,), 9.0, device=device, requires_grad=True) for _ in range(3))
    groups = [{"params": [moved, frozen.requires_grad_(False)], "clip": (-1, 2)}, {"params": [free]}]
    optimizer = ours_class(groups, backend=implementation.backend, **settings)
    optimizer.step()  # nobody has one
    assert (moved == 2).all() and (frozen == 2).all() and (free == 9).all()
    with torch.no_grad():
        frozen.fill_(-5)
    moved.grad, version = torch.ones_like(moved), frozen._version
    optimizer.step()
    assert (moved < 2).all() and (frozen == -1).all() and (free == 9).all()
    assert frozen._version > version  # autograd is told


def test_bad_input_is_named() -> None:
    parameter = nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match="clip.*-1"):
        ClippedAdam([parameter], clip=-1)
    with pytest.raises(ValueError, match="clip.*nan"):
        ClippedSGD([{"params": [parameter], "clip": math.nan}], lr=1.0)
    with pytest.raises(ValueError, match="differentiable"):
        ClippedAdam([parameter], differentiable=True)
    with pytest.raises(TypeError, match=r"params\[0\].*complex64"):
        ClippedAdam([nn.Parameter(torch.ones(2, dtype=torch.cfloat))])
    with pytest.raises(ValueError, match="backend.*'gpu'"):
        optimizer = ClippedAdam([parameter], backend="gpu")
        parameter.grad = torch.ones(3)
        optimizer.step()
    embedding = nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(TypeError, match="sparse"):
        ClippedSGD(embedding.parameters(), lr=1.0).step()


@pytest.mark.parametrize("name", CASES)
def test_a_rate_that_is_a_tensor_is_read_at_each_step(implementation, name) -> None:
    """As a captured graph reads it: nothing but its value says that it has changed."""
    ours_class, _, settings, clip = CASES[name]
    torch.manual_seed(0)
    plain = WassersteinCritic(2).to(implementation.device)
    ours = copy.deepcopy(plain)
    settings = {**settings, "backend": implementation.backend, "clip": clip}
    settings.pop("lr", None)
    rate = torch.tensor(1e-3, device=implementation.device)
    numbers = ours_class(plain.parameters(), lr=1e-3, **settings)
    tensors = ours_class(ours.parameters(), lr=1e-3, **settings)
    for group in tensors.param_groups:
        group |= {"lr": rate, "capturable": True}
    for step in range(4):
        set_gradients(plain, ours, step=step)
        for group in numbers.param_groups:
            group["lr"] = 1e-3 * (step + 1)
        rate.fill_(1e-3 * (step + 1))
        numbers.step(), tensors.step()
    assert_close(ours, plain)
