"""Functional operators: one file each, found by the operator's stem (schema, shape function, gradient, reference)."""

from inpaint_fast._words import BackendError
from inpaint_fast.ops._blocks import forget
from inpaint_fast.ops._dispatch import backend_of, use_backend
from inpaint_fast.ops.dilated_block import dilated_block
from inpaint_fast.ops.masked_l2 import masked_l2, masked_l2_composite
from inpaint_fast.ops.norm_act import norm_act
from inpaint_fast.ops.strided_block import strided_block
from inpaint_fast.ops.transposed_block import transposed_block
from inpaint_fast.ops.weight_clip import clip_weights_

__all__ = [
    "BackendError", "backend_of", "clip_weights_", "dilated_block", "forget", "masked_l2", "masked_l2_composite",
    "norm_act", "strided_block", "transposed_block", "use_backend",
]  # fmt: skip
