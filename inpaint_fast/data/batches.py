"""Training batches and held-out crops. A batch is a pure function of (pictures, seed, index)."""

from __future__ import annotations

import hashlib
import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Generator as Steps
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from inpaint_fast.data.crops import cut, floats_of, scaled
from inpaint_fast.data.images import ImageError
from inpaint_fast.data.masks import Sampler, sampler
from inpaint_fast.data.packed import PackedImages


class Batch(NamedTuple):
    """Pictures and their holes."""

    image: Tensor
    """(N, 3, size, size) float32 in [0, 1]."""
    mask: Tensor
    """(N, 1, size, size) bool; 1 marks the hole."""
    captions: Tensor | None = None
    """(N, captions, ...) encoded captions of each picture, where the data has them."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with the function applied to every part that is there."""
        parts: list[Any] = [part if part is None else function(part) for part in self]
        return type(self)(*parts)


class Indexed(Protocol):
    """Anything that makes the batch of an index: `Batches`, a list of batches, or a class of your own. One that has the
    method `rows` of `Batches` is spared the rows of other processes."""

    def __getitem__(self, index: int, /) -> Batch: ...


class Batches:
    """An endless sequence of training batches, each made from its index alone.

    A run that is resumed at batch `index` goes on with exactly the batches it would have had, and any thread or process
    can make any batch. Pictures come in epochs: each epoch is a permutation of all of them, drawn from (seed, epoch),
    and the epochs follow one another without a gap, also inside a batch. From each picture one random square crop is
    taken, scaled to `size` with antialiasing, and flipped left to right half the time; sides are uniform integers.

    A picture that cannot be read is replaced by the next one that can, always the same one; see `ImageFolder.skipped`.

    Args:
        images: uint8 tensors (3, H, W), as an `ImageFolder` or a list; any sizes.
        size: side of the batch's pictures, in pixels; 64.
        batch_size: pictures in a batch; 32.
        crop: smallest and largest side of a crop in pixels, both included; (64, 320). The largest is limited to the
            picture's short side, and a picture smaller than the smallest gives a crop of its whole short side.
        edge: instead of crop, the shortest and longest length that a picture's short side is scaled to, both at least
            `size`, before a square of `size` is cut from it: (256, 384) for a size of 256, as GLCIC on Places2.
        flip: False never flips.
        mask: "center", "rectangle", "free_form" (see `masks.sampler`), or a function (height, width, generator) -> bool
            tensor (1, height, width) that draws from that generator alone.
        seed: of the whole sequence.
        captions: (pictures, captions, ...), the encoded captions of each picture; None: batches without.

    Raises:
        ValueError: an argument out of range, or no pictures.
        ImageError: from `batches[index]`, where no picture at all can be read.
    """

    def __init__(
        self,
        images: Sequence[Tensor],
        *,
        size: int = 64,
        batch_size: int = 32,
        crop: tuple[int, int] = (64, 320),
        edge: tuple[int, int] | None = None,
        flip: bool = True,
        mask: str | Sampler = "center",
        seed: int = 0,
        captions: Tensor | None = None,
    ):
        _check(images, captions, size=size, crop=crop, edge=edge, batch_size=batch_size)
        self.images = images
        self.size = size
        self.batch_size = batch_size
        self.crop = crop
        self.edge = edge
        self.flip = flip
        self.mask = sampler(mask) if isinstance(mask, str) else mask
        self.seed = seed
        self.captions = captions
        self._order: tuple[int, list[int]] = (-1, [])  # the epoch made last; one assignment, so threads may share it

    def __getitem__(self, index: int) -> Batch:
        return self.rows(index, slice(None))

    def rows(self, index: int, kept: slice) -> Batch:
        """These rows of `batches[index]`, maybe none; the pictures of the others are not read."""
        index = operator.index(index)
        if index < 0:
            raise IndexError(f"index must be at least 0, got {index}: the batches have no end to count from")
        generator = generator_of(self.seed, "batch", index)
        draws = torch.rand(self.batch_size, 4, generator=generator)[kept]
        places = range(index * self.batch_size, (index + 1) * self.batch_size)[kept]
        rows = self._pictures(places)
        if isinstance(self.images, PackedImages):
            options = {"size": self.size, "crop": self.crop, "edge": self.edge, "flip": self.flip}
            image = cut(self.images, rows, draws, **options)
        else:
            image, rows = self._read_and_cut(rows, draws)
        captions = None if self.captions is None else self.captions[rows]
        return Batch(image, _masks(self.mask, self.batch_size, self.size, generator, kept), captions)

    def _read_and_cut(self, rows: Sequence[int], draws: Tensor) -> tuple[Tensor, list[int]]:
        """A crop of each of these pictures, float32 (crops, 3, size, size), and which pictures they are of."""
        image = np.empty((len(rows), 3, self.size, self.size), np.uint8)
        found = []
        for i, (row, (side_draw, top_draw, left_draw, flip_draw)) in enumerate(zip(rows, draws.tolist(), strict=True)):
            row, picture = _read(self.images, row)
            found.append(row)
            low, high = _sides(picture, self.crop, self.edge, self.size)
            side = low + int(side_draw * (high - low + 1))
            crop = _square(picture, side, top_draw, left_draw, self.size)
            image[i] = crop[..., ::-1] if self.flip and flip_draw < 0.5 else crop
        return floats_of(image), found

    def _pictures(self, places: range) -> list[int]:
        """Which pictures stand at these places of the sequence of all epochs."""
        count, (last, order), found = len(self.images), self._order, []
        for epoch, place in (divmod(place, count) for place in places):
            if last != epoch:
                order = torch.randperm(count, generator=generator_of(self.seed, "epoch", epoch)).tolist()
                last, self._order = epoch, (epoch, order)
            found.append(order[place])
        return found


