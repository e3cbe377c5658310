"""A packed file is its folder: the same pictures, batches, captions, losses; what is not whole is refused by name."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from inpaint_fast.completion import load_network
from inpaint_fast.data import (
    Batches,
    ContextBatches,
    ImageError,
    PackedImages,
    all_captions,
    captions_for,
    crops,
    heldout_crops,
    open_images,
    pack,
    packed,
)
from inpaint_fast.data.layouts import CAPTIONS_FILE
from inpaint_fast.training import RECIPES, train
from inpaint_fast.training.processes import _Rows
from inpaint_fast.training.run import Run


@pytest.fixture(scope="module")
def samples_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "samples.pack"
    assert pack("samples", path) == {}
    return path


@pytest.fixture(scope="module")
def noise(tmp_path_factory) -> Path:
    """A folder of pictures of noise, from 40 x 64 to 64 x 75, one that is none, and captions."""
    root, draws = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for i in range(12):
        array = draws.integers(0, 256, (40 + 2 * i, 64 + i, 3), dtype=np.uint8)
        Image.fromarray(array).save(root / f"{i:02}.png")
    (root / "note.png").write_bytes(b"no picture")
    names = [{"id": i, "file_name": f"{i:02}.png"} for i in range(12)]
    texts = [{"image_id": i, "caption": f"picture of noise {i}"} for i in range(12)]
    (root / CAPTIONS_FILE).write_text(json.dumps({"images": names, "annotations": texts}))
    return root


@pytest.fixture(scope="module")
def noise_file(noise) -> Path:
    path = noise.parent / "noise.pack"
    assert [file.name for file in pack(noise, path)] == ["note.png"]
    return path


class TestTheSame:
    @pytest.mark.parametrize("split", ["train", "heldout"])
    def test_pictures_names_and_captions(self, split, samples_file, noise, noise_file):
        for data, file in (("samples", samples_file), (noise, noise_file)):
            folder, images = open_images(data, split), open_images(file, split)
            assert isinstance(images, PackedImages) and len(images) == len(folder)
            for ours, theirs in zip(images, folder, strict=True):
                assert torch.equal(ours, theirs) and ours.stride() == theirs.stride()
            assert images.fingerprint() == folder.fingerprint()
            assert captions_for(images, file) == captions_for(folder, data)
            assert all_captions(file) == all_captions(data)
            assert images.spread(2).fingerprint() == folder.spread(2).fingerprint()
            assert torch.equal(images[-1:][0], folder[-1])

    @pytest.mark.parametrize(
        "options",
        [{}, {"flip": False, "size": 33}, {"crop": (64, 64)}, {"crop": (20, 60)}, {"size": 48, "edge": (64, 96)}],
        ids=str,
    )
    def test_batches(self, samples_file, options):
        images = open_images(samples_file)
        straight, ours = Batches(open_images("samples"), **options), Batches(images, **options)
        for index in (0, 5):
            expected, got = straight[index], ours[index]
            assert torch.equal(got.image, expected.image) and got.image.stride() == expected.image.stride()
            assert torch.equal(got.mask, expected.mask)
            parts = [_Rows(ours, slice(start, start + 8))[index].image for start in (0, 8, 16, 24)]
            assert torch.equal(torch.cat(parts), expected.image)

    def test_batches_of_whole_pictures(self, tmp_path):
        (tmp_path / "d").mkdir()
        for i in range(9):
            Image.effect_noise((32, 32), 20 + 9 * i).convert("RGB").save(tmp_path / "d" / f"{i}.png")
        pack(tmp_path / "d", tmp_path / "d.pack")
        for crop in ((32, 32), (20, 32)):
            straight, ours = (
                Batches(open_images(tmp_path / data), size=32, crop=crop, batch_size=7) for data in ("d", "d.pack")
            )
            assert all(torch.equal(ours[i].image, straight[i].image) for i in range(3))

    @pytest.mark.parametrize("mask", ["rectangle", "free_form"])
    def test_masks_and_context(self, samples_file, mask):
        folder, images = open_images("samples"), open_images(samples_file)
        pairs = [
            tuple(Batches(each, mask=mask, size=32, batch_size=4) for each in (folder, images)),
            tuple(ContextBatches(each, size=32, local=20, hole=(5, 9), batch_size=4) for each in (folder, images)),
        ]
        for straight, ours in pairs:
            for expected, got in zip(straight[2], ours[2], strict=True):
                assert expected is got is None or torch.equal(got, expected)

    def test_heldout_crops(self, samples_file):
        expected, got = (heldout_crops(open_images(data, "heldout")) for data in ("samples", samples_file))
        assert torch.equal(got.image, expected.image)

    def test_losses(self, samples_file):
        """Of a recipe that reads captions."""
        few = {"heldout_crops": 1, "heldout_pictures": 1}
        runs = [
            Run(RECIPES["context_cnn_bow1"](data=str(data), batch_size=4, filters=4, code=8, device="cpu", **few))
            for data in ("samples", samples_file)
        ]
        assert runs[0].data == runs[1].data  # so that the one goes on where the other was
        for index in range(2):
            expected, got = (run.step(run.batches[index]) for run in runs)
            assert expected == got

    def test_another_process_makes_the_same(self, samples_file):
        batches = Batches(open_images(samples_file), batch_size=4)
        copied = pickle.loads(pickle.dumps(batches))
        assert torch.equal(copied[3].image, batches[3].image)


class TestOnADevice:
    """What a GPU computes, here on the CPU: the same integers as PyTorch's code for one picture at a time."""

    @pytest.mark.parametrize("resident", [True, False])
    @pytest.mark.parametrize("options", [{}, {"size": 33}, {"crop": (64, 64)}, {"size": 48, "edge": (64, 96)}], ids=str)
    def test_batches(self, samples_file, monkeypatch, options, resident):
        images = open_images(samples_file)
        expected = [Batches(images, **options)[index].image for index in range(2)]
        images.resident = images.pixels if resident else None
        monkeypatch.setattr(crops, "_cut_here", lambda *squares: crops.cut_there(*squares).numpy())
        for index, image in enumerate(expected):
            assert torch.equal(Batches(images, **options)[index].image, image)

    @pytest.mark.parametrize("size", [1, 7, 64])
    def test_scaling_from_every_side(self, size):
        sides = torch.arange(1, 150, 2)
        picture = torch.randint(0, 256, (len(sides), 3, 149, 149), generator=torch.Generator().manual_seed(0))
        picture = picture.to(torch.uint8).masked_fill(torch.rand(picture.shape) < 0.2, 255)
        weights, shift = crops._weights(sides, size, 149)
        scaled = crops._scaled(crops._scaled(picture, weights, shift).transpose(2, 3), weights, shift).transpose(2, 3)
        for side, here, there in zip(sides.tolist(), picture, scaled, strict=True):
            square = here[None, :, :side, :side].contiguous(memory_format=torch.channels_last)
            assert torch.equal(there, F.interpolate(square, size=(size, size), mode="bilinear", antialias=True)[0]), (
                side
            )


