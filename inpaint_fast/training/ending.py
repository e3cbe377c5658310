"""The signals by which schedulers, terminals and people end a run, SIGINT, SIGTERM and SIGHUP, or ask for a checkpoint,
SIGUSR1."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(Exception):
    """A signal has come while something that may be broken off was going on."""


class EndSignals:
    """While it is entered, the first of these signals is noted in `received` and nothing else; a second one goes where
    it always went. SIGUSR1 is noted in `asked`, each time. Signals that are ignored stay so (nohup), and threads other
    than the main one get none."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.asked = False
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}
        self._may_break = False

    def __enter__(self) -> EndSignals:
        if threading.current_thread() is threading.main_thread():
            for number, note in {**dict.fromkeys(SIGNALS, self._note), signal.SIGUSR1: self._note_asked}.items():
                if (handler := signal.getsignal(number)) not in (None, signal.SIG_IGN):
                    self._before[number] = handler
                    signal.signal(number, note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def interrupts(self, work: Callable[[], Result]) -> Result:
        """Do what a signal may break off, which then raises Ended: it takes long, and changes nothing that is kept."""
        self._may_break = True
        try:
            if self.received:
                raise Ended
            return work()
        finally:
            self._may_break = False

    def news(self) -> dict[str, Any]:
        """What `Processes.agree` tells the other processes; that a checkpoint is asked for once."""
        asked, self.asked = self.asked, False
        return {"signal": self.received, "asked": asked}

    def hear(self, number: signal.Signals | None, asked: bool = False) -> bool:
        """Take signals that another process has received, if it has, for those of this process; whether there is one
        that ends it."""
        self.asked = self.asked or asked
        if self.received is None and number is not None:
            self.received = number
            self._restore()
        return self.received is not None

    def pass_on(self) -> None:
        """Let the signal that was received, if one was, have the effect that it would have had."""
        if self.received:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError):  # a terminal that has gone
                    stream.flush()
            signal.raise_signal(self.received)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore(*SIGNALS)
        if self._may_break:
            raise Ended

    def _note_asked(self, *_: object) -> None:
        self.asked = True

    def _restore(self, *numbers: signal.Signals) -> None:
        for number in numbers or tuple(self._before):
            if number in self._before:
                signal.signal(number, self._before.pop(number))
