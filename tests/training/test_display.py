"""What a run shows while it trains: a bar on a terminal, lines elsewhere, or nothing."""

from __future__ import annotations

import sys

import pytest

from inpaint_fast.training import UNetL2, train
from inpaint_fast.training.display import Bar, Display, Lines, display

TINY = {"filters": 2, "batch_size": 4, "heldout_crops": 1, "evaluate_every": 40}
RECIPE = UNetL2(steps=40, **TINY)


def test_lines_of_a_run_whose_output_is_a_file(tmp_path, capfd, monkeypatch) -> None:
    monkeypatch.setattr("inpaint_fast.training.loop.REFRESH_SECONDS", 0.0)
    train(RECIPE, tmp_path / "run", line_every=0)
    out, err = capfd.readouterr()
    assert not err and "\r" not in out
    line = next(line for line in out.splitlines() if line.startswith("step      3"))
    assert "reconstruction 0." in line and "images/s" in line and line.endswith(" left")


def test_lines_are_so_many_seconds_apart(capsys, monkeypatch) -> None:
    now = 0.0
    monkeypatch.setattr("inpaint_fast.training.display.time.monotonic", lambda: now)
    lines = Lines(UNetL2(steps=1000, batch_size=8), 0, every=30)
    for now in (10.0, 29.0, 31.0, 45.0, 60.0, 61.0):
        lines.step(10 * int(now))
        lines.show(now, {"reconstruction_loss": 0.5, "saturated": 1.0})
    assert capsys.readouterr().out.splitlines() == [
        "step    310  reconstruction 0.5000, 80 images/s, 01:09 left",
        "step    610  reconstruction 0.5000, 80 images/s, 00:39 left",
    ]


def test_the_time_left_is_that_of_whichever_ends_first() -> None:
    for seconds, left in ((None, "03:00"), (50.0, "00:30"), (600.0, "03:00"), (10.0, "00:00")):
        shown = Display(UNetL2(steps=1000, seconds=seconds), 100)
        assert shown.left(20.0) == f"{left} left"


def test_a_terminal_has_a_bar_that_goes_back_with_the_steps(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bar = display(RECIPE, 5, progress=True, line_every=30)
    assert isinstance(bar, Bar) and (bar.bar.n, bar.bar.total) == (5, 40)
    bar.step(9)
    bar.show(3.0, {"reconstruction_loss": 0.25})
    bar.say("a line")
    bar.step(7)
    assert bar.bar.n == 7 and bar.bar.postfix == "reconstruction 0.2500, 12 images/s"
    bar.close()
    out, err = capsys.readouterr()
    assert out == "a line\n" and "\r" in err


def test_nothing_is_shown_where_nothing_is_wanted(tmp_path, capfd) -> None:
    train(UNetL2(steps=1, **TINY), tmp_path / "run", progress=False)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (float("nan"), ValueError), ("often", TypeError)])
def test_a_time_between_lines_that_is_none_is_named(value, error, tmp_path) -> None:
    with pytest.raises(error, match="line_every"):
        train(RECIPE, tmp_path / "run", line_every=value)
    assert not (tmp_path / "run").exists()
