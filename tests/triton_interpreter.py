"""Triton's interpreter, three times as fast.

Half of its time it checks sums and products of integers for overflows, which few tests' tensors are large enough for:
`make test` leaves that to those that ask for it by `overflows_are_errors`, and to `make test-long`. And it replaces
Triton's language by its own for every call of a function by a kernel; here it does so once a launch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import triton
import triton.language as tl
from triton.runtime import interpreter

KNOWN = "3.9."  # Triton's release whose names these are; another one's interpreter stays as it is


def make_fast(*, check_overflows: bool) -> None:
    """From now on, in this process."""
    if not triton.__version__.startswith(KNOWN):
        return
    patch, languages = interpreter._patch_lang, SimpleNamespace(__globals__={"tl": tl, "core": tl.core})
    interpreter._patch_lang = lambda kernel: patch(languages)
    interpreter.InterpretedFunction.__call__ = _call
    _check_overflows(check_overflows)


@contextmanager
def overflows_are_errors() -> Iterator[None]:
    """An integer of a kernel that leaves its type ends the kernel."""
    before = interpreter.interpreter_builder.options.sanitize_overflow
    _check_overflows(True)
    try:
        yield
    finally:
        _check_overflows(before)


def _check_overflows(wanted: bool) -> None:
    builder = interpreter.interpreter_builder
    builder.options = replace(builder.options, sanitize_overflow=wanted)


def _call(function: interpreter.InterpretedFunction, *args: object, **named: object) -> object:
    """Of a function by a kernel, for which the language is the interpreter's already."""
    try:
        return function.rewrite()(*args, **named)
    except Exception as error:
        raise interpreter.InterpreterError(repr(error)) from error
