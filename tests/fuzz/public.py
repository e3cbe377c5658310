"""Drawn calls of the public functions, each beside its reference. A new public function is drawn here, or the test that
compares these names with the registry and with `inpaint_fast.ops` fails."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

import inpaint_fast as ipf
from fuzz.values import FLOATS, laid_out, numbers, tensor
from inpaint_fast._words import ACTIVATIONS, ORDERS, REDUCTIONS, RULES, check_activation
from inpaint_fast.ops._activations import activate
from inpaint_fast.ops.conv_block import reference as blocks
from inpaint_fast.ops.conv_block.dilated import dilated_block_statistics, plan
from inpaint_fast.ops.conv_block.geometry import STRIDED, TRANSPOSED
from inpaint_fast.ops.masked_l2 import reference as reference_loss
from inpaint_fast.ops.masked_l2 import reference_composite
from inpaint_fast.ops.norm_act import reference as reference_norm
from inpaint_fast.ops.weight_clip import Settings, clipped_step, limits, reference_step
from inpaint_fast.ops.weight_clip import reference_clip as clip


@dataclass(frozen=True)
class Public:
    """A public function.

    Attributes:
        stem: the operator that it calls.
        function: itself.
        draw: its arguments by name, every call new; those that ask for a gradient say so.
        reference: of the same arguments, without precision and backend, in plain PyTorch; None: it has no result that
            could be compared.
        internal: its callers have checked what is passed: what is no tensor is nothing that it would have to name.
    """

    stem: str
    function: Callable[..., Any]
    draw: Callable[[Random], dict[str, Any]]
    reference: Callable[..., Any] | None
    internal: bool = False


def sizes(rng: Random, least: int, dims: int, most: int = 9) -> tuple[int, ...]:
    if rng.random() < 0.1:
        least = 0
    return tuple(rng.randint(least, most) for _ in range(dims))


def with_gradient(rng: Random, t: Tensor | None) -> Tensor | None:
    return t if t is None or rng.random() < 0.4 else t.requires_grad_()


# ---- masked_l2 ----


def draw_loss(rng: Random, target: str = "target", mask_needed: bool = False) -> dict[str, Any]:
    shape, dtype = sizes(rng, 1, rng.randint(1, 5)), rng.choice(FLOATS)
    mask = None
    if mask_needed or rng.random() < 0.8:
        of_mask = [size if rng.random() < 0.7 else 1 for size in shape]
        kind = rng.choice((torch.bool, torch.uint8, torch.float32 if dtype != torch.float64 else dtype, dtype))
        values = numbers(rng, of_mask, torch.float64)
        mask = laid_out(rng, (values > 0).to(kind) if not kind.is_floating_point else values.abs().to(kind))
    return {
        "pred": with_gradient(rng, tensor(rng, shape, dtype)),
        target: with_gradient(rng, tensor(rng, shape, dtype)),
        "mask": mask,
        "weight": rng.choice((1.0, 0.3, -2.0)),
        "reduction": rng.choice(REDUCTIONS),
    }


def draw_composite(rng: Random) -> dict[str, Any]:
    return draw_loss(rng, "image", True)


# ---- the blocks ----


def vector(rng: Random, size: int, dtype: torch.dtype) -> Tensor | None:
    return None if rng.random() < 0.4 else with_gradient(rng, tensor(rng, (size,), dtype))


def epilogue(rng: Random) -> dict[str, Any]:
    activation = rng.choice(ACTIVATIONS)
    slope = rng.choice((None, 0.2, 1.5)) if activation in ("leaky_relu", "elu") else None
    return {"activation": activation, "slope": slope, "order": rng.choice(ORDERS)}


def draw_block(rng: Random, transposed: bool, all_taps: tuple[int, ...]) -> dict[str, Any]:
    dtype = rng.choice((torch.float32, torch.float32, *FLOATS))
    channels, out, taps = rng.choice((1, 3, 8, 17)), rng.choice((1, 2, 7, 33)), rng.choice(all_taps)
    weight = tensor(rng, (channels, out, taps, taps) if transposed else (out, channels, taps, taps), dtype, 0.2)
    return {
        "input": with_gradient(
            rng, tensor(rng, (rng.randint(0, 3), channels, rng.randint(2, 13), rng.randint(2, 13)), dtype)
        ),
        "weight": with_gradient(rng, weight),
        "bias": vector(rng, out, dtype),
        "scale": vector(rng, out, dtype),
        "shift": vector(rng, out, dtype),
        **epilogue(rng),
        "precision": rng.choice(("fast", "fast", "exact")),
    }


def draw_strided(rng: Random) -> dict[str, Any]:
    return draw_block(rng, False, STRIDED.taps)


def draw_transposed(rng: Random) -> dict[str, Any]:
    return draw_block(rng, True, TRANSPOSED.taps)


def draw_dilated(rng: Random) -> dict[str, Any]:
    call = draw_block(rng, False, (3,))
    dilation = rng.choice((1, 2, 3, (1, 4), (7, 2), 16))
    both, sides = dilation if isinstance(dilation, tuple) else (dilation, dilation), call["input"].shape[2:]
    least = [max(0, d - (side - 1) // 2) for d, side in zip(both, sides, strict=True)]
    padding = rng.choice((None, tuple(rng.randint(p, p + 3) for p in least)))
    return call | {"dilation": dilation, "padding": padding}


def draw_statistics(rng: Random) -> dict[str, Any]:
    call = draw_dilated(rng)
    return {name: value for name, value in call.items() if name not in ("scale", "shift")}


def reference_statistics(**call: Any) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """As they are where a kernel finds them: of what the convolution returned."""
    epilogue = {name: call.pop(name) for name in ("activation", "slope", "order")}
    y = blocks.dilated_reference(**call)
    of = y.detach().double()
    if epilogue["order"] == "act_norm":
        of = activate(of, epilogue["activation"], check_activation(**epilogue))
    var, mean = torch.var_mean(of, (0, 2, 3), correction=0)
    return y, (mean, var)


def draw_plan(rng: Random) -> dict[str, Any]:
    """Of pictures that no memory holds, too."""
    input = draw_dilated(rng)["input"]
    images, channels, side, out = rng.choice(
        ((8, 64, 2**18, 64), (2**27, 64, 64, 64), (1, 2**20, 2**12, 2**20), (2**20, 1, 1, 1), (1, 32, 2**20, 32))
    )  # up to 2^45 elements
    return {
        "input": torch.empty((images, channels, side, side), device="meta", dtype=input.dtype),
        "weight": torch.empty((out, channels, 3, 3), device="meta", dtype=input.dtype),
        "dilation": rng.choice((1, 2, 16, 1000, 2**20, (1, 2**20))),
        "training": rng.random() < 0.5,
        "kept": rng.random() < 0.5,
    }


# ---- norm_act ----


def draw_norm(rng: Random) -> dict[str, Any]:
    dtype, training = rng.choice(FLOATS), rng.random() < 0.6
    shape = (rng.randint(2, 4), rng.choice((1, 3, 17)), *sizes(rng, 1, rng.randint(0, 3), 7))
    of_parameters = rng.choice((dtype, torch.float32)) if dtype != torch.float64 else dtype
    of = (shape[1],)
    tracked = not training or rng.random() < 0.7
    return {
        "input": with_gradient(rng, tensor(rng, shape, dtype)),
        "running_mean": tensor(rng, of, of_parameters) if tracked else None,
        "running_var": laid_out(rng, numbers(rng, of, of_parameters).abs() + 0.5) if tracked else None,
        "weight": vector(rng, shape[1], of_parameters),
        "bias": vector(rng, shape[1], of_parameters),
        "training": training,
        "momentum": rng.choice((0.1, 0.0, 1.0)),
        "eps": rng.choice((1e-5, 1e-3)),
        **epilogue(rng),
    }


# ---- weight_clip ----


def draw_lists(rng: Random, count: int, dtype: torch.dtype | None) -> list[Tensor]:
    return [
        tensor(rng, sizes(rng, 1, rng.randint(0, 5), 6), dtype or rng.choice(FLOATS)) for _ in range(count)
    ]  # fmt: skip


def draw_clip(rng: Random) -> dict[str, Any]:
    low = rng.choice((-0.5, 0.0, -math.inf))
    bound = rng.choice((0.3, 0.0, (low, 0.5), (0.1, math.inf)))
    dtype = rng.choice((None, *FLOATS))
    tensors = draw_lists(rng, rng.randint(0, 5), dtype)
    return {"tensors": tensors, "bound": bound}


def reference_clip(tensors: list[Tensor], bound: Any) -> None:
    clip(tensors, *limits(bound))


def draw_step(rng: Random) -> dict[str, Any]:
    rule, dtype = rng.randint(1, len(RULES) - 1), rng.choice(FLOATS)
    variant, momentum = rng.random() < 0.5, rng.choice((0.0, 0.9))
    params = draw_lists(rng, rng.randint(1, 4), dtype)

    def beside(positive: bool = False) -> list[Tensor]:
        made = [numbers(rng, p.shape, dtype) for p in params]
        return [laid_out(rng, t.abs() + 0.25 if positive else t) for t in made]

    name = RULES[rule]
    needs = {"adam": 2 + variant, "rmsprop": 1, "sgd": momentum > 0, "adadelta": 2}[name]
    states = [beside(name != "sgd" and (name, k) != ("adam", 0)) if k < needs else [] for k in range(3)]
    if name == "rmsprop" and momentum:
        states[1] = beside()
    variant &= name != "sgd" or momentum > 0
    numbers_of_rule = {"adam": (1e-2, 0.9, 0.99, 1e-6), "rmsprop": (1e-2, 0.9, momentum, 1e-3),
                       "sgd": (1e-1, momentum, 0.25, 0.0), "adadelta": (1.0, 0.9, 0.0, 1e-3)}[name]  # fmt: skip
    return {
        "params": params,
        "grads": beside(),
        "state0": states[0],
        "state1": states[1],
        "state2": states[2],
        "steps": [torch.full((), 4.0) for _ in params] if name == "adam" else [],
        "settings": Settings(
            rule, *numbers_of_rule, rng.choice((0.0, 0.1)), *rng.choice(((-math.inf, math.inf), (-0.5, 0.4))),
            rng.random() < 0.3, variant, rng.random() < 0.3,
        ),
        "grad_scale": rng.choice((None, torch.tensor(4.0))),
        "found_inf": rng.choice((None, None, torch.tensor(0.0), torch.tensor(1.0))),
        "rate": rng.choice((None, None, torch.tensor(0.5, dtype=torch.float64))),
    }  # fmt: skip


# ---- all of them ----

PUBLIC = {
    public.function.__name__: public
    for public in (
        Public("masked_l2", ipf.masked_l2, draw_loss, reference_loss),
        Public("masked_l2", ipf.masked_l2_composite, draw_composite, reference_composite),
        Public("dilated_block", ipf.dilated_block, draw_dilated, blocks.dilated_reference),
        Public("dilated_block", dilated_block_statistics, draw_statistics, reference_statistics),
        Public("dilated_block", plan, draw_plan, None),
        Public("strided_block", ipf.strided_block, draw_strided, blocks.strided_reference),
        Public("transposed_block", ipf.transposed_block, draw_transposed, blocks.transposed_reference),
        Public("norm_act", ipf.norm_act, draw_norm, reference_norm),
        Public("weight_clip", ipf.clip_weights_, draw_clip, reference_clip),
        Public("weight_clip", clipped_step, draw_step, reference_step, internal=True),
    )
}
# Of `inpaint_fast.ops` and of no operator.
NOT_DRAWN = ("BackendError", "backend_of", "forget", "prepare", "use_backend")
