"""A completed picture in the format and the mode of the file that it came from: `complete --keep`.

What a completion changes are the pixels in the hole, in 8 bits a channel; all others are those of the file, in its own
mode, colour space, depth and orientation. They are the same bit for bit where the format loses nothing. A JPEG file is
compressed again, by its own quantization tables and subsampling and on its own grid of blocks, which changes pixels
outside the hole, too, by little. Kept besides: transparency, ICC profile, resolution, and EXIF but for its thumbnail.
XMP, IPTC, comments and other frames are left out: they may show what was removed.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFile, JpegImagePlugin
from PIL.ExifTags import IFD, Base
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from inpaint_fast._files import write_whole
from inpaint_fast.completion.fills import harmonic
from inpaint_fast.completion.scaling import check_picture
from inpaint_fast.data.images import DEEP, ImageError, from_srgb, full_scale, opened

MODES = {
    "JPEG": ("L", "RGB", "CMYK"),
    "MPO": ("L", "RGB", "CMYK"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16", "I;16B"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "I;16B", "F"),
    "WEBP": ("RGB", "RGBA"),
}
"""Pillow's format -> the modes that are kept. MPO: what telephones write, a JPEG file with more pictures behind it."""
LOSSLESS = ("raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "zstd", "lzma", "group3", "group4")
"""Compressions of TIFF files that are kept; instead of the others tiff_adobe_deflate."""
KEPT_TAGS = frozenset(
    {
        Base.ImageDescription, Base.Make, Base.Model, Base.Orientation, Base.XResolution, Base.YResolution,
        Base.ResolutionUnit, Base.DateTime, Base.Artist, Base.HostComputer, Base.Copyright, Base.YCbCrPositioning,
        Base.Rating, Base.XPTitle, Base.XPComment, Base.XPAuthor, Base.XPKeywords, Base.XPSubject, IFD.Exif,
        IFD.GPSInfo,
    }
)  # fmt: skip
"""Of EXIF: what says when, where, by whom and how. The others are about how a file is laid out, or hold thumbnails."""
UPRIGHT_TO_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # fmt: skip
"""EXIF orientation -> how the upright picture is turned back."""


def kept_format(path: str | os.PathLike[str]) -> str:
    """The format that `write_like` writes for an original: "JPEG", "PNG", "TIFF" or "WEBP". Decodes nothing.

    Raises:
        ImageError: the file is no picture, or one that cannot be kept as it is; the message says why.
    """
    with opened(path) as image:
        return _kept_format(path, image)


def write_like(
    path: str | os.PathLike[str],
    completed: Tensor,
    mask: Tensor,
    original: str | os.PathLike[str],
    *,
    software: str | None = None,
) -> None:
    """Write a completed picture in the format and the mode of its original, whole or not at all.

    Args:
        path: of the file to write, whatever its suffix.
        completed: uint8 (3, H, W), the completion of `read_image(original)`, upright and sRGB as that is.
        mask: bool (1, H, W), true in the hole: these pixels are taken from `completed`, all others from the original.
        original: the file that was completed.
        software: goes into the header.

    Raises:
        ImageError: the original cannot be read, not be kept (see `kept_format`), or is of another size.
        ValueError: completed or mask is of another shape or dtype.
        OSError: the file cannot be written.
    """
    check_picture("completed", completed)
    if mask.dtype != torch.bool or mask.shape != (1, *completed.shape[1:]):
        expected = f"bool (1, {completed.shape[1]}, {completed.shape[2]})"
        raise ValueError(f"mask: {expected} is expected, got {mask.dtype} {tuple(mask.shape)}")
    with opened(original) as stored:
        format = _kept_format(original, stored)
        stored.load()
        turn = UPRIGHT_TO_STORED.get(stored.getexif().get(Base.Orientation, 1))
        filled = Image.fromarray(completed.permute(1, 2, 0).contiguous().numpy())
        hole = Image.fromarray(mask[0].numpy())
        if turn is not None:
            filled, hole = filled.transpose(turn), hole.transpose(turn)
        if filled.size != stored.size:
            raise ImageError(original, f"the completed picture is of another size, {tuple(completed.shape[1:])}")
        image = stored.copy()  # without what the decoder knows of the file: nothing is written that is not named here
        if hole.getbbox() is not None:
            image.paste(_in_mode_of(original, stored, filled, np.asarray(hole)), mask=hole)
        options = _options(format, stored, software)
    write_whole(path, lambda file: image.save(file, format=format, **options))


def _kept_format(path: str | os.PathLike[str], image: ImageFile.ImageFile) -> str:
    if image.format is None or image.mode not in MODES.get(image.format, ()):
        formats = "JPEG, PNG, TIFF and WebP"
        raise ImageError(path, f"--keep: {formats} are written, in their usual modes, got {image.format} {image.mode}")
    frames = getattr(image, "n_frames", 1)
    if image.format != "MPO" and frames > 1:
        raise ImageError(path, f"--keep: one picture in a file is expected, got {frames} frames or pages")
    if not image.mode.startswith(DEEP) and any(";16" in str(tile[3]) for tile in image.tile):
        raise ImageError(path, "--keep: 16 bits a channel are written in grey alone; this is in colour or has alpha")
    if "transparency" in image.info and image.mode != "P":
        raise ImageError(path, "--keep: one of its colours stands for transparent; save it with an alpha channel")
    return "JPEG" if image.format == "MPO" else image.format


def _in_mode_of(
    path: str | os.PathLike[str], stored: Image.Image, filled: Image.Image, hole: np.ndarray
) -> Image.Image:
    """What fills the hole as the original has its pixels.

    Args:
        path, stored: the original, and the same decoded.
        filled: the completion, RGB in sRGB, turned as the original is.
        hole: bool (H, W); elsewhere the result means nothing.
    """
    mode = stored.mode
    if mode == "P":
        return Image.fromarray(_nearest_in_palette(path, stored, np.asarray(filled), hole))
    if mode.startswith(DEEP):
        levels = np.asarray(filled.convert("L")).astype(np.float64) / 255 * full_scale(stored)
        values = np.asarray(stored)
        return Image.fromarray((levels if mode == "F" else levels.round()).astype(values.dtype))
    if mode == "1":
        bright = filled.convert("L").point([255 * (level >= 128) for level in range(256)])
        return bright.convert("1", dither=Image.Dither.NONE)
    alpha = None
    if mode in ("LA", "RGBA"):
        alpha = _filled_alpha(np.asarray(stored.getchannel("A")), hole)
        filled = _off_white(filled, alpha)
    colours = filled.convert("L") if mode in ("L", "LA") else from_srgb(filled, stored, mode.removesuffix("A"))
    if alpha is not None:
        colours.putalpha(Image.fromarray(alpha))
    return colours


def _filled_alpha(alpha: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The alpha channel, uint8 (H, W), with its hole filled from round it."""
    around = alpha[~hole]
    if around.min() == around.max():
        return np.full_like(alpha, around[0])
    return harmonic(torch.tensor(alpha)[None, None], torch.tensor(hole)[None, None])[0, 0].numpy()


def _off_white(filled: Image.Image, alpha: np.ndarray) -> Image.Image:
    """The colours that, with this alpha, laid on white are those of `filled`: it was completed on white."""
    part = (alpha < 255) & (alpha > 0)
    if not part.any():
        return filled
    colours = np.array(filled)
    share = alpha[part].astype(np.float32)[:, None] / 255
    colours[part] = (255 - (255 - colours[part]) / share).clip(0, 255).round()
    return Image.fromarray(colours)


def _nearest_in_palette(
    path: str | os.PathLike[str], stored: Image.Image, filled: np.ndarray, hole: np.ndarray
) -> np.ndarray:
    """For each pixel of the hole the index, uint8 (H, W), of the opaque colour of the palette that is the nearest."""
    palette = np.array(stored.getpalette("RGBA"), np.int32).reshape(-1, 4)
    transparent = stored.info.get("transparency")
    if isinstance(transparent, int):
        palette[transparent, 3] = 0
    elif transparent is not None:
        palette[: len(transparent), 3] = list(transparent)
    opaque = np.flatnonzero(palette[:, 3] == 255)
    if not len(opaque):
        raise ImageError(path, "--keep: its palette has no opaque colour")
    colours, places = np.unique(filled[hole], axis=0, return_inverse=True)
    nearest = np.empty(len(colours), np.uint8)
    for start in range(0, len(colours), 1 << 14):  # bounds the memory of a hole in many colours
        part = slice(start, start + (1 << 14))
        apart = np.square(colours[part, None].astype(np.int32) - palette[opaque, :3]).sum(-1)
        nearest[part] = opaque[apart.argmin(-1)]
    indices = np.zeros(hole.shape, np.uint8)
    indices[hole] = nearest[places.ravel()]
    return indices


def _options(format: str, stored: Image.Image, software: str | None) -> dict[str, Any]:
    """What Pillow is told beside the pixels."""
    exif, options = stored.getexif(), {"icc_profile": stored.info.get("icc_profile")}
    for tag in set(exif) - KEPT_TAGS:
        del exif[tag]
    if format == "PNG":
        header = PngInfo()
        if software is not None:
            header.add_text("Software", software)
        options |= {"pnginfo": header, "transparency": stored.info.get("transparency")}
    elif software is not None:
        exif[Base.Software] = software
    if "dpi" in stored.info and format != "WEBP" and (format != "JPEG" or stored.info.get("jfif_unit") in (1, 2)):
        options["dpi"] = stored.info["dpi"]  # of a JPEG file's header: Pillow takes it from EXIF, too, and makes up 72
    if len(exif):
        options["exif"] = exif.tobytes()
    if isinstance(stored, JpegImagePlugin.JpegImageFile):  # MPO too
        sampling = JpegImagePlugin.get_sampling(stored)
        options["qtables"] = stored.quantization
        options["subsampling"] = 0 if sampling < 0 and stored.mode == "RGB" else sampling
        options |= {"progressive": bool(stored.info.get("progressive")), "comment": b""}
    elif format == "TIFF":
        compression = stored.info.get("compression", "raw")
        options["compression"] = compression if compression in LOSSLESS else "tiff_adobe_deflate"
    elif format == "WEBP":  # whatever the original's compression was: its quality is not in the file
        options |= {"lossless": True, "exact": True}
    return options
