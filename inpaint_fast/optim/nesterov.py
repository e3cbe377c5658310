"""RMSprop whose updates get Nesterov momentum: two rules that PyTorch has no one optimizer for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from inpaint_fast.ops.weight_clip import Bound, limits


class NesterovRMSprop(torch.optim.Optimizer):
    """RMSprop's update u = -lr g / sqrt(v + eps), v = rho v + (1 - rho) g^2, then m = momentum m + u and
    p = p + momentum m + u; then the clip.

    Args:
        lr, rho, eps: of RMSprop; Lasagne's defaults, eps inside the root.
        momentum: Nesterov's.
        clip: bound of every parameter after the step: a number, a pair, or None for no clip; groups may have their own.

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
        for name, value in (("lr", lr), ("rho", rho), ("eps", eps), ("momentum", momentum)):
            if not value >= 0:
                raise ValueError(f"{name}: a number of at least 0 is expected, got {value}")
        limits(clip, "clip")
        super().__init__(params, {"lr": lr, "rho": rho, "eps": eps, "momentum": momentum, "clip": clip})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, as torch.optim."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for p in params:
                if not self.state[p]:
                    self.state[p] |= {"square_avg": torch.zeros_like(p), "velocity": torch.zeros_like(p)}
            grads = [p.grad for p in params]
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
            if group["clip"] is not None:
                low, high = limits(group["clip"], "clip")
                torch._foreach_clamp_min_(params, low)
                torch._foreach_clamp_max_(params, high)
        return loss
