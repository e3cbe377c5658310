"""Captions as fixed sentence vectors, weighted by inverse word frequency.

Source: Arora, Liang and Ma, "A simple but tough-to-beat baseline for sentence embeddings" (2017), as S. Subramanian's
caption generator uses it with 300-d word vectors (structured word2vec of English Gigaword 5, frequencies of text8).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from inpaint_fast._files import CHECKPOINTS, write_whole
from inpaint_fast.data.vocabulary import CaptionEncoder, Vocabulary, words

MOST_HEADER = 16 << 20  # bytes: the words are kept in it
MOST_LINE = 1 << 20  # characters of a text file's line; what has none would be read whole


class SentenceVectors(CaptionEncoder):
    """A caption's vector: the mean of its words' vectors, each weighted a / (a + p(word)), less its part along the
    first principal component of the training captions' vectors.

    Args:
        vectors: word -> row of `table`; words that are not there count nothing. None: the stand-in, a vector of
            independent normal numbers for every word, drawn from the word's own hash. Captions that share words then
            still have near vectors, synonyms have not.
        table: (words, size) float32; None with the stand-in.
        frequencies: word -> p(word); 0 for others.
        component: (size,), the principal component; zeros remove nothing.
        a: of the weights; 1e-3 in the paper.
    """

    file = "sentence_vectors.safetensors"

    def __init__(
        self,
        vectors: Mapping[str, int] | None,
        table: Tensor | None,
        frequencies: Mapping[str, float],
        component: Tensor,
        *,
        a: float = 1e-3,
    ) -> None:
        self.vectors, self.table = vectors, table
        self.frequencies, self.component, self.a = dict(frequencies), component, a

    @classmethod
    def of(
        cls,
        captions: Iterable[str],
        *,
        word_vectors: str | os.PathLike[str] | None = None,
        size: int = 300,
        a: float = 1e-3,
    ) -> SentenceVectors:
        """Word frequencies and the principal component of training captions.

        Args:
            captions: of the training pictures.
            word_vectors: a text file, a word and its numbers a line (GloVe's format; word2vec's heading line may be
                there); None: the stand-in.
            size: of a vector; a file's must have it.
            a: of the weights.
        """
        texts = list(captions)
        if not texts:
            raise ValueError("captions: at least one is expected, got none")
        counts = Counter(word for text in texts for word in words(text))
        frequencies = {word: count / counts.total() for word, count in counts.items()}
        vectors, table = (None, None) if word_vectors is None else read_word_vectors(word_vectors, size)
        plain = cls(vectors, table, frequencies, torch.zeros(size), a=a)
        matrix = torch.stack([plain.encode(text) for text in texts]).double()
        eigenvectors = torch.linalg.eigh(matrix.T @ matrix).eigenvectors  # ascending
        plain.component = eigenvectors[:, -1].float()
        return plain

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return len(self.component)

    def encode(self, caption: str) -> Tensor:
        """(width,) float32."""
        total, known = torch.zeros(self.width), 0
        for word in words(caption):
            vector = self._vector(word)
            if vector is not None:
                total += self.a / (self.a + self.frequencies.get(word, 0.0)) * vector
                known += 1
        mean = total / max(known, 1)
        return mean - (mean @ self.component) * self.component

    def _vector(self, word: str) -> Tensor | None:
        if self.vectors is not None:
            row = self.vectors.get(word)
            return None if row is None else self.table[row]
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little", signed=True)
        return torch.randn(self.width, generator=torch.Generator().manual_seed(seed)) / self.width**0.5

    def save(self, folder: str | os.PathLike[str]) -> None:
        tensors = {"component": self.component}
        if self.table is not None:
            tensors["table"] = self.table.contiguous()
        content = {"a": self.a, "frequencies": self.frequencies}
        content["words"] = None if self.vectors is None else sorted(self.vectors, key=self.vectors.__getitem__)
        data = safetensors.torch.save(tensors, {"sentence_vectors": json.dumps(content)})
        write_whole(Path(folder) / self.file, lambda file: file.write(data))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> SentenceVectors:
        """Raises FileNotFoundError where the folder has none, ValueError, naming the file, where it is damaged."""
        path = Path(folder) / cls.file
        try:
            with open(path, "rb") as file:
                if (header := int.from_bytes(file.read(8), "little")) > MOST_HEADER:
                    raise ValueError(f"a header of at most {MOST_HEADER:,} bytes, got {header:,}")
            with safe_open(path, framework="pt") as file:
                content = json.loads((file.metadata() or {})["sentence_vectors"])
                table = file.get_tensor("table") if "table" in file.keys() else None  # noqa: SIM118
                component = file.get_tensor("component")
            listed, frequencies, a = content["words"], content["frequencies"], float(content["a"])
            vectors = None if listed is None else {word: row for row, word in enumerate(listed)}
            frequencies = {word: float(frequency) for word, frequency in frequencies.items()}
            if not 0 < a < float("inf") or not all(0 <= value <= 1 for value in frequencies.values()):
                raise ValueError("a above 0 and frequencies from 0 to 1")
            if component.dim() != 1 or not component.is_floating_point() or not component.isfinite().all():
                raise ValueError(f"a component of numbers, got {component.dtype} of shape {tuple(component.shape)}")
            if (table is None) != (vectors is None):
                raise ValueError("words and their table, or neither")
            if (
                table is not None
                and vectors is not None
                and (table.dtype, table.shape) != (component.dtype, (len(vectors), len(component)))
            ):
                raise ValueError(f"a vector of {len(component)} numbers for each of {len(vectors)} words")
            if table is not None and not table.isfinite().all():
                raise ValueError("vectors of finite numbers")
            return cls(vectors, table, frequencies, component, a=a)
        except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{path}: a run's sentence vectors are expected ({type(error).__name__}: {error})"
            ) from error


def read_word_vectors(path: str | os.PathLike[str], size: int) -> tuple[dict[str, int], Tensor]:
    """word -> row, and the rows, of a text file with a word and `size` numbers a line.

    Raises:
        FileNotFoundError; ValueError: a line that has not so many numbers.
    """
    rows: dict[str, int] = {}
    numbers: list[Tensor] = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(iter(lambda: file.readline(MOST_LINE), ""), 1):
            word, *values = line.split() or [""]
            if number == 1 and len(values) == 1:  # word2vec's heading: words, size
                continue
            try:
                vector = torch.tensor([float(value) for value in values])
            except ValueError as error:
                raise ValueError(f"{path}: line {number}: a word and {size} numbers are expected") from error
            if not vector.isfinite().all():
                raise ValueError(f"{path}: line {number}: finite numbers are expected")
            if len(vector) != size:
                raise ValueError(f"{path}: line {number}: {size} numbers are expected, got {len(vector)}")
            if word not in rows:
                rows[word] = len(numbers)
                numbers.append(vector)
    if not rows:
        raise ValueError(f"{path}: a word and {size} numbers a line are expected, got an empty file")
    return rows, torch.stack(numbers)


def load_caption_encoder(path: str | os.PathLike[str]) -> CaptionEncoder | None:
    """The caption encoder that a run keeps in its folder; None where it has none.

    Args:
        path: the folder, one of its checkpoints, or a weight file in either.
    """
    folder = Path(path).absolute()
    if folder.is_file():
        folder = folder.parent
    if folder.parent.name == CHECKPOINTS:
        folder = folder.parent.parent
    for encoder in (Vocabulary, SentenceVectors):
        if (folder / encoder.file).is_file():
            return encoder.load(folder)
    return None
