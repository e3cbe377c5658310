"""Captions to numbers: words, vocabularies, and what a run keeps of them.

Source: F. Dutil's loader of the IFT6266 project (2017), as S. Larocque's program calls it.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from inpaint_fast._files import write_whole
from inpaint_fast.data.digits import Digits
from inpaint_fast.data.folder import ImageFolder, captions
from inpaint_fast.data.layouts import captions_of, read_captions
from inpaint_fast.data.packed import PackedImages, packed_captions

PADDING, UNKNOWN, FIRST_WORD = 0, 1, 2  # ids
MOST_LENGTH = 10_000  # ids of a caption, each of which is stored for each caption
MOST_BYTES = 16 << 20  # of a vocabulary's file; 50,000 words have half a million
MANY = 10_000  # captions: with fewer, words that occur twice are kept (published: ten times)

_STOP_WORDS = """
a about above after again against all am an and any are as at be because been before being below between both
but by cannot could did do does doing down during each few for from further had has have having he her here hers
herself him himself his how i if in into is it its itself me more most my myself no nor not of off on once only
or other ought our ours ourselves out over own same she should so some such than that the their theirs them
themselves then there these they this those through to too under until up very was we were what when where which
while who whom why with would you your yours yourself yourselves
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""English stop words. The published list has contractions too; none is left once apostrophes are deleted."""

_DELETED = str.maketrans("", "", ".,;:'\"")


def words(caption: str) -> list[str]:
    """The caption's words: . , ; : ' " deleted, lower case, split at white space."""
    return caption.translate(_DELETED).lower().split()


class CaptionEncoder(ABC):
    """Texts to tensors; kept in the run's folder, so that a completion reads captions as the training did."""

    file: str
    """Its name in the run's folder."""

    def __call__(self, captions: Sequence[Sequence[str]], *, count: int = 5) -> Tensor:
        """Encode the captions of some pictures.

        Args:
            captions: for each picture its captions, at least one.
            count: captions a picture in the result: more are cut off, fewer repeated.

        Returns:
            (pictures, count, ...).

        Raises:
            ValueError: a picture has no caption; TypeError: a caption is no string.
        """
        if not all(captions):
            raise ValueError("captions: at least one for each picture is expected")
        if wrong := [text for texts in captions for text in texts if not isinstance(text, str)]:
            raise TypeError(f"captions: strings are expected, got {wrong[0]!r:.40}")
        rows = [[self.encode(texts[i % len(texts)]) for i in range(count)] for texts in captions]
        return torch.stack([torch.stack(row) for row in rows])

    @abstractmethod
    def encode(self, caption: str) -> Tensor:
        """One caption."""

    @abstractmethod
    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `file` in this folder."""


class Vocabulary(CaptionEncoder):
    """Captions as word ids: 0 is padding, 1 a word that is not in the vocabulary, words follow from 2.

    Args:
        words: the words, each once, in the order of their ids.
        length: ids of an encoded caption, 10,000 at most; longer ones are cut, shorter ones padded at the right.
    """

    file = "vocabulary.json"

    def __init__(self, words: Sequence[str], length: int) -> None:
        if not isinstance(length, int) or isinstance(length, bool) or not 1 <= length <= MOST_LENGTH:
            raise ValueError(f"length: a whole number from 1 to {MOST_LENGTH:,} is expected, got {length!r}")
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
            raise TypeError("words: a list of strings is expected")
        self.words, self.length = list(words), length
        self.ids = {word: i for i, word in enumerate(words, FIRST_WORD)}
        if len(self.ids) < len(self.words):
            raise ValueError("words: each is expected once")

    @classmethod
    def of(
        cls,
        captions: Iterable[str],
        *,
        least_count: int | None = None,
        stop_words: bool = True,
        most_words: int = 50_000,
        most_length: int = 40,
    ) -> Vocabulary:
        """Build the vocabulary of captions.

        Args:
            captions: all of them, training and held-out ones together, as the original does.
            least_count: words that occur less often are left out, so that they become id 1. None: 10 as published, and
                2 where there are fewer than 10,000 captions.
            stop_words: False leaves out the words of `STOP_WORDS` (the blog says so; its program keeps them).
            most_words: the most frequent words are kept; words are then sorted by alphabet.
            most_length: limit of `length`, which otherwise is that of the longest caption.
        """
        texts = [words(caption) for caption in captions]
        if not any(texts):
            raise ValueError("captions: at least one word is expected, got none")
        least = least_count if least_count is not None else (10 if len(texts) >= MANY else 2)
        counts = Counter(word for text in texts for word in text)
        kept = [
            (word, count) for word, count in counts.items() if count >= least and (stop_words or word not in STOP_WORDS)
        ]
        kept.sort(key=lambda pair: (-pair[1], pair[0]))
        return cls(sorted(word for word, _ in kept[:most_words]), min(max(map(len, texts)), most_length))

    @property
    def width(self) -> int:
        """Number of ids, the padding's and the unknown word's included."""
        return FIRST_WORD + len(self.words)

    def encode(self, caption: str) -> Tensor:
        """(length,) int64."""
        ids = [self.ids.get(word, UNKNOWN) for word in words(caption)][: self.length]
        return torch.tensor(ids + [PADDING] * (self.length - len(ids)), dtype=torch.int64)

    def save(self, folder: str | os.PathLike[str]) -> None:
        text = json.dumps({"length": self.length, "words": self.words}, indent=0, ensure_ascii=False)
        write_whole(Path(folder) / self.file, lambda file: file.write(text.encode()))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Vocabulary:
        """Raises FileNotFoundError where there is no vocabulary, ValueError, naming the file, where it is damaged."""
        path = Path(folder) / cls.file
        try:
            if (size := path.stat().st_size) > MOST_BYTES:
                raise ValueError(f"at most {MOST_BYTES:,} bytes, got {size:,}")
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(content["words"], content["length"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{path}: a run's vocabulary, words and length, is expected ({type(error).__name__}: {error})"
            ) from error


def all_captions(data: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Every caption of "samples", of a folder or of a packed file, by picture; see `inpaint_fast.data.layouts`."""
    if data == "samples":
        return captions()
    return packed_captions(data) if Path(data).is_file() else read_captions(Path(data))


def captions_for(images: ImageFolder | PackedImages | Digits, data: str | os.PathLike[str]) -> list[list[str]]:
    """The captions of each picture, in the order of the pictures.

    Args:
        images: what `open_images(data, ...)` gave.
        data: the folder, the packed file, or "samples".

    Raises:
        FileNotFoundError: the captions file; ValueError: a picture without a caption.
    """
    if isinstance(images, PackedImages):
        return captions_of(all_captions(data), images.paths, Path())
    texts = all_captions(data)
    assert not isinstance(images, Digits)  # which have none
    root = images.root.parent if data == "samples" else Path(data)
    return captions_of(texts, images.paths, root)
