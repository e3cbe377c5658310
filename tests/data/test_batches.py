"""A batch is a pure function of (pictures, seed, index), survives bad pictures, and can be made ahead."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inpaint_fast.data import (
    Batch,
    Batches,
    ContextBatches,
    ImageError,
    ImageFolder,
    center_square,
    heldout_crops,
    open_images,
    pack,
    prefetch,
    samples,
)

FEW = {"size": 16, "batch_size": 4, "crop": (4, 16)}


def flat(count: int, side: int = 80) -> list[torch.Tensor]:
    """Pictures of one level each, 10 apart, so that a crop tells which picture it is from."""
    return [torch.full((3, side, side + i), 10 * i, dtype=torch.uint8) for i in range(count)]


def sources(batch: Batch) -> list[int]:
    return (batch.image[:, 0, 0, 0] * 25.5).round().int().tolist()


def same(first: Batch, second: Batch) -> bool:
    return torch.equal(first.image, second.image) and torch.equal(first.mask, second.mask)


@pytest.fixture(scope="module")
def photos() -> ImageFolder:
    return samples("train")


class TestPure:
    def test_shapes_and_ranges(self, photos):
        batch = Batches(photos, size=48, batch_size=5)[0]
        assert batch.image.shape == (5, 3, 48, 48)
        assert batch.image.dtype == torch.float32
        assert 0 <= batch.image.min() < batch.image.max() <= 1
        assert torch.equal(batch.mask, center_square(48, 48).expand(5, 1, 48, 48))

    @pytest.mark.parametrize("mask", ["center", "rectangle", "free_form"])
    def test_index_alone_decides(self, photos, mask):
        straight = Batches(photos, mask=mask, seed=7)
        batches = [straight[i] for i in range(4)]
        resumed = Batches(samples("train"), mask=mask, seed=7)
        for i in (3, 0, 2, 1, 3):
            torch.manual_seed(i)
            assert same(resumed[i], batches[i])
        assert not torch.equal(batches[0].image, batches[1].image)

    def test_global_generator_is_left_alone(self, photos):
        before = torch.get_rng_state()
        Batches(photos, mask="free_form")[0]
        assert torch.equal(torch.get_rng_state(), before)

    def test_seeds_differ(self, photos):
        assert not same(Batches(photos, seed=0)[1], Batches(photos, seed=1)[1])
        assert not same(Batches(photos, seed=0)[1], Batches(photos, seed=1)[0])

    def test_each_batch_has_its_own_crops(self, photos):
        batches = Batches(photos[:1], batch_size=4)
        assert not torch.equal(batches[0].image, batches[1].image)

    def test_threads(self, photos):
        batches = Batches(photos, mask="rectangle", batch_size=8)
        expected = [batches[i] for i in range(24)]
        with ThreadPoolExecutor(6) as pool:
            assert all(map(same, pool.map(batches.__getitem__, range(24)), expected))

    def test_another_process_makes_the_same(self, photos):
        batches = Batches(photos, mask="free_form", batch_size=4)
        assert same(pickle.loads(pickle.dumps(batches))[5], batches[5])

    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("batches_of", [
        lambda images: Batches(images, mask="center", captions=torch.rand(len(images), 2, 3), **FEW),
        lambda images: Batches(images, mask="rectangle", **FEW),
        lambda images: Batches(images, mask="free_form", **FEW),
        lambda images: ContextBatches(images, local=8, hole=(3, 5), **FEW),
        lambda images: ContextBatches(images, local=8, hole=(3, 5), one_area=True, **FEW),
    ], ids=["center", "rectangle", "free_form", "context", "one_area"])  # fmt: skip
    def test_rows_are_those_of_the_batch(self, tmp_path, batches_of, packed):
        """Also no rows, of pictures that together are smaller than one of the batch's."""
        images = [picture[:, :8, :8] for picture in flat(3)]
        if packed:
            (tmp_path / "d").mkdir()
            for i, picture in enumerate(images):
                Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / "d" / f"{i}.png")
            pack(tmp_path / "d", tmp_path / "d.pack")
            images = open_images(tmp_path / "d.pack")
        batches = batches_of(images)
        batch = batches[1]
        for kept in (slice(0, 0), slice(2, 2), slice(4, 9), slice(1, 3), slice(None, None, 2), slice(-1, None)):
            for part, whole in zip(batches.rows(1, kept), batch, strict=True):
                assert part is whole is None or torch.equal(part, whole[kept])

    def test_each_epoch_is_a_permutation(self):
        batches = Batches(flat(7), batch_size=5, size=4, crop=(8, 8))
        order = [source for i in range(14) for source in sources(batches[i])]
        epochs = [order[start : start + 7] for start in range(0, 70, 7)]
        assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
        assert len(set(map(tuple, epochs))) > 5

    def test_memory_layout_of_the_pictures_does_not_matter(self, photos):
        planes = [image.contiguous() for image in photos]
        assert not photos[0].is_contiguous()
        assert same(Batches(photos)[0], Batches(planes)[0])

    def test_negative_index(self, photos):
        with pytest.raises(IndexError, match="at least 0, got -1"):
            Batches(photos)[-1]


