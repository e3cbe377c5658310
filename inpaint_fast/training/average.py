"""An exponential moving average of a network's weights: calmer than the weights that a critic pushes to and fro."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """A network of its own with the averaged parameters, and the newest buffers.

    The average starts as the network is. In the n-th move it keeps min(decay, n / (9 + n)) of itself, so
    that the start, which has learned nothing, is soon forgotten. (torch.optim.swa_utils.AveragedModel makes a GPU wait
    in each move, and can leave none out.)

    Args:
        network: copied.
        decay: what is kept in each move, once there were many; in (0, 1).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay
        self.moves = torch.zeros((), dtype=torch.float64, device=next(network.parameters()).device)

    @torch.no_grad()
    def move(self, network: nn.Module, skipped: Tensor | None = None) -> None:
        """Move towards the network as it is.

        Args:
            network: the one that was copied, trained on.
            skipped: a bool on its device, true where its update was skipped: then nothing moves. None: it was not.
        """
        self.moves += 1
        ours: list[Tensor] = list(self.network.parameters())
        theirs: list[Tensor] = list(network.parameters())
        buffers, newest = list(self.network.buffers()), list(network.buffers())
        if skipped is None:
            moves = self.moves.item()
            torch._foreach_lerp_(ours, theirs, 1 - min(self.decay, moves / (9 + moves)))
        else:
            weight = 1 - (self.moves / (9 + self.moves)).clamp(max=self.decay)
            ways = torch._foreach_sub(theirs, ours)
            torch._foreach_mul_(ways, (weight * ~skipped).float())
            torch._foreach_add_(ours, ways)
            newest = [torch.where(skipped, old, new) for old, new in zip(buffers, newest, strict=True)]
        if buffers:
            torch._foreach_copy_(buffers, newest)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on."""
        return {"moves": int(self.moves), "network": self.network.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.moves.fill_(state["moves"])
        self.network.load_state_dict(state["network"])
