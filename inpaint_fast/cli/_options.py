"""A dataclass as a command line: its fields are the options, the strings under them their help."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import docstring_parser
import tyro

from inpaint_fast._names import printable

Options = TypeVar("Options")


def parse(options: type[Options], prog: str, args: Sequence[str], *, default: Options | None = None) -> Options:
    """What these arguments say.

    Args:
        options: the dataclass.
        prog: the command, as its help names it.
        args: of the command line.
        default: where the defaults are others than those of the class.

    Raises:
        ValueError: an argument is empty.
    """
    if "" in args:
        raise ValueError("an empty argument: a variable that is not set? Where a folder is meant, . is this one")
    texts: dict[str, Any] = {}
    for each in reversed([cls for cls in options.__mro__ if is_dataclass(cls)]):
        texts |= {entry.arg_name: entry.description for entry in docstring_parser.parse_from_object(each).params}
    field: Any
    for field in fields(options):  # pyright: ignore[reportArgumentType]
        if field.name in texts:  # as running text: left to tyro, it would keep the line breaks of the source
            field.metadata = {"help": " ".join(texts[field.name].split())}
    more: Any = {} if default is None else {"default": default}
    return tyro.cli(options, prog=prog, args=args, **more)


def check_output(option: str, path: Path, suffixes: Sequence[str], **kept: Path) -> None:
    """Raise ValueError where a file to write has none of these suffixes, or is a file to keep, named by what it is;
    FileNotFoundError where its folder is not there."""
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{option}: a {' or '.join(suffixes)} file is expected, got {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{option}: {path} is to be written in a folder that is not there")
    for name, file in kept.items():
        if os.path.realpath(path) == os.path.realpath(file):  # unlike Path.resolve it does not stop at a loop of links
            raise ValueError(f"{option}: {path} would be written over the {name}")


def check_seed(seed: int) -> None:
    """Raise ValueError where --seed is none that PyTorch's generators take."""
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"--seed: a whole number of 64 bits is expected, got {seed}")


def check_name(name: str, names: Collection[str], kind: str) -> str:
    """The name. Raises ValueError where it is none of these; the one that is most like it is asked for."""
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"{name!r} is no {kind}{meant}; one of {', '.join(names)} is expected")
    return name


def said(error: BaseException) -> str:
    """An error as a terminal may have it, whatever names are in it: one line, but for those of PyTorch."""
    return printable(str(error) or type(error).__name__, keep="\n" if isinstance(error, RuntimeError) else "")
