"""A chain outside nn.Sequential is fused only where every call is proved to run it so."""

from __future__ import annotations

import copy
import random
import re

import numpy as np
import pytest
import torch
from nn import forwards_by_helpers  # noqa: F401  (its cases)
from nn.forwards import ALLOWED, UNSEEN, Case
from nn.twins import assert_equal_calls, assert_near, notes, randomised, swapped
from torch import Tensor, nn

import inpaint_fast as ipf


def twins(case: Case, train: bool, inference: bool) -> tuple[nn.Module, nn.Module]:
    random.seed(0), np.random.seed(0)
    plain = randomised(case.make().double()).train(train)
    ours = copy.deepcopy(plain)
    ipf.accelerate(ours.eval() if inference else ours, inference=inference).train(train)
    return plain, ours


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("case", [*UNSEEN.values(), *ALLOWED.values()], ids=[*UNSEEN, *ALLOWED])
def test_every_call_gives_what_the_plain_network_gives(case: Case, train: bool, inference: bool) -> None:
    plain, ours = twins(case, train, inference)
    for call in (*case.calls, *reversed(case.calls)):
        assert_equal_calls(ours, plain, call)


@pytest.mark.parametrize("case", [*UNSEEN.values(), *ALLOWED.values()], ids=[*UNSEEN, *ALLOWED])
def test_both_modes_in_turn(case: Case) -> None:
    """Accelerated in one mode, called in the other; and without gradients."""
    plain, ours = twins(case, train=True, inference=False)
    for train in (False, True, False):
        plain.train(train), ours.train(train)
        for call in case.calls:
            assert_equal_calls(ours, plain, call)
            with torch.no_grad():
                torch.manual_seed(3), assert_near(ours_y := call(ours), call(plain))
                assert type(ours_y) is Tensor


@pytest.mark.parametrize("case", UNSEEN.values(), ids=UNSEEN)
def test_what_is_not_proved_is_left_and_the_report_names_a_line(case: Case) -> None:
    _, ours = twins(case, train=False, inference=False)
    assert swapped(ours)["conv"] == ()
    assert re.search(r"\bline \d+", notes(ours)["conv"]), notes(ours)["conv"]


FUSED = {
    "no_condition": ("norm", "act"),
    "by_a_plain_method": ("norm", "act"),
    "by_the_mode": ("norm", "act"),
    "by_a_bool": ("norm", "act"),
    "by_a_str": ("norm", "act"),
    "by_none": ("norm", "act"),
}


@pytest.mark.parametrize(("name", "fused"), FUSED.items(), ids=FUSED)
def test_what_is_proved_is_fused(name: str, fused: tuple[str, ...]) -> None:
    _, ours = twins(ALLOWED[name], train=False, inference=False)
    assert swapped(ours)["conv"] == fused
