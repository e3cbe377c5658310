"""A checkpoint: the folder from which a run goes on, as if it had never stopped.

<network>.safetensors   each network, as `inpaint_fast.completion.weights` writes and reads it
training.safetensors    every other tensor: of the optimizers, and of what else the run keeps
training.json           everything that is no tensor, and where each tensor has its place. Nothing in it is executed
manifest.json           size and SHA-256 of those files, written last: any damage is seen before anything is loaded

No state of a random generator is among it, since none outlives a step: a batch is a pure function of the run's seed and
its index (`inpaint_fast.data.batches`), and what a step draws comes from torch's generators, which are seeded for each
step by the run's seed and the step's index (`Run.step`).

In the JSON an object with one key says what it is: {"tensor": [file, name, "channels_last"?]}, {"dict": [[key, value],
...]}, {"tuple": [...]}, {"float": "inf"}; lists, strings, numbers, true, false and null are themselves.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from inpaint_fast._files import write_whole
from inpaint_fast._manifest import write_manifest
from inpaint_fast.completion.weights import WeightsError, check_folder, checksum, read_tensors, save_network
from inpaint_fast.training.recipe import System

STATE = "training"


def fill_checkpoint(folder: Path, system: System, state: dict[str, Any]) -> None:
    """Write a checkpoint into an empty folder.

    Args:
        folder: of the checkpoint.
        system: its networks are written a file each.
        state: whatever the run needs besides: dictionaries, lists and tuples of tensors, numbers, strings, booleans and
            None. Tensors that are the networks' own are not written twice.

    Raises:
        OSError: it cannot be written.
        TypeError: something in the state is of another kind; the message says where.
    """
    places = {}
    for name, (network, arguments) in system.networks().items():
        save_network(folder / f"{name}.safetensors", network, arguments)
        for key, tensor in network.state_dict().items():
            places[_identity(tensor)] = [name, key]
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_packed(state, "", tensors, places), allow_nan=False)
    data = safetensors.torch.save(tensors, {"crc32": checksum(tensors, {})})
    write_whole(folder / f"{STATE}.safetensors", lambda file: file.write(data))
    write_whole(folder / f"{STATE}.json", lambda file: file.write(text.encode()))
    write_manifest(folder)


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The state that `fill_checkpoint` was given, its tensors on the CPU.

    Raises:
        WeightsError: it holds none, or is damaged; the message says which file is not as it was written.
    """
    if not (folder / f"{STATE}.json").is_file():
        raise WeightsError(folder, f"no run can go on from it: {STATE}.json is missing")
    check_folder(folder)
    tensors: dict[str, dict[str, Tensor]] = {}

    def tensor(file: str, name: str, layout: str = "") -> Tensor:
        if file not in tensors:
            if file not in {path.stem for path in folder.glob("*.safetensors")}:
                raise ValueError(f"{file!r} is none of its files")
            tensors[file], _ = read_tensors(folder / f"{file}.safetensors")
        found = tensors[file][name]
        return found.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else found

    try:
        return _unpacked(json.loads((folder / f"{STATE}.json").read_text(encoding="utf-8")), tensor)
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise WeightsError(folder, f"{STATE}.json is none that a run wrote ({error})") from error


def _packed(value: Any, path: str, tensors: dict[str, Tensor], places: dict[Any, list[str]]) -> Any:
    """A value as JSON has it; tensors go into `tensors`, by their path, and `places` knows where each of them is."""
    if isinstance(value, Tensor):
        tensor = value.detach()
        if (identity := _identity(tensor)) not in places:
            while path in tensors:
                path += "'"
            places[identity] = [STATE, path]
            tensors[path] = tensor.cpu().contiguous()
        return {"tensor": [*places[identity], *_layout(tensor)]}
    if isinstance(value, dict):
        return {"dict": [[key, _packed(each, f"{path}/{key}", tensors, places)] for key, each in _items(value, path)]}
    if isinstance(value, list | tuple):
        packed = [_packed(each, f"{path}/{i}", tensors, places) for i, each in enumerate(value)]
        return packed if isinstance(value, list) else {"tuple": packed}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    kind = type(value).__name__
    raise TypeError(f"the run's state, {path}: a tensor, number, string, list or dictionary is expected, got {kind}")


def _unpacked(value: Any, tensor: Callable[..., Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpacked(each, tensor) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensor(*content)
    if kind == "dict":
        return {key: _unpacked(each, tensor) for key, each in content}
    if kind == "tuple":
        return tuple(_unpacked(each, tensor) for each in content)
    if kind == "float":
        return float(content)
    raise ValueError(f"nothing is called {kind!r}")


def _items(values: dict[Any, Any], path: str) -> list[tuple[Any, Any]]:
    for key in values:
        if not isinstance(key, str | int) or isinstance(key, bool):
            raise TypeError(f"the run's state, {path}: keys that are strings or integers are expected, got {key!r}")
    return list(values.items())


def _identity(tensor: Tensor) -> Any:
    """The same for tensors that are the same memory, seen in the same way."""
    if not tensor.numel():
        return object()
    return tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def _layout(tensor: Tensor) -> list[str]:
    """How its numbers lie, where that is not as in a file: a step is then made at the same speed as before."""
    last = tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
    return ["channels_last"] if last else []
