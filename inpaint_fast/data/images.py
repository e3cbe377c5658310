"""Picture files to tensors and back, by Pillow: any file that it reads becomes 8-bit sRGB, or one clear error."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from inpaint_fast._files import write_whole
from inpaint_fast._names import START, kind_of_start

MAX_PIXELS = 80_000_000
"""Pictures with more pixels are refused from their header: decoded, this many take 240 MB."""
DEEP = ("I", "F")
"""How Pillow's modes of more than 8 bits a channel begin."""
COMMON = ("AVIF", "BMP", "GIF", "JPEG", "MPO", "PNG", "TIFF", "WEBP")
"""Pillow's names for the formats that are read of an `Upload`: those that people have."""


class Upload(io.BytesIO):
    """A picture file in memory that anybody may have sent: it meets no decoders but those of `COMMON`."""

    name = "picture"


Source: TypeAlias = str | os.PathLike[str] | Upload

# EPS and WMF start another program or the operating system to draw; Pillow recognises the others without decoding them.
_NOT_DECODED = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})


class ImageError(ValueError):
    """A file or folder that gives no picture. `path` names it and `reason` says why; the message is "path: reason"."""

    def __init__(self, path: Source, reason: str):
        super().__init__(path, reason)
        self.path = Path(path.name if isinstance(path, Upload) else path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read_image(path: Source) -> Tensor:
    """Read a picture file, by its path or an `Upload`, as a uint8 tensor (3, H, W), sRGB, 0..255, the right way up.

    - Transparent parts (alpha channel, transparent palette entries) are laid on white.
    - Grey and 1-bit pictures become three equal channels; of an animation the first frame is taken.
    - An embedded ICC profile of an RGB or CMYK picture is applied, and the EXIF orientation too.
    - 16-bit grey is scaled by 255/65535. Other kinds have no full scale of their own: that of a TIFF file's 32-bit
      integers is the smallest of 255 and 65535 that holds its largest value, or else that value; so is that of floating
      point, beginning with 1. NaN becomes 0.

    Args:
        path: of the file.

    Returns:
        uint8 (3, H, W), laid out in memory as decoded, channels last; `.contiguous()` gives planes.

    Raises:
        ImageError: no such file, not a regular file, empty, not a picture, damaged or truncated, or of more than
            `MAX_PIXELS` pixels, which is found in the header before anything is decoded.
    """
    with opened(path) as image:
        image = _upright(image)
        if image.mode.startswith(DEEP):
            image = _deep_grey(image).convert("RGB")
        if image.mode == "RGBA":
            white = Image.new("RGBA", image.size, "white")
            white.alpha_composite(image)
            image = white.convert("RGB")
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def open_image(path: Source) -> Image.Image:
    """The same picture as `read_image`, as a Pillow image: "RGBA" where the file has transparency, otherwise "RGB"; of
    more than 8 bits a channel, which `full_scale` belongs to, in the mode that it is stored in."""
    with opened(path) as image:
        return _upright(image)


def check_image(path: str | os.PathLike[str]) -> None:
    """Raise `ImageError` where the header shows that `read_image` would fail. Decodes nothing: about 0.1 ms."""
    with opened(path):
        pass


def stored_size(path: Source) -> tuple[int, int]:
    """Height and width as they are stored, before the EXIF orientation is applied. Raises as `check_image`."""
    with opened(path) as image:
        return image.height, image.width


def software_of(path: str | os.PathLike[str]) -> str | None:
    """What wrote a picture, where its header or EXIF says so; None also where it is no picture."""
    try:
        with opened(path) as image:
            return image.info.get("Software") or image.getexif().get(Base.Software)
    except ImageError:
        return None


def readable_suffixes() -> frozenset[str]:
    """File suffixes of the formats that `read_image` reads, in lower case with the dot: ".jpg", ".png", ..."""
    formats = _formats()
    return frozenset(suffix.lower() for suffix, name in Image.registered_extensions().items() if name in formats)


def suffixes_of(format: str) -> list[str]:
    """File suffixes of one of Pillow's formats, the usual one first: of "JPEG" ".jpg", ".jpeg", ..."""
    Image.init()
    usual = {"JPEG": ".jpg", "TIFF": ".tif"}.get(format, f".{format.lower()}")
    return sorted(
        (suffix.lower() for suffix, name in Image.registered_extensions().items() if name == format),
        key=lambda suffix: (suffix != usual, suffix),
    )


def picture_suffixes() -> frozenset[str]:
    """`readable_suffixes`, and those of pictures that `read_image` does not read, and says why."""
    return readable_suffixes() | {".heic", ".heif"}


def write_png(path: str | os.PathLike[str], image: Tensor, *, software: str | None = None) -> None:
    """Write a picture as a PNG file.

    The file appears whole or not at all: it is written beside its place and then renamed, so a reader never meets half
    a picture and a failure leaves an older file as it was.

    Args:
        path: of the file.
        image: uint8 in 0..255, (3, H, W) RGB or (1, H, W) grey.
        software: what wrote it, for the file's header.

    Raises:
        TypeError: another dtype.
        ValueError: another shape.
        OSError: the file cannot be written.
    """
    picture, header = _as_pillow(image), PngInfo()
    if software is not None:
        header.add_text("Software", software)
    write_whole(path, lambda file: picture.save(file, format="PNG", pnginfo=header))


def png_bytes(image: Tensor) -> bytes:
    """The same picture as `write_png` writes, in memory and for the road: a third of its time, a tenth larger."""
    file = io.BytesIO()
    _as_pillow(image).save(file, format="PNG", compress_level=1)
    return file.getvalue()


def _as_pillow(image: Tensor) -> Image.Image:
    if image.dtype != torch.uint8:
        raise TypeError(f"image must be torch.uint8, got {image.dtype}; to_uint8 converts a float picture")
    if image.ndim != 3 or image.shape[0] not in (1, 3) or 0 in image.shape:
        raise ValueError(f"image must have shape (3, H, W) or (1, H, W), got {tuple(image.shape)}")
    array = image.detach().cpu().permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def to_float(image: Tensor) -> Tensor:
    """Levels to numbers.

    Args:
        image: uint8 of any shape, 0..255.

    Returns:
        float32 of the same shape, in [0, 1].

    Raises:
        TypeError: another dtype.
    """
    if image.dtype != torch.uint8:
        raise TypeError(f"image must be torch.uint8, got {image.dtype}")
    return image.float().div_(255)


def to_uint8(image: Tensor) -> Tensor:
    """Numbers to levels, the inverse of `to_float`.

    Args:
        image: floating point of any shape, in [0, 1]. Values beyond are clamped; NaN becomes 0.

    Returns:
        uint8 of the same shape in 0..255, rounded to the nearest level, halves up.

    Raises:
        TypeError: another dtype.
    """
    if not image.is_floating_point():
        raise TypeError(f"image must be floating point, got {image.dtype}")
    return image.detach().float().nan_to_num(nan=0.0).clamp(0, 1).mul(255).add(0.5).to(torch.uint8)


@contextmanager
def opened(source: Source) -> Iterator[ImageFile.ImageFile]:
    """The picture with its header read. Whatever fails in here or in the block becomes an ImageError."""
    start = b""
    try:
        with nullcontext(source) if isinstance(source, Upload) else _regular_file(source) as file:
            file.seek(0)
            start = file.read(START)
            file.seek(0)
            if not start:
                raise ImageError(source, "empty file")
            with Image.open(file, formats=_formats(source)) as image:
                width, height = image.size
                if width < 1 or height < 1:
                    raise ImageError(source, f"no pixels: {width} x {height}")
                if width * height > MAX_PIXELS:
                    reason = f"too large: {width} x {height} pixels, more than the limit of {MAX_PIXELS:,}"
                    raise ImageError(source, reason)
                yield image
    except ImageError:
        raise
    except UnidentifiedImageError:
        kind, kinds = kind_of_start(start), f" of a kind that is taken: {', '.join(sorted({*COMMON} - {'MPO'}))}"
        reason = f": {kind}" if kind else kinds if isinstance(source, Upload) else ""
        raise ImageError(source, f"not an image{reason}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(source, f"too large: more than the limit of {MAX_PIXELS:,} pixels ({error})") from None
    except OSError as error:
        raise ImageError(source, error.strerror or str(error)) from error
    except Exception as error:  # given damaged bytes, a decoder raises almost anything
        raise ImageError(source, f"damaged: {type(error).__name__}: {error}") from error


def _regular_file(path: str | os.PathLike[str]) -> BinaryIO:
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a FIFO would wait for a writer
        raise ImageError(path, "not a regular file")
    return open(path, "rb")


def _formats(source: Source | None = None) -> list[str]:
    Image.init()
    if isinstance(source, Upload):
        return [name for name in COMMON if name in Image.OPEN]
    return [name for name in Image.OPEN if name not in _NOT_DECODED]


def _upright(image: Image.Image) -> Image.Image:
    """Decode, turn upright and bring to sRGB, mode "RGB" or "RGBA"; grey of more than 8 bits stays as it is."""
    profile = image.info.get("icc_profile")
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith(DEEP):
        return image
    if profile and image.mode in ("RGB", "RGBA", "CMYK"):
        image = _to_srgb(image, profile)
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _deep_grey(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and floating-point grey to 8 bits; Pillow's own conversion would clip at 255."""
    levels = np.asarray(image).astype(np.float64) / full_scale(image)
    levels = np.nan_to_num(levels, nan=0, posinf=1, neginf=0).clip(0, 1)
    return Image.fromarray((levels * 255 + 0.5).astype(np.uint8))


def full_scale(image: Image.Image) -> float:
    """The value of white in a picture of more than 8 bits a channel, see `read_image`."""
    values = np.asarray(image)
    peak = float(values.max(initial=0, where=np.isfinite(values)))
    if image.mode == "F":
        scales = (1, 255, 65535)
    else:  # Pillow has 16-bit PNG files in mode I, too
        scales = (255, 65535) if image.mode == "I" and image.format == "TIFF" else (65535,)
    return next((scale for scale in scales if scale >= peak), peak)


def from_srgb(image: Image.Image, original: Image.Image, mode: str) -> Image.Image:
    """An sRGB picture in the colours and the mode, "RGB" or "CMYK", of an original: where `read_image` applies its ICC
    profile, the way back."""
    profile = original.info.get("icc_profile")
    if not profile:
        return image.convert(mode)
    try:
        target = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(target):
            return image.convert(mode)
        converted = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), target, outputMode=mode)
        return image.convert(mode) if converted is None else converted  # never None: as in `_to_srgb`
    except (ImageCms.PyCMSError, OSError, ImportError):  # as in `_to_srgb`
        return image.convert(mode)


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):  # converting would move levels by rounding alone
            return image
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)
        return image if converted is None else converted  # never: None is what it returns where it works in place
    except (ImageCms.PyCMSError, OSError, ImportError):  # a profile that is damaged or belongs to another mode
        return image
