"""MNIST's idx files."""

from __future__ import annotations

import gzip

import pytest
import torch

from inpaint_fast.data import Batches, Digits, ImageError, read_idx


def idx(values: torch.Tensor) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.dim()]) + sizes + values.numpy().tobytes()


@pytest.fixture
def digits(tmp_path):
    pictures = torch.randint(0, 256, (5, 28, 28), dtype=torch.uint8)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(pictures))
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pictures[:2])))
    return tmp_path, pictures


def test_plain_and_gzipped(digits):
    folder, pictures = digits
    assert torch.equal(read_idx(folder / "train-images-idx3-ubyte"), pictures)
    train, heldout = Digits(folder), Digits(folder, "heldout")
    assert (len(train), len(heldout)) == (5, 2)
    assert torch.equal(train[3], pictures[3].expand(3, 28, 28))
    assert "2 digits in t10k-images-idx3-ubyte.gz" in heldout.summary()


def test_the_slice_that_comes_with_the_package():
    assert (len(Digits()), len(Digits(split="heldout"))) == (1600, 400)
    batch = Batches(Digits(), batch_size=7, size=28, crop=(28, 28), flip=False, mask="everything")[0]
    assert batch.mask.all()
    levels = (batch.image[:, 0] * 255).round().to(torch.uint8)
    assert all((Digits().images == digit).all(dim=(1, 2)).any() for digit in levels)  # whole, not resampled


def test_spread_evenly():
    digits = Digits()
    part = digits.spread(3)
    assert (len(part), len(digits), len(digits.spread(9999))) == (3, 1600, 1600)
    assert all(torch.equal(part[i], digits[row]) for i, row in enumerate((0, 800, 1599)))


def test_bad_files_are_named(digits):
    folder, _ = digits
    path = folder / "train-images-idx3-ubyte"
    whole = path.read_bytes()
    for content, problem in (
        (whole[:-1], "3920 bytes are expected.*got 3919"),
        (b"nothing!", "idx file"),
        (b"", "idx file"),
    ):
        path.write_bytes(content)
        with pytest.raises(ImageError, match=f"train-images-idx3-ubyte.*{problem}"):
            Digits(folder)
    path.write_bytes(idx(torch.zeros(9, dtype=torch.uint8)))
    with pytest.raises(ImageError, match="pictures"):
        Digits(folder)
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b not gzip")
    with pytest.raises(ImageError, match="t10k.*gzip"):
        Digits(folder, "heldout")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte \(or .*\.gz\)"):
        Digits(folder)
    with pytest.raises(ValueError, match="split"):
        Digits(folder, "test")
