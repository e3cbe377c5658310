"""Pickles looked through before they are loaded: what they name, and what memory they ask for. Nothing is built."""

from __future__ import annotations

import io
import pickletools
import re
from typing import Any


class PickleError(ValueError):
    """A pickle that is not to be loaded; the message says why."""


def scan(data: bytes, *, names: str | None = None, pickles: int = 1) -> int:
    """Look through pickles in a row.

    Args:
        data: their bytes; what is damaged or cut off ends the scan without an error: whoever loads it meets that, too.
        names: a pattern for the "module name" pairs that may occur; None: no name may.
        pickles: how many are looked through.

    Returns:
        How many bytes were looked through.

    Raises:
        PickleError: another name; or a memo with more places than the data has bytes, which would be allocated.
    """
    stream = io.BytesIO(data)
    try:
        for _ in range(pickles):
            argument: Any
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name in ("GLOBAL", "INST") and not (names and re.fullmatch(names, argument)):
                    raise PickleError(f"it holds Python objects or code ({argument})")
                if opcode.name == "LONG_BINPUT" and argument > len(data):
                    raise PickleError(f"it asks for a memo of {argument:,} places")
    except PickleError:
        raise
    except Exception:  # given damaged bytes, the reader raises almost anything
        pass
    return stream.tell()
