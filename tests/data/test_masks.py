"""Masks: 1 marks the hole, and every draw comes from the given generator."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inpaint_fast.data import ImageError, box, center_square, free_form, hole_of, random_rectangle, read_mask, sampler


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def extent(mask: torch.Tensor) -> tuple[int, int, int, int]:
    """top, bottom, left, right of the hole, all included."""
    rows, columns = mask[0].any(1).nonzero(), mask[0].any(0).nonzero()
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


class TestBox:
    def test_place(self):
        mask = box(5, 7, left=1, top=2, box_width=4, box_height=3)
        assert mask.dtype == torch.bool
        assert mask.shape == (1, 5, 7)
        assert extent(mask) == (2, 4, 1, 4)
        assert mask.sum() == 12

    def test_whole_picture(self):
        assert box(2, 3, 0, 0, 3, 2).all()

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ((-1, 0, 2, 2), "left must be at least 0, got -1"),
            ((0, -2, 2, 2), "top must be at least 0, got -2"),
            ((0, 0, 0, 2), "box_width must be at least 1, got 0"),
            ((0, 0, 2, -1), "box_height must be at least 1, got -1"),
            ((6, 0, 2, 2), r"left \+ box_width must be at most 7 .* got 6 \+ 2"),
            ((0, 4, 2, 2), r"top \+ box_height must be at most 5 .* got 4 \+ 2"),
        ],
    )
    def test_outside(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            box(5, 7, *arguments)

    def test_no_picture(self):
        with pytest.raises(ValueError, match="height and width"):
            box(0, 7, 0, 0, 1, 1)


class TestCenterSquare:
    def test_published_hole(self):
        mask = center_square(64, 64)
        assert extent(mask) == (16, 47, 16, 47)
        assert mask.sum() == 32 * 32

    @pytest.mark.parametrize(
        "height, width, hole, expected",
        [
            (64, 96, None, (16, 47, 32, 63)),
            (9, 9, 3, (3, 5, 3, 5)),
            (1, 1, None, (0, 0, 0, 0)),
            (8, 6, 6, (1, 6, 0, 5)),
        ],
    )
    def test_sizes(self, height, width, hole, expected):
        assert extent(center_square(height, width, hole)) == expected

    @pytest.mark.parametrize("hole", [0, -1, 7])
    def test_bad_hole(self, hole):
        with pytest.raises(ValueError, match=f"hole must be between 1 and 6 .* got {hole}"):
            center_square(8, 6, hole)


class TestRandomRectangle:
    def test_sides_and_places_are_uniform_and_inclusive(self):
        draws = generator()
        sides, places = [], []
        for _ in range(3000):
            top, bottom, left, right = extent(random_rectangle(12, 16, draws, sides=(3, 6)))
            sides.append((bottom - top + 1, right - left + 1))
            if sides[-1] == (3, 3):
                places.append((top, left))
        counts = np.unique(sides, axis=0, return_counts=True)[1]
        assert len(counts) == 16  # every pair of 3..6: the two sides are drawn separately
        assert (abs(counts - 3000 / 16) < 5 * (3000 / 16) ** 0.5).all()
        tops, lefts = np.array(places).T
        assert (tops.min(), tops.max(), lefts.min(), lefts.max()) == (0, 9, 0, 13)

    def test_default_sides(self):
        draws = generator()
        for _ in range(50):
            mask = random_rectangle(160, 160, generator=draws)
            top, bottom, left, right = extent(mask)
            assert 48 <= bottom - top + 1 <= 96
            assert 48 <= right - left + 1 <= 96
            assert mask.sum() == (bottom - top + 1) * (right - left + 1)

    @pytest.mark.parametrize("sides", [(0, 5), (5, 4), (1, 11)])
    def test_bad_sides(self, sides):
        with pytest.raises(ValueError, match="sides must satisfy .* <= 10, got"):
            random_rectangle(10, 12, generator(), sides=sides)


class TestFreeForm:
    @settings(max_examples=150, deadline=None)
    @given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 2**40))
    def test_never_empty_never_full(self, height, width, seed):
        if height * width == 1:
            height = 2
        mask = free_form(height, width, generator(seed))
        assert mask.shape == (1, height, width)
        assert mask.dtype == torch.bool
        assert mask.any()
        assert not mask.all()

    def test_a_brush_wider_than_the_picture_leaves_a_pixel(self):
        assert (~free_form(9, 9, generator(), brush=(5, 5))).sum() == 1

    def test_coverage_at_the_defaults(self):
        draws = generator()
        coverage = [free_form(128, 128, draws).float().mean().item() for _ in range(200)]
        assert 0.15 < sum(coverage) / 200 < 0.35
        assert max(coverage) < 0.8

    def test_scales_with_the_picture(self):
        small, large = (
            sum(free_form(side, side, generator(i)).float().mean() for i in range(200)) / 200 for side in (64, 256)
        )
        assert abs(small - large) < 0.04

    def test_more_strokes_cover_more(self):
        few = sum(free_form(64, 64, generator(i), strokes=(1, 1)).sum() for i in range(30))
        many = sum(free_form(64, 64, generator(i), strokes=(6, 6)).sum() for i in range(30))
        assert many > 2 * few

    @pytest.mark.parametrize("option", ["strokes", "vertices", "length", "brush", "angle"])
    @pytest.mark.parametrize("limits", [(2, 1), (0, 1)])
    def test_bad_range(self, option, limits):
        with pytest.raises(ValueError, match=f"{option} must be two positive numbers"):
            free_form(16, 16, generator(), **{option: limits})

    def test_one_pixel_is_refused(self):
        with pytest.raises(ValueError, match="at least 2 pixels"):
            free_form(1, 1, generator())


@pytest.mark.parametrize("name", ["rectangle", "free_form"])
def test_draws_come_from_the_generator_alone(name):
    draw = sampler(name)
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state()
    first = [draw(64, 64, generator(i)) for i in range(5)]
    torch.manual_seed(2)
    np.random.seed(2)
    again = [draw(64, 64, generator(i)) for i in range(5)]
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], first[1])
    torch.manual_seed(1)
    draw(64, 64, generator(9))
    assert torch.equal(torch.get_rng_state(), before)


class TestReadMask:
    def written(self, path, array):
        Image.fromarray(array).save(path)
        return path

    @pytest.mark.parametrize(
        "array",
        [
            np.array([[0, 127, 128, 255]], np.uint8),
            np.array([[0, 32767, 32768, 65535]], np.uint16),
            np.array([[0, 127, 128, 255]], np.uint8)[..., None].repeat(3, -1),
            np.array([[False, False, True, True]]),
        ],
        ids=["grey", "16-bit", "rgb", "1-bit"],
    )
    def test_white_is_the_hole(self, tmp_path, array):
        path = self.written(tmp_path / "m.png", array)
        mask = read_mask(path)
        assert mask.dtype == torch.bool
        assert mask.tolist() == [[[False, False, True, True]]]
        assert read_mask(path, invert=True).tolist() == [[[True, True, False, False]]]

    def test_transparent_is_the_hole_whatever_its_colour(self, tmp_path):
        array = np.array([[[255, 255, 255, 255], [0, 0, 0, 0], [255, 255, 255, 127], [0, 0, 0, 128]]], np.uint8)
        assert read_mask(self.written(tmp_path / "m.png", array)).tolist() == [[[False, True, True, False]]]

    def test_opaque_alpha_says_nothing(self, tmp_path):
        array = np.array([[[255, 255, 255, 255], [0, 0, 0, 255]]], np.uint8)
        assert read_mask(self.written(tmp_path / "m.png", array)).tolist() == [[[True, False]]]

    def test_size(self, tmp_path):
        path = self.written(tmp_path / "m.png", np.zeros((4, 6), np.uint8))
        assert read_mask(path, (4, 6)).shape == (1, 4, 6)
        with pytest.raises(ImageError, match=r"m.png: the mask is 6 x 4 \(width x height\) and the picture 4 x 6"):
            read_mask(path, (6, 4))

    def test_not_a_picture(self, tmp_path):
        (tmp_path / "m.png").write_text("a note" * 20)
        with pytest.raises(ImageError, match="m.png: not an image"):
            read_mask(tmp_path / "m.png")


class TestHoleOf:
    @pytest.mark.parametrize(
        "dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64]
    )
    def test_zeros_and_ones_of_any_type(self, dtype):
        mask = box(5, 7, 1, 2, 4, 3)
        assert torch.equal(hole_of(mask.to(dtype)), mask)
        assert not hole_of(torch.zeros(1, 5, 7, dtype=dtype)).any()
        assert hole_of(torch.zeros(1, 0, 7, dtype=dtype)).shape == (1, 0, 7)

    def test_soft_masks_are_cut_at_half(self):
        assert hole_of(torch.tensor([0, 1e-6, 0.499, 0.5, 1.0])).tolist() == [False, False, False, True, True]
        assert hole_of(torch.tensor([0, 1, 127, 128, 255], dtype=torch.uint8)).tolist() == [False] * 3 + [True] * 2
        assert hole_of(torch.tensor([1e-6, 1 + 1e-6])).tolist() == [False, True]

    @pytest.mark.parametrize("values", [[0, 255.0], [-1.0, 1.0], [0, torch.nan], [0, torch.inf], [0, 256], [-1, 1]])
    def test_other_values_are_named(self, values):
        with pytest.raises(ValueError, match="batch.mask: values between 0 and 1"):
            hole_of(torch.tensor(values), name="batch.mask")

    @pytest.mark.parametrize("values", [[0, 0.3], [1e-2, 1e-2]])
    def test_a_mask_without_half_a_hole_is_no_empty_one(self, values):
        with pytest.raises(ValueError, match="mask: its values reach 0"):
            hole_of(torch.tensor(values))
        with pytest.raises(ValueError, match="mask: its values reach 100 alone, and a hole has 128"):
            hole_of(torch.tensor([0, 100], dtype=torch.uint8))

    def test_complex(self):
        with pytest.raises(TypeError, match="mask: .*complex64"):
            hole_of(torch.zeros(1, dtype=torch.complex64))


class TestSampler:
    def test_center(self):
        assert torch.equal(sampler("center")(64, 64, generator()), center_square(64, 64))
        assert torch.equal(sampler("center", hole=10)(64, 64, generator()), center_square(64, 64, 10))

    def test_rectangle_scales_with_the_picture(self):
        for seed in range(5):
            scaled = sampler("rectangle")(160, 160, generator(seed))
            assert torch.equal(scaled, random_rectangle(160, 160, generator(seed)))
        assert sampler("rectangle")(28, 28, generator()).sum() >= 8 * 8
        assert sampler("rectangle")(1, 1, generator()).all()
        fixed = sampler("rectangle", sides=(5, 5))(28, 28, generator())
        assert fixed.sum() == 25

    def test_free_form(self):
        drawn = sampler("free_form", strokes=(2, 2))(32, 40, generator())
        assert torch.equal(drawn, free_form(32, 40, generator=generator(), strokes=(2, 2)))

    def test_picklable(self):
        draw = pickle.loads(pickle.dumps(sampler("free_form", strokes=(2, 2))))
        assert torch.equal(draw(32, 32, generator()), free_form(32, 32, generator(), strokes=(2, 2)))

    def test_unknown(self):
        with pytest.raises(
            ValueError, match="mask must be one of 'center', 'rectangle', 'free_form', 'everything', got 'circle'"
        ):
            sampler("circle")
        with pytest.raises(TypeError, match="strokes"):
            sampler("center", strokes=(1, 2))
