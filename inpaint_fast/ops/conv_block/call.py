"""The way of the public functions to their kernels: one look at the arguments, one plan."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from inpaint_fast.ops._dispatch import elsewhere
from inpaint_fast.ops._plans import check_tensor, check_tensors, facts, wants_grad
from inpaint_fast.ops._torch_private import autocast_dtype
from inpaint_fast.ops.conv_block.geometry import Block, Geometry
from inpaint_fast.ops.conv_block.kept import prepared
from inpaint_fast.ops.conv_block.plan import (
    Circumstances,
    Convolution,
    Epilogue,
    Tensors,
    allows_tf32,
    plan_convolution,
)


def call(
    block: Block,
    geometry: Geometry | tuple,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    epilogue: Epilogue,
    precision: str,
    backend: str | None,
) -> Tensor:
    """The block; arguments and errors as those of its public function, geometry as that of `plan_convolution`."""
    tensors = {"input": input, "weight": weight, "bias": bias, "scale": scale, "shift": shift}
    plan = plan_of(block, geometry, tensors, epilogue, precision, backend)
    try:
        return plan(input, weight, bias, scale, shift, prepared(weight))
    except RuntimeError:
        check_tensors(**tensors)  # some that are not dense have strides, and a plan
        raise


def plan_of(
    block: Block,
    geometry: Geometry | tuple,
    tensors: dict[str, Any],
    epilogue: Epilogue,
    precision: str,
    backend: str | None,
) -> Convolution:
    """The plan of a call with these tensors, by the names of the public function's arguments."""
    try:
        known: Any = Tensors(*map(facts, tensors.values()))  # pyright: ignore[reportArgumentType]
        input, weight = tensors["input"], tensors["weight"]
        circumstances = Circumstances(
            precision, backend, wants_grad(*tensors.values()), prepared(weight) is not None,
            autocast_dtype(input.device), input.is_cuda and allows_tf32(), elsewhere(),
        )  # fmt: skip
        return plan_convolution(block, geometry, epilogue, known, circumstances)
    except (AttributeError, RuntimeError):  # of something that is no tensor, or no dense one
        check_tensor("input", tensors["input"])
        check_tensor("weight", tensors["weight"])
        check_tensors(**tensors)
        raise