def heldout_crops(
    images: Sequence[Tensor],
    *,
    size: int = 64,
    per_image: int = 4,
    crop: tuple[int, int] = (64, 320),
    edge: tuple[int, int] | None = None,
    mask: str | Sampler = "center",
    seed: int = 0,
    captions: Tensor | None = None,
) -> Batch:
    """Fixed crops to measure on: from each picture `per_image`, their sides spread evenly over their range, never
    flipped.

    Always the same for the same arguments, and those of one picture do not depend on the others.

    Args:
        images, size, crop, edge, mask, captions: as of `Batches`.
        per_image: crops from each picture.
        seed: of the crops and the masks.

    Returns:
        A batch of `per_image` rows for each picture, in order, from the largest crop to the smallest; pictures are
        (N, 3, size, size) in [0, 1]. A picture that cannot be read is left out.

    Raises:
        ValueError: an argument is out of range.
        ImageError: no picture can be read.
    """
    _check(images, captions, size=size, crop=crop, edge=edge, per_image=per_image)
    crops, masks, rows = [], [], []
    failure: ImageError | None = None
    for i in range(len(images)):
        try:
            picture = images[i]
        except ImageError as error:
            failure = error
            continue
        generator = generator_of(seed, "heldout", i)
        low, high = _sides(picture, crop, edge, size)
        for k, (top_draw, left_draw) in enumerate(torch.rand(per_image, 2, generator=generator).tolist()):
            side = high - round((high - low) * k / max(1, per_image - 1))
            crops.append(_square(picture, side, top_draw, left_draw, size))
        masks.append(_masks(sampler(mask) if isinstance(mask, str) else mask, per_image, size, generator))
        rows += [i] * per_image
    if failure is not None and not crops:
        raise failure
    return Batch(floats_of(np.stack(crops)), torch.cat(masks), None if captions is None else captions[rows])


