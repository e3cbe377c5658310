"""Public GLCIC weights (otenim's GLCIC-PyTorch, `.pth` state_dicts) to this package's safetensors files, and back.

Nothing in a `.pth` file is executed: it is read with `weights_only=True`. Names and shapes are compared before a tensor
is copied. The public names are those of `inpaint_fast.models.glcic.public_names`.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inpaint_fast._files import write_whole
from inpaint_fast._names import kind_of_file
from inpaint_fast._pickles import PickleError
from inpaint_fast.completion.pickles import expect_memory_of_their_own, expect_tensors_alone
from inpaint_fast.completion.weights import WeightsError, check_tensors, load_network, save_network, some
from inpaint_fast.models.glcic import CompletionNetwork, ContextDiscriminator, public_names

WRAPPERS = ("module", "_orig_mod")
"""What nn.DataParallel, DistributedDataParallel and torch.compile put into the names of what they wrap."""


def from_public(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    order: str = "act_norm",
    mean_pixel: Sequence[float] | None = None,
    hole: int = 96,
    entry: str | None = None,
) -> nn.Module:
    """Convert a public state_dict to a safetensors file.

    Which network it is, and its width, are read off names and shapes; a discriminator's sizes are the largest that fit
    its linear layers if each is the number of pixels left, doubled at every convolution: 96 and 160, 128 and 256.

    Args:
        source: a `.pth` file (see `read_state_dict`), also an old one without num_batches_tracked, which becomes 0.
        target: the safetensors file to write.
        order: of norm and activation in the network that was trained; the file does not say.
        mean_pixel: RGB in [0, 1] that filled the holes in training; None: the `mpv` of a config.json beside the file. A
            completion network needs it; a discriminator has none.
        hole: longest side of the holes in training, of a completion network.
        entry: where the file holds several networks, the one to convert.

    Returns:
        The network, in eval mode.

    Raises:
        WeightsError: the file is not there, is damaged, holds code or anything but tensors, its tensors do not fit, or
            an argument has no such value.
    """
    tensors = read_state_dict(source, entry=entry)
    if _is_completion(tensors):
        pixel = list(mean_pixel) if mean_pixel is not None else _mean_pixel_beside(Path(source))
        arguments = {"channels": _size(source, tensors, "conv1.weight"), "mean_pixel": pixel, "hole": hole}
        kind: type[nn.Module] = CompletionNetwork
    elif _is_discriminator(tensors):
        arguments, kind = _discriminator_arguments(source, tensors), ContextDiscriminator
    else:
        raise WeightsError(
            source,
            "neither a GLCIC completion network (conv1.weight, ..., conv17.weight) nor a context discriminator "
            f"(model_ld.conv1.weight, ...); it holds {some(tensors)}",
        )
    arguments["order"] = order
    try:
        with torch.device("meta"):  # memory is taken once the shapes are known to be those of the file
            outline = kind(**arguments)
    except (ValueError, RuntimeError) as error:
        raise WeightsError(source, f"this makes no {kind.__name__}: {error}") from error
    names, own = public_names(outline), outline.state_dict()
    for name in names:
        if name.endswith("num_batches_tracked"):
            tensors.setdefault(name, torch.tensor(0))
    check_tensors(source, kind, {name: own[ours] for name, ours in names.items()}, tensors)
    network = kind(**arguments)
    network.load_state_dict({ours: tensors[name] for name, ours in names.items()})
    save_network(target, network, arguments)
    return network.eval()


def to_public(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> nn.Module:
    """Convert a safetensors file of this package to a public state_dict.

    Args:
        source: of a `CompletionNetwork` or a `ContextDiscriminator`; a run's folder stands for its generator.
        target: the `.pth` file to write. It has no place for the mean pixel, nor for the order.

    Returns:
        The network, in eval mode.

    Raises:
        WeightsError: the file cannot be used, or holds another network.
    """
    network = load_network(source)
    if not isinstance(network, CompletionNetwork | ContextDiscriminator):
        kinds = "CompletionNetwork or ContextDiscriminator"
        raise WeightsError(source, f"holds a {type(network).__name__}; {kinds} is expected, which have public names")
    tensors = network.state_dict()
    public = OrderedDict((name, tensors[ours].clone()) for name, ours in public_names(network).items())
    data = io.BytesIO()  # torch.save would report a full disk in words of its own
    torch.save(public, data)
    write_whole(target, lambda file: file.write(data.getbuffer()))
    return network


def read_state_dict(path: str | os.PathLike[str], *, entry: str | None = None) -> dict[str, Tensor]:
    """The tensors of a `.pth` file, on the CPU, by their public names. Nothing in the file is executed.

    Args:
        path: a state_dict; or a dictionary, of any depth, that holds one of a GLCIC network, such as {"state_dict":
            ..., "epoch": ...}. What wrappers put before names ("module." of DataParallel, "_orig_mod." of
            torch.compile, the attribute of a larger module) is left off.
        entry: which of several in the file, "generator" or "ema.model"; None: there is one.

    Raises:
        WeightsError: there is no such file, it is damaged or another kind of file, it holds code, no state_dict, or
            several of GLCIC networks.
    """
    loaded = _loaded(Path(path))
    if not isinstance(loaded, Mapping):
        raise WeightsError(path, f"a state_dict, tensors by name, is expected, got {type(loaded).__name__}")
    found = {place: _unwrapped(path, tensors) for place, tensors in _state_dicts(loaded)}
    public = {
        place: tensors for place, tensors in found.items() if _is_completion(tensors) or _is_discriminator(tensors)
    }
    if entry is not None:
        if entry not in found:
            raise WeightsError(path, f"entry: {entry!r} is no state_dict in it; it holds {some(public)}")
        return found[entry]
    if len(public) > 1:
        raise WeightsError(path, f"holds several networks: {some(public)}; name one of them (entry, --entry)")
    for tensors in public.values() or found.values():
        return tensors
    name, value = next(((name, value) for name, value in loaded.items() if not isinstance(value, Tensor)), (None, None))
    raise WeightsError(
        path, f"a state_dict, tensors by name, is expected; {name!r} is {type(value).__name__}, no tensor"
    )


def _loaded(path: Path) -> object:
    """What a PyTorch file holds, where that is tensors and plain values."""
    expected = "a .pth file with a state_dict is expected"
    if not path.is_file():
        raise WeightsError(path, f"no such file; {expected}")
    kind = kind_of_file(path)
    if kind == "a zip archive":  # as PyTorch's own files are
        kind = _other_archive(path)
    if kind is not None:
        raise WeightsError(path, f"{kind}; {expected}")
    try:
        expect_tensors_alone(path)
        with open(path, "rb") as file:
            if file.read(2)[:1] not in (b"P", b"\x80"):
                raise WeightsError(path, f"not a whole PyTorch file, it begins otherwise; {expected}")
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except PickleError as error:
        raise WeightsError(path, f"refused: {error}; a state_dict, tensors by name, is expected") from error
    except pickle.UnpicklingError as error:
        reason = str(error).replace("\n", " ")
        if "Unsupported" in reason or "GLOBAL" in reason:
            named = re.search(r"GLOBAL (\S+)", reason)
            raise WeightsError(
                path,
                f"refused: it holds Python objects or code{f' ({named[1]})' if named else ''}, not tensors alone; a "
                "state_dict is expected",
            ) from error
        raise WeightsError(path, f"not a whole PyTorch file ({reason[:200]})") from error
    except Exception as error:  # given damaged bytes, the reader raises almost anything
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise WeightsError(path, f"not a whole PyTorch file ({reason})") from error


def _other_archive(path: Path) -> str | None:
    """What a zip archive is that is not of torch.save; None where it is, or is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None
    if not any(name.endswith("data.pkl") for name in files):
        return f"a zip archive to unpack, of {some(files)}"
    return "a TorchScript program" if any(name.endswith("constants.pkl") for name in files) else None


