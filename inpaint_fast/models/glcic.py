"""GLCIC: the completion network with its dilated middle, and the local and global context discriminators.

Source: Iizuka, Simo-Serra, Ishikawa, "Globally and Locally Consistent Image Completion" (SIGGRAPH 2017), and otenim's
public PyTorch program (GLCIC-PyTorch), which J. Patel's project trains on CelebA. Both have the same layers; the
program normalises after the ReLU (order "act_norm", the default: its weights need it), the paper before ("norm_act").

A network's layers are numbered as in the paper's tables, and each layer is one module: `layer3` holds the third
convolution, its norm and its activation, so the fused block can stand there and nothing lies hidden. The public weights
have flat names (conv3.weight, bn3.weight); `public_names` is the dictionary between the two, and `inpaint-fast convert`
uses it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inpaint_fast._words import ORDERS
from inpaint_fast.models._common import at_least, hole_beside, one_of
from inpaint_fast.nn import DilatedConvBlock, FusedSequential


class CompletionNetwork(nn.Sequential):
    """Fills the holes of a picture of any size.

    Seventeen convolutions, each but the last followed by ReLU and batch normalisation, the last by a sigmoid: to a
    quarter of the size by two strides, through dilations 2, 4, 8 and 16, and back by two transposed convolutions.
    An output pixel sees about 300 pixels across.

    Args:
        channels: of the first convolution, c in the table below; even. 64 as published (6,072,131 parameters).
        order: "act_norm" (convolution, ReLU, norm: the public weights) or "norm_act" (the paper).
        mean_pixel: RGB in [0, 1] that stands in the holes of the input: the mean pixel of the training pictures.
        hole: longest side, in pixels, of the holes that it was trained on. `inpaint_fast.complete` brings thicker ones
            to this size before it asks the network, and shows it 5/3 of that.

    Shapes:
        picture (N, 3, H, W), RGB in [0, 1], what it holds inside the hole does not matter; mask (N|1, 1, H, W), true or
        at least 0.5 in the hole; H and W multiples of 4. Output (N, 3, H, W) in [0, 1], the whole picture as the
        network sees it.

        layer1      5x5       4 -> c    (RGB and mask)    layer11, 12   3x3               4c -> 4c
        layer2      3x3, 1/2  c -> 2c                     layer13       4x4 transposed    4c -> 2c
        layer3      3x3      2c -> 2c                     layer14       3x3               2c -> 2c
        layer4      3x3, 1/2 2c -> 4c                     layer15       4x4 transposed    2c -> c
        layer5, 6   3x3      4c -> 4c                     layer16       3x3                c -> c/2
        layer7..10  3x3      4c -> 4c, dilated 2 to 16    layer17       3x3, sigmoid     c/2 -> 3

    Raises:
        ValueError: an argument is not one of these; in the call, a shape that does not fit.
    """

    reads_captions = False

    mean_pixel: Tensor

    def __init__(
        self,
        channels: int = 64,
        order: str = "act_norm",
        mean_pixel: Sequence[float] = (0.5, 0.5, 0.5),
        hole: int = 96,
    ) -> None:
        if channels < 2 or channels % 2:
            raise ValueError(f"channels: an even number of at least 2 is expected, got {channels}")
        if len(mean_pixel) != 3 or not all(0 <= value <= 1 for value in mean_pixel):
            raise ValueError(f"mean_pixel: three numbers in [0, 1] are expected, got {mean_pixel}")
        if hole < 1:
            raise ValueError(f"hole: at least 1 pixel is expected, got {hole}")
        c, order = channels, one_of("order", order, ORDERS)
        layers = [
            _layer(nn.Conv2d(4, c, 5, padding=2), order),
            _layer(nn.Conv2d(c, 2 * c, 3, stride=2, padding=1), order),
            DilatedConvBlock(2 * c, 2 * c, order=order),
            _layer(nn.Conv2d(2 * c, 4 * c, 3, stride=2, padding=1), order),
            *(DilatedConvBlock(4 * c, 4 * c, dilation, order=order) for dilation in (1, 1, 2, 4, 8, 16, 1, 1)),
            _layer(nn.ConvTranspose2d(4 * c, 2 * c, 4, stride=2, padding=1), order),
            DilatedConvBlock(2 * c, 2 * c, order=order),
            _layer(nn.ConvTranspose2d(2 * c, c, 4, stride=2, padding=1), order),
            DilatedConvBlock(c, c // 2, order=order),
            DilatedConvBlock(c // 2, 3, norm=None, activation="sigmoid"),
        ]
        super().__init__(OrderedDict((f"layer{number}", layer) for number, layer in enumerate(layers, 1)))
        self.hole = hole
        self.register_buffer("mean_pixel", torch.tensor(mean_pixel, dtype=torch.float32), persistent=False)

    def forward(self, picture: Tensor, mask: Tensor) -> Tensor:
        hole = hole_beside(picture, mask)
        mean = self.mean_pixel.to(picture.dtype)[:, None, None]
        x = torch.cat([torch.where(hole, mean, picture), hole.to(picture.dtype)], dim=1)
        # Channels last is the faster layout, on CPUs and on GPUs, whatever the picture has; every layer keeps it.
        return super().forward(x.contiguous(memory_format=torch.channels_last))


class _Discriminator(nn.Sequential):
    """Convolutions 5x5 of stride 2 to at most 5 x 5 pixels, then a linear layer to the features.

    There are five convolutions, to c, 2c, 4c, 8c and 8c channels, and more of 8c where the picture is larger than 160
    pixels: six for 256, as published. A side that does not halve evenly is rounded up.
    """

    def __init__(self, size: int, channels: int, features: int, order: str) -> None:
        at_least("channels", channels)
        at_least("features", features)
        one_of("order", order, ORDERS)
        if size < 4 or size % 4:
            raise ValueError(
                f"{type(self).__name__}: size must be a multiple of 4, from 4 on (4, 8, 12, ...), got {size}"
            )
        layers: list[nn.Module] = []
        before, side = 3, size
        while len(layers) < 5 or side > 5:
            after = channels * min(2 ** len(layers), 8)
            layers.append(_layer(nn.Conv2d(before, after, 5, stride=2, padding=2), order))
            before, side = after, (side + 1) // 2
        layers.append(nn.Sequential(nn.Linear(before * side * side, features), nn.ReLU()))
        super().__init__(OrderedDict((f"layer{number}", layer) for number, layer in enumerate(layers, 1)))
        self.size = size

    def forward(self, picture: Tensor, *, groups: int = 1) -> Tensor:
        if picture.dim() != 4 or picture.shape[1:] != (3, self.size, self.size):
            raise ValueError(
                f"{type(self).__name__}: shape (N, 3, {self.size}, {self.size}) is expected, got {tuple(picture.shape)}"
            )
        layers: list[Any] = list(self)
        *convolutions, linear = layers
        for layer in convolutions:
            for module in layer:
                picture = _normalised(module, picture, groups) if _is_norm(module) else module(picture)
        return linear(picture.flatten(1))


class LocalDiscriminator(_Discriminator):
    """Features of the patch round the hole.

    Args:
        size: side of the patch in pixels, a multiple of 4: 96 (15,583,232 parameters), 128 (19,253,248).
        channels: of the first convolution; 64 as published.
        features: 1024 as published.
        order: as `CompletionNetwork`.

    Shapes:
        patch (N, 3, size, size), RGB in [0, 1]; output (N, features), at least 0. `groups`: the batch is so many equal
        parts, each normalised by its own statistics in training, as if each had a pass of its own.

    Raises:
        ValueError: an argument is not one of these; in the call, another shape.
    """

    def __init__(self, size: int = 96, channels: int = 64, features: int = 1024, order: str = "act_norm") -> None:
        super().__init__(size, channels, features, order)


class GlobalDiscriminator(_Discriminator):
    """Features of the whole picture, as `LocalDiscriminator`.

    Args:
        size: side of the picture in pixels, a multiple of 4: 160 (23,971,840 parameters), 256 (25,808,384).
        channels, features, order: as there.

    Shapes:
        picture (N, 3, size, size), RGB in [0, 1]; output (N, features), at least 0. `groups`: as there.

    Raises:
        ValueError: an argument is not one of these; in the call, another shape.
    """

    def __init__(self, size: int = 160, channels: int = 64, features: int = 1024, order: str = "act_norm") -> None:
        super().__init__(size, channels, features, order)


class ContextDiscriminator(nn.Module):
    """Tells completed pictures from real ones, by the patch round the hole and by the whole.

    Args:
        local, size: sides of the patch and the picture, multiples of 4, local <= size. 96 and 160 (CelebA: 39,557,121
            parameters), 128 and 256 (Places2: 45,063,681).
        channels, features, order: as `LocalDiscriminator`.

    Shapes:
        patch (N, 3, local, local), picture (N, 3, size, size), RGB in [0, 1]. Output (N,): logits, higher for what it
        takes for real; the published network's output is their sigmoid. `groups`: as `LocalDiscriminator`.

    Raises:
        ValueError: an argument is not one of these; in the call, another shape.
    """

    def __init__(
        self, local: int = 96, size: int = 160, channels: int = 64, features: int = 1024, order: str = "act_norm"
    ) -> None:
        super().__init__()
        if local > size:
            raise ValueError(f"local: a patch of at most the picture's {size} pixels is expected, got {local}")
        self.local_branch = LocalDiscriminator(local, channels, features, order)
        self.global_branch = GlobalDiscriminator(size, channels, features, order)
        self.joint = nn.Linear(2 * features, 1)

    def forward(self, patch: Tensor, picture: Tensor, *, groups: int = 1) -> Tensor:
        if len(patch) != len(picture) or len(patch) % groups:
            raise ValueError(
                f"patch and picture: one batch size, a multiple of {groups}, is expected, got {len(patch)} and "
                f"{len(picture)}"
            )
        features = [self.local_branch(patch, groups=groups), self.global_branch(picture, groups=groups)]
        return self.joint(torch.cat(features, dim=1)).squeeze(1)


def patches(picture: Tensor, corners: Tensor, side: int) -> Tensor:
    """A square cut out of each picture.

    Args:
        picture: (N, C, H, W).
        corners: int64 (N, 2), top and left of each square, on the picture's device: nothing here waits for a GPU.
        side: of the squares, in pixels; they lie inside the pictures.

    Returns:
        (N, C, side, side).
    """
    n, channels, _, width = picture.shape
    steps = torch.arange(side, device=picture.device)
    rows = (corners[:, 0, None] + steps)[:, None, :, None].expand(n, channels, side, width)
    columns = (corners[:, 1, None] + steps)[:, None, None, :].expand(n, channels, side, side)
    return picture.gather(2, rows).gather(3, columns)


def public_names(network: nn.Module) -> dict[str, str]:
    """The names in the public PyTorch weights (otenim's) of a network's tensors, in the order of those files.

    Returns:
        public name -> name in `network.state_dict()`: "conv7.weight" -> "layer7.0.weight" for `CompletionNetwork` (114
        tensors), "model_ld.bn1.weight" -> "local_branch.layer1.2.weight" for `ContextDiscriminator` (76 or 83).
    """
    if isinstance(network, ContextDiscriminator):
        names: dict[str, str] = {}
        for public, branch in (("model_ld", "local_branch"), ("model_gd", "global_branch")):
            inside = public_names(getattr(network, branch))
            names |= {f"{public}.{key}": f"{branch}.{own}" for key, own in inside.items()}
        return names | {f"linear1.{key}": f"joint.{key}" for key in ("weight", "bias")}
    kinds = {nn.Conv2d: "conv", nn.ConvTranspose2d: "deconv", nn.BatchNorm2d: "bn", nn.Linear: "linear"}
    names = {}
    for number, (layer, block) in enumerate(network.named_children(), 1):
        inside = {
            kind: name for name, module in block.named_children() for cls, kind in kinds.items()
            if isinstance(module, cls)  # or of a class that computes the same
        }  # fmt: skip
        for kind in sorted(inside, key=list(kinds.values()).index):  # a norm after its convolution in either order
            keys = getattr(block, inside[kind]).state_dict()
            names |= {f"{kind}{number}.{key}": f"{layer}.{inside[kind]}.{key}" for key in keys}
    return names


def _layer(convolution: nn.Conv2d | nn.ConvTranspose2d, order: str) -> FusedSequential:
    norm = nn.BatchNorm2d(convolution.out_channels)
    return FusedSequential(convolution, *([nn.ReLU(), norm] if order == "act_norm" else [norm, nn.ReLU()]))


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d)


def _normalised(norm: nn.Module, x: Tensor, groups: int) -> Tensor:
    """Batch normalisation of each group by its own statistics."""
    return torch.cat([norm(part) for part in x.chunk(groups)]) if groups > 1 and norm.training else norm(x)
