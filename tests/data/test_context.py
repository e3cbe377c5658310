"""Batches with patches for the context discriminators, and the data sets that GLCIC is trained on."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from inpaint_fast.data import Batches, ContextBatches, ImageError, heldout_crops, open_images, samples
from inpaint_fast.data.context import patch_corners

SMALL = {"size": 64, "local": 40, "hole": (19, 38), "batch_size": 16}


def extents(mask: torch.Tensor) -> list[tuple[int, int, int, int]]:
    places = [hole[0].nonzero() for hole in mask]
    return [(*p.amin(0).tolist(), *(p.amax(0) + 1).tolist()) for p in places]


def test_patches_lie_round_the_holes_and_inside_the_picture() -> None:
    image, mask, hole_corner, real_corner = ContextBatches(samples(), **SMALL)[3]
    assert image.shape == (16, 3, 64, 64) and mask.dtype == torch.bool
    for (top, left, bottom, right), (y, x) in zip(extents(mask), hole_corner.tolist(), strict=True):
        assert mask.any() and 19 <= bottom - top <= 38 and 19 <= right - left <= 38
        assert y <= top and bottom <= y + 40 and x <= left and right <= x + 40
        for start, centre in ((y, top + bottom), (x, left + right)):
            assert start in (0, 24) or abs(2 * start + 40 - centre) <= 1  # centred, or at the picture's edge
    for corners in (hole_corner, real_corner):
        assert corners.dtype == torch.int64 and corners.min() >= 0 and corners.max() <= 24
    assert not torch.equal(hole_corner, real_corner)


def test_one_area_serves_the_whole_batch() -> None:
    areas = []
    for index in range(4):
        _, mask, hole_corner, real_corner = ContextBatches(samples(), one_area=True, **SMALL)[index]
        assert (hole_corner == hole_corner[0]).all() and (real_corner == real_corner[0]).all()
        y, x = hole_corner[0].tolist()
        assert mask[..., y : y + 40, x : x + 40].sum() == mask.sum()
        assert len(set(extents(mask))) > 1
        areas.append((y, x))
    assert len(set(areas)) > 1


@pytest.mark.parametrize("one_area", [True, False])
def test_a_batch_is_made_of_its_index_alone(one_area) -> None:
    batches = ContextBatches(samples(), one_area=one_area, **SMALL)
    torch.manual_seed(1)
    first = batches[5]
    torch.manual_seed(2)
    for a, b in zip(first, ContextBatches(samples(), one_area=one_area, **SMALL)[5], strict=True):
        assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for a, b in zip(first[1:], batches[6][1:], strict=True))


def test_patch_corners() -> None:
    mask = torch.zeros(3, 1, 10, 20, dtype=torch.bool)
    mask[0, 0, 4:6, 9:11] = mask[1, 0, 0, 0] = mask[2, 0, 9, 12:20] = True
    assert patch_corners(mask, 6).tolist() == [[2, 7], [0, 0], [4, 13]]


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="local.*64.*68"):
        ContextBatches(samples(), **{**SMALL, "local": 68})
    with pytest.raises(ValueError, match="hole.*40.*41"):
        ContextBatches(samples(), **{**SMALL, "hole": (20, 41)})


def test_short_sides_are_scaled_to_the_edge() -> None:
    """A ramp from 0 to 200 along 200 columns: a square of it tells how wide it was cut."""
    ramp = torch.arange(200, dtype=torch.uint8).expand(3, 100, 200).contiguous()

    def widths(images) -> list[float]:
        return [((row[0, 0, -1] - row[0, 0, 0]).item() * 255) for row in images]

    batches = Batches([ramp], size=50, edge=(50, 100), batch_size=64, flip=False)
    found = widths(batches[0].image)
    assert min(found) >= 47 and max(found) <= 100 and max(found) - min(found) > 30  # from half to all of the short side
    assert widths(Batches([ramp], size=50, edge=(50, 50), batch_size=2, flip=False)[0].image) == pytest.approx(
        [98, 98], abs=2
    )
    heldout = heldout_crops([ramp], size=50, per_image=2, edge=(50, 100))
    assert widths(heldout.image) == pytest.approx([98, 49], abs=2)
    with pytest.raises(ValueError, match=r"edge.*50.*\(40, 60\)"):
        Batches([ramp], size=50, edge=(40, 60))


def celeba(root, *, split: str = "") -> None:
    (root / "img_align_celeba").mkdir(parents=True)
    lines = []
    for number in range(1, 10):
        Image.new("RGB", (178, 218), (number, 0, 0)).save(root / "img_align_celeba" / f"{number:06d}.jpg")
        lines.append(f"{number:06d}.jpg {0 if number < 6 else 1 if number < 8 else 2}")
    (root / split).mkdir(exist_ok=True)
    (root / split / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("split", ["", "Eval"])
@pytest.mark.parametrize("inside", ["", "img_align_celeba"])
def test_celeba_is_split_by_its_official_file(tmp_path, split, inside) -> None:
    celeba(tmp_path / "celeba", split=split)
    train, heldout = (open_images(tmp_path / "celeba" / inside, part) for part in ("train", "heldout"))
    assert [path.name for path in train.paths] == [f"{number:06d}.jpg" for number in range(1, 6)]
    assert [path.name for path in heldout.paths] == ["000006.jpg", "000007.jpg"]
    batch = ContextBatches(train, size=160, local=96, hole=(48, 96), edge=(160, 178), batch_size=2)[0]
    assert batch.image.shape == (2, 3, 160, 160)


def test_a_damaged_split_file_is_named(tmp_path) -> None:
    celeba(tmp_path)
    (tmp_path / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg\n")
    with pytest.raises(ImageError, match=r"list_eval_partition.txt: line 2.*'000002.jpg'"):
        open_images(tmp_path)
    (tmp_path / "list_eval_partition.txt").write_text("000001.jpg 0\n")
    with pytest.raises(ImageError, match="no picture of the heldout split"):
        open_images(tmp_path, "heldout")


def test_places_like_folders(tmp_path) -> None:
    for place in ("train/a/abbey", "train/b/beach/sandy", "val"):
        (tmp_path / place).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB" if number else "L", (70, 50)).save(tmp_path / place / f"{number}.jpg")
    assert (len(open_images(tmp_path)), len(open_images(tmp_path, "heldout"))) == (6, 3)
