"""Published data sets in their own folders; a missing file is named."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from PIL import Image

from inpaint_fast.data import all_captions, captions_for, open_images
from inpaint_fast.data.layouts import CAPTIONS_DICTIONARY


def picture(path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), "red").save(path)


def coco(folder, year: str, captions: bool = True):
    """Two pictures to train on, one held out, with ids and names as COCO has them."""
    for part, ids in (("train", (9, 25)), ("val", (42,))):
        names = [f"COCO_{part}{year}_{i:012}.jpg" if year == "2014" else f"{i:012}.jpg" for i in ids]
        for name in names:
            picture(folder / f"{part}{year}" / name)
        if captions:
            (folder / "annotations").mkdir(exist_ok=True)
            content = {
                "images": [{"id": i, "file_name": name} for i, name in zip(ids, names, strict=True)],
                "annotations": [{"id": n, "image_id": i, "caption": f"{i} {n}"} for n in range(5) for i in ids],
            }
            (folder / "annotations" / f"captions_{part}{year}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("year", ["2014", "2017"])
def test_coco(tmp_path, year):
    coco(tmp_path, year)
    train, heldout = open_images(tmp_path, "train"), open_images(tmp_path, "heldout")
    assert (len(train), len(heldout)) == (2, 1)
    assert captions_for(train, tmp_path) == [[f"{i} {n}" for n in range(5)] for i in (9, 25)]
    assert captions_for(heldout, tmp_path) == [[f"42 {n}" for n in range(5)]]
    assert len(all_captions(tmp_path)) == 3


def test_coco_inpainting_with_its_dictionary(tmp_path):
    coco(tmp_path, "2014", captions=False)
    texts = {f"COCO_train2014_{i:012}": [f"caption of {i}"] * 5 for i in (9, 25)}
    texts["COCO_val2014_000000000042"] = ["held out"]
    (tmp_path / CAPTIONS_DICTIONARY).write_bytes(pickle.dumps(texts, protocol=2))
    assert captions_for(open_images(tmp_path), tmp_path)[1] == ["caption of 25"] * 5
    assert captions_for(open_images(tmp_path, "heldout"), tmp_path) == [["held out"]]


def test_a_dictionary_executes_nothing(tmp_path):
    class Harmful:
        def __reduce__(self):
            return print, ("harm",)

    coco(tmp_path, "2014", captions=False)
    (tmp_path / CAPTIONS_DICTIONARY).write_bytes(pickle.dumps({"a": Harmful()}))
    with pytest.raises(ValueError, match=f"{CAPTIONS_DICTIONARY}.*names builtins.print"):
        all_captions(tmp_path)
    for content in (b"nothing", pickle.dumps([1])):
        (tmp_path / CAPTIONS_DICTIONARY).write_bytes(content)
        with pytest.raises(ValueError, match=f"{CAPTIONS_DICTIONARY}.*dictionary"):
            all_captions(tmp_path)


def test_celeba(tmp_path):
    for i in range(1, 7):
        picture(tmp_path / "img_align_celeba" / f"{i:06}.jpg")
    partition = "".join(f"{i:06}.jpg {split}\n" for i, split in enumerate((0, 0, 0, 1, 1, 2), 1))
    (tmp_path / "list_eval_partition.txt").write_text(partition)
    names = [[path.name for path in open_images(tmp_path, split).paths] for split in ("train", "heldout")]
    assert names == [["000001.jpg", "000002.jpg", "000003.jpg"], ["000004.jpg", "000005.jpg"]]


def test_any_folder_with_captions(tmp_path):
    for name in ("a/one\u0301.png", "two.png"):  # the accent a character of its own, as some file systems have it
        picture(tmp_path / name)
    content = {
        "images": [{"id": 1, "file_name": "a/on\u00e9.png"}, {"id": 2, "file_name": "two.png"}],
        "annotations": [{"id": n, "image_id": n, "caption": f"number {n}"} for n in (1, 2)],
    }
    (tmp_path / "captions.json").write_text(json.dumps(content))
    found = [captions_for(open_images(tmp_path, split), tmp_path) for split in ("train", "heldout")]
    assert sorted(found) == [[["number 1"]], [["number 2"]]]


def test_missing_files_are_named(tmp_path):
    folder = tmp_path / "coco"
    coco(folder, "2014", captions=False)
    with pytest.raises(FileNotFoundError, match=f"annotations/captions_train2014.json.*{CAPTIONS_DICTIONARY}"):
        all_captions(folder)
    for path in (folder / "val2014").iterdir():
        path.unlink()
    (folder / "val2014").rmdir()
    with pytest.raises(FileNotFoundError, match="coco/val2014: COCO's folder of heldout pictures"):
        open_images(folder, "heldout")
    picture(tmp_path / "celeba" / "img_align_celeba" / "000001.jpg")
    with pytest.raises(FileNotFoundError, match="celeba/list_eval_partition.txt.*CelebA"):
        open_images(tmp_path / "celeba")
    picture(tmp_path / "plain" / "one.png")
    with pytest.raises(FileNotFoundError, match="plain/captions.json"):
        captions_for(open_images(tmp_path / "plain"), tmp_path / "plain")
    for content, words in (("{}", "COCO captions are expected.*images"), ("nonsense", "COCO captions are expected")):
        (tmp_path / "plain" / "captions.json").write_text(content)
        with pytest.raises(ValueError, match=f"captions.json: {words}"):
            all_captions(tmp_path / "plain")
    (tmp_path / "plain" / "captions.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(ValueError, match="name no one.png"):
        captions_for(open_images(tmp_path / "plain"), tmp_path / "plain")


def test_batches_carry_the_captions_of_their_pictures():
    from inpaint_fast.data import Batches, heldout_crops

    images = [torch.full((3, 70, 70), 10 * i, dtype=torch.uint8) for i in range(6)]
    captions = torch.arange(6)[:, None, None].expand(6, 5, 3)
    batch = Batches(images, batch_size=4, captions=captions)[3]
    assert torch.equal(batch.captions[:, 0, 0], (batch.image[:, 0, 0, 0] * 25.5).round().long())
    crops = heldout_crops(images, per_image=2, captions=captions)
    assert crops.captions[:, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    with pytest.raises(ValueError, match="captions must have a row for each of the 6 pictures, got 5"):
        Batches(images, captions=captions[:5])
