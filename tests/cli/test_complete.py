"""`complete` knows its own files, whatever they are called, and says what it did."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from io import BytesIO, TextIOWrapper
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inpaint_fast.cli._jobs import results
from inpaint_fast.cli.main import main
from inpaint_fast.completion import save_network
from inpaint_fast.data import box, read_image, write_png
from inpaint_fast.models import CompletionNetwork

SIZE = (40, 48)
HOLE = box(*SIZE, 5, 5, 20, 10)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_network(path, CompletionNetwork(2, hole=32), {"channels": 2, "hole": 32})
    return path


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A folder with a.jpg, b.png and deep/c.webp, where the tests are."""
    monkeypatch.chdir(tmp_path)
    os.makedirs("in/deep")
    for name in ("a.jpg", "b.png", "deep/c.webp"):
        noise().save(f"in/{name}")
    write_png("mask.png", HOLE.byte() * 255)
    return tmp_path / "in"


def noise(size=SIZE, **values) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(60, 200, (*size, 3), np.uint8))


@pytest.fixture
def run(weights, capsys):
    """(exit code, stdout, stderr) of `complete` with these words."""

    def run(*words: object) -> tuple[int, str, str]:
        code = main(["complete", *map(str, words), "--weights", str(weights)])
        return code, *capsys.readouterr()

    return run


def files(folder) -> list[str]:
    return sorted(os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names)


class TestOwnFiles:
    @pytest.mark.parametrize("out", ["completed", "in/completed", "in"])
    def test_the_same_command_twice(self, pictures, run, out):
        os.remove("in/b.png")  # into the folder itself it would be written over itself
        command = ("in", "--mask", "mask.png", "--out", out)
        assert run(*command)[0] == 0
        written = files("."), [(pictures / "a.jpg").read_bytes()]
        for _ in range(2):
            code, said, _ = run(*command)
            assert code == 0 and said.startswith("2 completed: ")
            assert ("; 2 left out (2 former results)" in said) == out.startswith("in")
            assert (files("."), [(pictures / "a.jpg").read_bytes()]) == written

    def test_the_same_glob_twice(self, pictures, run):
        os.remove("in/b.png")
        for expected in ("1 completed: in/a.png", "1 completed: in/a.png"):
            arguments = [path for path in sorted(pictures.iterdir()) if path.is_file()]
            code, said, _ = run(*(os.path.relpath(path) for path in arguments), "--mask", "mask.png", "--out", "in")
            assert code == 0 and said.startswith(expected)
        assert "1 left out (1 former result)" in said

    def test_former_results_among_the_pictures_are_left_out_wherever_they_lie(self, pictures, run):
        run("in/a.jpg", "in/b.png", "--mask", "mask.png", "--out", "in/first")
        code, said, _ = run("in", "--mask", "mask.png", "--out", "in/second")
        assert code == 0 and said.startswith("3 completed") and "2 left out (2 former results)" in said
        assert files("in/second") == ["a.png", "b.png", "deep/c.png"]

    @pytest.mark.parametrize("empty", [["", "--mask", "mask.png"], ["in", "--mask", "mask.png", "--out", ""]])
    def test_a_variable_that_is_not_set_is_no_folder(self, pictures, run, empty):
        before = files(".")
        code, _, error = run(*empty)
        assert code == 2 and "an empty argument" in error and files(".") == before

    def test_a_result_can_be_completed_further(self, pictures, run):
        run("in/a.jpg", "--mask", "mask.png", "--out", "once")
        assert run("once", "--box", 30, 20, 9, 9, "--out", "twice")[0] == 0
        assert files("twice") == ["a.png"]
        code, said, error = run("once/a.png", "--box", 30, 20, 9, 9, "--out", "once/a.png")
        assert code == 2 and "written over" in error and "0 completed; 1 not completed" in said

    def test_masks_among_the_pictures(self, pictures, run):
        shutil.copy("mask.png", "in/deep/hole.png")
        code, said, _ = run("in", "--mask", "in/deep/hole.png", "--out", "out")
        assert code == 0 and "3 completed" in said and "1 left out (1 mask)" in said
        assert files("out") == ["a.png", "b.png", "deep/c.png"]
        os.remove("in/deep/hole.png")
        os.makedirs("in/masks/deep")
        for name in ("a", "b", "deep/c", "of_no_picture"):
            shutil.copy("mask.png", f"in/masks/{name}.png")
        code, said, _ = run("in", "--mask", "in/masks", "--out", "in/out")
        assert code == 0 and "3 completed" in said and "4 left out (4 masks)" in said
        assert files("in/out") == ["a.png", "b.png", "deep/c.png"]
        code, _, error = run("in", "--mask", "in", "--out", "other")
        assert code == 2 and "--mask: a folder of its own" in error
        code, said, _ = run("mask.png", "--mask", "mask.png", "--out", "other")
        assert code == 2 and said == "0 completed; 1 left out (1 mask)\n"

    def test_a_mask_beside_its_picture(self, pictures, run):
        shutil.copy("mask.png", "in/a.png")
        assert run("in/a.jpg", "--mask", "in", "--out", "out")[0] == 0
        assert files("out") == ["a.png"]

    def test_nothing_but_former_results_is_written_over(self, pictures, run):
        os.makedirs("out")
        noise().save("out/a.png")
        before = Path("out/a.png").read_bytes()
        code, said, error = run("in", "--mask", "mask.png", "--out", "out")
        assert code == 1 and "2 completed" in said and "1 not completed" in said
        assert "in/a.jpg: --out: out/a.png would be written over, a file that is no former result" in error
        assert Path("out/a.png").read_bytes() == before
        os.symlink("mask.png", "linked.png")
        assert run("in/a.jpg", "--mask", "mask.png", "--out", "linked.png")[0] == 2 and os.path.islink("linked.png")

    def test_what_a_run_left_is_no_picture(self, pictures, run):
        os.makedirs("in/runs/1/pictures")
        for name in ("config.toml", "metrics.jsonl"):
            open(f"in/runs/1/{name}", "w").close()
        shutil.copy("in/b.png", "in/runs/1/pictures/step_000000.png")
        assert run("in", "--mask", "mask.png", "--out", "out")[1].startswith("3 completed")
        assert run("in/runs/1", "--mask", "mask.png", "--out", "out1")[0] == 0  # named, it is meant

    def test_orientation_of_picture_and_mask(self, pictures, run):
        exif = Image.Exif()
        exif[0x0112] = 6
        noise().save("turned.png", exif=exif)
        code, _, error = run("turned.png", "--mask", "mask.png", "--out", "out.png")
        assert code == 2 and "turned upright by its EXIF orientation" in error
        Image.open("mask.png").save("turned_mask.png", exif=exif)
        assert run("turned.png", "--mask", "turned_mask.png", "--out", "out.png")[0] == 0
        before, after = read_image("turned.png"), read_image("out.png")
        assert torch.equal((before != after).any(0), HOLE[0].rot90(-1))


