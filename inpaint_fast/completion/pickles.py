"""What a PyTorch file may hold before it is loaded: `torch.load(weights_only=True)` runs no code, but bounds no memory.

It lets a file of a few bytes ask for gigabytes: by a bytearray(n), by compressed records, by records that overlap. A
state_dict needs none of that.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from inpaint_fast._pickles import PickleError, scan

MOST_BYTES = 1 << 20  # of a pickle; that of a state_dict has some 150 for each tensor
LEGACY_PICKLES = 5  # before torch 1.6: magic number, protocol, system, tensors, keys; then the storages
# Of tensors, and of the plain values beside them in a training's checkpoint.
NAMES = (
    r"collections (OrderedDict|Counter)|torch(\.cuda)? \w+Storage|torch\.nn\.parameter Parameter|"
    r"torch\._utils _rebuild_(tensor|tensor_v2|parameter)|torch (Size|device|bool|[a-z]*(int|float|complex)\d+)|"
    r"(__builtin__|builtins) (set|complex)|_codecs encode"
)


def expect_tensors_alone(path: str | os.PathLike[str]) -> None:
    """Raise PickleError where a PyTorch file names anything but tensors, or asks for more memory than it has bytes."""
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            if scan(file.read(MOST_BYTES), names=NAMES, pickles=LEGACY_PICKLES) == MOST_BYTES:
                raise PickleError(f"its pickles have more than {MOST_BYTES:,} bytes")
        return
    with zipfile.ZipFile(path) as records:
        if any(record.compress_type != zipfile.ZIP_STORED for record in records.infolist()):
            raise PickleError("it is compressed, as PyTorch writes none")
        if sum(record.file_size for record in records.infolist()) > Path(path).stat().st_size:
            raise PickleError("its records overlap")
        for record in records.infolist():
            if record.filename.endswith(".pkl"):
                if record.file_size > MOST_BYTES:
                    raise PickleError(f"its pickle has {record.file_size:,} bytes; at most {MOST_BYTES:,} are expected")
                scan(records.read(record), names=NAMES)


def expect_memory_of_their_own(tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Raise PickleError where a tensor has more elements than memory: copied, an expanded view takes gigabytes."""
    for name, tensor in tensors:
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise PickleError(f"{name}, of shape {tuple(tensor.shape)}, is an expanded view of fewer numbers")
