"""Uploaded bytes to pictures and masks. What is wrong with them is found in their headers where it can be, and said in
sentences for the page; no name and no path of a request is ever looked at."""

from __future__ import annotations

from torch import Tensor

from inpaint_fast.data import ImageError, read_image, read_mask
from inpaint_fast.data.images import Upload, stored_size


class UploadError(ValueError):
    """An upload that cannot be used, said in a sentence for the page."""


def picture_of(data: bytes, max_pixels: int) -> Tensor:
    """The uploaded picture: uint8 (3, H, W), upright, sRGB, on white, as `read_image` reads it.

    Raises:
        UploadError: it is no picture of a format that is taken, damaged, or of more than `max_pixels` pixels, which is
            found before anything is decoded.
    """
    height, width = _size("picture", data)
    if height * width > max_pixels:
        raise UploadError(
            f"The picture has {height * width / 1e6:.1f} megapixels ({width} x {height}), and {max_pixels / 1e6:.1f} "
            "are taken here. Make it smaller, or cut out the part round the hole."
        )
    try:
        picture = read_image(Upload(data))
    except ImageError as error:
        raise UploadError(f"The picture cannot be read: {error.reason}.") from error
    return picture


def hole_in(data: bytes, picture: Tensor) -> Tensor:
    """The uploaded mask, white in the hole: bool (1, H, W).

    Raises:
        UploadError: it is no picture, not of the picture's size, marks no hole, or covers all there is.
    """
    height, width = picture.shape[1:]
    size = _size("mask", data)
    if size != (height, width):
        raise UploadError(f"The mask is {size[1]} x {size[0]} pixels and the picture {width} x {height}.")
    try:
        hole = read_mask(Upload(data), (height, width))
    except ImageError as error:
        raise UploadError(f"The mask cannot be read: {error.reason}.") from error
    if not hole.any():
        raise UploadError("Nothing of the picture is painted over: there is no hole to complete.")
    if hole.all():
        raise UploadError("All of the picture is painted over: nothing is left to complete it from.")
    return hole


def _size(what: str, data: bytes) -> tuple[int, int]:
    """Height and width, by the header alone."""
    try:
        return stored_size(Upload(data))
    except ImageError as error:
        raise UploadError(f"The {what} cannot be read: {error.reason}.") from error
