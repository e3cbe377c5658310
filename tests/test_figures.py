"""docs/figures.py, docs/rates.py: pages and plots say what the CSVs say, and nothing beside the marks was typed in."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "docs" / "figures.py"
figures = SimpleNamespace(**runpy.run_path(str(SCRIPT)))
RENDERED = figures.rendered(ROOT)
PAGES = figures.pages(ROOT)
BENCHMARKS, SYSTEMS = "docs/benchmarks.md", "docs/systems.md"
TRAINING, BLOCK, GLCIC = (f"{figures.RESULTS}/{stem}.csv" for stem in ("training", "dilated_block", "glcic"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The pages and their CSVs, to be broken."""
    csvs = {path.relative_to(ROOT) for pattern, _ in figures.FIGURES.values() for path in ROOT.glob(pattern)}
    for path in [*PAGES, *csvs]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    return tmp_path


def change(path: Path, pattern: str, new: str) -> None:
    """Break a file where a pattern first fits."""
    text, count = re.subn(pattern, new, path.read_text(encoding="utf-8"), count=1)
    assert count == 1
    path.write_text(text, encoding="utf-8")


def speeds(**medians: str) -> list[list[str]]:
    """The cells of a table of one case `c`, with these medians."""
    rows = [{"case": "c", "implementation": name, "median_ms": ms} for name, ms in medians.items()]
    text = figures.speeds(rows, about="", peers={"eager": "eager", "torch.compile": "compile"}, cases={"a case": "c"})
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.strip().splitlines()]


# ---- the pages ----


def test_the_pages_say_what_the_csvs_say_and_python_alone_tells() -> None:
    bare = subprocess.run([sys.executable, "-I", "-S", SCRIPT, "--check"], capture_output=True, text=True)
    assert (bare.returncode, bare.stdout, bare.stderr) == (0, "", "")


def test_no_comparison_is_typed_in() -> None:
    """In the pages that hold figures; others tell of what no CSV has."""
    for page, text in PAGES.items():
        rest, count = figures.MARKED.subn("", text)
        typed = re.findall(r".*(?:\b\d+\.\d+x|\d %|\d times (?:as|longer|faster|slower)\b).*", rest)
        assert not count or typed == [], page


def test_no_mark_of_a_sentence_begins_a_line() -> None:
    """There it would begin a block of HTML, and the sentence would end before it."""
    for text in PAGES.values():
        assert re.findall(r"^<!-- figures: \w+ -->(?!\n)", text, re.MULTILINE) == []


def test_no_row_and_no_column_is_empty() -> None:
    """As they are where a case or an implementation has another name in the CSV."""
    for name, text in RENDERED.items():
        for each in filter(None, text.split("\n\n") if text.startswith("\n") else ()):
            _, _, *rows = ([cell.strip() for cell in line.split("|")[2:-1]] for line in each.strip().splitlines())
            assert all(set(cells) != {"-"} for cells in [*rows, *zip(*rows, strict=True)]), name


# ---- a change is found ----


@pytest.mark.parametrize(
    ("path", "pattern", "new"),
    [
        (BENCHMARKS, r"(\| `dcgan` \|.*?\|) [\d.]+x", r"\1 99.9x"),
        (SYSTEMS, r"[\d.]+(?=<!-- /ring_mean -->)", "99.99"),
        (TRAINING, r"(dcgan,eager,.*?),[\d.]+", r"\1,99999"),
        (BLOCK, r'(c256_64x64_d2,inpaint_fast_nchw,".*?"),[\d.]+', r"\1,99999"),
        (figures.PICTURES, r"\ndcgan,", r"\ndcgan,--no-accelerate "),
    ],
)
def test_a_change_is_shown_and_written(copy: Path, capsys, path: str, pattern: str, new: str) -> None:
    change(copy / path, pattern, new)
    before = figures.pages(copy)
    assert figures.main(["--check"], copy) == 1
    shown = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("-") for line in shown) == sum(line.startswith("+") for line in shown) == 2
    assert figures.pages(copy) == before
    assert figures.main([], copy) == figures.main(["--check"], copy) == 0
    assert (figures.pages(copy) == PAGES) == path.endswith(".md")


