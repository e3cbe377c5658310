"""What makes training batches, alone: a packed file against the folder that it was made of.

A call makes the next batch of 32 pictures of 64x64: 32 divided by its time is the loader's rate. `folder` decodes
every file anew, as with more pictures than memory holds, `folder_decoded` has them in memory. `64x64`: pictures of that
size, mirrored at random, as small data sets have them. `320x320`: larger ones, of which squares of 64 to 320 pixels are
scaled to 64. On a GPU the batches come there, each a batch ahead.
`work` counts the least traffic: the pictures' bytes read, and the batch's float32 written.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from inpaint_fast.benchmarks import harness
from inpaint_fast.data import Batches, PackedImages, open_images, pack, prefetch, samples

BATCH, SIZE, PICTURES = 32, 64, 256
SIZES = {"64x64": (64, 64), "320x320": (320, 320)}  # of the pictures


@lru_cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="inpaint_fast_data_")  # gone when the process ends


@lru_cache
def data_of(name: str) -> tuple[Path, Path]:
    """A folder of JPEG files of one size, cut from the samples, and the packed file of it."""
    folder, photos, (height, width) = Path(_folder().name, name), samples(), SIZES[name]
    folder.mkdir()
    for i in range(PICTURES):
        photo = photos[i % len(photos)]
        top, left = 7 * i % (photo.shape[1] - height + 1), 11 * i % (photo.shape[2] - width + 1)
        array = photo[:, top : top + height, left : left + width].permute(1, 2, 0).contiguous().numpy()
        Image.fromarray(array).save(folder / f"{i:03}.jpg", quality=90)
    pack(folder, folder.with_suffix(".pack"))
    return folder, folder.with_suffix(".pack")


def maker(path: Path, device: torch.device, cache_bytes: int = 0) -> Callable[[], Tensor]:
    """What makes the batches of these pictures on a device, the next one at each call."""
    images = open_images(path, cache_bytes=cache_bytes)
    if isinstance(images, PackedImages):
        images.use(device)
    elif cache_bytes:
        for image in images:  # decoded now, not at their first call
            del image
    batches = Batches(images, size=SIZE, batch_size=BATCH)
    if device.type == "cuda":
        ahead = prefetch(batches, 0, device=device)
        return lambda: next(ahead)[1].image
    indices = itertools.count()
    return lambda: batches[next(indices)].image


def case(name: str, device: str) -> harness.Case:
    place, (folder, file) = torch.device(device), data_of(name)
    height, width = SIZES[name]
    return harness.Case(
        [
            harness.Implementation("inpaint_fast", lambda: maker(file, place), "packed file"),
            harness.Implementation("folder", lambda: maker(folder, place), "Pillow, each file anew"),
            harness.Implementation("folder_decoded", lambda: maker(folder, place, 1 << 30), "pictures in memory"),
        ],
        reference=lambda: maker(folder, torch.device("cpu"))().double(),
        bound=1e-7,  # float32's rounding of k / 255, which a GPU may make another one
        work=BATCH * 3 * (height * width + 4 * SIZE * SIZE),
        unit="GB/s",
        device=device,
        memory="reused",  # as in a run, which frees a batch and makes another one of the same size
    )


def cases(device: str) -> harness.Cases:
    return {name: partial(case, name, device) for name in SIZES}


def main(argv: list[str] | None = None) -> int:
    return harness.main(argv, cases, __doc__, module=__name__)


if __name__ == "__main__":
    sys.exit(main())
