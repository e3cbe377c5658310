"""ClippedAdam, ClippedRMSprop, ClippedSGD and Adadelta over the operator `clipped_step`.

Each is the torch.optim class it is named after (its arguments, parameter groups, schedulers and state_dict are
therefore the same) with another step: parameters, gradients and states of a whole group are read once and written once,
and each parameter is clipped before it is written. All take two arguments more, by keyword:

    clip     bound of every parameter after the step: a number for [-clip, clip], a pair (low, high), or None for no
             clip (the default). A parameter group may have its own.
    backend  "cuda", "triton", "cpp" or "reference"; None takes the fastest that is there.

`foreach` and `fused` are taken and mean nothing here. TypeError: a parameter is not of floating point, or a gradient is
sparse. ValueError: the clip is negative or NaN, or an option asks for what one pass cannot do (differentiable).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from inpaint_fast._words import RULES
from inpaint_fast.ops.weight_clip import Bound, Settings, clipped_step, limits, step_direct

States = tuple[str | None, str | None, str | None]


class _OnePass(torch.optim.Optimizer, ABC):
    """What the four share; mixed into the torch optimizer, before it. Arguments: see the module."""

    rule: str
    # torch.amp.GradScaler then hands over its scale and what it found instead of a pass of its own.
    _step_supports_amp_scaling = True

    def __init__(
        self, params: Any, *args: Any, clip: Bound | None = None, backend: str | None = None, **kwargs: Any
    ) -> None:
        limits(clip, "clip")
        self._clip, self.backend = clip, backend
        super().__init__(params, *args, **kwargs)
        self.defaults["clip"] = clip

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle keeps: torch.optim's own part, and ours."""
        ours = {name: value for name, value in self.__dict__.items() if name in ("_clip", "_eps_inside", "backend")}
        return super().__getstate__() | ours

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch.optim; the group may have a `clip` of its own."""
        limits(param_group.setdefault("clip", self._clip), "clip")
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for option in ("differentiable", "decoupled_weight_decay"):
            if group.get(option):
                raise ValueError(f"{option}: {type(self).__name__} cannot; False is expected")
        for i, param in enumerate(group["params"]):
            if not param.is_floating_point():
                raise TypeError(f"params[{i}]: a floating-point parameter is expected, got {param.dtype}")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch.optim; a state_dict of the torch optimizer has no clip, and the groups keep theirs."""
        clips = [group["clip"] for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, clip in zip(self.param_groups, clips, strict=True):
            group.setdefault("clip", clip)
        for group in self.param_groups:
            for param in group["params"]:
                if "step" in self.state.get(param, ()):
                    self.state[param]["step"] = self._count(group, param, self.state[param]["step"])

    @abstractmethod
    def _states(self, group: dict[str, Any]) -> States:
        """The names of the rule's states in this group; None for those it does without."""

    @abstractmethod
    def _numbers(self, group: dict[str, Any]) -> dict[str, Any]:
        """beta1, beta2, eps and variant of the rule in this group."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every parameter that has a gradient, then its clip.

        Args:
            closure: evaluates the model again and returns the loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found_inf = getattr(self, "found_inf", None)
        if found_inf is not None and found_inf.is_cpu and found_inf.item():
            return loss
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        params = [param for param in group["params"] if param.grad is not None]
        if not params:
            return
        names = self._states(group)
        counts = self.rule != "sgd"  # torch.optim.SGD keeps no count of its steps
        states = [self.state[param] for param in params]
        new = [not state for state in states]
        if any(new):
            for param, state in zip(params, states, strict=True):
                if not state:
                    self._start(group, param, state, names, counts)
        lists = (
            params,
            [param.grad for param in params],
            *([] if name is None else [state[name] for state in states] for name in names),
            [state["step"] for state in states] if counts else [],
        )
        low, high = limits(group["clip"], "clip")
        settings = Settings(
            RULES.index(self.rule), float(group["lr"]), weight_decay=group["weight_decay"], low=low, high=high,
            maximize=group["maximize"], first=new[0], **self._numbers(group),
        )  # fmt: skip
        scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        if scale is None and found_inf is None and len(set(new)) == 1 and step_direct(lists, settings, self.backend):
            return
        for i, grad in enumerate(lists[1]):
            if grad.layout != torch.strided:
                raise TypeError(f"gradient {i}, {tuple(grad.shape)}: a dense one is expected, got layout {grad.layout}")
        buckets: dict[Any, list[int]] = {}
        for i, (param, first) in enumerate(zip(params, new, strict=True)):
            buckets.setdefault((param.device, param.dtype, first), []).append(i)
        for (device, _, first), places in buckets.items():
            part = ([tensors[i] for i in places] if tensors else [] for tensors in lists)
            on_device = (None if x is None else x.to(device, non_blocking=True) for x in (scale, found_inf))
            clipped_step(*part, replace(settings, first=first), *on_device, backend=self.backend)

    @staticmethod
    def _count(group: dict[str, Any], param: Tensor, steps: Any) -> Tensor:
        """The number of steps of one parameter. On a GPU it lies there: only the device knows what GradScaler skips."""
        on_device = param.is_cuda or group.get("capturable")
        return torch.as_tensor(steps, dtype=torch.float32, device=param.device if on_device else "cpu")

    def _start(self, group: dict[str, Any], param: Tensor, state: dict, names: States, counts: bool) -> None:
        """The states before the first step of one parameter."""
        if counts:
            state["step"] = self._count(group, param, 0.0)
        for name in names:
            if name is not None:
                state[name] = torch.zeros_like(param, memory_format=torch.preserve_format)


class ClippedAdam(_OnePass, torch.optim.Adam):
    """`torch.optim.Adam` and a clip, in one pass. Source: Kingma and Ba (2015); amsgrad: Reddi et al. (2018)."""

    rule = "adam"

    def _states(self, group: dict[str, Any]) -> States:
        return "exp_avg", "exp_avg_sq", "max_exp_avg_sq" if group["amsgrad"] else None

    def _numbers(self, group: dict[str, Any]) -> dict[str, Any]:
        beta1, beta2 = map(float, group["betas"])
        return {"beta1": beta1, "beta2": beta2, "eps": group["eps"], "variant": group["amsgrad"]}


class ClippedRMSprop(_OnePass, torch.optim.RMSprop):
    """`torch.optim.RMSprop` and a clip, in one pass: the optimizer of the Wasserstein GAN paper.

    One more argument: `eps_inside`, True for sqrt(square_avg + eps) as Lasagne has it (with rho 0.9 and eps 1e-6),
    False for sqrt(square_avg) + eps as PyTorch has it. Source: Tieleman and Hinton, lecture 6.5 (2012).
    """

    rule = "rmsprop"

    def __init__(self, params: Any, *args: Any, eps_inside: bool = False, **kwargs: Any) -> None:
        self._eps_inside = eps_inside
        super().__init__(params, *args, **kwargs)
        self.defaults["eps_inside"] = eps_inside

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        param_group.setdefault("eps_inside", self._eps_inside)
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group.setdefault("eps_inside", self._eps_inside)

    def _states(self, group: dict[str, Any]) -> States:
        momentum = "momentum_buffer" if group["momentum"] > 0 else None
        return "square_avg", momentum, "grad_avg" if group["centered"] else None

    def _numbers(self, group: dict[str, Any]) -> dict[str, Any]:
        return {
            "beta1": group["alpha"], "beta2": group["momentum"], "eps": group["eps"], "variant": group["eps_inside"],
        }  # fmt: skip


class ClippedSGD(_OnePass, torch.optim.SGD):
    """`torch.optim.SGD` (momentum, Nesterov) and a clip, in one pass."""

    rule = "sgd"

    def _states(self, group: dict[str, Any]) -> States:
        return "momentum_buffer" if group["momentum"] else None, None, None

    def _numbers(self, group: dict[str, Any]) -> dict[str, Any]:
        return {"beta1": group["momentum"], "beta2": group["dampening"], "variant": group["nesterov"]}


class Adadelta(_OnePass, torch.optim.Adadelta):
    """`torch.optim.Adadelta` in one pass; GLCIC's optimizer, which clips nothing. Source: Zeiler (2012)."""

    rule = "adadelta"

    def _states(self, group: dict[str, Any]) -> States:
        return "square_avg", "acc_delta", None

    def _numbers(self, group: dict[str, Any]) -> dict[str, Any]:
        return {"beta1": group["rho"], "eps": group["eps"]}
