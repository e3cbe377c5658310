"""Captions to word ids and sentence vectors."""

from __future__ import annotations

import pytest
import torch

from inpaint_fast.data import SentenceVectors, Vocabulary, captions_for, load_caption_encoder, samples
from inpaint_fast.data.sentence_vectors import read_word_vectors
from inpaint_fast.data.vocabulary import STOP_WORDS, words


class TestWords:
    def test_published_characters_are_deleted(self):
        assert words('A man\'s "big" dog, it: sat; here. (Yes!)') == [
            "a",
            "mans",
            "big",
            "dog",
            "it",
            "sat",
            "here",
            "(yes!)",
        ]

    def test_stop_words_are_what_words_leaves(self):
        assert all(words(word) == [word] for word in STOP_WORDS)


class TestVocabulary:
    CAPTIONS = ["the dog runs", "the dog sits.", "a cat, the cat", "Zebra"]

    def test_ids(self):
        vocabulary = Vocabulary.of(self.CAPTIONS)
        assert vocabulary.words == ["cat", "dog", "the"]  # twice at least, by alphabet
        assert vocabulary.width == 5 and vocabulary.length == 4
        assert vocabulary.encode("The cat eats dog").tolist() == [4, 2, 1, 3]
        assert vocabulary.encode("dog").tolist() == [3, 0, 0, 0]
        assert vocabulary.encode("dog dog dog dog dog").tolist() == [3] * 4

    def test_thresholds(self):
        assert Vocabulary.of(self.CAPTIONS, least_count=1).words == ["a", "cat", "dog", "runs", "sits", "the", "zebra"]
        assert Vocabulary.of(self.CAPTIONS, least_count=3).words == ["the"]
        assert Vocabulary.of(self.CAPTIONS, stop_words=False).words == ["cat", "dog"]
        assert Vocabulary.of(self.CAPTIONS, most_words=1).words == ["the"]
        assert Vocabulary.of(self.CAPTIONS, most_length=2).length == 2
        many = ["often"] * 9_995 + ["seldom"] * 5
        assert Vocabulary.of(many).words == ["often"]  # 10 times, in large sets

    def test_count_of_captions(self):
        vocabulary = Vocabulary.of(self.CAPTIONS)
        ids = vocabulary([["dog"], ["cat", "the", "dog", "cat"]], count=3)
        assert ids.shape == (2, 3, 4)
        assert ids[..., 0].tolist() == [[3, 3, 3], [2, 4, 3]]
        with pytest.raises(ValueError, match="captions: at least one for each picture"):
            vocabulary([["dog"], []])
        with pytest.raises(TypeError, match="captions: strings are expected, got 3"):
            vocabulary([["dog"], ["cat", 3]])

    def test_kept_with_a_run(self, tmp_path):
        vocabulary = Vocabulary.of(["naïve dog", "naïve cat"])
        vocabulary.save(tmp_path)
        loaded = load_caption_encoder(tmp_path)
        assert (loaded.words, loaded.length) == (vocabulary.words, vocabulary.length)
        assert load_caption_encoder(tmp_path / "nothing") is None

    def test_nothing_to_build_from(self):
        with pytest.raises(ValueError, match="captions: at least one word"):
            Vocabulary.of(["", "."])

    def test_samples(self):
        ids = Vocabulary.of(text for texts in captions_for(samples(), "samples") for text in texts)(
            captions_for(samples("heldout"), "samples")
        )
        assert ids.shape[:2] == (6, 5) and (ids > 1).float().mean() > 0.2


class TestSentenceVectors:
    CAPTIONS = ["red dog", "red cat", "blue dog", "red red bird"]

    def file(self, folder, heading: bool):
        path = folder / "vectors.txt"
        lines = ["red 1 0 0", "dog 0 1 0", "cat 0 0 1"]
        path.write_text("\n".join(["3 3"] * heading + lines) + "\n")
        return path

    @pytest.mark.parametrize("heading", [True, False])
    def test_weights_and_component_written_out(self, tmp_path, heading):
        encoder = SentenceVectors.of(self.CAPTIONS, word_vectors=self.file(tmp_path, heading), size=3, a=0.1)
        red, dog, cat = torch.eye(3)
        p = {"red": 4 / 9, "dog": 2 / 9, "cat": 1 / 9}

        def plain(*pairs):
            return sum(0.1 / (0.1 + p[word]) * vector for word, vector in pairs) / len(pairs)

        vectors = [
            plain(("red", red), ("dog", dog)),
            plain(("red", red), ("cat", cat)),
            plain(("dog", dog)),
            plain(("red", red)),
        ]
        component = torch.linalg.svd(torch.stack(vectors)).Vh[0]
        expected = vectors[0] - (vectors[0] @ component) * component
        torch.testing.assert_close(encoder.encode("Red, dog."), expected)
        assert torch.equal(encoder.encode("unknown words"), torch.zeros(3))

    def test_the_stand_in_tells_words_apart_and_never_changes(self):
        encoder, again = SentenceVectors.of(self.CAPTIONS), SentenceVectors.of(self.CAPTIONS)
        assert encoder.width == 300
        assert torch.equal(encoder.encode("red dog"), again.encode("red dog"))
        tree, same, other = (encoder.encode(text) for text in ("green tree grows", "green tree falls", "stone house"))
        near, far = torch.cosine_similarity(tree, same, dim=0), torch.cosine_similarity(tree, other, dim=0)
        assert near > far + 0.2

    @pytest.mark.parametrize("own", [True, False])
    def test_kept_with_a_run(self, tmp_path, own):
        source = self.file(tmp_path, False) if own else None
        encoder = SentenceVectors.of(self.CAPTIONS, word_vectors=source, size=3)
        encoder.save(tmp_path)
        assert torch.equal(load_caption_encoder(tmp_path).encode("red cat"), encoder.encode("red cat"))

    def test_bad_files_are_named(self, tmp_path):
        path = tmp_path / "v.txt"
        for text, problem in (("a 1 2\n", "line 1: 3 numbers"), ("a 1 2 3\nb 1 x 3", "line 2"), ("", "empty file")):
            path.write_text(text)
            with pytest.raises(ValueError, match=f"v.txt.*{problem}"):
                read_word_vectors(path, 3)
        with pytest.raises(FileNotFoundError):
            read_word_vectors(tmp_path / "none.txt", 3)

    def test_a_damaged_file_of_a_run_is_named(self, tmp_path):
        SentenceVectors.of(self.CAPTIONS, size=3).save(tmp_path)
        path = tmp_path / SentenceVectors.file
        whole = path.read_bytes()
        for part in (b"", whole[:20], whole[:-1], whole.replace(b"frequencies", b"frequencieS")):
            path.write_bytes(part)
            with pytest.raises(ValueError, match=SentenceVectors.file):
                load_caption_encoder(tmp_path)
