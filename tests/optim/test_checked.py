"""What comes in a group or by loading is checked as the constructor's arguments are, and a refusal changes nothing."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from inpaint_fast.optim import Adadelta, ClippedAdam, ClippedAdamW, ClippedRMSprop, ClippedSGD, NesterovRMSprop
from inpaint_fast.optim.checked import check_rate

EVERY = (Adadelta, ClippedAdam, ClippedAdamW, ClippedRMSprop, ClippedSGD, NesterovRMSprop)
STATES = {
    Adadelta: "acc_delta", ClippedAdam: "exp_avg_sq", ClippedAdamW: "exp_avg", ClippedRMSprop: "square_avg",
    ClippedSGD: "momentum_buffer", NesterovRMSprop: "velocity",
}  # fmt: skip
WRONG = [
    *((cls, "lr", -1.0, ValueError) for cls in EVERY),
    *((cls, "lr", math.nan, ValueError) for cls in EVERY),
    *((cls, "clip", (1, 0), ValueError) for cls in EVERY),
    *((cls, "clip", "0.01", TypeError) for cls in EVERY),
    *((cls, "differentiable", True, ValueError) for cls in EVERY[:-1]),
    *((cls, "maximize", "no", TypeError) for cls in EVERY[:-1]),
    (ClippedAdam, "betas", (0.9, 1.5), ValueError),
    (ClippedAdamW, "eps", -1e-8, ValueError),
    (ClippedAdamW, "weight_decay", -0.1, ValueError),
    (ClippedRMSprop, "eps_inside", 1, TypeError),
    (ClippedRMSprop, "momentum", -0.5, ValueError),
    (ClippedSGD, "nesterov", True, ValueError),  # with a dampening
    (Adadelta, "rho", 1.5, ValueError),
    (NesterovRMSprop, "momentum", "0.9", ValueError),
]


def stepped(cls: type, count: int = 2, **settings):
    """An optimizer after some steps, and its parameters."""
    torch.manual_seed(0)
    params = [nn.Parameter(torch.randn(2, 3)), nn.Parameter(torch.randn(3))]
    settings = ({"momentum": 0.9, "dampening": 0.1} if cls is ClippedSGD else {}) | {"lr": 0.1} | settings
    optimizer = cls(params, **settings)
    go_on(optimizer, params, count)
    return optimizer, params


def go_on(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], count: int = 1) -> None:
    for _ in range(count):
        for param in params:
            param.grad = param.detach() * 0.1 + 0.2
        optimizer.step()


def assert_goes_on_as_before(optimizer: torch.optim.Optimizer, params: list[nn.Parameter]) -> None:
    twin, expected = stepped(type(optimizer))
    go_on(optimizer, params)
    go_on(twin, expected)
    assert all(map(torch.equal, params, expected))


@pytest.mark.parametrize("way", ["constructor", "add_param_group", "load_state_dict"])
@pytest.mark.parametrize(("cls", "option", "value", "error"), WRONG)
def test_a_wrong_option_is_refused_whichever_way_it_comes(cls, option, value, error, way) -> None:
    optimizer, params = stepped(cls)
    if way == "constructor":
        extra = {"dampening": 0.1} if cls is ClippedSGD else {}
        with pytest.raises(error):
            cls([{"params": params, option: value}], **({"lr": 0.1} | extra))
        return
    with pytest.raises(error, match=r"param_groups\[\d\]"):
        if way == "add_param_group":
            optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], option: value})
        else:
            state = copy.deepcopy(optimizer.state_dict())
            state["param_groups"][0][option] = value
            state["state"][0][STATES[cls]] = torch.full((2, 3), 7.0)
            optimizer.load_state_dict(state)
    assert len(optimizer.param_groups) == 1
    assert_goes_on_as_before(optimizer, params)


@pytest.mark.parametrize("cls", EVERY)
def test_a_state_that_is_not_the_parameters_is_refused(cls) -> None:
    name = STATES[cls]

    def changed(**state: object):
        saved = optimizer.state_dict()
        saved["state"] = {key: dict(value) for key, value in saved["state"].items()}
        saved["state"][0] |= state
        return saved

    optimizer, params = stepped(cls)
    cases = [({name: torch.zeros(3, 2)}, rf"params\[0\].*{name}.*\(2, 3\).*\(3, 2\)")]
    if cls is not ClippedSGD:
        cases.append(({name: None}, rf"params\[0\].*{name}.*none"))
    if cls not in (ClippedSGD, NesterovRMSprop):
        cases += [({"step": torch.tensor(bad)}, "step: a number of steps") for bad in (-1.0, math.nan, math.inf)]
        cases += [({"step": torch.zeros(2)}, "step: a number of steps")]
    for state, words in cases:
        with pytest.raises(ValueError, match=words):
            optimizer.load_state_dict(changed(**state))
    foreign = {"state": {}, "param_groups": [{"params": [0, 1], "nonsense": 1}]}
    no_dictionary = optimizer.state_dict() | {"state": {0: torch.ones(2, 3)}}
    for saved in (foreign, {}, {"state": {}, "param_groups": []}, no_dictionary):
        with pytest.raises(ValueError, match="is missing|number of parameter groups|a dictionary is expected"):
            optimizer.load_state_dict(saved)
    assert_goes_on_as_before(optimizer, params)


def test_momentum_buffers_that_are_none_start_anew() -> None:
    """As PyTorch saved SGD without momentum for years."""
    for saved in ({0: {"momentum_buffer": None}, 1: {"momentum_buffer": None}}, {1: {"momentum_buffer": None}}):
        ends = []
        for cls in (torch.optim.SGD, ClippedSGD):
            optimizer, params = stepped(cls, 0, momentum=0.9, dampening=0.1)
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict() | {"state": saved}))
            go_on(optimizer, params, 3)
            ends.append(params)
        torch.testing.assert_close(*ends)


@pytest.mark.parametrize("ours", [ClippedAdam, ClippedAdamW])
@pytest.mark.parametrize("theirs", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("old", [False, True])
def test_a_checkpoint_decays_in_ours_as_in_the_torch_optimizer(ours, theirs, old) -> None:
    source, _ = stepped(theirs, 3, weight_decay=0.5)
    saved = source.state_dict()
    if old:  # from before torch 2.7
        del saved["param_groups"][0]["decoupled_weight_decay"]
    ends = []
    for cls in (ours, {ClippedAdam: torch.optim.Adam, ClippedAdamW: torch.optim.AdamW}[ours]):
        optimizer, params = stepped(cls, 0)
        optimizer.load_state_dict(copy.deepcopy(saved))
        go_on(optimizer, params, 20)
        ends.append(params)
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize("cls", EVERY)
def test_parameters_and_gradients_of_other_kinds_are_refused(cls) -> None:
    with torch.inference_mode():
        inferred = torch.ones(2)
    sparse = torch.eye(2).to_sparse()
    for param in (torch.ones(2, dtype=torch.cfloat), torch.ones(2, dtype=torch.int64), inferred, sparse):
        optimizer, params = stepped(cls)
        with pytest.raises(TypeError, match=r"params\[0\]"):
            optimizer.add_param_group({"params": [param]})
        assert_goes_on_as_before(optimizer, params)
    optimizer, params = stepped(cls, 0)
    before = [param.detach().clone() for param in params]
    params[0].grad, params[1].grad = torch.eye(2, 3).to_sparse(), torch.ones(3)
    with pytest.raises(TypeError, match=r"gradient 0.*sparse"):
        optimizer.step()
    assert all(map(torch.equal, params, before)) and not any(optimizer.state.values())


@pytest.mark.parametrize("lr", [torch.tensor([0.1, 0.2]), torch.tensor(1), torch.tensor(0.1, device="meta")])
def test_a_rate_that_a_graph_could_not_read(lr: Tensor) -> None:
    with pytest.raises(ValueError, match="lr: .* a tensor of one on the parameters' device is expected"):
        check_rate({"params": [nn.Parameter(torch.ones(1))], "lr": lr, "capturable": True})
    optimizer = ClippedAdam([nn.Parameter(torch.ones(1))], lr=torch.tensor(0.1), capturable=True)
    if lr.device.type == "cpu":
        with pytest.raises(ValueError, match="lr|Tensor"):
            optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": lr})
        assert len(optimizer.param_groups) == 1