def _state_dicts(loaded: Mapping[Any, Any], place: str = "") -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Every dictionary of tensors by name in a dictionary, by its place: "", "model", "ema.model"."""
    if loaded and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in loaded.items()):
        yield place, loaded
        return
    for name, value in loaded.items():
        if isinstance(value, Mapping):
            yield from _state_dicts(value, f"{place}.{name}" if place else str(name))


def _unwrapped(path: str | os.PathLike[str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by their names without what wrappers put before them."""
    names = [[part for part in name.split(".") if part not in WRAPPERS] for name in tensors]
    while all(len(name) > 2 and name[0] == names[0][0] for name in names):  # "net.conv1.weight", all of them in "net"
        names = [name[1:] for name in names]
    unwrapped = dict(zip(map(".".join, names), tensors.values(), strict=True))
    try:
        expect_memory_of_their_own(unwrapped.items())
    except PickleError as error:
        raise WeightsError(path, f"refused: {error}") from error
    if len(unwrapped) < len(tensors):
        raise WeightsError(path, "names its tensors twice, with and without a wrapper's prefix")
    return unwrapped


def _is_completion(tensors: Mapping[str, Tensor]) -> bool:
    return "conv17.weight" in tensors or "deconv13.weight" in tensors


def _is_discriminator(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.startswith(("model_ld.", "model_gd.")) for name in tensors)


def _discriminator_arguments(path: str | os.PathLike[str], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Width and sizes, read off the linear layers: they follow the last convolution, and tell what was left."""
    arguments: dict[str, Any] = {"channels": _size(path, tensors, "model_ld.conv1.weight")}
    for prefix, argument in (("model_ld", "local"), ("model_gd", "size")):
        count = 0
        while f"{prefix}.conv{count + 1}.weight" in tensors:
            count += 1
        last = _size(path, tensors, f"{prefix}.conv{count or 1}.weight")
        linear = f"{prefix}.linear{count + 1}.weight"
        pixels = _size(path, tensors, linear, axis=1) / last
        arguments["features"] = _size(path, tensors, linear)
        arguments[argument] = round(pixels**0.5) << count
    return arguments


def _size(path: str | os.PathLike[str], tensors: dict[str, Tensor], name: str, axis: int = 0) -> int:
    if name not in tensors:
        raise WeightsError(path, f"lacks {name}")
    if tensors[name].dim() <= axis:
        raise WeightsError(path, f"{name}: shape {tuple(tensors[name].shape)} has too few dimensions")
    return tensors[name].shape[axis]


def _mean_pixel_beside(path: Path) -> list[float]:
    config = path.with_name("config.json")
    try:
        pixel = json.loads(config.read_text(encoding="utf-8"))["mpv"]
        return [float(value) for value in pixel]
    except FileNotFoundError:
        reason = f"there is no {config.name} beside it"
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = f"{config} has no mpv of three numbers ({type(error).__name__}: {error})"
    raise WeightsError(
        path, f"the mean pixel of its training pictures is not known: {reason}; name it (mean_pixel, --mean-pixel)"
    )
