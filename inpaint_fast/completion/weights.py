"""Networks to safetensors files and back. A file names its network and how it was built; nothing in it is executed."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from inpaint_fast._files import write_whole
from inpaint_fast._version import __version__
from inpaint_fast.models import NETWORKS


class WeightsError(ValueError):
    """A weight file that cannot be used; the message names the file and says why."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}")


def save_network(path: str | os.PathLike[str], network: nn.Module, arguments: dict[str, object]) -> None:
    """Write a network's state_dict and what rebuilds it, whole or not at all.

    Args:
        path: of the safetensors file.
        network: an instance of a class in `inpaint_fast.models`.
        arguments: what its constructor was given; numbers, strings, booleans.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    metadata = {
        "network": type(network).__name__,
        "arguments": json.dumps(arguments),
        "inpaint_fast": __version__,
    }
    metadata["crc32"] = checksum(tensors, metadata)
    data = safetensors.torch.save(tensors, metadata)
    write_whole(path, lambda file: file.write(data))


def load_network(path: str | os.PathLike[str], *, kind: str = "generator") -> nn.Module:
    """Rebuild the network of a safetensors file that `save_network` wrote, in eval mode, on the CPU.

    Args:
        path: the file, or a run's folder, which stands for `<folder>/<kind>.safetensors`.
        kind: "generator", or another network of the system: "critic", "discriminator", "decoder".

    Raises:
        WeightsError: there is no such file, it is damaged, or its tensors do not fit the network it names.
    """
    path, tensors, metadata = _read(path, kind)
    name = metadata.get("network", "")
    if name not in NETWORKS:
        raise WeightsError(path, f"names the network {name!r}; one of {', '.join(NETWORKS)} is expected")
    try:
        arguments = json.loads(metadata.get("arguments", "{}"))
        with torch.device("meta"):  # memory is taken once the shapes are known to be those of the file
            outline = NETWORKS[name](**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(path, f"its arguments do not fit {name} ({error})") from error
    check_tensors(path, type(outline), outline.state_dict(), tensors)
    network = NETWORKS[name](**arguments)
    network.load_state_dict(tensors)
    return network.eval()


def copy_weights(path: str | os.PathLike[str], network: nn.Module, *, kind: str = "generator") -> None:
    """Copy the weights of a safetensors file (or a run's folder) into a network that is there already.

    Raises:
        WeightsError: as `load_network`; the network is then as it was.
    """
    path, tensors, metadata = _read(path, kind)
    name = type(network).__name__
    if metadata.get("network", name) != name:
        raise WeightsError(path, f"holds a {metadata['network']}; a {name} is expected")
    check_tensors(path, type(network), network.state_dict(), tensors)
    network.load_state_dict(tensors)


def _read(path: str | os.PathLike[str], kind: str) -> tuple[Path, dict[str, Tensor], dict[str, str]]:
    path = Path(path)
    if path.is_dir():
        path = path / f"{kind}.safetensors"
    if not path.is_file():
        raise WeightsError(path, f"no such file; a run's folder or its {kind}.safetensors is expected")
    try:
        with safe_open(path, framework="pt") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(path, f"not a whole safetensors file ({error})") from error
    if metadata.get("crc32") not in (None, checksum(tensors, metadata)):
        raise WeightsError(path, "damaged: its checksum is not that of its tensors and arguments")
    return path, tensors, metadata


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """CRC-32 of a network's name, arguments and tensors: safetensors itself notices no changed number."""
    crc = zlib.crc32("\n".join(metadata.get(key, "") for key in ("network", "arguments")).encode())
    for name, tensor in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy(), crc)
    return f"{crc:08x}"


def check_tensors(
    path: str | os.PathLike[str],
    network: type[nn.Module],
    expected: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
) -> None:
    """Compare the names and shapes of a file's tensors with those expected; before copying, so that a wrong file
    changes nothing.

    Raises:
        WeightsError: says what is missing, not known to the network, or of another shape.
    """
    if missing := [name for name in expected if name not in tensors]:
        raise WeightsError(path, f"lacks {some(missing)} of {network.__name__}")
    if unknown := [name for name in tensors if name not in expected]:
        raise WeightsError(path, f"holds {some(unknown)}, which {network.__name__} does not have")
    for name, tensor in expected.items():
        if tensors[name].shape != tensor.shape:
            raise WeightsError(
                path, f"{name}: shape {tuple(tensor.shape)} is expected, got {tuple(tensors[name].shape)}"
            )


def some(names: Iterable[str]) -> str:
    """The first five, and how many more."""
    listed = list(names)
    rest = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return (", ".join(listed[:5]) or "nothing") + rest
