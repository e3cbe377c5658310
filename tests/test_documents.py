"""Every block of Python and every command of the documents, run in the order in which they stand.

A fence of three backticks that says `python` is run as one; a bare one holds commands. Other languages (`text`, `toml`)
are shown and not run. Before a fence may stand `<!-- run by: WHAT -->`: a test file or a make target which runs it
elsewhere, or `<!-- needs a GPU -->`. What takes minutes is cut short by options that come after those printed
(`SHORT`); `make test-documents` runs the README as it is printed.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from PIL import Image

from inpaint_fast.cli.main import main
from inpaint_fast.data import read_image, samples, write_png
from inpaint_fast.models import CompletionNetwork
from inpaint_fast.models.glcic import public_names
from inpaint_fast.ops._dispatch import OPERATORS
from inpaint_fast.training import UNetL2, train

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "benchmarks/README.md")
FENCE = re.compile(r"^(?:<!-- (?P<mark>.*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
SHORT = {
    "train": "--steps 2 --heldout-crops 1 --heldout-pictures 2",
    "evaluate": "--heldout-crops 1 --heldout-pictures 2",
    "bench": "--case ^forward_256|^64x64$ --repeats 1",
    "demo": "--seconds 1",
    "--adapt": "--adapt 1",
}
"""A command, or an option of one -> the options that cut it short."""
SLOW = ("bench", "demo", "export")
"""Commands that compile: seconds in PyTorch, and not ours to test here."""


class Block(NamedTuple):
    """What stands between two fences."""

    page: str
    line: int
    mark: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> Iterator[list[str]]:
        """The words of each line that is neither empty nor a comment; lines that end in a backslash go on."""
        for line in self.text.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def blocks_of(page: str, text: str) -> list[Block]:
    """The fenced blocks of a page."""
    return [
        Block(page, text[: found.start()].count("\n") + 1, found["mark"] or "", found["language"], found["text"])
        for found in FENCE.finditer(text)
    ]


def documents() -> dict[str, list[Block]]:
    """Page -> its blocks that are run here."""
    paths = [*(ROOT / page for page in PAGES if (ROOT / page).exists()), *sorted((ROOT / "docs").glob("*.md"))]
    pages = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    return {page: blocks for page, text in pages.items() if (blocks := blocks_of(page, text))}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What documents speak of: photos/, photo.png, more.jpg, their masks, two runs, weights, all of them small."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "photos").mkdir()
    (folder / "masks").mkdir()
    sources = [*samples("train").paths[:3], *samples("heldout").paths[:1]]
    for source in sources:
        with Image.open(source) as picture:
            picture.resize((200, 180)).save(folder / "photos" / source.name)
        draw(folder / "masks" / f"{source.stem}.png", width=40)
    shutil.move(folder / "photos" / sources[0].name, folder / "more.jpg")
    shutil.move(folder / "masks" / f"{sources[0].stem}.png", folder / "masks" / "more.png")
    write_png(folder / "photo.png", read_image(folder / "photos" / sources[1].name))
    for name, width in (("hole", 40), ("holes", 40), ("scratches", 3)):
        draw(folder / f"{name}.png", width)
    recipe = UNetL2(data=str(folder / "photos"), steps=1, batch_size=2, heldout_crops=1, heldout_pictures=2)
    for name in ("run", "another"):
        train(recipe, folder / name, progress=False)
    network = CompletionNetwork(8)
    own, names = network.state_dict(), public_names(network)
    torch.save({name: own[key] for name, key in names.items()}, folder / "completion_network.pth")
    (folder / "config.json").write_text('{"mpv": [0.5, 0.5, 0.5]}')  # as it lies beside the public weights
    return folder


def draw(path: Path, width: int) -> None:
    """A mask of 200x180 pixels: white bars of this width."""
    picture = Image.new("L", (200, 180))
    for left in (30, 130):
        picture.paste(255, (left, 30, left + width, 110))
    picture.save(path)


@pytest.fixture
def page(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[Block]:
    """A page's blocks, in a desk of its own; a run that the page makes itself is not there yet."""
    blocks = documents()[request.param]
    folder = tmp_path / "desk"
    shutil.copytree(desk, folder)
    made = {words[i + 1] for block in blocks for words in block.commands() if "train" in words
            for i, word in enumerate(words) if word == "--out"}  # fmt: skip
    for name in made:
        shutil.rmtree(folder / name, ignore_errors=True)
    monkeypatch.chdir(folder)
    return blocks