def test_the_short_side(noise, tmp_path):
    path = tmp_path / "small.pack"
    pack(noise, path, short_side=50)
    folder, images = open_images(noise), open_images(path)
    for ours, theirs in zip(images, folder, strict=True):
        assert min(ours.shape[1:]) == min(50, *theirs.shape[1:])
        assert abs(ours.shape[2] / ours.shape[1] - theirs.shape[2] / theirs.shape[1]) < 0.02
        if min(theirs.shape[1:]) <= 50:
            assert torch.equal(ours, theirs)
    assert images.fingerprint() != folder.fingerprint()
    with pytest.raises(ValueError, match="short_side: at least 1 is expected, got 0"):
        pack(noise, path, short_side=0)


def test_a_single_picture_is_in_both_splits(tmp_path):
    (tmp_path / "one").mkdir()
    Image.new("RGB", (9, 7), "red").save(tmp_path / "one" / "red.png")
    pack(tmp_path / "one", tmp_path / "one.pack")
    for split in ("train", "heldout"):
        images = open_images(tmp_path / "one.pack", split)
        assert images.summary() == "1 picture in one.pack, the same for training and measuring: none is held out"
    with pytest.raises(ValueError, match=r"one\.pack: the folder that was packed had no captions"):
        all_captions(tmp_path / "one.pack")


