"""ClippedAdam, ClippedAdamW, ClippedRMSprop, ClippedSGD and Adadelta over the operator `clipped_step`.

Each is the torch.optim class it is named after (its arguments, parameter groups, schedulers and state_dict are
therefore the same) with another step: parameters, gradients and states of a whole group are read once and written once,
and each parameter is clipped before it is written. All take two arguments more, by keyword:

    clip     bound of every parameter of a group after a step, of those too that had no gradient and did not move: a
             number for [-clip, clip], a pair (low, high), or None for no clip (the default). A parameter group may have
             its own.
    backend  "cuda", "triton", "cpp" or "reference"; None takes the fastest that is there.

With `capturable` a learning rate that is a tensor stays on its device: a CUDA graph reads it anew at each replay, so
that schedules work (`group["lr"].fill_(...)`). `foreach` and `fused` are taken and mean nothing here. TypeError: a
parameter is not dense and of floating point, or a gradient is sparse. ValueError: the clip is negative or NaN, or an
option asks for what one pass cannot do (differentiable). Groups that are added and what is loaded are checked as the
constructor's arguments are, and change nothing where they are refused.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Sequence
from operator import is_
from typing import Any

import torch
from torch import Tensor

from inpaint_fast._graphs import runs_ahead
from inpaint_fast._words import RULES
from inpaint_fast.ops.weight_clip import Bound, Settings, clip_weights_, clipped_step, limits, step_direct
from inpaint_fast.optim.checked import CheckedOptimizer, check_dense, check_rate

States = tuple[str | None, str | None, str | None]


class _OnePass(CheckedOptimizer):
    """What they share; mixed into the torch optimizer, before it. Arguments: see the module."""

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
        param_group.setdefault("clip", self._clip)  # torch.optim's constructor adds groups before there is a default
        super().add_param_group(param_group)

    def _check_options(self, group: dict[str, Any]) -> None:
        """By the constructor of the torch optimizer, which is given them."""
        if group.get("differentiable"):
            raise ValueError(f"differentiable: {type(self).__name__} cannot; False is expected")
        check_rate(group)
        torch_optimizer = next(base for base in type(self).__mro__ if base.__module__.startswith("torch.optim"))
        options = {name: value.default for name, value in inspect.signature(torch_optimizer).parameters.items()}
        del options["params"]
        for name, default in options.items():
            if isinstance(default, bool) and not isinstance(group[name], bool):
                raise TypeError(f"{name}: True or False is expected, got {group[name]!r}")
        torch_optimizer([torch.zeros(1, requires_grad=True)], **{name: group[name] for name in options})

    def _state_names(self, group: dict[str, Any]) -> Sequence[str]:
        return [name for name in self._states(group) if name is not None]

    def _complete_loaded(self, before: Sequence[dict[str, Any]]) -> None:
        super()._complete_loaded(before)
        for group in self.param_groups:
            for i, param in enumerate(group["params"]):
                if self._counts and (state := self.state.get(param)):
                    state["step"] = self._loaded_count(group, param, state["step"], f"state of params[{i}]: step")

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
        if found_inf is not None and not runs_ahead(found_inf.device) and found_inf.item():
            return loss
        for group in self.param_groups:
            params = group["params"]
            grads = [param.grad for param in params]
            idle = [param for param, grad in zip(params, grads, strict=True) if grad is None]
            if idle:
                params = [param for param in params if param.grad is not None]
                grads = [grad for grad in grads if grad is not None]
            if params:
                self._step_group(group, params, grads)
            if idle and group["clip"] is not None:
                clip_weights_(idle, group["clip"], backend=self.backend)
        return loss

    def _step_group(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        names, state_of = self._states(group), self.state
        if len(state_of) == len(params) and all(map(is_, state_of, params)):
            states = list(state_of.values())  # in this order: the hash of a tensor is a call of Python's
        else:
            states = [state_of[param] for param in params]
        new = [] if all(states) else [not state for state in states]
        if new:
            check_dense(params)
            for param, state in zip(params, states, strict=True):
                if not state:
                    self._start(group, param, state, names)
        lists: tuple[list[Any], ...] = (
            params,
            grads,
            *([] if name is None else [state[name] for state in states] for name in names),
            [state["step"] for state in states] if self._counts else [],
        )
        low, high = limits(group["clip"], "clip")
        lr, rate = _rate(group)
        settings = Settings(
            RULES.index(self.rule), lr, weight_decay=group["weight_decay"], low=low, high=high,
            maximize=group["maximize"], first=bool(new), decoupled=group.get("decoupled_weight_decay", False),
            **self._numbers(group),
        )  # fmt: skip
        beside = {"grad_scale": getattr(self, "grad_scale", None), "found_inf": getattr(self, "found_inf", None)}
        alone = rate is None and beside["grad_scale"] is None and beside["found_inf"] is None
        if alone and all(new) and step_direct(lists, settings, self.backend):
            return
        beside["rate"] = rate
        check_dense(params)
        buckets: dict[Any, list[int]] = {}
        for i, (param, first) in enumerate(zip(params, new or [False] * len(params), strict=True)):
            buckets.setdefault((param.device, param.dtype, first), []).append(i)
        for (device, _, first), places in buckets.items():
            part = tuple([tensors[i] for i in places] if tensors else [] for tensors in lists)
            on_device = {name: x if x is None else x.to(device, non_blocking=True) for name, x in beside.items()}
            clipped_step(*part, settings=settings._replace(first=first), **on_device, backend=self.backend)

    @property
    def _counts(self) -> bool:
        """Whether each parameter's steps are counted; torch.optim.SGD has no count."""
        return self.rule != "sgd"

    @staticmethod
    def _count(group: dict[str, Any], param: Tensor, steps: Any) -> Tensor:
        """The number of steps of one parameter. On a GPU it lies there: only the device knows what GradScaler skips."""
        on_device = param.is_cuda or group.get("capturable")
        return torch.as_tensor(steps, dtype=torch.float32, device=param.device if on_device else "cpu")

    def _loaded_count(self, group: dict[str, Any], param: Tensor, steps: Any, name: str) -> Tensor:
        try:
            count = self._count(group, param, steps)
        except (TypeError, ValueError, RuntimeError):
            count = None
        if count is None or count.numel() != 1 or not 0 <= count.item() < float("inf"):
            raise ValueError(f"{name}: a number of steps is expected, got {steps!r}")
        return count.reshape(())

    def _start(self, group: dict[str, Any], param: Tensor, state: dict, names: States) -> None:
        """The states before the first step of one parameter."""
        if self._counts:
            state["step"] = self._count(group, param, 0.0)
        for name in names:
            if name is not None:
                state[name] = torch.zeros_like(param, memory_format=torch.preserve_format)


