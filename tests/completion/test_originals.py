"""`write_like`: each format and mode as it was, but for the hole."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from PIL.ExifTags import IFD, Base

from inpaint_fast.completion.originals import UPRIGHT_TO_STORED, kept_format, write_like
from inpaint_fast.data import ImageError, box, read_image
from inpaint_fast.data.images import software_of

SIZE = (24, 32)
HOLE = box(*SIZE, 5, 4, 12, 9)
RED = torch.tensor([200, 40, 60], dtype=torch.uint8)[:, None, None].expand(3, *SIZE)


def noise(mode: str) -> Image.Image:
    draws = np.random.default_rng(0)
    depth = {"I;16": np.uint16, "I;16B": ">u2", "I": np.int32, "F": np.float32}.get(mode)
    if depth is not None:
        return Image.fromarray(draws.integers(0, 65536, SIZE).astype(depth))
    if mode in ("1", "P"):
        return Image.fromarray(draws.integers(0, 256, SIZE, np.uint8)).convert(mode)
    channels = len(Image.new(mode, (1, 1)).getbands())
    values = draws.integers(0, 256, (*SIZE, channels), np.uint8)
    return Image.frombytes(mode, SIZE[::-1], values.tobytes())


def written(tmp_path, original: str, completed=RED, hole=HOLE) -> tuple[Image.Image, Image.Image]:
    """The original and what was written, as they are stored."""
    path, target = tmp_path / original, tmp_path / f"out_{original}"
    write_like(target, completed, hole, path, software="program 1")
    with Image.open(path) as before, Image.open(target) as after:
        before.load(), after.load()
        assert (before.format, before.mode, before.size) == (after.format, after.mode, after.size)
        assert software_of(target) == "program 1" and not list(tmp_path.glob(".*"))
        return before, after


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *(("png", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        *(("tif", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I;16B", "I", "F")),
        *(("webp", mode) for mode in ("RGB", "RGBA")),
    ],
)
def test_outside_every_pixel_is_the_same_and_inside_the_completion(tmp_path, suffix, mode) -> None:
    noise(mode).save(tmp_path / f"a.{suffix}", **({"lossless": True, "exact": True} if suffix == "webp" else {}))
    before, after = written(tmp_path, f"a.{suffix}")
    differ = np.asarray(before) != np.asarray(after)
    hole = HOLE[0].numpy()
    assert not differ[~hole].any() and differ[hole].any()
    inside = read_image(tmp_path / f"out_a.{suffix}")[:, HOLE[0]]
    if mode in ("RGB", "CMYK"):
        assert (inside.int() - RED[:, HOLE[0]].int()).abs().max() <= 1
    elif mode not in ("P", "LA", "RGBA"):
        grey = np.asarray(Image.new("RGB", (1, 1), (200, 40, 60)).convert("L"))[0, 0]
        assert (inside.int() - (int(grey) if mode != "1" else 0)).abs().max() <= 1


def test_transparency_continues_into_the_hole_and_what_is_seen_is_the_completion(tmp_path) -> None:
    picture = np.full((*SIZE, 4), 255, np.uint8)
    picture[:, :, 3] = np.linspace(40, 250, SIZE[1]).astype(np.uint8)
    picture[HOLE[0].numpy()] = 0
    Image.fromarray(picture).save(tmp_path / "a.png")
    seen = torch.full((3, *SIZE), 240, dtype=torch.uint8)
    _, after = written(tmp_path, "a.png", completed=seen)
    alpha = np.asarray(after)[..., 3].astype(int)
    assert np.abs(np.diff(alpha, axis=1)).max() <= 8  # no edge where the hole begins
    assert (read_image(tmp_path / "out_a.png")[:, HOLE[0]].int() - 240).abs().max() <= 3


def test_a_palette_gives_its_nearest_opaque_colour(tmp_path) -> None:
    picture = Image.new("P", SIZE[::-1], 1)
    picture.putpalette([200, 40, 60, 10, 10, 10, 190, 50, 60])
    picture.save(tmp_path / "a.png", transparency=0)  # the nearest one is transparent
    before, after = written(tmp_path, "a.png")
    assert set(np.asarray(after)[HOLE[0].numpy()]) == {2} and set(np.asarray(after)[~HOLE[0].numpy()]) == {1}
    assert after.info["transparency"] == before.info["transparency"]


def test_a_palette_without_an_opaque_colour_is_refused_by_its_name(tmp_path) -> None:
    Image.new("P", SIZE[::-1]).save(tmp_path / "a.png", transparency=bytes(256))
    with pytest.raises(ImageError, match=r"a\.png: --keep: its palette has no opaque colour"):
        written(tmp_path, "a.png")


@pytest.mark.parametrize("orientation", [1, *UPRIGHT_TO_STORED])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_every_orientation(tmp_path, suffix, orientation) -> None:
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    Image.fromarray(np.full((*SIZE, 3), 90, np.uint8)).save(tmp_path / f"a.{suffix}", exif=exif)
    upright = read_image(tmp_path / f"a.{suffix}")
    hole = box(*upright.shape[1:], 2, 3, 8, 5)
    completed = torch.where(hole, torch.tensor(230, dtype=torch.uint8), upright)
    before, after = written(tmp_path, f"a.{suffix}", completed, hole)
    assert before.getexif().get(Base.Orientation) == after.getexif().get(Base.Orientation)
    again = read_image(tmp_path / f"out_a.{suffix}")
    assert torch.equal(again[0] > 160, hole[0])


def test_exif_without_its_thumbnail_profile_and_resolution(tmp_path) -> None:
    exif = Image.Exif()
    exif[Base.Make], exif[Base.Software], exif[Base.ImageResources] = "maker", "editor", b"a thumbnail"
    exif[IFD.Exif], exif[IFD.GPSInfo] = {Base.FNumber: 2.5}, {1: "N"}
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for suffix in ("jpg", "png", "tif", "webp"):
        options = {"exif": exif.tobytes(), "icc_profile": profile, "dpi": (300, 300)}
        noise("RGB").save(tmp_path / f"a.{suffix}", comment=b"a comment", **options)
        before, after = written(tmp_path, f"a.{suffix}")
        with Image.open(tmp_path / f"out_a.{suffix}") as opened:
            kept = opened.getexif()
            kept.get_ifd(IFD.Exif), kept.get_ifd(IFD.GPSInfo)
        assert kept[Base.Make] == "maker" and kept.get_ifd(IFD.Exif)[Base.FNumber] == 2.5
        assert kept.get_ifd(IFD.GPSInfo)[1] == "N" and Base.ImageResources not in kept
        assert after.info["icc_profile"] == profile and not after.info.get("comment")
        assert after.info.get("dpi") == before.info.get("dpi")


@pytest.mark.parametrize("resolution", [None, 300])
@pytest.mark.parametrize("suffix", ["jpg", "tif", "png"])
def test_no_resolution_is_made_up(tmp_path, suffix, resolution) -> None:
    exif = Image.Exif()
    exif[Base.Make] = "maker"
    if resolution:
        exif[Base.XResolution], exif[Base.YResolution], exif[Base.ResolutionUnit] = resolution, resolution, 2
    noise("RGB").save(tmp_path / f"a.{suffix}", exif=exif)
    before, after = written(tmp_path, f"a.{suffix}")
    assert after.info.get("dpi") == before.info.get("dpi")
    assert after.info.get("jfif_unit") == before.info.get("jfif_unit")
    assert resolution is None or after.getexif()[Base.XResolution] == resolution


def test_the_thumbnail_shows_what_was_removed(tmp_path) -> None:
    thumbnail = io.BytesIO()
    noise("RGB").save(thumbnail, "JPEG")
    noise("RGB").save(tmp_path / "plain.jpg", exif=Image.Exif())
    # IFD0 with no entry, then IFD1 with one thumbnail
    entries = b"".join(
        tag.to_bytes(2, "little") + (4).to_bytes(2, "little") + (1).to_bytes(4, "little") + value.to_bytes(4, "little")
        for tag, value in ((0x0201, 44), (0x0202, len(thumbnail.getvalue())))
    )
    ifds = bytes(2) + (14).to_bytes(4, "little") + (2).to_bytes(2, "little") + entries + bytes(4)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + ifds + thumbnail.getvalue()
    noise("RGB").save(tmp_path / "a.jpg", exif=exif)
    before, after = written(tmp_path, "a.jpg")
    assert before.getexif().get_ifd(IFD.IFD1) and not after.getexif().get_ifd(IFD.IFD1)


def test_a_profile_is_applied_both_ways(tmp_path) -> None:
    profile = _swapped_profile()
    Image.new("RGB", SIZE[::-1], (10, 200, 30)).save(tmp_path / "a.png", icc_profile=profile)
    upright = read_image(tmp_path / "a.png")
    assert upright[:, 0, 0].tolist() != [10, 200, 30]
    _, after = written(tmp_path, "a.png", upright)
    assert np.abs(np.asarray(after).astype(int) - (10, 200, 30)).max() <= 3
    assert np.array_equal(
        np.asarray(after)[~HOLE[0].numpy()], np.broadcast_to((10, 200, 30), SIZE + (3,))[~HOLE[0].numpy()]
    )


@pytest.mark.parametrize("quality", [60, 92])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg_is_compressed_as_it_was(tmp_path, quality, subsampling) -> None:
    draws = np.random.default_rng(0).integers(60, 200, (8, 8, 3), np.uint8)
    picture = Image.fromarray(draws).resize((96, 80), Image.Resampling.BICUBIC)
    picture.save(tmp_path / "a.jpg", quality=quality, subsampling=subsampling, progressive=True)
    upright = read_image(tmp_path / "a.jpg")
    hole = box(80, 96, 32, 32, 16, 16)
    before, after = written(tmp_path, "a.jpg", upright.where(~hole, 0), hole)
    assert before.quantization == after.quantization and after.info.get("progressive")
    far = np.ones((80, 96), bool)
    far[16:64, 16:64] = False  # blocks that hold nothing of the hole: the tables are their own
    other = io.BytesIO()
    before.copy().save(other, "JPEG", quality=quality - 7, subsampling=subsampling)
    ours, others = (
        np.abs(np.asarray(before).astype(int) - np.asarray(image))[far].mean() for image in (after, Image.open(other))
    )
    assert ours < others / 2 and ours < 1


def test_what_cannot_be_kept_is_named(tmp_path) -> None:
    noise("RGB").save(tmp_path / "a.bmp")
    noise("RGB").save(tmp_path / "b.png", save_all=True, append_images=[noise("L").convert("RGB")])
    noise("L").save(tmp_path / "c.png", transparency=7)
    (tmp_path / "d.png").write_bytes(_deep_png())
    for name, words in (("a.bmp", "BMP RGB"), ("b.png", "2 frames"), ("c.png", "alpha channel"), ("d.png", "16 bits")):
        with pytest.raises(ImageError, match=f"{name}.*--keep.*{words}"):
            kept_format(tmp_path / name)
        with pytest.raises(ImageError, match=words):
            write_like(tmp_path / "out", RED, HOLE, tmp_path / name)
    noise("RGB").save(tmp_path / "e.png")
    with pytest.raises(ImageError, match="another size"):
        write_like(tmp_path / "out", RED[:, :20], HOLE[:, :20], tmp_path / "e.png")
    with pytest.raises(ValueError, match="mask: bool"):
        write_like(tmp_path / "out", RED, HOLE.float(), tmp_path / "e.png")
    assert not (tmp_path / "out").exists()


def _deep_png() -> bytes:
    """A PNG file of 16 bits a channel, RGB."""
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 4, 3, 16, 2, 0, 0, 0)
    rows = zlib.compress(bytes(3 * (1 + 4 * 6)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _swapped_profile() -> bytes:
    """sRGB whose red and green are exchanged, and whose name is another."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data = data.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?XYZ", b"gXYZ")
    return bytes(data.replace(b"s\0R\0G\0B", b"m\0i\0n\0e").replace(b"sRGB b", b"mine b"))
