"""Files and folders that appear whole or not at all, and folders that one process at a time writes."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

CHECKPOINTS = "checkpoints"
"""The folder of a run that holds its checkpoints: folders step_000200, ..., each with all networks of one moment."""
OWNER = "owner.txt"
"""The file by which a process owns a folder; it says which."""
_PART = ".part"


def write_whole(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file that then takes the place of `path` in one step.

    The new file lies beside its place until it is complete and on the disk: a reader never meets half of it, and a
    failure (a full disk, a killed process) leaves an older file as it was. Raises OSError, which names `path`, where it
    cannot be written.
    """
    path = Path(path)
    part = _part_beside(path)
    with _naming(path), _removed_at_last(part):
        with open(part, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_folder(path.parent)


def write_whole_folder(path: str | os.PathLike[str], fill: Callable[[Path], object]) -> None:
    """Let `fill` write files, each by `write_whole`, into a folder that then appears as `path` in one step.

    Raises OSError, which names `path`, where it cannot be written, or where something is there already.
    """
    path = Path(path)
    part = _part_beside(path)
    with _naming(path), _removed_at_last(part):
        part.mkdir()
        fill(part)
        os.rename(part, path)
        _sync_folder(path.parent)


def remove_whole_folder(path: str | os.PathLike[str]) -> None:
    """Remove a folder with all that is in it, so that a reader finds all of it or nothing."""
    part = _part_beside(Path(path))
    with _naming(path):
        os.rename(path, part)
        shutil.rmtree(part)


def sweep_parts(folder: str | os.PathLike[str]) -> None:
    """Remove what processes that died while writing have left in a folder and those in it; nobody may be writing."""
    for part in list(Path(folder).rglob(f".*{_PART}")):
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)


def own_folder(folder: str | os.PathLike[str]) -> tuple[TextIO, str]:
    """Make this process the one that writes a folder, until it closes the file that is returned, or ends, however.

    Returns:
        The open file, `OWNER` in the folder; and what it said: of the last process that wrote there, or nothing.

    Raises:
        FileExistsError: another process, which is named, writes there.
        OSError: the file cannot be written, or the file system locks none.
    """
    import fcntl  # Windows has none

    path = Path(folder) / OWNER
    with _naming(path):
        file = open(path, "a+")  # noqa: SIM115  (the caller closes it)
    file.seek(0)
    before = file.read()
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if isinstance(error, BlockingIOError):
            owner = before.strip() or "another process"
            raise FileExistsError(f"{folder} is being written by {owner}; name another folder") from None
        raise OSError(f"{folder}: its file system locks no files ({error}); name a folder on another one") from error
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S %z')}\n")
    file.flush()
    return file, before


def _part_beside(path: Path) -> Path:
    return path.with_name(f".{secrets.token_hex(8)}{_PART}")


@contextmanager
def _removed_at_last(part: Path) -> Iterator[None]:
    """What is still there afterwards was not finished."""
    try:
        yield
    finally:
        with suppress(OSError):
            shutil.rmtree(part) if part.is_dir() else part.unlink()


@contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """An OSError inside names the path, whichever file it was about."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # of what was called, in its own words
            raise type(error)(f"{os.fspath(path)}: {error}") from error
        raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from error


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, as far as its file system can do that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
