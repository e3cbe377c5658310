"""A folder with pictures of all broken kinds trains to its end; each that cannot be read is named once."""

from __future__ import annotations

import os
import resource
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import times

from inpaint_fast.data import ImageError, read_image
from inpaint_fast.training import UNetL2, train

STEPS = times(3, 40)


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(height).integers(0, 256, shape, dtype=np.uint8)


def bomb(path: Path) -> None:
    """A header of 20,000 x 20,000 pixels, and hardly any of them."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(60_001) * 100)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


def truncated(path: Path) -> None:
    Image.fromarray(noise(90, 80)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(70, 90)).save(path, exif=exif)


def grey16(path: Path) -> None:
    Image.fromarray(np.linspace(0, 65535, 80 * 80).reshape(80, 80).astype(np.uint16)).save(path)


def animated(path: Path) -> None:
    frames = [Image.fromarray(noise(70 + i, 70)).convert("P") for i in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def unreadable(path: Path) -> None:
    Image.fromarray(noise(70, 70)).save(path)
    path.chmod(0)


READ = {
    "animated.gif": animated,
    "cmyk.jpg": lambda path: Image.fromarray(noise(80, 80, 4), "CMYK").save(path),
    "grey16.png": grey16,
    "palette.png": lambda path: Image.fromarray(noise(80, 80)).convert("P").save(path),
    "la.png": lambda path: Image.fromarray(noise(80, 80)).convert("LA").save(path),
    "rotated.jpg": rotated,
    "one_pixel.png": lambda path: Image.fromarray(noise(1, 1)).save(path),
    "thin.png": lambda path: Image.fromarray(noise(1, 5000)).save(path),
}  # fmt: skip
LEFT_OUT = {
    "empty.png": Path.touch,
    "text.jpg": lambda path: path.write_text("a note" * 20),
    "truncated.jpg": truncated,
    "bomb.png": bomb,
    "loop.png": lambda path: path.symlink_to(path),
    "pipe.png": os.mkfifo,
    "nowhere.png": lambda path: path.symlink_to("no such file"),
}
assert len(READ | LEFT_OUT) == 15


def folder_of(place: Path, kinds: dict) -> Path:
    place.mkdir()
    for name, make in kinds.items():
        make(place / name)
    return place


def test_a_run_trains_on_what_can_be_read(tmp_path, capsys) -> None:
    photos = folder_of(tmp_path / "photos", READ | LEFT_OUT)
    for i in range(4):
        Image.fromarray(noise(70 + i, 90)).save(photos / f"good{i}.png")
    if os.geteuid() != 0:  # root reads everything
        unreadable(photos / "unreadable.png")
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    recipe = UNetL2(
        data=str(photos), steps=STEPS, evaluate_every=STEPS, batch_size=8, filters=2, heldout_crops=1, accelerate=False
    )
    run = train(recipe, tmp_path / "run")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert (run / "generator.safetensors").is_file()
    assert grown < 200, f"{grown:.0f} MB"
    assert time.perf_counter() - start < 60 + STEPS
    said = "".join(capsys.readouterr())
    for name in LEFT_OUT:
        assert said.count(name) == 1, (name, said)
    for name in READ:
        assert name not in said


@pytest.mark.parametrize("name", LEFT_OUT)
def test_by_itself_it_is_an_error_with_its_name_at_once(name: str, tmp_path) -> None:
    LEFT_OUT[name](tmp_path / name)
    start = time.perf_counter()
    with pytest.raises(ImageError, match=name):
        read_image(tmp_path / name)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("name", READ)
def test_what_can_be_read_is_three_channels_of_bytes(name: str, tmp_path) -> None:
    READ[name](tmp_path / name)
    picture = read_image(tmp_path / name)
    assert picture.shape[0] == 3 and str(picture.dtype) == "torch.uint8"
