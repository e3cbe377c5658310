"""Pictures and masks that are uploaded: completed as the package does, or refused in a sentence."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from serve.running import MASK, PICTURE, SIZE, file_of, mask_of, noise

from inpaint_fast.data import read_image

TURNED = {"exif": Image.Exif()}
TURNED["exif"][0x0112] = 6


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, pixels: bytes = bytes(10_000)) -> bytes:
    """A PNG file whose header says this size, and whose pixels are these bytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def flipped(data: bytes) -> bytes:
    damaged = bytearray(data)
    for place in range(60, len(data), 97):
        damaged[place] ^= 0x55
    return bytes(damaged)


def icon() -> bytes:
    """An icon of 16 x 16 pixels whose picture has 12,000 x 12,000."""
    inside = png(12_000, 12_000)
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inside), 22) + inside


JPEG = file_of(noise(64, 64), "JPEG")
BROKEN = {
    "empty": (b"", "empty file"),
    "text": (b"hello " * 99, "not an image of a kind that is taken: AVIF, BMP, "),
    "page": (b"<!doctype html><title>sign in</title>", "an HTML page"),
    "zip": (b"PK\x03\x04" + bytes(99), "a zip archive"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(99), "HEIC"),
    "half a PNG": (PICTURE[: len(PICTURE) // 2], "truncated"),
    "half a JPEG": (JPEG[: len(JPEG) // 2], "truncated"),
    "PNG with bits flipped": (flipped(PICTURE), "cannot be read"),
    "PNG without pixels": (png(30, 30, b""), "cannot be read"),
    "no width": (png(0, 9), "cannot be read"),
    "bomb": (png(20_000, 20_000, bytes(60_001 * 100)), "cannot be read: too large"),
    "small bomb": (png(5_000, 5_000), "has 25.0 megapixels (5000 x 5000), and 16.8 are taken"),
    "an icon with a bomb in it": (icon(), "not an image of a kind"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    "Photoshop": (b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 9, 9, 8, 3) + bytes(30), "not an image of a kind"),
    "GIF of one byte": (b"GIF89a" + struct.pack("<HH", 9, 9) + b"\x80\0\0" + bytes(6), "cannot be read"),
    "WebP": (b"RIFF\x20\0\0\0WEBPVP8 " + bytes(20), "cannot be read"),
    "TIFF": (b"II*\0\x08\0\0\0\xff\xff" + bytes(99), "cannot be read"),
}  # fmt: skip


class TestPictures:
    def test_completed_as_the_package_does(self, page):
        page.assert_alive()
        outside = mask_of(*SIZE) == 0
        assert (page.complete(MASK, PICTURE).pixels[outside] == noise(*SIZE)[outside]).all()

    @pytest.mark.parametrize(
        ("kind", "options", "pixels"),
        [
            ("JPEG", TURNED, noise(30, 50)),
            ("PNG", TURNED, noise(30, 50, 4)),
            ("TIFF", {}, noise(30, 50, 1)),
            ("PNG", {}, np.linspace(0, 65535, 1500).reshape(30, 50).astype(np.uint16)),
            ("WEBP", {"lossless": True}, noise(30, 50)),
            ("GIF", {}, noise(30, 50, 1)),
            ("BMP", {}, noise(30, 50)),
        ],
    )
    def test_shown_is_what_is_completed(self, page, tmp_path, kind, options, pixels):
        data = file_of(pixels, kind, **options)
        (tmp_path / "picture").write_bytes(data)
        expected = read_image(tmp_path / "picture").permute(1, 2, 0).numpy()
        shown = page.ask("/open", data).pixels
        assert (shown == expected).all()
        mask = mask_of(*shown.shape[:2])
        completed = page.complete(file_of(mask), data).pixels
        assert (completed[mask == 0] == shown[mask == 0]).all() and (completed[mask > 0] != shown[mask > 0]).any()

    @pytest.mark.parametrize("name", BROKEN)
    def test_broken_ones_are_refused_in_a_sentence(self, page, name):
        data, words = BROKEN[name]
        refused = [page.ask("/open", data), page.complete(MASK, data), page.complete(data, PICTURE)]
        assert [answer.status for answer in refused] == [422] * 3
        assert words in refused[0].error and words in refused[1].error
        assert refused[2].error.startswith("The mask ")
        page.assert_alive()

    def test_masks_of_other_sizes_and_without_a_hole(self, page):
        height, width = SIZE
        for mask, words in (
            (mask_of(width, height), "The mask is 40 x 56 pixels and the picture 56 x 40."),
            (mask_of(height, width + 1), "The mask is 57 x 40 pixels and the picture 56 x 40."),
            (mask_of(4_000, 4_000), "The mask is 4000 x 4000 pixels"),
            (np.zeros(SIZE, np.uint8), "no hole"),
            (np.full(SIZE, 255, np.uint8), "nothing is left"),
            (noise(*SIZE), "in colours"),
        ):
            answer = page.complete(file_of(mask), PICTURE)
            assert answer.status == 422 and words in answer.error
        turned = page.complete(file_of(mask_of(*SIZE), **TURNED), PICTURE)
        assert turned.status == 422 and "EXIF" in turned.error
        page.assert_alive()

    @pytest.mark.parametrize(
        ("headers", "status", "words"),
        [
            ({}, 411, "X-Mask-Bytes"),
            ({"X_Mask_Bytes": "-1"}, 411, "X-Mask-Bytes"),
            ({"X_Mask_Bytes": "1e3"}, 411, "X-Mask-Bytes"),
            ({"X_Mask_Bytes": "9" * 40}, 411, "X-Mask-Bytes"),
            ({"X_Mask_Bytes": str(len(MASK + PICTURE) + 1)}, 400, "shorter than its mask"),
            ({"X_Mask_Bytes": "0"}, 422, "mask cannot be read: empty file"),
            ({"X_Mask_Bytes": str(len(MASK + PICTURE))}, 422, "picture cannot be read: empty file"),
            ({"X_Mask_Bytes": str(len(MASK) - 1)}, 422, "picture cannot be read"),
            ({"X_Mask_Bytes": str(len(MASK)), "Transfer_Encoding": "chunked"}, 400, "Transfer-Encoding"),
            ({"X_Mask_Bytes": str(len(MASK)), "Content_Length": "x"}, 411, "Content-Length"),
        ],
    )
    def test_bodies_that_are_none(self, page, headers, status, words):
        answer = page.ask("/complete", MASK + PICTURE, **headers)
        assert answer.status == status and words in answer.error
        page.assert_alive()


def test_png_of_an_answer_is_a_picture_file(page, tmp_path) -> None:
    (tmp_path / "saved.png").write_bytes(page.complete(MASK, PICTURE).content)
    assert tuple(read_image(tmp_path / "saved.png").shape) == (3, *SIZE)
    assert Image.open(io.BytesIO(page.ask("/open", PICTURE).content)).mode == "RGB"