class TestCrops:
    def test_sides_are_uniform_and_inclusive(self):
        """The wider the crop of a ramp, the more its two halves differ."""
        ramp = (20 * torch.arange(12, dtype=torch.uint8)).expand(3, 12, 12)
        known = [self.halves_differ(Batches([ramp], size=2, crop=(side, side), flip=False))[0] for side in range(4, 9)]
        drawn = self.halves_differ(Batches([ramp], size=2, batch_size=2000, crop=(4, 8), flip=False))
        distance = (drawn[:, None] - torch.stack(known)).abs()
        assert distance.amin(1).max() <= 2
        assert min(after - before for before, after in zip(known, known[1:], strict=False)) > 5
        counts = distance.argmin(1).bincount(minlength=5)
        assert ((counts - 400).abs() < 5 * 400**0.5).all()

    @staticmethod
    def halves_differ(batches: Batches) -> torch.Tensor:
        image = batches[0].image * 255
        return image[:, 0, 0, 1] - image[:, 0, 0, 0]

    def test_scaling_is_that_of_pillow(self, photos):
        picture = photos[0][:, :200, :200]
        batch = Batches([picture], size=64, batch_size=1, crop=(200, 200), flip=False)[0]
        expected = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).resize(
            (64, 64), Image.Resampling.BILINEAR
        )
        difference = (batch.image[0] * 255).round() - torch.from_numpy(np.array(expected)).permute(2, 0, 1)
        assert difference.abs().max() <= 1

    def test_places_reach_every_edge(self):
        picture = torch.zeros(3, 6, 9, dtype=torch.uint8)
        picture[0] = torch.arange(9, dtype=torch.uint8)
        picture[1] = torch.arange(6, dtype=torch.uint8)[:, None]
        batch = Batches([picture], size=4, batch_size=500, crop=(4, 4), flip=False)[0]
        lefts = (batch.image[:, 0, 0, 0] * 255).round().int()
        tops = (batch.image[:, 1, 0, 0] * 255).round().int()
        assert set(lefts.tolist()) == set(range(6))
        assert set(tops.tolist()) == set(range(3))

    def test_flip_half_the_time(self):
        ramp = torch.arange(8, dtype=torch.uint8).expand(3, 8, 8)
        flipped = Batches([ramp], size=8, batch_size=400, crop=(8, 8))[0].image
        share = (flipped[:, 0, 0, 0] > flipped[:, 0, 0, -1]).float().mean()
        assert 0.4 < share < 0.6
        kept = Batches([ramp], size=8, batch_size=400, crop=(8, 8), flip=False)[0].image
        assert (kept[:, 0, 0, 0] < kept[:, 0, 0, -1]).all()

    @pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (30, 40), (64, 64), (65, 63)])
    def test_small_pictures(self, shape):
        picture = torch.full((3, *shape), 200, dtype=torch.uint8)
        assert Batches([picture], batch_size=4)[0].image.unique().tolist() == [pytest.approx(200 / 255)]

    def test_a_picture_below_the_smallest_crop_gives_its_short_side(self):
        picture = torch.randint(0, 256, (3, 30, 30), dtype=torch.uint8)
        batch = Batches([picture], size=30, batch_size=2, crop=(64, 320), flip=False)[0]
        assert torch.equal(batch.image, (picture / 255).expand(2, 3, 30, 30))

    def test_own_mask_function(self, photos):
        def corner(height, width, generator):
            mask = torch.zeros(1, height, width, dtype=torch.bool)
            mask[:, : int(torch.randint(1, height, (), generator=generator)), :5] = True
            return mask

        batches = Batches(photos, mask=corner, batch_size=6)
        assert same(batches[2], batches[2])
        assert batches[2].mask[:, :, 0, :5].all()
        with pytest.raises(TypeError, match="mask must give bool tensors"):
            Batches(photos, mask=lambda height, width, generator: torch.zeros(1, height, width))[0]

    @pytest.mark.parametrize(
        "options, message",
        [
            ({"size": 0}, "size must be at least 1, got 0"),
            ({"batch_size": 0}, "batch_size must be at least 1"),
            ({"crop": (0, 5)}, "crop must be two sides"),
            ({"crop": (6, 5)}, r"smaller first, got \(6, 5\)"),
            ({"mask": "circle"}, "mask must be one of"),
        ],
    )
    def test_bad_arguments(self, options, message):
        with pytest.raises(ValueError, match=message):
            Batches(flat(1), **options)

    def test_bad_pictures(self):
        with pytest.raises(ValueError, match="at least one picture"):
            Batches([])
        for picture in (torch.zeros(3, 9, 9), torch.zeros(1, 9, 9, dtype=torch.uint8)):
            with pytest.raises(TypeError, match=r"images must be uint8 of shape \(3, H, W\)"):
                Batches([picture])[0]


