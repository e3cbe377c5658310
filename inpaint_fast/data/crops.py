"""Square crops of a packed file's pictures, a batch at a time: those that `Batches` takes of a folder, bit for bit.

On the CPU arrays of NumPy's are filled: what a thread beside the training makes with PyTorch's operators, these share
among threads of their own, which then wait for the training's.

On a GPU they are cut and scaled there. PyTorch scales uint8 on the CPU in integers: weights of 16 bits, sums shifted
back to 8. The same integers are products of matrices of float32 here: bytes times bytes, whose sums float32 holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_fast.data.images import to_float
from inpaint_fast.data.packed import PackedImages


class Squares(NamedTuple):
    """Where the crops lie in their pictures, in pixels, and which are mirrored: arrays of one value each."""

    side: np.ndarray
    top: np.ndarray
    left: np.ndarray
    flipped: np.ndarray


def cut(
    images: PackedImages, rows: Sequence[int], draws: Tensor, *, size: int, crop: tuple[int, int],
    edge: tuple[int, int] | None, flip: bool,
) -> Tensor:  # fmt: skip
    """One crop of each of these pictures.

    Args:
        images: where they are; the crops are made on `images.device`.
        rows: which of them.
        draws: (crops, 4), from [0, 1): for side, top, left, and whether it is mirrored.
        size, crop, edge, flip: as `Batches`.

    Returns:
        float32 (crops, 3, size, size) in [0, 1].
    """
    if not rows:
        return torch.empty(0, 3, size, size, device=images.device)
    chosen = np.asarray(rows, dtype=np.int64)
    heights, widths = images.heights[chosen], images.widths[chosen]
    side_draw, top_draw, left_draw, flip_draw = draws.double().numpy().T
    short = np.minimum(heights, widths)
    if edge is None:
        low, high = np.minimum(crop[0], short), np.minimum(crop[1], short)
    else:
        high, low = (np.maximum(np.rint(short * size / length).astype(np.int64), 1) for length in edge)
    side = low + (side_draw * (high - low + 1)).astype(np.int64)
    top = (top_draw * (heights - side + 1)).astype(np.int64)
    left = (left_draw * (widths - side + 1)).astype(np.int64)
    squares = Squares(side, top, left, flip_draw < 0.5 if flip else np.zeros(len(chosen), bool))
    if images.device.type == "cpu":
        return floats_of(_cut_here(images, chosen, squares, size))
    return to_float(cut_there(images, chosen, squares, size))


def floats_of(pixels: np.ndarray) -> Tensor:
    """`to_float`, bit for bit, by this thread alone."""
    return torch.from_numpy(np.divide(pixels, np.float32(255), dtype=np.float32))


def _cut_here(images: PackedImages, rows: np.ndarray, squares: Squares, size: int) -> np.ndarray:
    """On the CPU, by PyTorch's code for one picture at a time: nothing is faster there."""
    whole = (images.heights[rows] == size) & (images.widths[rows] == size) & (squares.side == size)
    if whole.all():
        pictures = np.lib.stride_tricks.sliding_window_view(images.pixels.numpy(), 3 * size * size)
        cropped = pictures[images.starts[rows]].reshape(-1, size, size, 3)
    else:
        cropped = _cut_each(images, rows, squares, size)
    pixels = np.ascontiguousarray(cropped.transpose(0, 3, 1, 2))
    pixels[squares.flipped] = _mirrored(pixels[squares.flipped])
    return pixels


def _mirrored(pixels: np.ndarray) -> np.ndarray:
    """Lines of bytes from right to left; by words of eight, where that goes, which is five times as fast."""
    if pixels.shape[-1] % 8:
        return pixels[..., ::-1]
    return pixels.view(np.uint64)[..., ::-1].byteswap().view(np.uint8)


def _cut_each(images: PackedImages, rows: np.ndarray, squares: Squares, size: int) -> np.ndarray:
    cropped = np.empty((len(rows), size, size, 3), np.uint8)
    for i, (row, side, top, left) in enumerate(zip(*(each.tolist() for each in (rows, *squares[:3])), strict=True)):
        cropped[i] = scaled(images.array(row)[top : top + side, left : left + side], size)
    return cropped


