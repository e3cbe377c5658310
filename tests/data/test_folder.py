"""Folders of pictures: order, faults, cache, splits, and the samples that come with the package."""

from __future__ import annotations

import gzip
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import inpaint_fast.data.folder as folder_module
from inpaint_fast.data import ImageError, ImageFolder, captions, open_images, read_image, samples


def picture(path: Path, level: int = 0, size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path)
    return path


def truncated(path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def names(folder: ImageFolder) -> list[str]:
    return [path.relative_to(folder.root).as_posix() for path in folder.paths]


class TestContents:
    def test_recursive_sorted_without_hidden(self, tmp_path):
        for name in ["b.png", "a/z.JPG", "a/b/c.webp", "c.bmp", ".hidden.png", ".git/d.png", "a/.e/f.png"]:
            picture(tmp_path / name)
        (tmp_path / "notes.txt").write_text("not a picture by its name")
        folder = ImageFolder(tmp_path)
        assert names(folder) == ["a/b/c.webp", "a/z.JPG", "b.png", "c.bmp"]
        assert len(folder) == 4
        assert folder.skipped == {}

    def test_items(self, tmp_path):
        for level in range(3):
            picture(tmp_path / f"{level}.png", level, size=(8 + level, 6))
        folder = ImageFolder(str(tmp_path))
        assert [image[0, 0, 0].item() for image in folder] == [0, 1, 2]
        assert folder[-1].shape == (3, 6, 10)
        assert folder[-1].dtype == torch.uint8
        with pytest.raises(IndexError):
            folder[3]

    def test_slice_is_a_folder(self, tmp_path):
        for level in range(5):
            picture(tmp_path / f"{level}.png", level)
        part = ImageFolder(tmp_path)[1:4:2]
        assert isinstance(part, ImageFolder)
        assert names(part) == ["1.png", "3.png"]
        assert part[1][0, 0, 0] == 3

    def test_links_are_followed_and_loops_end(self, tmp_path):
        picture(tmp_path / "set" / "a.png")
        picture(tmp_path / "elsewhere" / "b.png")
        os.symlink(tmp_path / "set", tmp_path / "set" / "loop")
        os.symlink(tmp_path, tmp_path / "set" / "up")
        os.symlink(tmp_path / "elsewhere", tmp_path / "set" / "linked")
        os.symlink("self.png", tmp_path / "set" / "self.png")
        folder = ImageFolder(tmp_path / "set")
        assert names(folder) == ["a.png", "linked/b.png"]
        assert list(folder.skipped) == [tmp_path / "set" / "self.png"]

    def test_folders_of_runs_inside_are_left_out(self, tmp_path):
        for name in ("a.png", "runs/one/pictures/step_000000.png", "runs/notes/b.png"):
            picture(tmp_path / name)
        for name in ("config.toml", "metrics.jsonl"):
            (tmp_path / "runs" / "one" / name).touch()
        assert names(ImageFolder(tmp_path)) == ["a.png", "runs/notes/b.png"]
        assert names(ImageFolder(tmp_path / "runs" / "one")) == ["pictures/step_000000.png"]

    def test_a_name_is_the_same_however_its_letters_are_spelt(self, tmp_path):
        composed, decomposed = ["\u00e9.png", "f.png", "\u00fc.png"], ["e\u0301.png", "f.png", "u\u0308.png"]
        for place, spelt in (("composed", composed), ("decomposed", decomposed)):
            for name in spelt:
                picture(tmp_path / place / name)
        orders = [[spelt.index(name) for name in names(ImageFolder(tmp_path / place))] for place, spelt in (
            ("composed", composed), ("decomposed", decomposed)
        )]  # fmt: skip
        assert orders[0] == orders[1]
        many = [f"{i}\u00e9" for i in range(200)]
        assert folder_module._held_out(many) == folder_module._held_out(
            [name.replace("\u00e9", "e\u0301") for name in many]
        )

    def test_pictures_that_pillow_does_not_read_are_named(self, tmp_path):
        picture(tmp_path / "a.png")
        (tmp_path / "b.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
        assert (
            ImageFolder(tmp_path)
            .summary()
            .endswith("b.HEIC: not an image: a HEIC picture, which Pillow does not read: save it as JPEG or PNG)")
        )


class TestFaults:
    def test_fifteen_kinds(self, tmp_path):
        good = ["cmyk.jpg", "exif.png", "grey16.png", "la.png", "one.png", "palette.gif", "thin.png"]
        exif = Image.Exif()
        exif[0x0112] = 8
        Image.new("RGB", (4, 2)).save(tmp_path / "exif.png", exif=exif)
        Image.new("P", (4, 4)).save(tmp_path / "palette.gif")
        Image.new("CMYK", (4, 4)).save(tmp_path / "cmyk.jpg")
        Image.fromarray(np.full((4, 4), 65535, np.uint16)).save(tmp_path / "grey16.png")
        Image.new("LA", (4, 4)).save(tmp_path / "la.png")
        picture(tmp_path / "one.png", size=(1, 1))
        picture(tmp_path / "thin.png", size=(1, 5000))
        (tmp_path / "empty.png").touch()
        (tmp_path / "note.jpg").write_text("a note" * 20)
        (tmp_path / "folder.png").mkdir()
        os.mkfifo(tmp_path / "pipe.png")
        os.symlink("nowhere", tmp_path / "dangling.png")
        truncated(tmp_path / "broken.jpg")
        folder = ImageFolder(tmp_path)
        assert names(folder) == ["broken.jpg", *good]
        for i in range(len(folder)):
            if folder.paths[i].name != "broken.jpg":
                assert folder[i].ndim == 3
        assert folder.skipped == {
            tmp_path / "dangling.png": "No such file or directory",
            tmp_path / "empty.png": "empty file",
            tmp_path / "note.jpg": "not an image",
            tmp_path / "pipe.png": "not a regular file",
        }
        with pytest.raises(ImageError, match="broken.jpg: .*truncated"):
            folder[0]
        summary = folder.summary()
        assert summary.startswith(f"7 pictures in {tmp_path.name}/ (5 skipped: broken.jpg: ")
        for name in ("dangling.png", "empty.png", "note.jpg", "pipe.png"):
            assert summary.count(name) == 1

    def test_a_failure_is_remembered_without_reading_again(self, tmp_path, monkeypatch):
        picture(tmp_path / "a.png")
        truncated(tmp_path / "broken.jpg")
        folder = ImageFolder(tmp_path)
        reads = []
        monkeypatch.setattr(folder_module, "read_image", lambda path: reads.append(path) or read_image(path))
        for _ in range(3):
            with pytest.raises(ImageError, match="truncated"):
                folder[1]
        assert reads == [tmp_path / "broken.jpg"]
        assert list(folder.skipped) == reads
        assert len(folder) == 2

    def test_summary(self, tmp_path):
        picture(tmp_path / "pets" / "a.png")
        assert ImageFolder(tmp_path / "pets").summary() == "1 picture in pets/"
        picture(tmp_path / "pets" / "b.png")
        (tmp_path / "pets" / "note.jpg").write_text("a note" * 20)
        assert ImageFolder(tmp_path / "pets").summary() == "2 pictures in pets/ (1 skipped: note.jpg: not an image)"

    def test_summary_of_many_faults_stays_short(self, tmp_path):
        picture(tmp_path / "a.png")
        for i in range(50):
            (tmp_path / f"{i:02}.jpg").touch()
        folder = ImageFolder(tmp_path)
        assert len(folder.skipped) == 50
        assert folder.summary().endswith("19.jpg: empty file; and 30 more)")

    def test_no_pictures(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere: no such folder; expected a folder of pictures"):
            ImageFolder(tmp_path / "nowhere")
        with pytest.raises(ImageError, match=f"{tmp_path}: holds no readable picture: no file with a suffix"):
            ImageFolder(tmp_path)
        (tmp_path / "a.jpg").touch()
        with pytest.raises(ImageError, match="holds no readable picture: a.jpg: empty file"):
            ImageFolder(tmp_path)
        with pytest.raises(ImageError, match="a.jpg: not a folder"):
            ImageFolder(tmp_path / "a.jpg")


class TestCache:
    @pytest.fixture
    def reads(self, monkeypatch):
        reads = []
        monkeypatch.setattr(folder_module, "read_image", lambda path: reads.append(path.name) or read_image(path))
        return reads

    @pytest.fixture
    def root(self, tmp_path):
        for level in range(3):
            picture(tmp_path / f"{level}.png", level, size=(10, 10))  # 300 bytes each
        return tmp_path

    def test_kept(self, root, reads):
        folder = ImageFolder(root)
        for _ in range(2):
            assert [image[0, 0, 0].item() for image in folder] == [0, 1, 2]
        assert reads == ["0.png", "1.png", "2.png"]

    def test_bounded_and_least_recently_used_goes_first(self, root, reads):
        folder = ImageFolder(root, cache_bytes=600)
        for i in (0, 1, 0, 2, 0, 1):
            assert folder[i][0, 0, 0] == i
        assert reads == ["0.png", "1.png", "2.png", "1.png"]
        assert folder._cache._bytes == sum(image.nbytes for image in folder._cache._kept.values()) == 600

    def test_a_picture_too_large_to_keep_drops_no_other(self, root, reads):
        picture(root / "large.png", size=(20, 20))
        folder = ImageFolder(root, cache_bytes=900)
        for i in (0, 1, 2, 3, 0, 1, 2, 3):
            folder[i]
        assert reads == ["0.png", "1.png", "2.png", "large.png", "large.png"]

    def test_none_at_all(self, root, reads):
        folder = ImageFolder(root, cache_bytes=0)
        assert folder[0].equal(folder[0])
        assert reads == ["0.png", "0.png"]

    def test_threads(self, root):
        folder = ImageFolder(root, cache_bytes=600)
        with ThreadPoolExecutor(8) as pool:
            levels = list(pool.map(lambda i: folder[i % 3][0, 0, 0].item(), range(600)))
        assert levels == [i % 3 for i in range(600)]
        assert folder._cache._bytes == sum(image.nbytes for image in folder._cache._kept.values()) <= 600

    def test_pickled_with_an_empty_cache(self, root):
        folder = ImageFolder(root, cache_bytes=500)
        folder[0]
        other = pickle.loads(pickle.dumps(folder))
        assert names(other) == names(folder)
        assert not other._cache._kept
        assert other._cache.capacity == 500
        assert other[2][0, 0, 0] == 2


class TestSplits:
    def test_samples(self):
        train, heldout = samples("train"), samples("heldout")
        assert (len(train), len(heldout)) == (18, 6)
        assert not {path.name for path in train.paths} & {path.name for path in heldout.paths}
        for image in [*train, *heldout]:
            assert min(image.shape[1:]) == 320
        assert train.skipped == heldout.skipped == {}
        assert [path.name for path in open_images("samples", "heldout").paths] == [p.name for p in heldout.paths]

    def test_captions_belong_to_the_samples(self):
        texts = captions()
        expected = {f"{split}/{path.name}" for split in ("train", "heldout") for path in samples(split).paths}
        assert set(texts) == expected
        assert all(len(five) == 5 and all(five) for five in texts.values())
        assert any("astronaut" in text.lower() for text in texts["train/astronaut.jpg"])

    def test_licences_and_digits_are_shipped(self):
        root = Path(folder_module.__file__).parent / "samples"
        licences = (root / "photos" / "LICENSES.md").read_text()
        assert all(path.name in licences for split in ("train", "heldout") for path in samples(split).paths)
        assert "MNIST" in (root / "digits" / "LICENSE.md").read_text()
        pixels = gzip.decompress((root / "digits" / "train-images-idx3-ubyte.gz").read_bytes())
        assert len(pixels) == 16 + 1600 * 28 * 28

    def test_spread_evenly(self):
        folder = samples("train")
        assert folder.spread(3).paths == [folder.paths[0], folder.paths[8], folder.paths[17]]
        assert folder.spread(1).paths == folder.paths[:1] and folder.spread(99).paths == folder.paths

    def test_unknown_split(self, tmp_path):
        picture(tmp_path / "a.png")
        for read in (samples, lambda split: open_images(tmp_path, split)):
            with pytest.raises(ValueError, match="split must be one of 'train', 'heldout', got 'test'"):
                read("test")

    @pytest.mark.parametrize("heldout", ["heldout", "test", "val"])
    def test_split_folders(self, tmp_path, heldout):
        picture(tmp_path / "train" / "a.png")
        picture(tmp_path / heldout / "b.png")
        assert names(open_images(tmp_path, "train")) == ["a.png"]
        assert names(open_images(str(tmp_path), "heldout")) == ["b.png"]

    def test_plain_folder(self, tmp_path):
        for i in range(200):
            picture(tmp_path / "deep" / f"{i}.png", size=(1, 1))
        train, heldout = names(open_images(tmp_path, "train")), names(open_images(tmp_path, "heldout"))
        assert sorted(train + heldout) == names(ImageFolder(tmp_path))
        assert 8 <= len(heldout) <= 34  # 20 expected, 4.2 the standard deviation
        picture(tmp_path / "deep" / "new.png")
        assert set(train) <= set(names(open_images(tmp_path, "train")))
        assert set(heldout) <= set(names(open_images(tmp_path, "heldout")))

    @pytest.mark.parametrize("count", [2, 3, 5])
    def test_small_folders_have_both(self, tmp_path, count):
        for start in range(12):
            root = tmp_path / str(start)
            for i in range(count):
                picture(root / f"{start}-{i}.png", size=(1, 1))
            train, heldout = names(open_images(root, "train")), names(open_images(root, "heldout"))
            assert train
            assert heldout
            assert sorted(train + heldout) == names(ImageFolder(root))

    def test_single_picture_is_in_both(self, tmp_path):
        picture(tmp_path / "a.png")
        assert names(open_images(tmp_path, "train")) == names(open_images(tmp_path, "heldout")) == ["a.png"]

    def test_never_all_held_out(self):
        tenths = [name for name in map(str, range(2000)) if folder_module._held_out([name, "x", "y", "z"])[0]]
        both = next([a, b] for a in tenths for b in tenths if a < b)
        assert sorted(folder_module._held_out(both)) == [False, True]