def _rate(group: dict[str, Any]) -> tuple[float, Tensor | None]:
    """The learning rate: a number, and a factor that only the device knows."""
    if group.get("capturable") and isinstance(group["lr"], Tensor):
        return 1.0, group["lr"].double()
    try:
        return float(group["lr"]), None
    except (TypeError, ValueError) as error:
        raise TypeError(f"lr: a number is expected, got {group['lr']!r}") from error


class ClippedAdam(_OnePass, torch.optim.Adam):
    """`torch.optim.Adam` and a clip, in one pass. Source: Kingma and Ba (2015); amsgrad: Reddi et al. (2018).

    As in torch.optim, `decoupled_weight_decay` makes it AdamW, and so does loading a state_dict of AdamW.
    """

    SIGNATURE = ("amsgrad",)  # which RAdam and NAdam lack
    rule = "adam"

    def _states(self, group: dict[str, Any]) -> States:
        return "exp_avg", "exp_avg_sq", "max_exp_avg_sq" if group["amsgrad"] else None

    def _numbers(self, group: dict[str, Any]) -> dict[str, Any]:
        beta1, beta2 = map(float, group["betas"])
        return {"beta1": beta1, "beta2": beta2, "eps": group["eps"], "variant": group["amsgrad"]}


class ClippedAdamW(ClippedAdam, torch.optim.AdamW):
    """`torch.optim.AdamW` and a clip, in one pass: the weight decay, 0.01 by default, shrinks the parameters and is no
    part of the gradient. Source: Loshchilov and Hutter (2019)."""


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

    def _check_options(self, group: dict[str, Any]) -> None:
        super()._check_options(group)
        if not isinstance(group["eps_inside"], bool):
            raise TypeError(f"eps_inside: True or False is expected, got {group['eps_inside']!r}")

    def _complete_loaded(self, before: Sequence[dict[str, Any]]) -> None:
        super()._complete_loaded(before)
        for group, old in zip(self.param_groups, before, strict=True):
            group.setdefault("eps_inside", old["eps_inside"])

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
