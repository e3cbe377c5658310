"""Captions to codes: a bag of words, an LSTM with peepholes, a GRU.

Source: S. Larocque, posts of April 20th and 26th, 2017, and her program: Lasagne's layers, their gates and their
starting values. Recurrent encoders run over the padding too, as published.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inpaint_fast.models._common import at_least, check_shape, one_of

KINDS = ("bow1", "bow5", "lstm", "gru")


class BagOfWords(nn.Module):
    """Which words the captions have, through one dense layer with ReLU.

    Args:
        vocabulary: number of word ids, the padding's 0 and the unknown word's 1 included; 7576 for COCO.
        code: size of the result.
        captions: how many of a picture's captions are read, from the first on.
        reduce: "mean" of their binary vectors, as the document and the first program have it, or "sum", as the program
            from 24 April 2017 on.

    Shapes: (N, captions or more, words) word ids -> (N, code).
    """

    def __init__(self, vocabulary: int, code: int = 100, *, captions: int = 1, reduce: str = "mean") -> None:
        super().__init__()
        self.vocabulary, self.captions = at_least("vocabulary", vocabulary, 2), captions
        self.reduce = one_of("reduce", reduce, ("mean", "sum"))
        self.dense = nn.Linear(vocabulary, at_least("code", code))

    def forward(self, ids: Tensor) -> Tensor:
        ids = ids[:, : self.captions]
        check_shape(ids, (self.captions, ids.shape[-1]), "BagOfWords")
        bags = torch.zeros(*ids.shape[:2], self.vocabulary, dtype=self.dense.weight.dtype, device=ids.device)
        bags.scatter_(2, ids, 1.0)
        bags[..., 0] = 0.0  # padding is no word
        return torch.relu(self.dense(bags.mean(dim=1) if self.reduce == "mean" else bags.sum(dim=1)))


class Recurrent(nn.Module):
    """One caption of each picture, word by word: a random one in training, the first in eval mode.

    Args:
        vocabulary: number of word ids.
        code: size of the result and of the words' embedding.

    Shapes: (N, captions, words) word ids -> (N, code), the state after the last word.
    """

    gates: int  # of the cell's stacked weights

    def __init__(self, vocabulary: int, code: int = 100) -> None:
        super().__init__()
        self.embedding = nn.Embedding(at_least("vocabulary", vocabulary, 2), at_least("code", code))
        self.code = code
        nn.init.normal_(self.embedding.weight, std=0.01)
        self.from_word = nn.Linear(code, self.gates * code)
        self.from_state = nn.Linear(code, self.gates * code, bias=False)
        for linear in (self.from_word, self.from_state):
            nn.init.normal_(linear.weight, std=0.1)
        nn.init.zeros_(self.from_word.bias)

    def forward(self, ids: Tensor) -> Tensor:
        return self.run(self.from_word(self.embedding(one_caption(ids, any_of_them=self.training))))

    def run(self, words: Tensor) -> Tensor:
        """(N, words, gates * code), what the words bring to the gates -> (N, code)."""
        raise NotImplementedError


class LSTM(Recurrent):
    """Lasagne's LSTM layer: input and forget gates also look at the old cell, the output gate at the new one.

    Gates are stacked in the order input, forget, cell, output.
    """

    gates = 4

    def __init__(self, vocabulary: int, code: int = 100) -> None:
        super().__init__(vocabulary, code)
        self.peepholes = nn.Parameter(torch.empty(3, code).normal_(std=0.1))  # to input, forget and output gate

    def run(self, words: Tensor) -> Tensor:
        state = cell = words.new_zeros(len(words), self.code)
        for word in words.unbind(1):
            into, forget, new, out = (word + self.from_state(state)).chunk(4, dim=1)
            into = torch.sigmoid(into + self.peepholes[0] * cell)
            forget = torch.sigmoid(forget + self.peepholes[1] * cell)
            cell = forget * cell + into * torch.tanh(new)
            state = torch.sigmoid(out + self.peepholes[2] * cell) * torch.tanh(cell)
        return state


class GRU(Recurrent):
    """Lasagne's GRU layer: state = (1 - u) * state + u * tanh(word + r * from_state). Order: reset r, update u, new."""

    gates = 3

    def run(self, words: Tensor) -> Tensor:
        state = words.new_zeros(len(words), self.code)
        for word in words.unbind(1):
            word_reset, word_update, word_new = word.chunk(3, dim=1)
            state_reset, state_update, state_new = self.from_state(state).chunk(3, dim=1)
            update = torch.sigmoid(word_update + state_update)
            new = torch.tanh(word_new + torch.sigmoid(word_reset + state_reset) * state_new)
            state = (1 - update) * state + update * new
        return state


def one_caption(captions: Tensor, *, any_of_them: bool) -> Tensor:
    """(N, captions, ...) -> (N, ...): of each picture's captions a random one, as in training, or the first."""
    n, count = captions.shape[:2]
    rows = torch.arange(n, device=captions.device)
    chosen = torch.randint(count, (n,), device=captions.device) if any_of_them else torch.zeros_like(rows)
    return captions[rows, chosen]


def caption_encoder(kind: str, vocabulary: int, code: int, reduce: str = "mean") -> nn.Module:
    """The encoder of this name: "bow1", "bow5", "lstm" or "gru"."""
    if one_of("captions", kind, KINDS) in ("bow1", "bow5"):
        return BagOfWords(vocabulary, code, captions=int(kind[-1]), reduce=reduce)
    return {"lstm": LSTM, "gru": GRU}[kind](vocabulary, code)
