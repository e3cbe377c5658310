"""Tasks are cut to the processor's caches, which changes no result; under tune=True, to what was measured."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from ops.conv_block.blocks import BOUND, compiled
from support import relative_error

import inpaint_fast as ipf
from inpaint_fast import _extension, _processor
from inpaint_fast.cli.info import report
from inpaint_fast.ops.conv_block import blocking

pytestmark = compiled
EPYC, XEON = (1 << 20, 32 << 20), (2 << 20, 105 << 20)  # Zen 4 and 5; Sapphire Rapids
HUGE, TINY = (1 << 34, 1 << 36), (1 << 10, 1 << 12)


@pytest.fixture(autouse=True)
def as_the_system_tells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(blocking, "_fitted", None)
    yield
    found = _processor.caches()
    _extension.module.set_caches(found.l2, found.l3)


def tasks(caches: tuple[int, int], images: int, channels: int, side: int, dilation: int, tile: int) -> int:
    """How many a convolution of channels_last pictures is cut into, of the most frequent kind of tile."""
    _extension.module.set_caches(*caches)
    sizes = images, channels, channels, side, side, dilation, dilation, True, tile
    return max(_extension.module.winograd_tasks(*sizes), key=lambda kind: kind[2])[0]


@pytest.mark.parametrize(
    ("convolution", "epyc", "xeon"),
    [
        ((1, 256, 64, 1, 6), 10, 6),  # 12 tiles a task, and 24: their patches take 0.8 and 1.6 MB
        ((1, 256, 64, 8, 4), 22, 8),  # 12, 36
        ((4, 256, 64, 1, 6), 34, 18),
        ((4, 128, 56, 2, 6), 22, 8),  # 12, 36
        ((4, 64, 56, 1, 6), 28, 28),  # 12: a core's cache holds the weights, too
        ((1, 512, 28, 1, 4), 2, 2),  # weights from memory are read once by each thread
    ],
)
def test_tasks_are_what_a_cache_holds(convolution: tuple[int, ...], epyc: int, xeon: int) -> None:
    """Two threads. The fewer the tasks, the fewer bytes of weights come from the cache that cores share."""
    assert torch.get_num_threads() == 2
    assert (tasks(EPYC, *convolution), tasks(XEON, *convolution)) == (epyc, xeon)


def test_the_rest_of_a_shared_cache_is_not_counted_upon() -> None:
    found = []
    for last in (16 << 20, 32 << 20, 1 << 30):
        _extension.module.set_caches(1 << 20, last)
        found.append(_extension.module.blocking())
    assert found[0]["many_weights"] == 8 << 20 and found[1] == found[2]
    assert found[1]["many_weights"] == 16 << 20 and found[1]["chunk"] == 20 << 20


def test_few_tiles_share_the_output_channels() -> None:
    """4 tiles of 512 channels: two tasks that read half of the weights each. Of 64, whose weights are near: 2 tiles."""
    _extension.module.set_caches(*EPYC)
    (many,) = _extension.module.winograd_tasks(1, 512, 512, 7, 7, 1, 1, True, 4)
    (few,) = _extension.module.winograd_tasks(1, 64, 64, 7, 7, 1, 1, True, 4)
    assert many == (2, 2, 4, 4, 4) and few == (2, 1, 4, 4, 4)


# Channels that end inside a block, and so many that weights are shared; strided and transposed ones in quarters.
CASES: dict[str, tuple[Callable[..., torch.Tensor], tuple[int, ...], tuple[int, ...]]] = {
    "dilated": (ipf.dilated_block, (3, 40, 30, 26), (72, 40, 3, 3)),
    "few tiles": (ipf.dilated_block, (1, 200, 7, 8), (264, 200, 3, 3)),
    "strided": (ipf.strided_block, (2, 72, 14, 12), (136, 72, 4, 4)),
    "transposed": (ipf.transposed_block, (2, 72, 6, 9), (72, 136, 3, 3)),
}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", CASES)
def test_cutting_changes_no_result(winograd, name: str, memory_format: torch.memory_format) -> None:
    """Not a bit; of the gradient of the weights, whose sums are of other chunks, no more than rounding."""
    torch.manual_seed(0)
    run, shape, kernel = CASES[name]
    input = torch.randn(shape).contiguous(memory_format=memory_format).requires_grad_()
    weight, bias = torch.randn(kernel, requires_grad=True), torch.randn(264)
    found = []
    for caches in (EPYC, XEON, HUGE, TINY):
        _extension.module.set_caches(*caches)
        y = run(input, weight, bias[: kernel[0] if name != "transposed" else kernel[1]], activation="relu")
        found.append((y.detach(), *torch.autograd.grad(y, (input, weight), torch.ones_like(y))))
    exact, *others = found
    for values in others:
        assert torch.equal(values[0], exact[0]) and torch.equal(values[1], exact[1])
        assert relative_error(values[2], exact[2].double()) < BOUND


# ---- measured ----


def measuring(monkeypatch: pytest.MonkeyPatch, milliseconds: list[float]) -> list[int]:
    """A race that ends so; returns the number of its runs."""
    races: list[int] = []

    def race(ways: list[Callable[[], object]], input: torch.Tensor) -> list[float]:
        for way in ways:
            way()
        races.append(len(ways))
        return milliseconds

    monkeypatch.setattr(blocking, "race", race)
    return races


def tuned() -> str:
    """The report of a network that was tuned and called."""
    net = torch.nn.Sequential(torch.nn.Conv2d(64, 64, 3, padding=1), torch.nn.ReLU())
    net = ipf.accelerate(net.eval(), tune=True)
    with torch.no_grad():
        net(torch.ones(1, 64, 24, 24))
    return str(ipf.nn.acceleration_report(net))


@pytest.mark.parametrize(("milliseconds", "times"), [([3, 2, 1], 2), ([1, 2, 3], 0.5), ([1.96, 2, 1.97], 1)])
def test_the_fastest_size_is_kept(monkeypatch: pytest.MonkeyPatch, milliseconds: list[float], times: float) -> None:
    """In this process, in the next one, and said; not for a gain within the noise."""
    races = measuring(monkeypatch, milliseconds)
    told, size = _processor.caches().l2, int(_processor.caches().l2 * times)
    assert "as the system tells" in report() or "assumed" in report()
    for _ in range(2):
        text = tuned()
        assert f"for {size >> 10} KB of cache a core, as measured" in text and str(blocking.file()) in text
        assert f"for {size >> 10} KB of cache a core, as measured" in report()
        assert _extension.module.blocking()["few_weights"] == size
        monkeypatch.setattr(blocking, "_fitted", None)
        _extension.module.set_caches(told, 32 << 20)
    assert races == [3]
    assert json.loads(blocking.file().read_text())[blocking.machine()]["core"] == size


def test_what_another_machine_has_measured_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, [1, 2, 3])
    tuned()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(_processor, "name", lambda: "another one")
        elsewhere.setattr(blocking, "_fitted", None)
        races = measuring(elsewhere, [3, 2, 1])
        tuned()
        assert races == [3]
    assert len(json.loads(blocking.file().read_text())) == 2
    monkeypatch.setattr(blocking, "_fitted", None)
    races = measuring(monkeypatch, [])
    assert tuned() and not races


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"a": 1}', "\xff", '{"MACHINE": {"core": 12, "milliseconds": {"13": 1}}}',
     '{"MACHINE": {"core": 1, "milliseconds": {"1": 1}}}', '{"MACHINE": {"core": null, "milliseconds": {}}}',
     '{"MACHINE": 5}', '{"MACHINE": {"core": SIZE.0, "milliseconds": {"SIZE": 1}}}', "[" * 200_000,
     '{"MACHINE": {"core": SIZE, "milliseconds": {"SIZE": 1}}}',
     '{"MACHINE": {"core": 1, "milliseconds": {"1": 1e999}}}'],
)  # fmt: skip
def test_a_file_that_says_nothing_is_written_anew(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    races = measuring(monkeypatch, [3, 2, 1])
    blocking.file().parent.mkdir()
    text = text.replace("MACHINE", blocking.machine()).replace("SIZE", str(_processor.caches().l2))
    blocking.file().write_bytes(text.encode("latin-1"))
    assert "as measured" in tuned()
    assert races == [3]
    assert blocking.machine() in json.loads(blocking.file().read_text())


def test_entries_of_others_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    blocking.file().parent.mkdir()
    blocking.file().write_text('{"another": 5, "one more": {"core": "x"}}')
    measuring(monkeypatch, [3, 2, 1])
    tuned()
    found = json.loads(blocking.file().read_text())
    assert (found["another"], found["one more"]) == (5, {"core": "x"}) and len(found) == 3


def test_what_is_no_file_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody writes into the FIFO: reading it would wait for ever."""
    blocking.file().parent.mkdir()
    os.mkfifo(blocking.file())
    measuring(monkeypatch, [3, 2, 1])
    assert "as measured" in tuned()


def test_a_folder_that_is_no_absolute_path_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert blocking.file().is_absolute() and "here" not in blocking.file().parts


def test_without_a_place_for_the_file_it_holds_for_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "inpaint_fast").write_text("no folder")
    measuring(monkeypatch, [3, 2, 1])
    assert "for this process alone" in tuned()
    assert _extension.module.blocking()["few_weights"] == 2 * _processor.caches().l2


def test_measuring_leaves_the_random_numbers_and_the_module_as_they_were() -> None:
    before, told = torch.get_rng_state(), _extension.module.blocking()
    fit = blocking._measure()
    assert torch.equal(torch.get_rng_state(), before) and _extension.module.blocking() == told
    assert all(time > 0 for time in fit.milliseconds.values()) and fit.core in fit.milliseconds


@pytest.mark.parametrize("sizes", [(0, 1), (1, 0), (-1, 1), (1, 2**41)])
def test_sizes_that_are_none_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"bytes from 1 to 2\^40 are expected"):
        _extension.module.set_caches(*sizes)
