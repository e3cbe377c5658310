"""The page about runs: whole, harmless, and drawn, in a browser where one is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from serve.browser import PROGRAM as BROWSER

from inpaint_fast.cli.main import main
from inpaint_fast.data import write_png
from inpaint_fast.training import MLPGAN, UNetWGAN, train
from inpaint_fast.training.report import read_runs, write_report
from inpaint_fast.training.report.curves import Axis, Curve, chart, number, unit_of

HOSTILE = "\"'><script>alert(1)</script><img src=http://example.com/x.png>\x1b[31m\u202e"
VOID = {"meta", "img", "input"}


class Page(HTMLParser):
    """What a page holds: elements with their attributes; that each is closed where it should be is asserted."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open, self.text = [], ""
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data + " "

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        return [had for name, had in self.elements if name == tag and attributes.items() <= had.items()]


BAD_LINES = (
    "", "{", "[1]", '{"step": 1}', '{"step": "1", "seconds": 2}', '{"step": NaN, "seconds": 2}', "null", "[" * 100_000,
    "\x00",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    tiny = {"filters": 2, "batch_size": 4, "heldout_crops": 1, "evaluate_every": 1, "critic_steps": 1}
    recipe = UNetWGAN(steps=3, critic_filters=2, **tiny)
    return train(recipe, tmp_path_factory.mktemp("runs") / "a run", progress=False)


@pytest.fixture
def other(trained, tmp_path) -> Path:
    """The same run with another setting, and text in it that wants to do harm."""
    folder = tmp_path / f"b {HOSTILE.replace('/', '_')}"
    shutil.copytree(trained, folder)
    config = (folder / "config.toml").read_text()
    data = HOSTILE.replace('"', '\\"').replace("\x1b", "\\u001b")
    (folder / "config.toml").write_text(config.replace('data = "samples"', f'data = "{data}"'), encoding="utf-8")
    rows = [json.loads(line) | {f"{HOSTILE}_loss": 1.0} for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "health.txt").write_text(f"warning: {HOSTILE}\n", encoding="utf-8")
    return folder


def test_a_page_has_curves_pictures_settings_and_warnings_of_every_run(trained, other, tmp_path) -> None:
    out = tmp_path / "report.html"
    assert write_report([trained, other], out) == []
    page = Page(out)
    charts = page.all("svg", **{"class": "by-step"})
    assert len(charts) == len(page.all("svg", **{"class": "by-seconds"})) >= 5 + 3 + 2
    psnr = json.loads(charts[0]["data-places"])
    assert [len(curve) for curve in psnr] == [4, 4] and [place[2] for place in psnr[0]] == ["0", "1", "2", "3"]
    assert sum("run-1" in line["class"] for line in page.all("path") if "class" in line) >= 10
    assert [int(image["data-step"]) for image in page.all("img")] == [0, 1, 2, 3] * 2
    assert [image for image in page.all("img") if "hidden" not in image][0]["data-step"] == "3"
    assert len(page.all("tr", **{"class": "differs"})) == 1
    for text in ("ring_mean", "harmonic", "sharpness", "critic_filters", "torch", "3 steps in", "critic spread"):
        assert text in page.text
    assert len(page.all("li")) == 1 and "warning: " in page.text


def test_what_names_and_settings_say_is_text_and_nothing_is_loaded(trained, other, tmp_path) -> None:
    out = tmp_path / "report.html"
    write_report([other, trained], out)
    page, text = Page(out), out.read_text(encoding="utf-8")
    assert len(page.all("script")) == 1 and page.text.count("<script>alert(1)</script>") >= 3
    assert not [value for _, had in page.elements for name, value in had.items() if name.startswith("on")]
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.all("img"))
    assert not page.all("link") and not page.all("a") and "\x1b" not in text and "\u202e" not in text
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert "default-src 'none'" in policy["content"] and "script-src 'sha256-" in policy["content"]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_a_browser_draws_it_and_complains_of_nothing(trained, other, tmp_path) -> None:
    out = tmp_path / "report.html"
    write_report([trained, other], out)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={tmp_path}"]
    ran = subprocess.run([BROWSER, *options, "--dump-dom", out.as_uri()], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and "CONSOLE" not in ran.stderr, ran.stderr
    charts = re.findall(r"<svg.*?</svg>", ran.stdout, re.DOTALL)
    assert len(charts) >= 20 and all("</g></svg>" in chart for chart in charts)  # the page's script has been there
    assert ran.stdout.count('class="line run-0"') >= 20


def test_a_run_of_one_row_without_pictures_and_one_of_pictures_from_nothing(tmp_path) -> None:
    made = train(MLPGAN(steps=1, width=2, batch_size=2), tmp_path / "digits", progress=False)
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.toml", "metrics.jsonl"):
        (bare / name).write_text((made / name).read_text().splitlines(keepends=True)[0])
    write_report([bare, made], tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert "diversity" in page.text and len(page.all("img")) == 2 and len(page.all("circle")) > 0
    (bare / "metrics.jsonl").write_text('{"step": 0, "seconds": 0}\n')  # and none of a run of this package
    write_report(bare, tmp_path / "report.html")  # over the older page
    assert not Page(tmp_path / "report.html").all("img")


def test_a_run_that_goes_on_says_where_it_ends_and_few_pictures_are_spread_over_its_time(trained, tmp_path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    config = folder / "config.toml"
    config.write_text(config.read_text().replace("steps = 3\n", "steps = 50000\n", 1))
    for step in range(4, 30):
        write_png(folder / "pictures" / f"step_{step:06d}.png", torch.zeros(3, 4, 4, dtype=torch.uint8))
    write_report([folder], tmp_path / "report.html", pictures=3)
    page = Page(tmp_path / "report.html")
    assert "to end after 50k steps" in page.text
    assert [image["data-step"] for image in page.all("img")] == ["0", "14", "29"]


def test_the_command(trained, other, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(trained), str(other)]) == 0
    assert capsys.readouterr().out.startswith("report.html: ") and Path("report.html").exists()
    (other / "pictures" / "step_000001.png").write_text("<svg onload=alert(1)>")
    assert main(["report", str(other)]) == 1
    captured = capsys.readouterr()
    assert "step_000001.png is no PNG picture" in captured.err
    assert len(Page(Path("report.html")).all("img")) == 3


def test_mistakes_are_named_and_nothing_is_written(trained, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)

    def refused(*arguments: object) -> str:
        assert main(["report", *map(str, arguments)]) == 2
        return capsys.readouterr().err

    assert "at least one run" in refused()
    assert "config.toml" in refused(tmp_path)
    assert "named twice" in refused(trained, f"{trained}/")
    assert ".html" in refused(trained, "--out", "report.txt")
    assert "at least 1" in refused(trained, "--pictures", 0)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text((trained / "config.toml").read_text())
    assert "no rows yet" in refused(run)
    for line in BAD_LINES:
        (run / "metrics.jsonl").write_text(f"{line}\n")
        assert "metrics.jsonl: a row at least, with step and seconds, is expected, got line 1" in refused(run)
    (run / "metrics.jsonl").write_text("")
    assert "a row at least" in refused(run)
    (run / "metrics.jsonl").write_text('{"step": 0, "seconds": 0}\n')
    for text in (b"recipe = ", b"settings = 3", b"\xff"):
        (run / "config.toml").write_bytes(text)
        assert "config.toml: " in refused(run)
    assert not Path("report.html").exists()
    Path("report.html").write_text("<html>somebody's own</html>")
    assert "would be written over" in refused(trained)
    assert Path("report.html").read_text() == "<html>somebody's own</html>"


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_line_that_is_no_row_is_left_out_and_said(trained, tmp_path, line) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    whole = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(f"{line}\n{whole}{line}\n")
    (said,) = write_report([run], tmp_path / "report.html")
    assert f"{run / 'metrics.jsonl'}, line 1: " in said and "and 1 more" in said
    assert [row["step"] for row in read_runs([run])[0][0].rows] == [0, 1, 2, 3]


@pytest.mark.parametrize("damage", ["config", "rows", "nothing", "latin1"])
def test_a_run_that_cannot_be_read_does_not_end_the_report_of_the_others(trained, tmp_path, damage) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    if damage == "nothing":
        shutil.rmtree(run)
    else:
        name, data = {
            "config": ("config.toml", b"recipe = "),
            "rows": ("metrics.jsonl", b'{"step": NaN, "seconds": 1}\n{"st'),
            "latin1": ("config.toml", b"\xe9"),
        }[damage]
        (run / name).write_bytes(data)
    (said,) = write_report([run, trained], tmp_path / "report.html")
    assert said.startswith(str(run)) and (tmp_path / "report.html").exists()
    assert [each.name for each in read_runs([run, trained])[0]] == [trained.name]


def test_runs_of_one_name_are_told_apart(trained, tmp_path) -> None:
    shutil.copytree(trained, tmp_path / "x" / trained.name)
    assert [run.name for run in read_runs([trained, tmp_path / "x" / trained.name])[0]] == [
        str(trained), str(tmp_path / "x" / trained.name),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "logarithmic", "ticks"),
    [
        (11.7, 17.9, False, [10, 12, 14, 16, 18]),
        (0, 768, False, [0, 200, 400, 600, 800]),
        (-0.6, -0.51, False, [-0.6, -0.55, -0.5]),
        (3, 3, False, [2.6, 2.8, 3, 3.2, 3.4]),
        (0, 0, False, [-1, -0.5, 0, 0.5, 1]),
        (0.002, 5, True, [0.001, 0.01, 0.1, 1, 10]),
    ],
)
def test_an_axis_holds_its_values_between_round_ticks(low, high, logarithmic, ticks) -> None:
    axis = Axis(low, high, 100, 0, logarithmic)
    assert axis.ticks[0] <= low and high <= axis.ticks[-1]
    assert axis.ticks == pytest.approx(ticks)
    assert axis(axis.ticks[0]) == 100 and axis(axis.ticks[-1]) == 0 and 0 <= axis(high) <= axis(low) <= 100


def test_numbers_and_times_in_few_characters() -> None:
    values = (0, 0.018412, 16.5, 2500, 20_000, 150_000, 2_000_000, -0.6, 1e-7)
    assert list(map(number, values)) == ["0", "0.01841", "16.5", "2500", "20k", "150k", "2M", "-0.6", "1e-07"]
    assert [unit_of(seconds) for seconds in (5, 200, 20_000, 1e6)] == ["seconds", "minutes", "hours", "days"]


def test_a_curve_of_one_value_and_one_of_large_and_small_ones() -> None:
    for points in ([(0.0, 0.0)], [(0.0, 1e-9), (1.0, 1e12)], [(5.0, -2.0), (6.0, 1e250)]):
        drawing = chart([Curve("run-0", points)], {"level": 0.5}, "step")
        places = json.loads(drawing.get("data-places"))[0]
        assert all(0 <= x <= 420 and 0 <= y <= 230 for x, y, *_ in places)
