"""Every kind of picture file becomes 8-bit sRGB or one clear error."""

from __future__ import annotations

import os
import pickle
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from inpaint_fast.data import ImageError, read_image, to_float, to_uint8, write_png
from inpaint_fast.data.images import MAX_PIXELS, check_image, open_image, readable_suffixes


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def saved(path, picture, **options):
    picture.save(path, **options)
    return path


def png_header(path, width, height):
    """A PNG file that announces this size and holds next to nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    return path


def linear_light_profile() -> bytes:
    """A minimal ICC profile: sRGB's primaries with a tone curve of exponent 1."""

    def xyz(*values):
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    curve = b"curv\0\0\0\0" + struct.pack(">I", 0)
    name = b"desc\0\0\0\0" + struct.pack(">I", 7) + b"linear\0" + bytes(78 + 5)
    data = {
        b"desc": name,
        b"cprt": b"text\0\0\0\0none",
        b"wtpt": xyz(0.9642, 1, 0.8249),
        b"rXYZ": xyz(0.4361, 0.2225, 0.0139),
        b"gXYZ": xyz(0.3851, 0.7169, 0.0971),
        b"bXYZ": xyz(0.1431, 0.0606, 0.7141),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    table, body, start = b"", b"", 128 + 4 + 12 * len(data)
    for tag, value in data.items():
        table += tag + struct.pack(">II", start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    header = struct.pack(
        ">I4s4s4s4s4s12s4s", start + len(body), b"", b"\2\x20\0\0", b"mntr", b"RGB ", b"XYZ ", b"", b"acsp"
    )
    header += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(data)) + table + body


class TestKinds:
    def test_rgb(self, tmp_path, noise):
        image = read_image(saved(tmp_path / "a.png", Image.fromarray(noise)))
        assert image.dtype == torch.uint8
        assert image.shape == (3, 20, 30)
        assert torch.equal(image, torch.from_numpy(noise).permute(2, 0, 1))

    def test_path_may_be_a_string(self, tmp_path, noise):
        assert read_image(str(saved(tmp_path / "a.png", Image.fromarray(noise)))).shape == (3, 20, 30)

    def test_grey_is_three_equal_channels(self, tmp_path, noise):
        image = read_image(saved(tmp_path / "a.png", Image.fromarray(noise[..., 0])))
        assert torch.equal(image, torch.from_numpy(noise[..., 0]).expand(3, 20, 30))

    def test_one_bit(self, tmp_path):
        bits = np.eye(8, dtype=bool)
        image = read_image(saved(tmp_path / "a.png", Image.fromarray(bits)))
        assert torch.equal(image[1], torch.from_numpy(bits) * 255)

    @pytest.mark.parametrize("mode, colour", [("RGBA", (200, 100, 0, 0)), ("LA", (70, 0))])
    def test_transparent_is_laid_on_white(self, tmp_path, mode, colour):
        opaque = (*colour[:-1], 255)
        picture = Image.new(mode, (4, 2), colour)
        picture.putpixel((3, 1), opaque)
        image = read_image(saved(tmp_path / "a.png", picture))
        assert image[:, 0, 0].tolist() == [255, 255, 255]
        assert image[:, 1, 3].tolist() == list(opaque[:-1] if mode == "RGBA" else (70, 70, 70))

    def test_half_transparent_is_mixed_with_white(self, tmp_path):
        image = read_image(saved(tmp_path / "a.png", Image.new("RGBA", (2, 2), (0, 0, 0, 51))))
        assert image.unique().tolist() == [204]

    def test_palette(self, tmp_path):
        picture = Image.new("P", (2, 1))
        picture.putpalette([10, 20, 30, 200, 0, 0])
        picture.putpixel((1, 0), 1)
        assert read_image(saved(tmp_path / "a.png", picture))[:, 0].T.tolist() == [[10, 20, 30], [200, 0, 0]]
        transparent = read_image(saved(tmp_path / "b.png", picture, transparency=0))
        assert transparent[:, 0].T.tolist() == [[255, 255, 255], [200, 0, 0]]

    def test_cmyk(self, tmp_path):
        image = read_image(saved(tmp_path / "a.tif", Image.new("CMYK", (2, 2), (0, 255, 255, 0))))
        assert image[:, 0, 0].tolist() == [255, 0, 0]

    def test_16_bit_is_scaled_and_not_clipped(self, tmp_path):
        deep = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
        for name in ("a.png", "a.tif"):
            image = read_image(saved(tmp_path / name, Image.fromarray(deep)))
            assert image[0].tolist() == [[0, 1, 128, 255]]
            assert torch.equal(image[0], image[2])

    def test_dark_16_bit_stays_dark(self, tmp_path):
        deep = np.array([[0, 257, 514]], dtype=np.uint16)
        assert read_image(saved(tmp_path / "a.png", Image.fromarray(deep)))[0].tolist() == [[0, 1, 2]]

    @pytest.mark.parametrize(
        "values, expected",
        [
            (np.array([[0, 32896, 65535, -5]], dtype=np.int32), [0, 128, 255, 0]),
            (np.array([[0, 1_000_000]], dtype=np.int32), [0, 255]),
            (np.array([[0, 128, 200]], dtype=np.int32), [0, 128, 200]),
            (np.array([[0, 0.5, 1, np.nan, -1]], dtype=np.float32), [0, 128, 255, 0, 0]),
            (np.array([[0, 128, 200]], dtype=np.float32), [0, 128, 200]),
            (np.array([[0, 257, 65535]], dtype=np.float32), [0, 1, 255]),
        ],
    )
    def test_32_bit(self, tmp_path, values, expected):
        assert read_image(saved(tmp_path / "a.tif", Image.fromarray(values)))[0, 0].tolist() == expected

    def test_animation_gives_its_first_frame(self, tmp_path):
        frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "lime", "blue")]
        path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
        assert read_image(path)[:, 0, 0].tolist() == [255, 0, 0]

    def test_exif_orientation_is_applied(self, tmp_path, noise):
        exif = Image.Exif()
        exif[0x0112] = 6  # to be shown turned a quarter clockwise
        image = read_image(saved(tmp_path / "a.png", Image.fromarray(noise), exif=exif))
        assert torch.equal(image, torch.from_numpy(np.rot90(noise, -1).copy()).permute(2, 0, 1))

    def test_icc_profile_is_applied(self, tmp_path):
        picture = Image.new("RGB", (2, 2), (55, 55, 55))
        image = read_image(saved(tmp_path / "a.png", picture, icc_profile=linear_light_profile()))
        assert (image.int() - 128).abs().max() <= 1  # sRGB's curve takes the light 55 / 255 to the level 128

    def test_unusable_icc_profile_is_left_out(self, tmp_path, noise):
        image = read_image(saved(tmp_path / "a.png", Image.fromarray(noise), icc_profile=b"nonsense"))
        assert torch.equal(image, torch.from_numpy(noise).permute(2, 0, 1))

    @pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
    def test_extreme_shapes(self, tmp_path, size):
        assert read_image(saved(tmp_path / "a.png", Image.new("RGB", size))).shape == (3, size[1], size[0])

    def test_open_image_keeps_transparency(self, tmp_path):
        path = saved(tmp_path / "a.png", Image.new("LA", (2, 2), (9, 99)))
        assert open_image(path).getpixel((0, 0)) == (9, 9, 9, 99)


