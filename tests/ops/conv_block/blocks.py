"""Tensors for the tests of dilated_block."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import inpaint_fast as ipf

compiled = pytest.mark.skipif(ipf._extension.module is None, reason="the extension is not built")


# The relative error that Winograd's F(4x4, 3x3) may have in float32 (2-norms), and what rounding a result adds.
BOUND = 1e-5


SHAPE = (2, 19, 21, 35)  # no multiple of a vector, a tile or a panel


OUT = 37


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, dtype=torch.float64).to(dtype)


def weights(out: int, channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Weights that keep the input's scale, as a network's do."""
    return (torch.randn(out, channels, 3, 3, dtype=torch.float64) / (9 * max(channels, 1)) ** 0.5).to(dtype)


def arguments(dtype: torch.dtype = torch.float32, shape=SHAPE, out: int = OUT, affine: bool = True):
    vectors = [random(out), random(out).abs() + 0.5, random(out)] if affine else [random(out), None, None]
    tensors = [random(*shape), weights(out, shape[1]), *vectors]
    return [t if t is None else t.to(dtype) for t in tensors]