class TestUnreadable:
    @pytest.fixture
    def root(self, tmp_path):
        for i, image in enumerate(flat(5)):
            Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(tmp_path / f"{i}.png")
        for i in (1, 2):  # the header is whole, so only decoding finds out
            noise = np.random.default_rng(i).integers(0, 256, (80, 80, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / f"{i}.png")
            content = (tmp_path / f"{i}.png").read_bytes()
            (tmp_path / f"{i}.png").write_bytes(content[: len(content) // 2])
        return tmp_path

    def test_replaced_by_the_next_readable(self, root):
        folder = ImageFolder(root)
        batches = Batches(folder, batch_size=5, size=4, crop=(8, 8))
        for i in range(4):
            assert sorted(sources(batches[i])) == [0, 3, 3, 3, 4]
        assert {path.name for path in folder.skipped} == {"1.png", "2.png"}
        assert folder.summary().startswith("3 pictures in ")

    def test_the_same_whatever_was_read_before(self, root):
        first, second = (Batches(ImageFolder(root), batch_size=3, size=8) for _ in range(2))
        expected = [first[i] for i in range(5)]
        assert all(same(second[i], expected[i]) for i in (4, 1, 0, 3, 2))

    def test_none_readable(self, root):
        folder = ImageFolder(root)[1:3]
        with pytest.raises(ImageError, match="truncated"):
            Batches(folder)[0]
        with pytest.raises(ImageError, match="truncated"):
            heldout_crops(folder)

    def test_left_out_of_heldout_crops(self, root):
        crops = heldout_crops(ImageFolder(root), size=4, per_image=2)
        assert sources(crops) == [0, 0, 3, 3, 4, 4]


class TestHeldoutCrops:
    def test_shape_and_repeatability(self):
        images = samples("heldout")
        crops = heldout_crops(images, mask="free_form")
        assert crops.image.shape == (24, 3, 64, 64)
        assert crops.mask.shape == (24, 1, 64, 64)
        assert same(crops, heldout_crops(samples("heldout"), mask="free_form"))
        assert not same(crops, heldout_crops(images, mask="free_form", seed=1))

    def test_one_picture_does_not_depend_on_the_next(self):
        images = samples("heldout")
        assert same(heldout_crops(images[:2]), heldout_crops(images).map(lambda part: part[:8]))

    def test_sides_are_spread(self):
        ramp = torch.arange(200, dtype=torch.uint8).expand(3, 200, 200)
        image = heldout_crops([ramp], size=2, per_image=3, crop=(40, 400)).image * 255
        steps = image[:, 0, 0, 1] - image[:, 0, 0, 0]
        # halves of a ramp of sides 200, 120, 40 differ by about half the side, less what antialiasing mixes
        assert torch.allclose(steps / steps[0], torch.tensor([1, 0.6, 0.2]), atol=0.02)

    def test_bad_arguments(self):
        with pytest.raises(ValueError, match="per_image must be at least 1"):
            heldout_crops(flat(1), per_image=0)


class TestPrefetch:
    @staticmethod
    def threads() -> int:
        return sum(thread.name == "prefetch" for thread in threading.enumerate())

    def test_order(self, photos):
        batches = Batches(photos, batch_size=2)
        made = list(prefetch(batches, 3, 9))
        assert [index for index, _ in made] == list(range(3, 9))
        assert all(same(batch, batches[index]) for index, batch in made)
        assert self.threads() == 0

    def test_empty(self, photos):
        assert list(prefetch(Batches(photos), 3, 3)) == []

    def test_closing_ends_the_thread(self, photos):
        stream = prefetch(Batches(photos, batch_size=2), 0)
        assert next(stream)[0] == 0
        assert self.threads() == 1
        stream.close()
        assert self.threads() == 0

    @pytest.mark.parametrize("depth", [1, 3])
    def test_at_most_depth_ahead(self, depth):
        class Counted:
            made = 0

            def __getitem__(self, index):
                self.made += 1
                return index

        batches = Counted()
        stream = prefetch(batches, 0, depth=depth)
        for taken in range(1, 4):
            next(stream)
            deadline = time.monotonic() + 5
            while batches.made < taken + depth and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.02)
            assert batches.made == taken + depth
        stream.close()

    def test_failure_arrives_in_its_place(self):
        class Failing:
            def __getitem__(self, index):
                if index == 2:
                    raise ImageError("a.png", "truncated")
                return index

        stream = prefetch(Failing(), 0)
        assert [next(stream)[0], next(stream)[0]] == [0, 1]
        with pytest.raises(ImageError, match="a.png: truncated"):
            next(stream)
        assert self.threads() == 0

    def test_consumer_failure_ends_the_thread(self, photos):
        def consume():
            for index, _ in prefetch(Batches(photos, batch_size=2), 0):
                if index == 1:
                    raise KeyError

        with pytest.raises(KeyError):
            consume()
        assert self.threads() == 0

    def test_bad_depth(self, photos):
        with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
            prefetch(Batches(photos), 0, depth=0)


ALONE = """
import os, sys, torch
from contextlib import closing
from inpaint_fast.data import Batches, open_images, prefetch

torch.set_num_threads(4)
torch.ones(1 << 20).add_(1)  # the threads of the one who trains
before = len(os.listdir("/proc/self/task"))
options = {"size": 160, "batch_size": 16, "mask": sys.argv[2]}
with closing(prefetch(Batches(open_images(sys.argv[1]), **options), 0)) as batches:
    for _ in range(3):
        next(batches)
    assert len(os.listdir("/proc/self/task")) == before + 1, (before, os.listdir("/proc/self/task"))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not list a process's threads")
@pytest.mark.parametrize("mask", ["center", "rectangle"])
@pytest.mark.parametrize("packed", [True, False])
def test_batches_are_made_by_one_thread(tmp_path, packed, mask):
    """A team of threads for it would wait for those of the training, and these for it: 8 % of a short step."""
    for i in range(3):
        Image.fromarray(np.full((200, 180 + i, 3), 50 * i, np.uint8)).save(tmp_path / f"{i}.png")
    data = tmp_path
    if packed:
        pack(tmp_path, data := tmp_path.with_suffix(".pack"))
    subprocess.run([sys.executable, "-c", ALONE, str(data), mask], check=True)
