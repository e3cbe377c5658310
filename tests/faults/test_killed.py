"""Runs that are killed, and processes that want one folder: `killed.py` with a few of each; all of it is long."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("killed.py")


def run(*words: str | int) -> None:
    subprocess.run([sys.executable, SCRIPT, *map(str, words)], check=True)


def test_killed_anywhere_nothing_is_half_written_unloadable_or_mixed_and_it_goes_on() -> None:
    run("--recipes", "context_cnn_gru", "glcic_small", "--kills", 2, "--everywhere")


@pytest.mark.long
def test_killed_two_hundred_times() -> None:
    run("--kills", 200)