class TestErrors:
    @pytest.mark.parametrize("content, reason", [(b"", "empty file"), (b"a note\n" * 50, "not an image")])
    def test_not_a_picture(self, tmp_path, content, reason):
        path = tmp_path / "a.jpg"
        path.write_bytes(content)
        for read in (read_image, check_image):
            with pytest.raises(ImageError) as caught:
                read(path)
            assert (caught.value.path, caught.value.reason) == (path, reason)
            assert str(caught.value) == f"{path}: {reason}"

    def test_missing(self, tmp_path):
        with pytest.raises(ImageError, match="nowhere.png: No such file"):
            read_image(tmp_path / "nowhere.png")

    def test_folder(self, tmp_path):
        with pytest.raises(ImageError, match="not a regular file"):
            read_image(tmp_path)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFO on this system")
    def test_fifo_does_not_wait(self, tmp_path):
        os.mkfifo(tmp_path / "a.png")
        with pytest.raises(ImageError, match="not a regular file"):
            read_image(tmp_path / "a.png")

    @pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "webp", "tif"])
    def test_truncated(self, tmp_path, noise, suffix):
        path = saved(tmp_path / f"a.{suffix}", Image.fromarray(noise).resize((100, 100)))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ImageError, match=f"a.{suffix}: "):
            read_image(path)

    def test_truncated_jpeg_passes_the_header_check(self, tmp_path, noise):
        path = saved(tmp_path / "a.jpg", Image.fromarray(noise).resize((100, 100)))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        check_image(path)
        with pytest.raises(ImageError, match="truncated"):
            read_image(path)

    def test_whatever_a_decoder_raises(self, tmp_path, noise, monkeypatch):
        path = saved(tmp_path / "a.png", Image.fromarray(noise))

        def damaged(self):
            raise IndexError("list index out of range")

        monkeypatch.setattr(PngImageFile, "load", damaged)
        with pytest.raises(ImageError, match="a.png: damaged: IndexError: list index out of range"):
            read_image(path)

    @pytest.mark.parametrize("cut", range(0, 64))
    def test_random_damage_is_an_image_or_an_image_error(self, tmp_path, noise, cut):
        path = saved(tmp_path / "a.png", Image.fromarray(noise))
        content = bytearray(path.read_bytes())
        content[cut * len(content) // 64] ^= 0xFF
        path.write_bytes(content)
        try:
            assert read_image(path).dtype == torch.uint8
        except ImageError as error:
            assert error.path == path

    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    @pytest.mark.parametrize("width, height", [(20_000, 20_000), (10_000, 10_000), (MAX_PIXELS + 1, 1)])
    def test_bomb_is_refused_from_its_header(self, tmp_path, width, height):
        path = png_header(tmp_path / "a.png", width, height)
        for read in (read_image, check_image):
            with pytest.raises(ImageError, match="a.png: too large: .*limit of 80,000,000"):
                read(path)

    def test_bomb_warning_as_an_error(self, tmp_path):
        path = png_header(tmp_path / "a.png", 10_000, 10_000)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ImageError, match="too large"):
                read_image(path)

    def test_size_at_the_limit_is_not_too_large(self, tmp_path):
        check_image(png_header(tmp_path / "a.png", MAX_PIXELS // 8000, 8000))

    def test_nothing_is_handed_to_another_program(self, tmp_path):
        (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
        with pytest.raises(ImageError, match="not an image"):
            read_image(tmp_path / "a.eps")

    def test_pillow_state_is_left_alone(self, tmp_path, noise):
        from PIL import ImageFile

        before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        read_image(saved(tmp_path / "a.png", Image.fromarray(noise)))
        after = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        assert after == before

    def test_error_survives_pickling(self):
        error = pickle.loads(pickle.dumps(ImageError("a.png", "empty file")))
        assert (str(error), error.reason) == ("a.png: empty file", "empty file")

    def test_suffixes(self):
        suffixes = readable_suffixes()
        assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".bmp", ".gif"} <= suffixes
        assert not {".eps", ".pdf", ".mpg", ".txt"} & suffixes


class TestWritePng:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_round_trip(self, tmp_path, channels):
        image = torch.randint(0, 256, (channels, 7, 9), dtype=torch.uint8)
        write_png(tmp_path / "a.png", image)
        assert torch.equal(read_image(tmp_path / "a.png"), image.expand(3, 7, 9))
        assert Image.open(tmp_path / "a.png").mode == ("RGB" if channels == 3 else "L")
        assert os.listdir(tmp_path) == ["a.png"]

    def test_any_memory_layout(self, tmp_path):
        image = torch.randint(0, 256, (9, 3, 7), dtype=torch.uint8).permute(1, 2, 0)[:, ::2]
        write_png(tmp_path / "a.png", image)
        assert torch.equal(read_image(tmp_path / "a.png"), image)

    def test_permissions_are_those_of_a_new_file(self, tmp_path):
        write_png(tmp_path / "a.png", torch.zeros(1, 2, 2, dtype=torch.uint8))
        (tmp_path / "plain").touch()
        assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode

    def test_failure_leaves_the_old_file(self, tmp_path, monkeypatch):
        write_png(tmp_path / "a.png", torch.zeros(1, 2, 2, dtype=torch.uint8))
        before = (tmp_path / "a.png").read_bytes()

        def disk_full(self, file, **options):
            file.write(b"half a picture")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Image.Image, "save", disk_full)
        with pytest.raises(OSError, match="No space left"):
            write_png(tmp_path / "a.png", torch.ones(1, 2, 2, dtype=torch.uint8))
        assert (tmp_path / "a.png").read_bytes() == before
        assert os.listdir(tmp_path) == ["a.png"]

    def test_bad_tensor(self, tmp_path):
        with pytest.raises(TypeError, match="torch.float32"):
            write_png(tmp_path / "a.png", torch.zeros(3, 2, 2))
        for shape in [(2, 4, 4), (4, 4), (1, 3, 4, 4), (3, 0, 4)]:
            with pytest.raises(ValueError, match="image must have shape"):
                write_png(tmp_path / "a.png", torch.zeros(shape, dtype=torch.uint8))
        assert os.listdir(tmp_path) == []


class TestConversion:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
    def test_every_level_survives(self, dtype):
        levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
        assert torch.equal(to_uint8(to_float(levels).to(dtype)), levels)

    def test_to_float(self):
        image = to_float(torch.tensor([[0, 51, 255]], dtype=torch.uint8))
        assert image.dtype == torch.float32
        assert torch.equal(image, torch.tensor([[0, 0.2, 1]]))

    def test_rounds_and_clamps(self):
        values = torch.tensor([-1, 0.49 / 255, 0.5 / 255, 1.49 / 255, 2, torch.inf, -torch.inf, torch.nan])
        assert to_uint8(values).tolist() == [0, 0, 1, 1, 255, 255, 0, 0]

    def test_input_is_left_alone(self):
        values = torch.tensor([0.5, torch.nan])
        to_uint8(values)
        assert values[0] == 0.5
        assert values[1].isnan()

    def test_wrong_dtype(self):
        with pytest.raises(TypeError, match="torch.float32"):
            to_float(torch.zeros(3))
        with pytest.raises(TypeError, match="torch.uint8"):
            to_uint8(torch.zeros(3, dtype=torch.uint8))
