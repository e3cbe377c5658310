"""Networks to safetensors files and back. A file names its network and how it was built; nothing in it is executed."""

from __future__ import annotations

import json
import os
import shlex
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from inpaint_fast._files import CHECKPOINTS, write_whole
from inpaint_fast._manifest import MANIFEST, check_manifest
from inpaint_fast._version import __version__
from inpaint_fast.models import NETWORKS

Result = TypeVar("Result")
File = tuple[Path, dict[str, Tensor], dict[str, str]]  # its path, its tensors, its metadata
SHIPPED = ("sharp", "smooth")
"""Names of the weights in the package, `inpaint_fast/weights/`; the first is what is used where none are named."""
PYTORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin")
MOST_HEADER = 4 << 20  # bytes of a file's names and shapes: of 50,000 tensors; the largest network has some hundred


class WeightsError(ValueError):
    """A weight file that cannot be used; the message names the file and says why."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}")


class DamagedCheckpoint(UserWarning):
    """A run's newest checkpoint cannot be used, and an older one is taken."""


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
        path: the file; a run's folder, which stands for its newest checkpoint; another folder, which stands for
            `<folder>/<kind>.safetensors`; or "sharp" or "smooth", the generators that the package ships.
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


def copy_networks(path: str | os.PathLike[str], networks: Mapping[str, nn.Module]) -> list[str]:
    """Copy weights into networks that are there already: all that are of the same name and class.

    Args:
        path: a run's folder, which stands for its newest checkpoint; another folder of safetensors files, each named
            as its network; or one such file, whatever its name, for the one network that is of its class.
        networks: by name: "generator", "critic", ...

    Returns:
        The names of the networks that got weights.

    Raises:
        WeightsError: nothing fits, what is there is damaged, or a network of the same name and class has other shapes;
            all networks are then as they were.
    """
    path = Path(path)
    classes = {name: type(network).__name__ for name, network in networks.items()}

    def those_in(folder: Path) -> dict[str, File]:
        files = {name: folder / f"{name}.safetensors" for name in networks}
        return {name: _read_file(file, name) for name, file in files.items() if file.is_file()}

    if not path.is_dir():
        file = _read_file(path, "generator")
        found = {name: file for name, kind in classes.items() if _class_of(file, kind) == kind}
        found = dict([*found.items()][:1]) or {"generator": file}
    else:
        found = newest(path, those_in) if checkpoints(path) else those_in(path)
    taken = [name for name in networks if name in found and _class_of(found[name], classes[name]) == classes[name]]
    if not taken:
        held = ", ".join(f"{name} {_class_of(file, 'of no name')}" for name, file in found.items()) or "no network"
        expected = " or ".join(f"{name} {kind}" for name, kind in classes.items())
        raise WeightsError(path, f"holds {held}; {expected} is expected")
    for name in taken:
        file, tensors, _ = found[name]
        check_tensors(file, type(networks[name]), networks[name].state_dict(), tensors)
    for name in taken:
        networks[name].load_state_dict(found[name][1])
    return taken


def _class_of(file: File, unnamed: str) -> str:
    """Of which class a file's network is; `unnamed` where it does not say."""
    return file[2].get("network", unnamed)


def checkpoints(run: str | os.PathLike[str]) -> list[Path]:
    """The folders of networks that a run saved, in each those of one moment; the newest is the last."""
    found = (Path(run) / CHECKPOINTS).glob("step_*")
    return sorted((path for path in found if path.name[5:].isdecimal()), key=lambda path: int(path.name[5:]))


def newest(run: str | os.PathLike[str], read: Callable[[Path], Result]) -> Result:
    """What `read` makes of a run's newest checkpoint; of the one before, with a warning, where that one is damaged.

    Args:
        run: the folder; it holds checkpoints.
        read: of a checkpoint's folder; raises WeightsError where that cannot be used.

    Raises:
        WeightsError: none can be used; it is that of the newest.
    """
    while True:
        saved, failures = checkpoints(run), []
        found: Any = None
        for checkpoint in reversed(saved):
            try:
                found = read(checkpoint)
                break
            except WeightsError as error:
                failures.append(error)
        if failures and checkpoints(run) != saved:  # the run goes on, and has a newer one by now
            continue
        if len(failures) == len(saved):
            raise failures[0] if saved else WeightsError(run, "it holds no checkpoint")
        if failures:
            warnings.warn(f"{failures[0]}; {checkpoint.name} is taken in its place", DamagedCheckpoint, stacklevel=2)
        return found


