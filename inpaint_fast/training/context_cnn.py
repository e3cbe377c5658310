"""Recipes `context_cnn` and its variants with captions: encoder, dense code, decoder, on the squared error of the hole.

Source: S. Larocque, "IFT6266 project: inpainting" (2017); networks in `inpaint_fast.models.context_cnn`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from inpaint_fast.data import Vocabulary, all_captions
from inpaint_fast.models.context_cnn import ContextCNN
from inpaint_fast.training.adversarial import optimizer_of
from inpaint_fast.training.centre import CentreRecipe, CentreSystem
from inpaint_fast.training.recipe import System

SOURCE = "S. Larocque, IFT6266 project (2017)"

Captions = Literal["none", "bow1", "bow5", "lstm", "gru"]
Fusion = Literal["concat", "bias", "bias_map"]


@dataclass
class ContextCNNRecipe(CentreRecipe):
    """Convolutional encoder, dense code and decoder, on the squared error of the hole alone."""

    name: ClassVar[str] = "context_cnn"
    source: ClassVar[str] = SOURCE
    as_published: ClassVar[dict[str, object]] = {
        "batch_size": 512, "lr": 0.005, "flip": False, "output": "clip",
    }  # fmt: skip

    blocks: tuple[int, ...] = (2, 2, 2)
    """Convolutions of each encoder block; published: 2 2 2, also 2 2 and 1 1 1 1."""
    filters: int = 32
    """Channels of the first block, doubled in each."""
    code: int = 500
    """Size of the dense code (also 750)."""
    dense: bool = True
    """False leaves the dense code out."""
    output: Literal["none", "relu", "sigmoid", "tanh", "clip"] = "sigmoid"
    """Last activation; all of them were tried. The clip of the author's last program starts with half of the pixels
    out of its range, where they learn nothing."""
    clip_penalty: float = 0.0
    """Weight of the squared part that the clip cuts off (0.001 in the RMSprop run)."""
    residual: bool = False
    """The output is added to what the hole held before: with --prefill harmonic an addition of this library."""
    captions: Captions = "none"
    """How captions are read, if they are."""
    caption_code: int = 100
    """Size of the captions' code."""
    fusion: Fusion = "concat"
    """Where the captions' code joins: beside the picture's code, or as bias of the last encoder convolution."""
    bow: Literal["mean", "sum"] = "mean"
    """How the bags of several captions become one (the program from 24 April 2017 on: sum)."""
    stop_words: bool = True
    """False leaves English stop words out of the vocabulary, as the text says; the program keeps them."""
    least_count: int | None = None
    """Words that occur less often become the unknown word: 10 as published; by default 2 in small sets."""
    vocabulary: int | None = None
    """Number of word ids, the padding and the unknown word included; by default that of the data's captions."""
    constants: Literal["lasagne", "pytorch"] = "lasagne"
    """Whose starting weights, BatchNorm and RMSprop constants."""
    optimizer: Literal["adam", "adamw", "rmsprop", "nesterov"] = "adam"
    """Of the generator."""
    lr: float = 1e-3
    """Its learning rate (published: 0.005 with batches of 512; 0.01 with captions)."""
    lr_decay: float = 1.0
    """Factor of every learning rate at the start of each epoch (0.99 in the adversarial runs)."""

    def caption_encoder(self) -> Vocabulary | None:
        if self.captions == "none":
            return None
        texts = (text for captions in all_captions(self.data).values() for text in captions)
        return Vocabulary.of(texts, least_count=self.least_count, stop_words=self.stop_words)

    def generator(self) -> tuple[type[nn.Module], dict[str, object]]:
        """The generator's class, and what it is built of."""
        arguments: dict[str, object] = {
            "blocks": self.blocks, "filters": self.filters, "code": self.code, "dense": self.dense,
            "output": self.output, "residual": self.residual, "lasagne": self.constants == "lasagne",
            "prefill": self.prefill,
        }  # fmt: skip
        if self.captions != "none":
            width = self.vocabulary if self.vocabulary is not None else self.caption_encoder().width
            arguments |= {
                "captions": self.captions, "vocabulary": width, "caption_code": self.caption_code,
                "fusion": self.fusion, "bow": self.bow,
            }  # fmt: skip
        return ContextCNN, arguments

    def build(self) -> System:
        return ContextSystem(self)


@dataclass
class _Captioned(ContextCNNRecipe):
    """What the recipes that read captions share: the settings of their runs."""

    as_published: ClassVar[dict[str, object]] = ContextCNNRecipe.as_published | {
        "lr": 0.01, "output": "tanh", "code": 750,
    }  # fmt: skip


@dataclass
class ContextCNNBow1(_Captioned):
    """The same with the words of one caption beside the picture's code."""

    name: ClassVar[str] = "context_cnn_bow1"
    captions: Captions = "bow1"


@dataclass
class ContextCNNBow5(_Captioned):
    """The same with the words of five captions."""

    name: ClassVar[str] = "context_cnn_bow5"
    captions: Captions = "bow5"


@dataclass
class ContextCNNLSTM(_Captioned):
    """The same with a caption read by an LSTM with peepholes."""

    name: ClassVar[str] = "context_cnn_lstm"
    captions: Captions = "lstm"


@dataclass
class ContextCNNGRU(_Captioned):
    """The same with a caption read by a GRU."""

    name: ClassVar[str] = "context_cnn_gru"
    captions: Captions = "gru"


@dataclass
class ContextCNNCaptionBias(_Captioned):
    """The captions' code as bias of the last encoder convolution: proposed by the author, not tried by her."""

    name: ClassVar[str] = "context_cnn_caption_bias"
    captions: Captions = "bow1"
    fusion: Fusion = "bias"


class ContextSystem(CentreSystem):
    """A `ContextCNN` and its optimizer; `training.context_gan` adds critics."""

    def __init__(self, recipe: ContextCNNRecipe, *, whole: bool = False, reconstruction_weight: float = 1.0) -> None:
        super().__init__(
            recipe,
            *recipe.generator(),
            whole=whole,
            penalty=recipe.clip_penalty,
            reconstruction_weight=reconstruction_weight,
        )
        self.lr_decay = recipe.lr_decay
        lasagne = recipe.constants == "lasagne"
        self.optimizers["generator"] = optimizer_of(
            recipe.optimizer, self.generator.parameters(), lr=recipe.lr, lasagne=lasagne
        )
