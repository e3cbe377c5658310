"""RMSprop whose updates get Nesterov momentum: two rules that PyTorch has no one optimizer for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from inpaint_fast.ops.weight_clip import Bound, limits
from inpaint_fast.optim.checked import CheckedOptimizer, check_dense


class NesterovRMSprop(CheckedOptimizer):
    """RMSprop's update u = -lr g / sqrt(v + eps), v = rho v + (1 - rho) g^2, then m = momentum m + u and
    p = p + momentum m + u; then the clip.

    Args:
        lr, rho, eps: of RMSprop; Lasagne's defaults, eps inside the root.
        momentum: Nesterov's.
        clip: bound of every parameter after the step, of those too that have no gradient: a number, a pair, or None for
            no clip; groups may have their own.

    Raises:
        TypeError: a parameter is not dense and of floating point, or a gradient is sparse.
        ValueError: a number is negative or NaN.

    Source: Lasagne's `rmsprop` with `apply_nesterov_momentum` over it, as in a run of S. Larocque (2017).
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        momentum: float = 0.9,
        *,
        clip: Bound | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "rho": rho, "eps": eps, "momentum": momentum, "clip": clip})

    def _check_options(self, group: dict[str, Any]) -> None:
        for name in ("lr", "rho", "eps", "momentum"):
            kinds = (Real, Tensor) if name == "lr" else Real  # a tensor of one number, which a CUDA graph reads anew
            if not isinstance(group[name], kinds) or not group[name] >= 0:
                raise ValueError(f"{name}: a number of at least 0 is expected, got {group[name]!r}")

    def _state_names(self, group: dict[str, Any]) -> Sequence[str]:
        return "square_avg", "velocity"

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, as torch.optim."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._step_group(group, params)
            if group["clip"] is not None:
                self.clip_group(group)
        return loss

    @torch.no_grad()
    def clip_group(self, group: dict[str, Any]) -> None:
        """Bring a group's parameters within its bound: a pass of its own."""
        low, high = limits(group["clip"], "clip")
        torch._foreach_clamp_min_(group["params"], low)
        torch._foreach_clamp_max_(group["params"], high)

    def _step_group(self, group: dict[str, Any], params: list[torch.Tensor]) -> None:
        check_dense(params)
        for p in params:
            if not self.state[p]:
                self.state[p] |= {"square_avg": torch.zeros_like(p), "velocity": torch.zeros_like(p)}
        grads: list[Any] = [p.grad for p in params]
        squares = [self.state[p]["square_avg"] for p in params]
        velocities = [self.state[p]["velocity"] for p in params]
        torch._foreach_mul_(squares, group["rho"])
        torch._foreach_addcmul_(squares, grads, grads, 1 - group["rho"])
        roots = torch._foreach_add(squares, group["eps"])
        torch._foreach_sqrt_(roots)
        updates = torch._foreach_div(grads, roots)
        torch._foreach_mul_(updates, -group["lr"])
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, updates)
        torch._foreach_add_(params, velocities, alpha=group["momentum"])
        torch._foreach_add_(params, updates)