def shipped(name: str) -> Path:
    """The file of shipped weights.

    Raises:
        WeightsError: a file or folder of that name lies in the current folder: which is meant?
    """
    if os.path.lexists(name):
        here = Path.cwd() / name
        raise WeightsError(
            name, f"the name of weights in the package, but {here} exists, too; write that path to use it"
        )
    return Path(__file__).parent.parent / "weights" / f"{name}.safetensors"


def _read(path: str | os.PathLike[str], kind: str) -> File:
    path = shipped(os.fspath(path)) if os.fspath(path) in SHIPPED else Path(path)
    if not path.is_dir():
        return _read_file(path, kind)
    if not checkpoints(path):
        return _read_file(path / f"{kind}.safetensors", kind)
    _expect_one_of(path)
    return newest(path, lambda checkpoint: _read_file(checkpoint / f"{kind}.safetensors", kind))


def _expect_one_of(run: Path) -> None:
    """Raise WeightsError where the generator beside a run's checkpoints is that of none of them: which is meant?"""
    generator = run / "generator.safetensors"
    while generator.is_file():
        saved = checkpoints(run)
        try:
            known = [_metadata(checkpoint / generator.name).get("crc32") for checkpoint in saved]
        except WeightsError:  # of a damaged one nobody knows; and one may have gone meanwhile
            return
        if _metadata(generator).get("crc32") in known:
            return
        if checkpoints(run) == saved:
            raise WeightsError(
                generator, f"it is the generator of no checkpoint in {saved[-1].parent}; name the file that is meant"
            )


def check_folder(folder: Path, names: Iterable[str] | None = None) -> None:
    """Raise WeightsError where files of a checkpoint (None: any) are not as its manifest says."""
    try:
        check_manifest(folder, names)
    except (OSError, ValueError) as error:
        raise WeightsError(folder, str(error)) from error


def _metadata(path: Path) -> dict[str, str]:
    with _opened(path) as file:
        return file.metadata() or {}


def _read_file(path: Path, kind: str) -> File:
    if not path.is_file():
        raise WeightsError(path, f"no such file; a run's folder or its {kind}.safetensors is expected")
    if (path.parent / MANIFEST).is_file():
        check_folder(path.parent, [path.name])
    return path, *read_tensors(path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file and its metadata. Raises WeightsError where they are not what was written."""
    with _opened(path) as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    if metadata.get("crc32") not in (None, checksum(tensors, metadata)):
        raise WeightsError(path, "damaged: its checksum is not that of its tensors and arguments")
    return tensors, metadata


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    """The file as safetensors reads it. A header of 100 MB, which it allows, would take gigabytes and a minute."""
    try:
        with open(path, "rb") as file:
            if (header := int.from_bytes(file.read(8), "little")) > MOST_HEADER:
                raise ValueError(f"a header of at most {MOST_HEADER:,} bytes is expected, got {header:,}")
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        if path.suffix.lower() in PYTORCH_SUFFIXES:
            command = f"inpaint-fast convert {shlex.quote(str(path))} --out {shlex.quote(path.stem)}.safetensors"
            raise WeightsError(
                path,
                f"a safetensors file is expected, not one of PyTorch; of GLCIC's weights this makes one: {command}",
            ) from None
        raise WeightsError(path, f"not a whole safetensors file ({error})") from error


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """CRC-32 of a network's name, arguments and tensors: safetensors itself notices no changed number."""
    crc = zlib.crc32("\n".join(metadata.get(key, "") for key in ("network", "arguments")).encode())
    for name, tensor in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        array: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        crc = zlib.crc32(array, crc)
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