class TestRefused:
    def changed(self, noise_file: Path, tmp_path: Path, at: int) -> Path:
        data = bytearray(noise_file.read_bytes())
        data[at] ^= 1
        (tmp_path / "changed.pack").write_bytes(data)
        return tmp_path / "changed.pack"

    def test_any_changed_byte(self, noise, tmp_path, monkeypatch):
        monkeypatch.setattr(packed, "CHUNK", 1 << 14)
        pack(noise, tmp_path / "n")
        size, places = (tmp_path / "n").stat().st_size, []
        header = struct.unpack_from("<Q", (tmp_path / "n").read_bytes(), 16)[0]
        for at in [*range(64), *range(64, header, 9001), header - 1, *range(header, size, 301), size - 1]:
            with pytest.raises(ImageError, match=r"changed\.pack: ") as refusal:
                PackedImages(self.changed(tmp_path / "n", tmp_path, at))
            places.append(refusal.value.reason.split(":")[0])
        assert {"damaged", "truncated or damaged"} <= set(places)

    @pytest.mark.parametrize("length", [0, 5, 8, 63, 64, 1000, -1])
    def test_any_shorter_file(self, noise_file, tmp_path, length):
        path = tmp_path / "cut.pack"
        path.write_bytes(noise_file.read_bytes()[:length])
        with pytest.raises(ImageError, match=r"cut\.pack: (truncated|not a folder)"):
            open_images(path)

    def test_what_is_no_packed_file(self, tmp_path):
        (tmp_path / "a.zip").write_bytes(b"PK\x03\x04" + bytes(100))
        with pytest.raises(ImageError, match=r"a\.zip: not a folder but a zip archive; .*inpaint-fast pack"):
            open_images(tmp_path / "a.zip")
        with pytest.raises(FileNotFoundError, match=r"none\.pack"):
            PackedImages(tmp_path / "none.pack")
        with pytest.raises(ValueError, match="split"):
            PackedImages(tmp_path / "none.pack", "test")

    @pytest.mark.parametrize(
        "change",
        [
            lambda header: [1],
            lambda header: header | {"more": 1},
            lambda header: header | {"digests": []},
            lambda header: header | {"splits": {"train": header["splits"]["train"]}},
            lambda header: header["splits"]["train"]["heights"].__setitem__(0, -1),
            lambda header: header["splits"]["train"]["widths"].__setitem__(0, "9"),
            lambda header: header["splits"]["heldout"]["names"].append("more"),
            lambda header: header["splits"]["train"]["heights"].append(10**30),
        ],
    )
    def test_a_header_that_is_whole_and_wrong(self, noise_file, tmp_path, change):
        data = noise_file.read_bytes()
        at = struct.unpack_from("<Q", data, 16)[0]
        header = json.loads(data[at:])
        text = json.dumps(change(header) or header).encode()
        start = packed.START.pack(packed.MAGIC, packed.VERSION, at, len(text), hashlib.sha256(text).digest())
        (tmp_path / "wrong.pack").write_bytes(start + data[len(start) : at] + text)
        with pytest.raises(ImageError, match=r"wrong\.pack: damaged: "):
            open_images(tmp_path / "wrong.pack")

    def test_another_version(self, noise, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(packed, "VERSION", 2)
            pack(noise, tmp_path / "n.pack")
        with pytest.raises(ImageError, match=r"n\.pack: a packed file of version 2; version 1 is read"):
            PackedImages(tmp_path / "n.pack")

    def test_a_file_that_has_changed_is_checked_again(self, noise, tmp_path):
        path = tmp_path / "n.pack"
        pack(noise, path)
        open_images(path)
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        path.write_bytes(data)
        os.utime(path, ns=(1, 1))
        with pytest.raises(ImageError, match=r"n\.pack: damaged"):
            open_images(path)


class TestWriting:
    def test_nothing_else_is_overwritten(self, noise, tmp_path):
        (tmp_path / "photo.png").write_bytes(b"mine")
        with pytest.raises(ValueError, match=r"photo\.png is there already and is no packed file"):
            pack(noise, tmp_path / "photo.png")
        assert (tmp_path / "photo.png").read_bytes() == b"mine"

    def test_a_failure_leaves_the_older_file(self, noise, tmp_path, monkeypatch):
        path = tmp_path / "n.pack"
        pack(noise, path)
        before = path.read_bytes()

        def failing(folder, short_side):
            yield folder.paths[0], folder[0]
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(packed, "_decoded", failing)
        with pytest.raises(OSError, match=r"n\.pack"):
            pack(noise, path)
        assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["n.pack"]

    def test_nothing_readable(self, tmp_path):
        for name in ("train", "heldout"):
            (tmp_path / "d" / name).mkdir(parents=True)
            Image.effect_noise((50, 50), 99).save(tmp_path / "d" / name / "a.png")
        broken = tmp_path / "d" / "heldout" / "a.png"
        broken.write_bytes(broken.read_bytes()[:1000])
        with pytest.raises(ImageError, match="no picture of the heldout split can be read"):
            pack(tmp_path / "d", tmp_path / "d.pack")
        assert not (tmp_path / "d.pack").exists()


def test_a_run_of_the_folder_goes_on_with_the_file(samples_file, tmp_path):
    settings = {"filters": 2, "batch_size": 2, "heldout_crops": 1, "heldout_pictures": 1, "device": "cpu"}
    settings |= {"evaluate_every": 1000, "accelerate": False}
    for out, steps, data in (("whole", 4, "samples"), ("parts", 2, "samples"), ("parts", 4, str(samples_file))):
        recipe = RECIPES["unet_l2"](data=data, steps=steps, **settings)
        train(recipe, tmp_path / out, resume=(tmp_path / out).exists(), progress=False)
    whole, parts = (load_network(tmp_path / out).state_dict() for out in ("whole", "parts"))
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())
