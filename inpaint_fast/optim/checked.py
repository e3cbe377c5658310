"""What an optimizer checks of groups and states, however they arrive: by its constructor, in a group, by loading."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inpaint_fast._words import DTYPES
from inpaint_fast.ops.weight_clip import limits


class CheckedOptimizer(torch.optim.Optimizer, ABC):
    """An optimizer with a clip that takes nothing by `add_param_group` or `load_state_dict` that its constructor would
    refuse, and no state that is not its parameter's. What is refused changes nothing."""

    SIGNATURE: Sequence[str] = ()
    """Options in every state_dict of the torch optimizer, and in none of its relatives with like states."""

    @abstractmethod
    def _check_options(self, group: dict[str, Any]) -> None:
        """Raise TypeError or ValueError where the options of a group, its clip apart, are none of this optimizer's."""

    @abstractmethod
    def _state_names(self, group: dict[str, Any]) -> Sequence[str]:
        """The states of a parameter in this group that have the parameter's shape."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch.optim; the group may have a `clip` of its own.

        Raises:
            TypeError: a parameter is sparse, complex, integer or made in inference mode.
            TypeError, ValueError: an option is none, or one that this optimizer does not have.
        """
        super().add_param_group(param_group)
        try:
            self._check_group(len(self.param_groups) - 1)
        except Exception:
            self.param_groups.pop()
            raise

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch.optim; a state_dict of the torch optimizer has no clip, and the groups keep theirs.

        Raises:
            TypeError, ValueError: groups or states are none that this optimizer could have made; all is then as it was.
        """
        before: dict[str, Any] = {"state": self.state, "param_groups": self.param_groups}
        for index, state in state_dict.get("state", {}).items():
            if not isinstance(state, dict):
                raise ValueError(f"state_dict: state {index}: a dictionary is expected, got {type(state).__name__}")
        for index, group in enumerate(state_dict.get("param_groups", ())):
            for name in self.SIGNATURE:
                if name not in group:
                    raise ValueError(
                        f"state_dict: param_groups[{index}]: {name!r} is missing; it is of another optimizer"
                    )
        try:
            super().load_state_dict(state_dict)
            self._complete_loaded(before["param_groups"])
            for index in range(len(self.param_groups)):
                self._check_group(index)
                self._check_states(self.param_groups[index])
        except Exception as error:
            vars(self).update(before)
            if isinstance(error, KeyError):
                raise ValueError(f"state_dict: {error} is missing; it is of another optimizer") from error
            raise

    def _complete_loaded(self, before: Sequence[dict[str, Any]]) -> None:
        """Give loaded groups what torch.optim has no place for; states that are None, as PyTorch once saved them, are
        none."""
        for group, old in zip(self.param_groups, before, strict=True):
            group.setdefault("clip", old["clip"])
        for state in self.state.values():
            for name in [name for name, value in state.items() if value is None]:
                del state[name]

    def _check_group(self, index: int) -> None:
        group = self.param_groups[index]
        for i, param in enumerate(group["params"]):
            if param.dtype not in DTYPES or param.layout != torch.strided:
                kind = f"{param.dtype}, {param.layout}"
                raise TypeError(f"params[{i}]: a dense floating-point parameter is expected, got {kind}")
            if param.is_inference():
                raise TypeError(f"params[{i}]: a parameter is expected, got a tensor made in inference mode")
        try:
            limits(group["clip"], "clip")
            for name, value in group.items():
                if isinstance(value, float) and math.isnan(value):
                    raise ValueError(f"{name}: a number is expected, got {value}")
            self._check_options(group)
        except (TypeError, ValueError, RuntimeError) as error:
            raise type(error)(f"param_groups[{index}]: {error}") from error

    def _check_states(self, group: dict[str, Any]) -> None:
        for i, param in enumerate(group["params"]):
            if not (state := self.state.get(param)):
                continue
            for name in self._state_names(group):
                value = state.get(name)
                if not isinstance(value, Tensor) or value.shape != param.shape:
                    got = tuple(value.shape) if isinstance(value, Tensor) else "none" if value is None else repr(value)
                    raise ValueError(
                        f"state of params[{i}]: {name}: a tensor of shape {tuple(param.shape)} is expected, got {got}"
                    )


def check_dense(params: Sequence[Tensor]) -> None:
    """Raise TypeError where the gradient of one of these parameters is sparse."""
    for i, param in enumerate(params):
        if (grad := param.grad) is not None and grad.layout != torch.strided:
            shape = tuple(param.shape)
            raise TypeError(f"gradient {i}, {shape}: a dense one is expected, got layout {grad.layout}")


def check_rate(group: dict[str, Any]) -> None:
    """Raise ValueError where a learning rate is a tensor that a graph could not read."""
    rate = group["lr"]
    if not group.get("capturable") or not isinstance(rate, Tensor):
        return
    devices = {param.device for param in group["params"]}
    if rate.numel() != 1 or not rate.is_floating_point() or devices - {rate.device}:
        raise ValueError(
            "lr: with capturable=True a number, or a tensor of one on the parameters' device is expected, got a tensor "
            f"of {rate.numel()} numbers, {rate.dtype}, on {rate.device}"
        )
