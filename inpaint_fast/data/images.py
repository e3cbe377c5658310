"""Picture files to tensors and back, by Pillow: any file that it reads becomes 8-bit sRGB, or one clear error."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from inpaint_fast._files import write_whole

MAX_PIXELS = 80_000_000
"""Pictures with more pixels are refused from their header: decoded, this many take 240 MB."""

# EPS and WMF start another program or the operating system to draw; Pillow recognises the others without decoding them.
_NOT_DECODED = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})


class ImageError(ValueError):
    """A file or folder that gives no picture. `path` names it and `reason` says why; the message is "path: reason"."""

    def __init__(self, path: str | os.PathLike[str], reason: str):
        super().__init__(path, reason)
        self.path = Path(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """Read a picture file as a uint8 tensor (3, H, W), sRGB, 0..255, the right way up.

    - Transparent parts (alpha channel, transparent palette entries) are laid on white.
    - Grey and 1-bit pictures become three equal channels; of an animation the first frame is taken.
    - An embedded ICC profile of an RGB or CMYK picture is applied, and the EXIF orientation too.
    - 16-bit grey is scaled by 255/65535. 32-bit integers (Pillow's mode I) are scaled the same way, or by their largest
      value where that exceeds 65535. Floating point is scaled by the smallest of 1, 255 and 65535 that holds its
      largest value, or else by that value; NaN becomes 0.

    The tensor is laid out in memory as decoded, channels last; `.contiguous()` gives planes.

    Raises:
        ImageError: no such file, not a regular file, empty, not a picture, damaged or truncated, or of more than
            `MAX_PIXELS` pixels, which is found in the header before anything is decoded.
    """
    with _opened(path) as image:
        image = _eight_bit(image)
        if image.mode == "RGBA":
            white = Image.new("RGBA", image.size, "white")
            white.alpha_composite(image)
            image = white.convert("RGB")
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """The same picture as `read_image`, as a Pillow image: "RGBA" where the file has transparency, otherwise "RGB"."""
    with _opened(path) as image:
        return _eight_bit(image)


def check_image(path: str | os.PathLike[str]) -> None:
    """Raise `ImageError` where the header shows that `read_image` would fail. Decodes nothing: about 0.1 ms."""
    with _opened(path):
        pass


def readable_suffixes() -> frozenset[str]:
    """File suffixes of the formats that `read_image` reads, in lower case with the dot: ".jpg", ".png", ..."""
    formats = _formats()
    return frozenset(suffix.lower() for suffix, name in Image.registered_extensions().items() if name in formats)


def write_png(path: str | os.PathLike[str], image: Tensor) -> None:
    """Write a uint8 tensor (3, H, W) as an RGB or (1, H, W) as a grey PNG file.

    The file appears whole or not at all: it is written beside its place and then renamed, so a reader never meets half
    a picture and a failure leaves an older file as it was. Raises TypeError or ValueError for another dtype or shape,
    OSError where the file cannot be written.
    """
    if image.dtype != torch.uint8:
        raise TypeError(f"image must be torch.uint8, got {image.dtype}; to_uint8 converts a float picture")
    if image.ndim != 3 or image.shape[0] not in (1, 3) or 0 in image.shape:
        raise ValueError(f"image must have shape (3, H, W) or (1, H, W), got {tuple(image.shape)}")
    array = image.detach().cpu().permute(1, 2, 0).contiguous().numpy()
    picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    write_whole(path, lambda file: picture.save(file, format="PNG"))


def to_float(image: Tensor) -> Tensor:
    """uint8 (..., H, W) in 0..255 to float32 of the same shape in [0, 1]. Raises TypeError for another dtype."""
    if image.dtype != torch.uint8:
        raise TypeError(f"image must be torch.uint8, got {image.dtype}")
    return image.float().div_(255)


def to_uint8(image: Tensor) -> Tensor:
    """Floating point (..., H, W) in [0, 1] to uint8 of the same shape in 0..255: the inverse of `to_float`.

    Rounds to the nearest level, halves up. Values outside [0, 1] are clamped; NaN becomes 0. Raises TypeError for
    another dtype.
    """
    if not image.is_floating_point():
        raise TypeError(f"image must be floating point, got {image.dtype}")
    return image.detach().float().nan_to_num(nan=0.0).clamp(0, 1).mul(255).add(0.5).to(torch.uint8)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """The picture at `path` with its header read. Whatever fails in here or in the block becomes an ImageError."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for a writer
            raise ImageError(path, "not a regular file")
        if status.st_size == 0:
            raise ImageError(path, "empty file")
        with open(path, "rb") as file, Image.open(file, formats=_formats()) as image:
            width, height = image.size
            if width < 1 or height < 1:
                raise ImageError(path, f"no pixels: {width} x {height}")
            if width * height > MAX_PIXELS:
                raise ImageError(path, f"too large: {width} x {height} pixels, more than the limit of {MAX_PIXELS:,}")
            yield image
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(path, "not an image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(path, f"too large: more than the limit of {MAX_PIXELS:,} pixels ({error})") from None
    except OSError as error:
        raise ImageError(path, error.strerror or str(error)) from error
    except Exception as error:  # given damaged bytes, a decoder raises almost anything
        raise ImageError(path, f"damaged: {type(error).__name__}: {error}") from error


def _formats() -> list[str]:
    Image.init()
    return [name for name in Image.OPEN if name not in _NOT_DECODED]


def _eight_bit(image: Image.Image) -> Image.Image:
    """Decode, turn upright and bring to sRGB with 8 bits a channel, mode "RGB" or "RGBA"."""
    profile = image.info.get("icc_profile")
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith(("I", "F")):
        return _deep_grey(image).convert("RGB")
    if profile and image.mode in ("RGB", "RGBA", "CMYK"):
        image = _to_srgb(image, profile)
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _deep_grey(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and floating-point grey to 8 bits; Pillow's own conversion would clip at 255."""
    values = np.asarray(image).astype(np.float64)
    peak = values.max(initial=0, where=np.isfinite(values))
    scales = (1, 255, 65535) if image.mode == "F" else (65535,)
    full = next((scale for scale in scales if scale >= peak), peak)
    levels = np.nan_to_num(values / full, nan=0, posinf=1, neginf=0).clip(0, 1)
    return Image.fromarray((levels * 255 + 0.5).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):  # converting would move levels by rounding alone
            return image
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ImportError):  # a profile that is damaged or belongs to another mode
        return image
