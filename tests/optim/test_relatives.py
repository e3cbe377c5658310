"""State dicts of optimizers whose states are named alike."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from inpaint_fast.optim import ClippedAdam, ClippedAdamW


@pytest.mark.parametrize("ours", [ClippedAdam, ClippedAdamW])
@pytest.mark.parametrize("theirs", [torch.optim.NAdam, torch.optim.RAdam, torch.optim.Adamax, torch.optim.RMSprop])
def test_of_a_relative_they_are_refused_and_nothing_changes(ours: type, theirs: type) -> None:
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    source, target = theirs([parameter], lr=0.1), ours([parameter], clip=5.0)
    source.step()
    before = copy.deepcopy(target.state_dict())
    with pytest.raises(ValueError, match="another optimizer|exp_avg"):
        target.load_state_dict(source.state_dict())
    assert target.state_dict() == before


@pytest.mark.parametrize("rate", [None, "a"])
def test_a_rate_that_is_none_is_named(rate: object) -> None:
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    optimizer = ClippedAdam([parameter], clip=5.0)
    optimizer.param_groups[0]["lr"] = rate
    with pytest.raises(TypeError, match="lr: a number is expected"):
        optimizer.step()
    assert torch.equal(parameter, torch.ones(3))
