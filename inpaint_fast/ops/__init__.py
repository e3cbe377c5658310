"""Functional operators, found by their stems: schema, shape function, gradient, reference, public function.

masked_l2.py, norm_act.py, weight_clip.py hold one each, conv_block/ holds dilated_block, strided_block and
transposed_block. _dispatch.py chooses among backends, _plans.py keeps what was decided.
"""

from inpaint_fast._words import BackendError
from inpaint_fast.ops._dispatch import backend_of, use_backend
from inpaint_fast.ops.conv_block import dilated_block, forget, prepare, strided_block, transposed_block
from inpaint_fast.ops.masked_l2 import masked_l2, masked_l2_composite
from inpaint_fast.ops.norm_act import norm_act
from inpaint_fast.ops.weight_clip import clip_weights_

__all__ = [
    "BackendError", "backend_of", "clip_weights_", "dilated_block", "forget", "masked_l2", "masked_l2_composite",
    "norm_act", "prepare", "strided_block", "transposed_block", "use_backend",
]  # fmt: skip