class TestSeveral:
    def test_pictures_and_folders(self, pictures, run):
        code, said, _ = run("in/b.png", "in/deep", "in/a.jpg", "in/b.png", "--mask", "mask.png", "--out", "out")
        assert code == 0 and "3 completed: out/" in said
        assert files("out") == ["a.png", "b.png", "c.png"]

    def test_results_of_one_name(self, pictures, run):
        os.makedirs("in2")
        shutil.copy("in/a.jpg", "in2/a.jpg")
        code, said, error = run("in/a.jpg", "in2/a.jpg", "in/b.png", "--mask", "mask.png", "--out", "out")
        assert code == 1 and "2 completed" in said and "in2/a.jpg" in error and "the result of in/a.jpg" in error
        assert files("out") == ["a.jpg.png", "b.png"]

    @pytest.mark.parametrize("out", ["out.png", "mask.png", "out.jpg"])
    def test_one_file_for_several(self, pictures, run, out):
        for given in (["in"], ["in/a.jpg", "in/b.png"]):
            code, _, error = run(*given, "--mask", "mask.png", "--out", out)
            assert code == 2 and "--out: a folder is expected for several pictures" in error

    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            (["a.jpg", "b.png"], ["a.png", "b.png"]),
            (["a.jpg", "a.png"], ["a.jpg.png", "a.png.png"]),
            (["a.jpg", "a.png", "a.jpg.png"], ["a.jpg.png", "a.png.png", "a.jpg.png.png"]),
            (["a.jpg.jpg", "a.jpg", "a.gif"], ["a.jpg.jpg.png", "a.jpg.png", "a.gif.png"]),
            (["A.jpg", "a.png", "x/a.png"], ["A.jpg.png", "a.png.png", "x/a.png"]),
            (["e\u0301.jpg", "\u00e9.png"], ["e\u0301.jpg.png", "\u00e9.png.png"]),
        ],
    )
    def test_names(self, names, expected):
        assert [path.as_posix() for path in results(list(map(Path, names)))] == expected