def scaled(square: np.ndarray, size: int) -> np.ndarray:
    """uint8 (side, side, 3), scaled to (size, size, 3)."""
    if len(square) == size:
        return square
    # uint8, channels last, one picture at a time: PyTorch has its fastest code for that, ten times faster than
    # Pillow's. What does not lie together it would lay out anew, in a team of threads.
    pixels = torch.from_numpy(np.ascontiguousarray(square)).permute(2, 0, 1)[None]
    return F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()


def cut_there(images: PackedImages, rows: np.ndarray, squares: Squares, size: int) -> Tensor:
    """On a GPU, all at once: windows of the largest side, scaled to uint8 (crops, 3, size, size)."""
    device, largest = images.device, int(squares.side.max())
    columns = (images.starts[rows] // 3, images.heights[rows], images.widths[rows], *squares)
    numbers = _pinned(torch.from_numpy(np.stack([column.astype(np.int64) for column in columns])), device)
    start, height, width, side, top, left, flipped = numbers.to(device, non_blocking=True)
    if images.resident is not None:
        steps = torch.arange(largest, device=device)
        row = torch.minimum(top[:, None] + steps, height[:, None] - 1)
        column = torch.minimum(left[:, None] + steps, width[:, None] - 1)
        places = (start[:, None] + row * width[:, None])[:, :, None] + column[:, None, :]
        windows = images.resident.view(-1, 3)[places]
    else:
        host = _pinned(torch.zeros(len(rows), largest, largest, 3, dtype=torch.uint8), device)
        for window, row, a, y, x in zip(host.numpy(), rows, *squares[:3], strict=True):
            window[:a, :a] = images.array(int(row))[y : y + a, x : x + a]
        windows = host.to(device, non_blocking=True)
    planes = windows.permute(0, 3, 1, 2)
    if not (squares.side == size).all():
        weights, shift = _weights(side, size, largest)
        planes = _scaled(_scaled(planes, weights, shift).transpose(2, 3), weights, shift).transpose(2, 3)
    return torch.where(flipped.bool()[:, None, None, None], planes.flip(3), planes).contiguous()


def _weights(side: Tensor, size: int, largest: int) -> tuple[Tensor, Tensor]:
    """What PyTorch weights the pixels of a line with, scaling it from each `side` to `size` with antialiasing.

    Returns:
        int32 (crops, largest, size), and by how many bits they are too large, (crops,).
    """
    scale = (side.double() / size)[:, None, None]
    support = scale.clamp(min=1)
    centre = scale * (torch.arange(size, device=side.device) + 0.5)
    first = (centre - support + 0.5).long().clamp(min=0)
    last = torch.minimum((centre + support + 0.5).long(), side[:, None, None])
    pixel = torch.arange(largest, device=side.device)[None, :, None]
    distance = ((pixel - first) + (first - centre) + 0.5) / support
    weights = (1 - distance.abs()).clamp(min=0) * ((pixel >= first) & (pixel < last))
    weights /= weights.sum(dim=1, keepdim=True)
    powers = 2.0 ** torch.arange(1, 23, device=side.device)
    fits = (weights.amax(dim=(1, 2))[:, None] * powers + 0.5).long() < 2**15
    shift = fits.long().cumprod(dim=1).sum(dim=1)
    return (weights * 2.0 ** shift[:, None, None] + 0.5).int(), shift.int()


def _scaled(planes: Tensor, weights: Tensor, shift: Tensor) -> Tensor:
    """uint8 (crops, 3, lines, pixels) -> (crops, 3, lines, size). Every sum is below 2^24, whatever is multiplied in
    float32, TF32 or bfloat16."""
    flat = planes.flatten(1, 2).float()
    high, low = (torch.bmm(flat, part.float()).int() for part in (weights >> 8, weights & 255))
    shift = shift[:, None, None]
    total = ((high << 8) + low + (1 << (shift - 1))) >> shift
    return total.clamp(0, 255).to(torch.uint8).unflatten(1, planes.shape[1:3])


def _pinned(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.pin_memory() if device.type == "cuda" else tensor
