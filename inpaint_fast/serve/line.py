"""One at a time, first come, first served, and a bound on those who wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class LineFull(Exception):
    """All places are taken."""


class LineLeft(Exception):
    """The one who waited has gone, or the line was closed."""


@dataclass(eq=False)
class Turn:
    """One in the line."""

    ticket: str


class Line:
    """A line with a number of places, the one whose turn it is included.

    A place is taken before an upload is read, which bounds what uploads there are in memory; a turn is waited for once
    it is there, so that a slow client holds up nobody.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self._taken = 0
        self._waiting: list[Turn] = []
        self._closed = False
        self._changed = threading.Condition()

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place, as long as the block runs. Raises LineFull or, where the line is closed, LineLeft."""
        with self._changed:
            if self._closed:
                raise LineLeft
            if self._taken == self.places:
                raise LineFull
            self._taken += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken -= 1
                self._changed.notify_all()

    @contextmanager
    def turn(self, ticket: str, gone: Callable[[], bool]) -> Iterator[None]:
        """The block runs when all who came before have had their turn.

        Args:
            ticket: a name for `ahead`.
            gone: asked each second: whether whoever waits has left.

        Raises:
            LineLeft: they have, or the line was closed.
        """
        mine = Turn(ticket)
        with self._changed:
            self._waiting.append(mine)
        try:
            with self._changed:
                while self._waiting[0] is not mine and not self._closed and not gone():
                    self._changed.wait(1)
                if self._closed or gone():
                    raise LineLeft
            yield
        finally:
            with self._changed:
                self._waiting.remove(mine)
                self._changed.notify_all()

    def ahead(self, ticket: str) -> int | None:
        """How many come before the one with this ticket; 0: it is their turn; None: nobody has it."""
        with self._changed:
            return next((i for i, turn in enumerate(self._waiting) if turn.ticket == ticket), None)

    def close(self, seconds: float) -> None:
        """Send away all who wait; return when the one whose turn it is has been answered, or after so many seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._taken == 0, seconds)