def run_page(blocks: list[Block], *, whole: bool) -> None:
    names: dict[str, object] = {}
    for block in blocks:
        if block.mark.startswith("run by: ") or (block.mark == "needs a GPU" and not torch.cuda.is_available()):
            continue
        if block.language == "python":
            text = block.text if whole else block.text.replace("seconds=20", "seconds=1")
            exec(compile("\n" * block.line + text, block.page, "exec"), names)
        elif not block.language:
            for words in block.commands():
                run_command(block, words, whole=whole)


def run_command(block: Block, words: list[str], *, whole: bool) -> None:
    mine = words[0] == "inpaint-fast" and words[1] != "serve"  # which would wait for requests for ever
    assert mine, f"{block}: {shlex.join(words)} is run by nobody; <!-- run by: WHAT --> says by whom"
    if not whole:
        if words[1] in SLOW and "--list" not in words:
            return
        words = [*words, *(short for word in words for short in SHORT.get(word, "").split())]
    assert main(words[1:]) == 0, f"{block}: {shlex.join(words)}"


@pytest.mark.parametrize("page", documents(), indirect=True)
def test_every_block_runs_as_it_stands(page: list[Block]) -> None:
    run_page(page, whole=False)


@pytest.mark.long
@pytest.mark.parametrize("page", ["README.md"], indirect=True)
def test_the_readme_runs_as_printed(page: list[Block]) -> None:
    run_page(page, whole=True)


@pytest.mark.long
def test_commands_that_compile_run(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    assert main(["convert", "completion_network.pth", "--out", "glcic.safetensors"]) == 0
    for block in (
        block for blocks in documents().values() for block in blocks if not block.language and not block.mark
    ):
        for words in block.commands():
            if words[1] in SLOW:
                assert main([*words[1:], *SHORT.get(words[1], "").split()]) == 0, f"{block}: {shlex.join(words)}"


@pytest.mark.long
def test_the_reference_is_made_without_a_warning() -> None:
    command = [sys.executable, "-W", "error", ROOT / "docs" / "reference.py"]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert "masked_l2" in (ROOT / "build" / "docs" / "inpaint_fast.html").read_text(encoding="utf-8")


def test_what_is_run_elsewhere_is() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for blocks in documents().values():
        for block in blocks:
            kind, _, by = block.mark.partition(": ")
            if kind == "run by":
                there = by.removeprefix("make ") in targets if by.startswith("make ") else (ROOT / by).is_file()
                assert there, f"{block}: {by} is no make target and no file"


def test_links_lead_somewhere() -> None:
    paths = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md"]
    for path in paths:
        text = re.sub(r"`[^`]*`", "", path.read_text(encoding="utf-8"))
        for link in re.findall(r"\]\(([^)#\s]+)\)|src=\"([^\"]+)\"", text):
            target = "".join(link)
            if not target.startswith("http"):
                assert (path.parent / target).exists(), f"{path.relative_to(ROOT)}: {target} is not there"


def test_make_targets_that_documents_name_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for path in [ROOT / page for page in PAGES] + sorted((ROOT / "docs").glob("*.md")):
        for name in re.findall(r"`make ([a-z-]+)", path.read_text(encoding="utf-8")):
            assert name in targets, f"{path.relative_to(ROOT)}: make {name} is no target"


def test_the_support_table_has_what_operators_have() -> None:
    rows = re.findall(r"^\| (`\w+`.*) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    table = [row.split(" | ") for row in rows if row.count(" | ") == 4 and "tested" in row]
    stems = {re.findall(r"`(\w+)`", names)[0]: cells for names, *cells in table}
    stems["weight_clip"] = stems.pop("clip_weights_")
    assert stems.keys() | {"transposed_block"} == set(OPERATORS)
    for stem, cells in stems.items():
        there = [cell != "-" for cell in cells]
        assert there == [name in OPERATORS[stem].backends for name in ("reference", "cpp", "cuda", "triton")], stem
