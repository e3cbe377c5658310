"""The manifest of a folder whose files are of one moment: the size and the SHA-256 of each, by which damage shows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from inpaint_fast._files import write_whole

MANIFEST = "manifest.json"
MOST_BYTES = 1 << 20  # of a manifest; that of a checkpoint has some hundred a file


def write_manifest(folder: Path) -> None:
    """Describe the files that are in the folder now; it is the last one to be written there."""
    files = {path.name: _described(path) for path in sorted(folder.iterdir())}
    text = _text({"files": files, "sha256": _digest(_text(files))})
    write_whole(folder / MANIFEST, lambda file: file.write(text))


def check_manifest(folder: Path, names: Iterable[str] | None = None) -> None:
    """See that files are as they were when the manifest was written.

    Args:
        folder: it has a manifest.
        names: of the files; None: all that the manifest has.

    Raises:
        ValueError: says which file, the manifest itself perhaps, is not as it was.
        OSError: there is no manifest, or a file cannot be read.
    """
    with open(folder / MANIFEST, "rb") as file:
        text = file.read(MOST_BYTES)
    try:
        manifest = json.loads(text)
        files = manifest["files"]
        # Written anew it must be the same text: then every byte of it counts.
        whole = text == _text(manifest) and manifest["sha256"] == _digest(_text(files))
    except (ValueError, LookupError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise ValueError(f"{MANIFEST} is damaged")
    for name in files if names is None else names:
        if name not in files:
            raise ValueError(f"{name} is not in {MANIFEST}")
        if not (folder / name).is_file():
            raise ValueError(f"{name} is missing")
        if (found := _described(folder / name)) != files[name]:
            if found["bytes"] != files[name]["bytes"]:
                raise ValueError(f"{name} is damaged: it has {found['bytes']:,} bytes and not {files[name]['bytes']:,}")
            raise ValueError(f"{name} is damaged: its SHA-256 is another")


def _described(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
        return {"bytes": file.tell(), "sha256": digest.hexdigest()}


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def _text(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
