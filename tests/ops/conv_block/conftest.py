"""Winograd for every shape, for the tests that ask for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import always_winograd


@pytest.fixture
def winograd() -> Iterator[None]:
    with always_winograd():
        yield
