"""The processor: what the system tells of it, and nothing where it tells nothing."""

from __future__ import annotations

import platform

import pytest

from inpaint_fast import _processor


@pytest.mark.parametrize(
    ("told", "name", "instructions"),
    [
        (b"processor\t: 0\nmodel name\t: A B\nflags\t\t: fpu avx512f\n\nmodel name\t: C\n", "A B", {"fpu", "avx512f"}),
        (b"Features\t: fp asimd\n", None, set()),  # no x86
        (b"", None, set()),
        (b"model name\t: \xff\n", None, set()),
    ],
)
def test_the_processor_as_linux_tells_it(told, name, instructions, tmp_path, monkeypatch) -> None:
    (tmp_path / "cpuinfo").write_bytes(told)
    monkeypatch.setattr(_processor, "INFO", tmp_path / "cpuinfo")
    assert _processor.name() == (name or platform.processor() or platform.machine())
    assert _processor.instructions() == instructions


def test_a_processor_that_linux_does_not_tell_stops_nothing(tmp_path, monkeypatch) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        monkeypatch.setattr(_processor, "INFO", path)
        assert _processor.name() and not _processor.instructions()
