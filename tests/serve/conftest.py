"""Servers for the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from serve.running import HARMONIC, Running

from inpaint_fast.serve import Server


@pytest.fixture(scope="session")
def serving() -> Iterator[Callable[..., Running]]:
    """Makes servers that run at any free port; arguments as `Server`'s."""
    running: list[Running] = []

    def start(complete: Callable[..., Any] = HARMONIC, **settings: Any) -> Running:
        running.append(Running(Server(complete, **{"filler": "harmonic", "port": 0, **settings})))
        return running[-1]

    yield start
    for each in running:
        each.stop()


@pytest.fixture(scope="session")
def page(serving) -> Running:
    """A server as the command starts it."""
    return serving()