class TestBadPictures:
    def test_none_ends_the_run(self, pictures, run, monkeypatch):
        (pictures / "broken.png").write_bytes((pictures / "b.png").read_bytes()[:900])
        (pictures / "page.jpg").write_text("<html>sign in</html>")
        (pictures / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(30))
        (pictures / "empty.png").touch()
        noise((9, 9)).save(pictures / "small.png")
        os.symlink("loop.png", pictures / "loop.png")
        os.symlink("nowhere.png", pictures / "dangling.png")
        os.symlink(pictures, pictures / "deep" / "up")
        code, said, error = run("in", "nowhere.png", "--mask", "mask.png", "--out", "out")
        assert code == 1 and said.startswith("3 completed: out/ ") and said.endswith("; 8 not completed\n")
        assert files("out") == ["a.png", "b.png", "deep/c.png"]
        for words in (
            "broken.png: ",
            "page.jpg: not an image: an HTML page",
            "phone.heic: not an image: a HEIC picture, which Pillow does not read",
            "empty.png: empty file",
            "small.png: mask.png: the mask is 48 x 40",
            "loop.png: ",
            "dangling.png: ",
            "nowhere.png: No such file",
        ):
            assert words in error

    def test_a_picture_for_which_memory_is_lacking(self, pictures, run, monkeypatch):
        calls = []

        def lacking(picture, mask, **settings):
            calls.append(picture)
            if len(calls) == 1:
                raise MemoryError("not enough memory")
            return picture

        monkeypatch.setattr("inpaint_fast.cli.complete.complete", lacking)
        code, said, error = run("in", "--mask", "mask.png", "--out", "out")
        assert code == 1 and "2 completed" in said and "in/a.jpg: not enough memory" in error

    def test_folders_without_pictures(self, pictures, run):
        os.makedirs("empty")
        code, _, error = run("empty", "--mask", "mask.png")
        assert code == 2 and "empty: holds no readable picture" in error
        code, said, error = run("empty", "in", "--mask", "mask.png", "--out", "out")
        assert code == 1 and "3 completed" in said and "empty: holds no readable picture" in error


class TestMasks:
    @pytest.mark.parametrize(
        ("level", "words"), [(0, "no hole in it"), (255, "the hole would be the whole picture"), (1, "no white")]
    )
    def test_one_that_cannot_be_meant_completes_nothing(self, pictures, run, level, words):
        write_png("m.png", torch.full((1, *SIZE), level, dtype=torch.uint8))
        code, said, error = run("in/a.jpg", "--mask", "m.png", "--out", "out.png")
        assert code == 2 and f"m.png: {words}" in error and not said and not os.path.exists("out.png")
        os.makedirs("masks")
        shutil.move("m.png", "masks/a.png")
        code, said, error = run("in/a.jpg", "--mask", "masks", "--out", "out.png")
        assert code == 2 and words in error and said == "0 completed; 1 not completed\n"

    def test_the_share_of_the_hole_is_said(self, pictures, run):
        assert "(hole: 10.4% of the picture)" in run("in/a.jpg", "--mask", "mask.png", "--out", "o.png")[1]
        os.makedirs("masks")
        write_png("masks/a.png", box(*SIZE, 0, 0, 24, 20).byte())
        write_png("masks/b.png", box(*SIZE, 0, 0, 24, 40).byte())
        assert (
            "(holes: from 25% of a.png to 50% of b.png)"
            in run("in/a.jpg", "in/b.png", "--mask", "masks", "--out", "out")[1]
        )

    def test_strokes(self, pictures, run):
        strokes = np.full((*SIZE, 4), 255, np.uint8)
        strokes[..., 3] = HOLE[0].numpy() * 255
        Image.fromarray(strokes).save("strokes.png")
        code, _, error = run("in/a.jpg", "--mask", "strokes.png", "--out", "o.png")
        assert code == 2 and "--mask-by" in error
        for options in (["--mask-by", "colour"], ["--mask-by", "transparency", "--invert-mask"]):
            assert "hole: 10.4%" in run("in/a.jpg", "--mask", "strokes.png", "--out", "o.png", *options)[1]

    def test_names_are_compared_composed(self, pictures, run):
        os.makedirs("masks/d\u00e9")
        os.makedirs("in/de\u0301")
        shutil.move("in/a.jpg", "in/de\u0301/e\u0301.jpg")
        shutil.copy("mask.png", "masks/d\u00e9/\u00e9.png")
        assert run("in/de\u0301", "--mask", "masks/d\u00e9", "--out", "out")[0] == 0
        code, said, _ = run("in", "--mask", "masks", "--out", "out2")
        assert code == 1 and said.startswith("1 completed")
        assert unicodedata.normalize("NFC", files("out2")[0]) == "d\u00e9/\u00e9.png"


