"""Where published data sets keep their pictures, captions and splits. A file that is missing is named in the error.

- COCO 2014 and 2017 (Lin et al. 2014): `train2014/`, `val2014/`, `annotations/captions_train2014.json`, ...
- COCO-inpainting 64x64 (IFT6266 course data, 2017): the same two folders, and the captions of both in
  `dict_key_imgID_value_caps_train_and_valid.pkl`.
- CelebA (Liu et al. 2015): `img_align_celeba/` and `list_eval_partition.txt`, which may lie in `Eval/`. Its partition 0
  is "train", 1 (validation) is "heldout"; the test pictures, 2, are in neither.
- Any folder: `captions.json` in the format of COCO, its file names relative to the folder.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from inpaint_fast._names import composed
from inpaint_fast._pickles import scan
from inpaint_fast.data.images import ImageError

COCO_YEARS = ("2014", "2017")
CAPTIONS_DICTIONARY = "dict_key_imgID_value_caps_train_and_valid.pkl"
CAPTIONS_FILE = "captions.json"
CELEBA_FOLDER, CELEBA_PARTITION = "img_align_celeba", "list_eval_partition.txt"
CELEBA_LIST = "CelebA's list of splits (a line a picture: name and 0, 1 or 2)"
_CELEBA_SPLITS = {"train": "0", "heldout": "1"}


def expect(path: Path, what: str) -> Path:
    """The path itself. Raises FileNotFoundError, naming it and what it should be, where there is none."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: {what} is expected there")
    return path


def coco_split(root: Path, split: str) -> Path | None:
    """The folder of a split of COCO ("train" or "heldout", which is its val); None where `root` is not COCO."""
    for year in COCO_YEARS:
        if (root / f"train{year}").is_dir():
            name = f"train{year}" if split == "train" else f"val{year}"
            return expect(root / name, f"COCO's folder of {split} pictures")
    return None


def celeba_split(root: Path, split: str) -> tuple[Path, set[str]] | None:
    """CelebA's picture folder and the file names of a split in it; None where `root` is not CelebA.

    CelebA is the folder that holds `img_align_celeba/`, or that one itself with the list beside or in it.

    Raises:
        FileNotFoundError: there is no list; ImageError: a line of it is damaged.
    """
    if (root / CELEBA_FOLDER).is_dir():
        pictures, places = root / CELEBA_FOLDER, [root]
    elif root.name == CELEBA_FOLDER:
        pictures, places = root, [root, root.parent]
    else:
        return None
    lists = [place / part / CELEBA_PARTITION for place in places for part in ("", "Eval")]
    partition = next((path for path in lists if path.is_file()), lists[0])
    if root == pictures and not partition.is_file():
        return None
    names = set()
    for number, line in enumerate(expect(partition, CELEBA_LIST).read_text(errors="replace").splitlines(), 1):
        words = line.split()
        if words and (len(words) != 2 or words[1] not in ("0", "1", "2")):
            raise ImageError(partition, f"line {number}: a file name and 0, 1 or 2 are expected, got {line[:80]!r}")
        if words and words[1] == _CELEBA_SPLITS[split]:
            names.add(composed(words[0]))
    return pictures, names


def read_captions(root: Path) -> dict[str, list[str]]:
    """Every caption of a data set, by its picture: a file name or path, with or without suffix, as the set has it.

    Raises:
        FileNotFoundError: no captions in any of the layouts; ValueError: a captions file that is none.
    """
    if (dictionary := root / CAPTIONS_DICTIONARY).is_file():
        return _dictionary(dictionary)
    for year in COCO_YEARS:
        if (root / f"train{year}").is_dir():
            files = (root / "annotations" / f"captions_{part}{year}.json" for part in ("train", "val"))
            what = f"COCO's captions file (or, for the 64x64 set, {dictionary.name} in {root})"
            return _merged(coco_json(expect(file, what)) for file in files)
    return coco_json(
        expect(root / CAPTIONS_FILE, "a file of captions as COCO has them, file names relative to the folder,")
    )


def coco_json(path: Path) -> dict[str, list[str]]:
    """file_name -> captions of a COCO captions file, in the file's order."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {image["id"]: _text(image["file_name"]) for image in content["images"]}
        texts: dict[str, list[str]] = {name: [] for name in names.values()}
        for annotation in content["annotations"]:
            texts[names[annotation["image_id"]]].append(_text(annotation["caption"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: COCO captions are expected, with images and annotations ({reason})") from error
    return texts


def captions_of(texts: dict[str, list[str]], paths: Iterable[Path], root: Path) -> list[list[str]]:
    """The captions of picture files: looked up by path relative to `root`, then by name, with and without suffix.

    Raises:
        ValueError: a picture has no caption.
    """
    texts = {composed(name): captions for name, captions in texts.items()}
    found, missing = [], []
    for path in paths:
        relative = path.relative_to(root)
        keys = (relative.as_posix(), relative.with_suffix("").as_posix(), path.name, path.stem)
        captions = next((texts[key] for key in map(composed, keys) if texts.get(key)), None)
        found.append(captions or [])
        if not captions:
            missing.append(relative.as_posix())
    if missing:
        rest = f" and {len(missing) - 1} pictures more" if len(missing) > 1 else ""
        raise ValueError(f"{root}: the captions name no {missing[0]}{rest}")
    return found


class _PlainUnpickler(pickle.Unpickler):
    """Dictionaries, lists, strings and numbers; anything that names a class is refused, so nothing is executed."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"names {module}.{name}; plain dictionaries, lists and strings are expected")


def _dictionary(path: Path) -> dict[str, list[str]]:
    with open(path, "rb") as file:
        data = file.read()  # the unpickler would take a length that the file names for granted
    try:
        scan(data)
        content = _PlainUnpickler(io.BytesIO(data), encoding="utf-8", errors="replace").load()  # written by Python 2
    except Exception as error:  # given damaged bytes, the unpickler raises almost anything
        raise ValueError(f"{path}: a pickled dictionary of captions is expected ({error})") from error
    if not isinstance(content, dict) or not all(isinstance(texts, list | tuple) for texts in content.values()):
        raise ValueError(f"{path}: a dictionary from picture name to a list of captions is expected")
    try:
        return {str(name): [_text(text) for text in texts] for name, texts in content.items()}
    except TypeError as error:
        raise ValueError(f"{path}: {error}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a string is expected, got {value!r:.40}")
    return value


def _merged(parts: Iterable[dict[str, list[str]]]) -> dict[str, list[str]]:
    return {name: texts for part in parts for name, texts in part.items()}
