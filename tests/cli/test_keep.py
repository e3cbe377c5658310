"""`complete --keep` and `--grow`: results as their pictures are, and holes larger than they were drawn."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.ExifTags import Base

import inpaint_fast as ipf
from inpaint_fast.cli.main import main
from inpaint_fast.completion.holes import grown
from inpaint_fast.data import box, read_image, write_png

SIZE = (40, 48)
HOLE = box(*SIZE, 5, 5, 20, 10)


def noise(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(60, 200, (*SIZE, 3), np.uint8)).convert(mode)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """(exit code, stdout, stderr) of `complete` with these words, where in/a.jpg, b.png, c.tif and d.webp are."""
    monkeypatch.chdir(tmp_path)
    os.mkdir("in")
    noise().save("in/a.jpg", quality=80)
    noise("RGBA").save("in/b.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 65536, SIZE).astype(np.uint16)).save("in/c.tif")
    noise().save("in/d.webp", lossless=True)
    write_png("mask.png", HOLE.byte() * 255)

    def run(*words: object) -> tuple[int, str, str]:
        code = main(["complete", *map(str, words), "--mask", "mask.png", "--fill", "harmonic"])
        return code, *capsys.readouterr()

    return run


def differ(one: str, other: str) -> np.ndarray:
    """Where two files differ as they are stored."""
    with Image.open(one) as first, Image.open(other) as second:
        assert (first.format, first.mode) == (second.format, second.mode)
        apart = np.asarray(first) != np.asarray(second)
    return apart.any(-1) if apart.ndim == 3 else apart


def test_names_formats_modes_and_every_pixel_outside(run) -> None:
    for _ in range(2):  # the results of the first time are known for what they are
        code, said, error = run("in", "--out", "out", "--keep")
        assert code == 0 and said.startswith("4 completed: out/") and not error
        assert "1 of them is JPEG, compressed again" in said
    assert sorted(os.listdir("out")) == ["a.jpg", "b.png", "c.tif", "d.webp"]
    for name in ("b.png", "c.tif", "d.webp"):
        apart = differ(f"in/{name}", f"out/{name}")
        assert not apart[~HOLE[0]].any() and apart[HOLE[0]].any()
    assert differ("in/a.jpg", "out/a.jpg")[HOLE[0]].any()


def test_into_the_folder_of_the_pictures_nothing_is_written(run) -> None:
    before = {path: path.read_bytes() for path in Path("in").iterdir()}
    code, said, error = run("in", "--out", "in", "--keep")
    assert code == 2 and error.count("written over, a picture to complete") == 4
    assert before == {path: path.read_bytes() for path in Path("in").iterdir()}


def test_one_picture_into_one_file_of_its_format(run) -> None:
    for out in ("o.jpg", "o.jpeg", "folder"):
        assert run("in/a.jpg", "--out", out, "--keep")[0] == 0
    assert os.path.isfile("folder/a.jpg")
    for out in ("o.png", "o.tif"):
        code, _, error = run("in/a.jpg", "--out", out, "--keep")
        assert code == 2 and "--out: a .jpg file or a folder is expected (in/a.jpg is JPEG)" in error
    code, _, error = run("in/a.jpg", "--out", "o.jpg")
    assert code == 2 and "only PNG keeps every pixel; or --keep" in error


def test_results_that_are_kept_are_left_out_among_the_pictures(run) -> None:
    assert run("in", "--out", "in/out", "--keep")[0] == 0
    code, said, _ = run("in", "--out", "other", "--keep")
    assert code == 0 and "4 completed" in said and "4 left out (4 former results)" in said


def test_what_cannot_be_kept_is_named_and_the_others_are_completed(run) -> None:
    noise().save("in/e.bmp")
    code, said, error = run("in", "--out", "out", "--keep")
    assert code == 1 and "4 completed" in said and "in/e.bmp: --keep: JPEG, PNG" in error
    code, _, error = run("in/e.bmp", "--out", "o.bmp", "--keep")
    assert code == 2 and "--keep" in error and not os.path.exists("o.bmp")


def test_a_turned_photograph(run) -> None:
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    noise().rotate(90, expand=True).save("in/a.jpg", exif=exif, quality=95, subsampling=0)
    assert read_image("in/a.jpg").shape[1:] == SIZE  # the mask is drawn on the upright picture
    before = read_image("in/a.jpg")
    assert run("in/a.jpg", "--out", "out", "--keep")[0] == 0
    with Image.open("out/a.jpg") as image:
        assert image.size == (SIZE[0], SIZE[1]) and image.getexif()[Base.Orientation] == 6
    apart = (read_image("out/a.jpg").int() - before.int()).abs().float().mean(0)
    assert apart[HOLE[0]].mean() > 10 * apart[~grown(HOLE[0], 8)].mean()


class TestGrow:
    def test_by_so_many_pixels_each_way(self, run) -> None:
        shutil.copy("in/b.png", "one.png")
        code, said, _ = run("one.png", "--out", "o.png", "--grow", 3)
        assert code == 0 and "(hole: 21.7% of the picture)" in said
        picture = read_image("one.png")
        expected = ipf.complete(picture, box(*SIZE, 2, 2, 26, 16), fill="harmonic")
        assert torch.equal(read_image("o.png"), expected)
        assert torch.equal(ipf.complete(picture, HOLE, fill="harmonic", grow=3), expected)

    def test_over_the_edge_and_every_pixel_alone(self) -> None:
        hole = torch.zeros(9, 12, dtype=torch.bool)
        hole[0, 0] = hole[6, 8] = True
        expected = torch.zeros(9, 12, dtype=torch.bool)
        expected[:3, :3] = expected[4:9, 6:11] = True
        assert torch.equal(grown(hole, 2), expected) and torch.equal(grown(hole, 0), hole)
        assert grown(hole, 10**6).all() and not grown(torch.zeros_like(hole), 4).any()

    def test_mistakes(self, run) -> None:
        code, _, error = run("in/b.png", "--out", "o.png", "--grow", -1)
        assert code == 2 and "--grow: a number of pixels, 0 or more, is expected, got -1" in error
        code, _, error = run("in/b.png", "--out", "o.png", "--grow", 400)
        assert code == 2 and "the hole would be the whole picture" in error
        picture = read_image("in/b.png")
        for wrong, kind in ((-1, ValueError), (1.5, TypeError), (True, TypeError)):
            with pytest.raises(kind, match="grow: "):
                ipf.complete(picture, HOLE, fill="harmonic", grow=wrong)
