"""Devices by the names that users type."""

from __future__ import annotations

import torch


def device_of(name: str) -> torch.device:
    """The device of that name: "auto" (the first GPU if there is one), "cpu", "cuda", "cuda:1".

    Raises:
        ValueError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device: 'auto', 'cpu', 'cuda' or 'cuda:1' is expected, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device: {name!r} was asked for and this PyTorch ({torch.__version__}) sees no such GPU")
    return device
