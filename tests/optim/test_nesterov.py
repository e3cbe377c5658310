from __future__ import annotations

import pytest
import torch

from inpaint_fast.optim import NesterovRMSprop


@pytest.mark.proves("NesterovRMSprop", equals="Lasagne's rmsprop and apply_nesterov_momentum, written out")
def test_the_update_is_lasagnes_written_out() -> None:
    torch.manual_seed(0)
    p = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    value, square, velocity = p.detach().clone(), torch.zeros_like(p), torch.zeros_like(p)
    optimizer = NesterovRMSprop([p], lr=0.01, clip=(-0.9, 0.8))
    for _ in range(4):
        p.grad = torch.randn_like(p)
        square = 0.9 * square + 0.1 * p.grad**2
        update = value - 0.01 * p.grad / torch.sqrt(square + 1e-6)  # rmsprop's new value
        x = 0.9 * velocity + update - value
        value, velocity = (0.9 * x + update).clamp(-0.9, 0.8), x
        optimizer.step()
        torch.testing.assert_close(p.detach(), value)


def test_groups_may_have_their_own_clip_and_state_survives() -> None:
    first, second = (torch.full((2,), 5.0, requires_grad=True) for _ in range(2))
    optimizer = NesterovRMSprop([{"params": [first], "clip": 1.0}, {"params": [second]}], lr=0.1)
    first.grad, second.grad = torch.ones(2), torch.ones(2)
    optimizer.step()
    assert first.max() <= 1 and second.min() > 4
    other = NesterovRMSprop([{"params": [first], "clip": 1.0}, {"params": [second]}], lr=0.1)
    other.load_state_dict(optimizer.state_dict())
    assert torch.equal(other.state[second]["velocity"], optimizer.state[second]["velocity"])


def test_the_clip_holds_for_parameters_without_a_gradient() -> None:
    moved, idle = (torch.full((2,), 5.0, requires_grad=True) for _ in range(2))
    optimizer = NesterovRMSprop([moved, idle], lr=0.1, clip=(-1, 2))
    optimizer.step()
    assert (moved == 2).all() and (idle == 2).all()
    moved.grad = torch.ones(2)
    optimizer.step()
    assert (moved < 2).all() and (idle == 2).all()


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="lr.*-1"):
        NesterovRMSprop([torch.zeros(1, requires_grad=True)], lr=-1)
    with pytest.raises(ValueError, match="clip"):
        NesterovRMSprop([torch.zeros(1, requires_grad=True)], clip=-1)