def test_a_benchmark_that_is_new_asks_for_its_marks(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csv = copy / figures.RESULTS / "networks.csv"
    rows = (f"unet_1_256,{name},,{ms}\n" for name, ms in [("inpaint_fast", 1150.4), ("tuned", 1100), ("eager", 2301)])
    csv.write_text("case,implementation,backend,median_ms\n" + "".join(rows))
    page = copy / BENCHMARKS
    page.write_bytes(re.sub(rb"<!-- (figures: |/)networks -->", b"", page.read_bytes()))
    assert figures.main([], copy) == 1
    assert "<!-- figures: networks --> and then <!-- /networks --> are expected" in capsys.readouterr().err
    change(page, r"\Z", "\n<!-- figures: networks -->\n<!-- /networks -->\n")
    assert figures.main([], copy) == 0
    written = page.read_text(encoding="utf-8")
    assert "\n| `unet`, 1 of 256x256 | 1.2 s | 0.96x | - | 2.0x |\n" in written
    assert "\n| `lama`, 1 of 256x256 | - | - | - | - |\n" in written
    csv.unlink()
    assert figures.main(["--check"], copy) == 1
    assert f"'networks', but {figures.RESULTS}/networks.csv is not there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "pattern", "new", "message"),
    [
        (BENCHMARKS, "<!-- /clip -->", "", "<!-- figures: clip --> and then <!-- /clip --> are expected"),
        (BENCHMARKS, "<!-- figures: clip -->", "", "<!-- figures: clip --> and then <!-- /clip --> are"),
        (BENCHMARKS, "<!-- figures: clip -->", r"\g<0>\n\g<0>", "<!-- figures: clip --> and then"),
        (
            BENCHMARKS,
            "<!-- figures: clip -->",
            "<!-- figures: clip-alone -->",
            "benchmarks.md: 'clip-alone' is no figure",
        ),
        (GLCIC, "median_ms", "median", "glcic.csv: there is no column 'median_ms'"),
        (GLCIC, r"(?s).*", "", "glcic.csv: there are no rows in it"),
        (TRAINING, r"(dcgan,eager,.*?),[\d.]+", r"\1,fast", "training.csv: median_ms of eager in dcgan: a positive"),
        (TRAINING, r"(dcgan,eager,.*?),[\d.]+", r"\1,0", "a positive number is expected, not '0'"),
        (TRAINING, r"(dcgan,eager,.*?),[\d.]+", r"\1,nan", "a positive number is expected, not 'nan'"),
        (TRAINING, "dcgan,compile,", "dcgan,eager,", "training.csv: a case has an implementation twice"),
        (figures.PICTURES, r"\ndcgan,", r"\ndcgan,,", "cells than there are columns"),
    ],
)
def test_what_cannot_be_read_is_named_and_nothing_is_written(copy, capsys, path, pattern, new, message) -> None:
    change(copy / path, pattern, new)
    before = figures.pages(copy)
    assert figures.main([], copy) == 1
    assert message in capsys.readouterr().err
    assert figures.pages(copy) == before


# ---- numbers as text ----


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(0.962, "0.96x"), (0.998, "1.00x"), (1.017, "1.02x"), (1.194, "1.19x"), (1.196, "1.2x"), (1.347, "1.3x"),
     (1.353, "1.4x"), (21.58, "21.6x"), (None, "-")],
)  # fmt: skip
def test_multiples(ratio: float | None, text: str) -> None:
    assert figures.multiple(ratio) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0.0830682, "0.083 ms"), (0.704286, "0.70 ms"), (9.96, "10 ms"), (99.4, "99 ms"), (99.6, "100 ms"),
     (252.333, "252 ms"), (999.4, "999 ms"), (999.6, "1.0 s"), (12_345, "12 s"), (None, "-")],
)  # fmt: skip
def test_times(milliseconds: float | None, text: str) -> None:
    assert figures.duration(milliseconds) == text


def test_what_was_not_measured_is_a_dash() -> None:
    assert speeds(inpaint_fast="2", eager="5", compile="")[2] == ["a case", "2.0 ms", "2.5x", "-"]
    assert speeds(inpaint_fast="2", eager="5")[2] == ["a case", "2.0 ms", "2.5x", "-"]
    assert speeds(inpaint_fast="", eager="5", compile="6")[2] == ["a case", "-", "-", "-"]
    assert speeds()[2] == ["a case", "-", "-", "-"]


def test_the_better_layout_is_known_where_both_are() -> None:
    rows = [{"case": "c", "implementation": name, "median_ms": ms}
            for name, ms in {"inpaint_fast": "2", "eager": "5", "eager_channels_last": "4"}.items()]  # fmt: skip
    assert figures.grid(rows, "", {"size": ("{}",)}, {"a line": "c"}).endswith("| a line | 2.0x |\n")
    assert figures.grid(rows[:2], "", {"size": ("{}",)}, {"a line": "c"}).endswith("| a line | - |\n")


def test_the_plots_of_rates_are_of_the_figures(tmp_path):
    """One a device, in the README, made of the CSV as it is; each recipe and each peer has its bar."""
    rates = SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "rates.py")))
    tables = sorted(rates.RESULTS.glob("*/training.csv"))
    assert tables
    for table in tables:
        path = table.with_name("rates.png")
        assert str(path.relative_to(ROOT)) in (ROOT / "README.md").read_text()
        with Image.open(path) as image:
            assert image.info["Source"] == rates.fingerprint(table), "make rates"
        device, found = rates.rates(table)
        assert "threads" in device
        assert all(set(recipe) == set(rates.BARS) for recipe in found.values())
        row = next(line for line in table.read_text().splitlines() if line.startswith("unet_wgan,inpaint_fast,"))
        assert found["unet_wgan"]["inpaint_fast"] == pytest.approx(32e3 / float(row.split(",")[3]))
    rates.plot(tables[0], tmp_path / "rates.png")
    with Image.open(tmp_path / "rates.png") as image:
        assert image.size == (1200, 348)
