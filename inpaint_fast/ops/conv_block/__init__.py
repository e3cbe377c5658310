"""The convolution blocks, `dilated_block`, `strided_block` and `transposed_block`, and chains of modules by them.

geometry.py    the three blocks: plain convolution, sizes, errors
reference.py   what "correct" means
definition.py  the registered operators: schemas, shape functions, gradients
choice.py      which algorithm runs on the CPU
plan.py        how a convolution with its epilogue runs, decided once for each key
rows.py        convolutions to few channels, faster in PyTorch
chain.py       convolution, normalisation and activation as one function: what modules call
kept.py        what is kept of parameters, and under which promise
tuning.py      which way is faster, measured
blocking.py    to which size of a core's cache the CPU kernels cut their tasks
dilated.py, resampling.py, call.py   the public functions
"""

from inpaint_fast.ops.conv_block.chain import ConvNormAct, Norm, Run
from inpaint_fast.ops.conv_block.dilated import Plan, dilated_block, dilated_block_statistics, plan
from inpaint_fast.ops.conv_block.geometry import (
    DILATED,
    HALVING,
    NARROW,
    STRIDED,
    TRANSPOSED,
    Block,
    Border,
    Geometry,
    resampling_padding,
)
from inpaint_fast.ops.conv_block.kept import Kept, forget, prepare
from inpaint_fast.ops.conv_block.plan import Epilogue, keep_transformed
from inpaint_fast.ops.conv_block.reference import dilated_reference, strided_reference, transposed_reference
from inpaint_fast.ops.conv_block.resampling import strided_block, transposed_block
from inpaint_fast.ops.conv_block.rows import gains_by_rows
from inpaint_fast.ops.conv_block.tuning import Measured, Tuning

__all__ = [
    "DILATED", "HALVING", "NARROW", "STRIDED", "TRANSPOSED", "Block", "Border", "ConvNormAct", "Epilogue", "Geometry",
    "Kept", "Measured", "Norm", "Plan", "Run", "Tuning", "dilated_block", "dilated_block_statistics",
    "dilated_reference", "forget", "gains_by_rows", "keep_transformed", "plan", "prepare", "resampling_padding",
    "strided_block", "strided_reference", "transposed_block", "transposed_reference",
]  # fmt: skip
