"""Names of files as text, and what a file is that was taken for one of another kind."""

from __future__ import annotations

import os
import unicodedata

START = 512
"""Bytes by which files are told from one another."""
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_STARTS = {
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"%PDF": "a PDF document",
    b"\x89HDF": "an HDF5 file (of Keras)",
    b"<?xml": "an XML document",
    b"<svg": "an SVG drawing",
}


def printable(text: str | os.PathLike[str], *, keep: str = "") -> str:
    """A name, or a text with names in it, as a terminal may have it: what moves the cursor, turns the writing round, or
    is no character (bytes that are not UTF-8) is written as an escape, "\\x1b". All but the characters of `keep`."""
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in os.fspath(text))


def composed(name: str | os.PathLike[str]) -> str:
    """A name to compare with others: one spelling of each letter (Unicode's NFC), whether the file system or the
    keyboard wrote an e with an accent as one character or as two."""
    text = os.fspath(name)
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def kind_of_file(path: str | os.PathLike[str]) -> str | None:
    """What a file is, by its first bytes, where people often have it in place of another: "an HTML page"; else None."""
    with open(path, "rb") as file:
        return kind_of_start(file.read(START))


def kind_of_start(start: bytes) -> str | None:
    """What `kind_of_file` says of a file whose first `START` bytes are these."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "an HTML page (of a download that wanted a click or a login)"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file that it stands for: git lfs pull fetches that"
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC:
        return "a HEIC picture, which Pillow does not read: save it as JPEG or PNG"
    return next((kind for bytes_, kind in _STARTS.items() if start.startswith(bytes_)), None)