def test_work_grows_with_the_number_of_pictures_alone(pictures, run, monkeypatch) -> None:
    def counted(name):
        function = getattr(os, name)

        def call(*arguments, **options):
            counts[name] = counts.get(name, 0) + 1
            return function(*arguments, **options)

        return call

    made = {}
    for count in (6, 18):
        for folder in (f"pictures{count}", f"masks{count}"):
            os.makedirs(folder)
            for i in range(count):
                shutil.copy("mask.png", f"{folder}/{i}.png")
        counts: dict[str, int] = {}
        with monkeypatch.context() as patched:
            for name in ("scandir", "listdir", "stat", "lstat"):
                patched.setattr(os, name, counted(name))
            assert run(f"pictures{count}", "--mask", f"masks{count}", "--out", f"out{count}")[0] == 0
        made[count] = counts
    for name in ("scandir", "listdir"):  # the pictures' folder once, and the masks' once
        assert made[6][name] == made[18][name] == 1
    for name in ("stat", "lstat"):
        assert made[18].get(name, 0) <= 3 * made[6].get(name, 0)


class TestNames:
    NAMES = (
        "caf\udce9.jpg",
        "\u0444\u043e\u0442\u043e.jpg",
        "red\x1b[31m.jpg",
        "two\nlines.jpg",
        "\u202egnp.jpg",
        "q\"'\\.jpg",
    )

    @pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
    def test_shown_escaped_and_never_a_reason_to_stop(self, pictures, weights, monkeypatch, encoding):
        os.makedirs("odd")
        for name in self.NAMES:
            shutil.copy("in/a.jpg", f"odd/{name}")
            open(f"odd/bad{name}", "w").close()
        for stream in ("stdout", "stderr"):
            monkeypatch.setattr(sys, stream, TextIOWrapper(BytesIO(), encoding=encoding))
        settings = ["--mask", "mask.png", "--weights", str(weights), "--out"]
        assert main(["complete", "odd", *settings, "out"]) == 1
        for name in self.NAMES:
            assert main(["complete", f"odd/{name}", *settings, f"out/{name}.png"]) == 0
            assert main(["complete", f"odd/no{name}", *settings, "out"]) == 2
            assert main(["complete", "odd", "--mask", "mask.png", "--weights", f"no{name}"]) == 2
            assert main(["convert", f"no{name}", "--out", f"{name}.safetensors"]) == 2
            assert main(["evaluate", str(weights), "--data", f"no{name}"]) == 2
        assert len(files("out")) == 2 * len(self.NAMES)
        texts = []
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode(encoding))
        assert not any(character in text for text in texts for character in "\x1b\u202e\udce9")
        assert "6 completed: out/" in texts[0]
        assert texts[0].count("\n") == 1 + 2 * len(self.NAMES) and texts[1].count("\n") == 5 * len(self.NAMES)
        assert all(texts[1].count(name) == 5 for name in ("caf\\udce9.jpg", "red\\x1b[31m.jpg", "two\\nlines.jpg"))

    def test_a_runs_config_is_toml_whatever_the_folder_is_called(self, pictures):
        tomllib = pytest.importorskip("tomllib")
        from inpaint_fast.training import UNetL2
        from inpaint_fast.training.records import config_toml

        for name in (*self.NAMES, "\U0001f642", "tab\t", "\x7f", "\u00a0", "C:\\new", ""):
            text = config_toml(UNetL2(data=f"photos/{name}", seconds=float("inf"), lr=1e-05))
            settings = tomllib.loads(text.encode().decode())["settings"]
            assert settings["data"] == os.path.abspath(f"photos/{name}").replace("\udce9", "\\udce9")
            assert settings["seconds"] == float("inf") and settings["lr"] == 1e-05
            assert settings["flip"] is True and settings["crop"] == [64, 320]
