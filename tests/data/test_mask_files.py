"""Mask files: what every tool that makes masks writes is read by one rule, or is an error that says why."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from inpaint_fast.data import ImageError, read_mask
from inpaint_fast.data.mask_files import check_share

HOLE = np.zeros((6, 8), np.uint8)
HOLE[1:4, 2:7] = 1


def palette(*colours: tuple[int, int, int], transparent: int | None = None) -> Image.Image:
    picture = Image.frombytes("P", HOLE.shape[::-1], HOLE.tobytes())
    picture.putpalette([level for colour in colours for level in colour])
    if transparent is not None:
        picture.info["transparency"] = transparent
    return picture


def coloured(hole: tuple[int, ...], rest: tuple[int, ...]) -> Image.Image:
    return Image.fromarray(np.where(HOLE[..., None], hole, rest).astype(np.uint8))


def grey(hole: float, rest: float, dtype: type) -> Image.Image:
    return Image.fromarray(np.where(HOLE, hole, rest).astype(dtype))


READ = {
    "8 bits, 0 and 1": (grey(1, 0, np.uint8), "png"),
    "8 bits, 0 and 100": (grey(100, 0, np.uint8), "png"),
    "8 bits, 100 and 200": (grey(200, 100, np.uint8), "png"),
    "1 bit": (Image.fromarray(HOLE.astype(bool)), "png"),
    "16 bits, 0 and 1": (grey(1, 0, np.uint16), "png"),
    "16 bits, 0 and 255": (grey(255, 0, np.uint16), "png"),
    "16 bits, TIFF": (grey(1, 0, np.uint16), "tif"),
    "16 bits, full": (grey(65535, 0, np.uint16), "png"),
    "32-bit integers, 0 and 1": (grey(1, 0, np.int32), "tif"),
    "32-bit integers, 10 and 255": (grey(255, 10, np.int32), "tif"),
    "32-bit integers, 0 and a million": (grey(1e6, 0, np.int32), "tif"),
    "floating point, 0 and 1": (grey(1, 0, np.float32), "tif"),
    "floating point, 0 and 0.1": (grey(0.1, 0, np.float32), "tif"),
    "floating point, 0.2 and 0.8": (grey(0.8, 0.2, np.float32), "tif"),
    "PASCAL VOC's palette": (palette((0, 0, 0), (128, 0, 0)), "png"),
    "a palette of white and black": (palette((0, 0, 0), (255, 255, 255)), "png"),
    "red on black": (coloured((255, 0, 0), (0, 0, 0)), "png"),
    "blue on black": (coloured((0, 0, 255), (0, 0, 0)), "png"),
    "white on grey": (coloured((255,) * 3, (90,) * 3), "png"),
    "opaque RGBA": (coloured((255,) * 4, (0, 0, 0, 255)), "png"),
    "RGBA, nearly opaque": (coloured((255, 255, 255, 200), (0, 0, 0, 255)), "png"),
    "JPEG": (Image.fromarray(np.kron(HOLE, np.full((8, 8), 255, np.uint8))), "jpg"),
}


@pytest.mark.parametrize("kind", READ)
def test_what_tools_write_is_read(kind, tmp_path) -> None:
    picture, suffix = READ[kind]
    picture.save(tmp_path / f"m.{suffix}", **({"quality": 75} if suffix == "jpg" else {}))
    mask = read_mask(tmp_path / f"m.{suffix}")
    expected = torch.from_numpy(HOLE == 1)[None]
    if suffix == "jpg":
        mask = mask[:, 4::8, 4::8]  # the middles of its blocks
    assert mask.dtype == torch.bool and torch.equal(mask, expected)
    inverted = read_mask(tmp_path / f"m.{suffix}", invert=True)
    assert torch.equal(inverted, ~read_mask(tmp_path / f"m.{suffix}"))


CLASSES = np.arange(48, dtype=np.uint8).reshape(6, 8) % 4
REFUSED = {
    "classes": (Image.fromarray(CLASSES), "png", "no white in it: its grey levels go from 0 to 3"),
    "16-bit classes": (Image.fromarray(CLASSES.astype(np.uint16)), "png", "from 0 to 3, where white is 65535"),
    "dark grey throughout": (grey(9, 9, np.uint8), "png", "no white in it"),
    "red on white": (coloured((255, 0, 0), (255,) * 3), "png", "in colours"),
    "red and green": (coloured((255, 0, 0), (0, 255, 0)), "png", "in colours"),
    "a photograph": (
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)),
        "png",
        "colours",
    ),
    "a grey photograph": (Image.linear_gradient("L").point(lambda level: 70 + level // 3), "png", "photograph"),
    "NaN": (Image.fromarray(np.where(HOLE, np.nan, 1).astype(np.float32)), "tif", "NaN"),
    "white strokes on transparent": (coloured((255,) * 4, (0,) * 4), "png", "strokes"),
    "red strokes on transparent white": (coloured((200, 0, 0, 255), (255, 255, 255, 0)), "png", "strokes"),
    "black strokes on transparent": (coloured((0, 0, 0, 255), (0, 0, 0, 0)), "png", "strokes"),
    "a palette with a transparent entry": (palette((9, 200, 9), (0, 0, 0), transparent=0), "png", "strokes"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_may_mean_something_else_is_refused_by_name(kind, tmp_path) -> None:
    picture, suffix, words = REFUSED[kind]
    picture.save(tmp_path / f"m.{suffix}")
    with pytest.raises(ImageError, match=f"m.{suffix}: .*{words}"):
        read_mask(tmp_path / f"m.{suffix}")


def test_strokes_on_transparent_are_read_as_the_caller_says(tmp_path) -> None:
    path, strokes = tmp_path / "m.png", torch.from_numpy(HOLE == 1)[None]
    for colour in ((255, 255, 255), (255, 0, 0)):
        coloured((*colour, 255), (255, 255, 255, 0)).save(path)
        assert torch.equal(read_mask(path, by="colour"), strokes)
        assert torch.equal(read_mask(path, by="transparency"), ~strokes)
        assert torch.equal(read_mask(path, by="transparency", invert=True), strokes)
    coloured((0, 0, 0, 255), (0, 0, 0, 0)).save(path)
    assert torch.equal(read_mask(path, by="transparency", invert=True), strokes)
    coloured((255,) * 3, (0,) * 3).save(path)
    with pytest.raises(ImageError, match="no part of it is transparent"):
        read_mask(path, by="transparency")
    with pytest.raises(ValueError, match="by: .*'alpha'"):
        read_mask(path, by="alpha")


def test_soft_edges_of_strokes_are_cut_at_half(tmp_path) -> None:
    alpha = np.array([[0, 100, 127, 128, 200, 255]], np.uint8)
    Image.fromarray(np.dstack([np.full_like(alpha, 255)] * 3 + [alpha])).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", by="colour").tolist() == [[[False, False, False, True, True, True]]]


def test_a_picture_with_its_hole_erased_is_a_mask(tmp_path) -> None:
    photograph = np.random.default_rng(0).integers(0, 255, (6, 8, 4), np.uint8)
    photograph[..., 3] = 255 - 255 * HOLE
    Image.fromarray(photograph).save(tmp_path / "m.png")
    assert torch.equal(read_mask(tmp_path / "m.png")[0], torch.from_numpy(HOLE == 1))


def test_the_orientation_of_a_mask_is_applied_and_one_that_lies_on_its_side_is_said(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned a quarter clockwise
    grey(255, 0, np.uint8).save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(read_mask(tmp_path / "turned.png", (8, 6))[0], torch.from_numpy(np.rot90(HOLE, -1) == 1))
    with pytest.raises(ImageError, match="; the mask is turned upright by its EXIF orientation"):
        read_mask(tmp_path / "turned.png", (6, 8))
    grey(255, 0, np.uint8).save(tmp_path / "plain.png")
    with pytest.raises(ImageError, match="the picture is turned upright by its EXIF orientation"):
        read_mask(tmp_path / "plain.png", (8, 6))


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "no hole"), (460, "95.8% of the picture"), (479, "all but 1 pixel;"), (480, "the whole picture;.*invert")],
)
def test_nothing_and_nearly_everything_cannot_be_meant(count, words) -> None:
    mask = torch.arange(480).reshape(1, 20, 24) < count
    with pytest.raises(ValueError, match=f"mask: .*{words}"):
        check_share(mask)


def test_shares_that_can_be_meant() -> None:
    for count in (1, 24, 43):
        check_share(torch.arange(48).reshape(1, 6, 8) < count)
