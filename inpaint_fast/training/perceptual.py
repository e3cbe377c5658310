"""FID, KID and LPIPS, by torch-fidelity and lpips (the extra [metrics]), with weights of local files: nothing is
downloaded, and nothing in a file is executed."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from inpaint_fast._words import check_word
from inpaint_fast.completion.convert import read_state_dict
from inpaint_fast.completion.weights import WeightsError, check_tensors
from inpaint_fast.data import to_uint8

PERCEPTUAL = ("fid", "kid", "lpips")
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
ALEXNET = "alexnet-owt-7be5be79.pth"
SOURCES = {
    INCEPTION: "https://github.com/toshas/torch-fidelity/releases",
    ALEXNET: "https://download.pytorch.org/models/" + ALEXNET,
}
AT_ONCE = 32  # pictures given to a network at a time


class Perceptual:
    """Measures whole completed pictures as networks see them.

    - fid: Frechet distance of Inception's features (Heusel et al. 2017). It is biased: the fewer pictures, the larger.
      Thousands are needed, and only numbers of equally many pictures compare.
    - kid: the squared maximum mean discrepancy of the same features (Binkowski et al. 2018), which is not biased.
    - lpips: mean distance of AlexNet's features, pair by pair (Zhang et al. 2018, version 0.1).

    For all of them 0 is the truth.

    Args:
        names: of `PERCEPTUAL`, those that are wanted.
        weights: the folder that holds INCEPTION, for fid and kid, and ALEXNET, for lpips, as they are published.
        device: to measure on.

    Raises:
        ValueError: a name is none of them.
        WeightsError: a file is not there, damaged, or of another network.
        ImportError: the extra [metrics] is not installed.
    """

    def __init__(self, names: Sequence[str], weights: str | os.PathLike[str], device: torch.device) -> None:
        self.names, self.device = tuple(check_word("metrics", name, PERCEPTUAL) for name in names), device
        self.inception = _inception(_file(weights, INCEPTION)) if {"fid", "kid"} & set(names) else None
        self.lpips = _lpips(_file(weights, ALEXNET)).to(device) if "lpips" in names else None

    def __call__(self, completed: Tensor, truth: Tensor) -> dict[str, float]:
        """Name -> value, in the order of the names, for pictures (N, 3, H, W) in [0, 1]; fid and kid want 2 or more."""
        found = {}
        if self.inception is not None:
            if len(truth) < 2:
                raise ValueError(
                    f"metrics: fid and kid compare sets; 2 pictures or more are expected, got {len(truth)}"
                )
            found |= self._sets(completed, truth)
        if self.lpips is not None:
            pairs = zip(completed.split(AT_ONCE), truth.split(AT_ONCE), strict=True)
            with torch.no_grad():
                distances = [self.lpips(one, other, normalize=True) for one, other in pairs]
            found["lpips"] = torch.cat(distances).mean().item()
        return {name: found[name] for name in self.names}

    def _sets(self, completed: Tensor, truth: Tensor) -> dict[str, float]:
        """fid and kid, those that are wanted."""
        from torch_fidelity import calculate_metrics

        self.inception.seek(0)
        with torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext():
            values = calculate_metrics(
                input1=Pictures(completed),
                input2=Pictures(truth),
                fid="fid" in self.names,
                kid="kid" in self.names,
                kid_subset_size=min(1000, len(truth)),
                feature_extractor_weights_path=self.inception,
                batch_size=AT_ONCE,
                cuda=self.device.type == "cuda",
                save_cpu_ram=True,  # no processes that load pictures: these are loaded
                verbose=False,
            )
        keys = {"fid": "frechet_inception_distance", "kid": "kernel_inception_distance_mean"}
        return {name: float(values[key]) for name, key in keys.items() if name in self.names}


class Pictures(Dataset):
    """Pictures (N, 3, H, W) in [0, 1] as torch-fidelity takes them, in uint8."""

    def __init__(self, pictures: Tensor) -> None:
        self.pictures = to_uint8(pictures).cpu()

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        return self.pictures[index]


def _file(folder: str | os.PathLike[str], name: str) -> Path:
    path = Path(folder) / name
    if not path.is_file():
        raise WeightsError(path, f"no such file; it is published at {SOURCES[name]}")
    return path


def _inception(path: Path) -> io.BytesIO:
    """A copy of the file's tensors as torch-fidelity reads them: it would execute what the file itself may hold."""
    copy = io.BytesIO()
    torch.save(read_state_dict(path), copy)
    copy.seek(0)
    with _of_the_extra("torch_fidelity"):
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    try:
        FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=copy)
    except RuntimeError as error:
        raise WeightsError(path, f"does not fit Inception: {' '.join(str(error).split())[:200]}") from error
    return copy


def _lpips(path: Path) -> nn.Module:
    """The distance, its features with the file's weights; those of the layers come with the package."""
    found = read_state_dict(path)
    with _of_the_extra("lpips"):
        from lpips import LPIPS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision would have its arguments named otherwise
        distance = LPIPS(net="alex", pnet_rand=True, verbose=False)
    # Its slices keep the layers' numbers: "slice2.3.weight" is the file's "features.3.weight".
    names = {f"features.{name.partition('.')[2]}": name for name in distance.net.state_dict()}
    tensors = {name: tensor for name, tensor in found.items() if name in names}
    check_tensors(path, LPIPS, {name: distance.net.state_dict()[own] for name, own in names.items()}, tensors)
    distance.net.load_state_dict({names[name]: tensor for name, tensor in tensors.items()})
    return distance.eval()


@contextmanager
def _of_the_extra(module: str) -> Iterator[None]:
    """An import inside that fails says what to type."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(f"metrics: {error.name} is not installed: pip install 'inpaint_fast[metrics]'") from error
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision, where it was built for another PyTorch
        raise ImportError(f"metrics: {module} cannot be imported ({error}); torchvision must fit torch") from error
