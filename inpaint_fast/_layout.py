"""How pictures lie in memory: NCHW or channels_last."""

from __future__ import annotations

import torch
from torch import Tensor


def is_channels_last(tensor: Tensor) -> bool:
    """Channels lie together in memory, and the tensor is not contiguous as well (one channel, one pixel)."""
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def pictures_like(input: Tensor, channels: int, height: int, width: int, channels_last: bool) -> Tensor:
    """An uninitialised (N, channels, height, width) of input's batch, dtype and device, in that layout."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(
        (input.shape[0], channels, height, width), dtype=input.dtype, device=input.device, memory_format=layout
    )