def prefetch(
    batches: Indexed, start: int, stop: int | None = None, *, depth: int = 2, device: torch.device | None = None
) -> Steps[tuple[int, Batch], None, None]:
    """Yield (index, batches[index]) for index = start, start + 1, ... in order, made ahead in one background thread.

    Args:
        batches: `Batches`, or anything else that makes a batch of an index.
        start, stop: the first index, and the one to stop before; None never stops.
        depth: at most this many batches are made ahead; 2.
        device: where the batches go. What of them is not there yet is copied to a GPU from pinned memory, on a stream
            of its own, beside what the GPU computes; None leaves them where they were made.

    An exception in the thread is raised here, at its place in the order. Closing the generator ends the thread.
    Raises ValueError for a depth below 1.
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
    device = torch.device("cpu") if device is None else device
    return _prefetched(batches, itertools.count(start) if stop is None else range(start, stop), depth, device)


def _prefetched(
    batches: Indexed, indices: Iterator[int] | range, depth: int, device: torch.device
) -> Steps[tuple[int, Batch], None, None]:
    made: SimpleQueue[tuple[int, Batch, torch.Event | None] | BaseException | None] = SimpleQueue()
    free = Semaphore(depth)
    closed = Event()

    def make() -> None:
        try:
            for index in indices:
                free.acquire()
                if closed.is_set():
                    return
                made.put((index, *_made(batches, index, device, stream)))
            made.put(None)
        except BaseException as error:
            made.put(error)

    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    thread = Thread(target=make, name="prefetch", daemon=True)
    thread.start()
    try:
        while (item := made.get()) is not None:
            free.release()
            if isinstance(item, BaseException):
                raise item
            index, batch, there = item
            if there is not None:
                current = torch.cuda.current_stream(device)
                current.wait_event(there)
                for part in batch:
                    if part is not None:
                        part.record_stream(current)
            yield index, batch
    finally:
        closed.set()
        free.release()
        thread.join()


def _made(
    batches: Indexed, index: int, device: torch.device, stream: torch.cuda.Stream | None
) -> tuple[Batch, torch.Event | None]:
    """The batch of an index on the device, and on a GPU what happens there once it is whole."""
    if stream is None:
        return batches[index], None
    with torch.cuda.stream(stream):
        batch = batches[index].map(
            lambda part: part if part.is_cuda else part.pin_memory().to(device, non_blocking=True)
        )
        return batch, stream.record_event()


def seed_of(seed: int, purpose: str, index: int) -> int:
    """The seed of one of a run's many streams of random numbers."""
    digest = hashlib.sha256(f"{seed} {purpose} {index}".encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def generator_of(seed: int, purpose: str, index: int) -> Generator:
    """Neighbouring seeds and indices give unrelated streams: the generator's own seeding does not promise that."""
    return Generator().manual_seed(seed_of(seed, purpose, index))


def _read(images: Sequence[Tensor], position: int) -> tuple[int, Tensor]:
    """The picture at `position`, or the next one that can be read, and its own position."""
    failure = None
    for offset in range(len(images)):
        row = (position + offset) % len(images)
        try:
            return row, images[row]
        except ImageError as error:
            failure = error
    assert failure is not None  # there are pictures: see `_check`
    raise failure


def _sides(picture: Tensor, crop: tuple[int, int], edge: tuple[int, int] | None, size: int) -> tuple[int, int]:
    """Smallest and largest side, in the picture's own pixels, of the squares to cut from it."""
    if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[0] != 3:
        raise TypeError(f"images must be uint8 of shape (3, H, W), got {picture.dtype} of shape {tuple(picture.shape)}")
    short = min(picture.shape[1:])
    if edge is not None:
        return max(1, round(short * size / edge[1])), max(1, round(short * size / edge[0]))
    return min(crop[0], short), min(crop[1], short)


def _square(picture: Tensor, side: int, top_draw: float, left_draw: float, size: int) -> np.ndarray:
    """A square of this side at a place given by two draws from [0, 1), scaled to uint8 (3, size, size)."""
    top = int(top_draw * (picture.shape[1] - side + 1))
    left = int(left_draw * (picture.shape[2] - side + 1))
    square = picture.permute(1, 2, 0).cpu().numpy()[top : top + side, left : left + side]
    return scaled(square, size).transpose(2, 0, 1)


def _masks(mask: Sampler, count: int, size: int, generator: Generator, kept: slice = slice(None)) -> Tensor:
    """These of the masks of a batch. All of them draw in turn, if they draw at all."""
    before = generator.get_state()
    first = mask(size, size, generator)
    if torch.equal(generator.get_state(), before):  # nothing is drawn: one is like the other
        chosen = torch.from_numpy(np.repeat(first[None].numpy(), len(range(count)[kept]), axis=0))
    else:
        masks = [first, *(mask(size, size, generator) for _ in range(count - 1))]
        chosen = torch.from_numpy(np.stack([mask.numpy() for mask in masks])[kept])
    if chosen.dtype != torch.bool or chosen.shape[1:] != (1, size, size):
        raise TypeError(
            f"mask must give bool tensors of shape {(1, size, size)}, got {chosen.dtype} of {tuple(chosen.shape[1:])}"
        )
    return chosen


def _check(
    images: Sequence[Tensor],
    captions: Tensor | None,
    *,
    size: int,
    crop: tuple[int, int],
    edge: tuple[int, int] | None,
    **counts: int,
) -> None:
    if len(images) == 0:
        raise ValueError("images must hold at least one picture, got none")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"captions must have a row for each of the {len(images)} pictures, got {len(captions)}")
    if not 1 <= crop[0] <= crop[1]:
        raise ValueError(f"crop must be two sides of at least 1 pixel, the smaller first, got {crop}")
    for name, value in {"size": size, **counts}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if edge is not None and not size <= edge[0] <= edge[1]:
        raise ValueError(f"edge must be two lengths of at least the size {size}, the smaller first, got {edge}")
