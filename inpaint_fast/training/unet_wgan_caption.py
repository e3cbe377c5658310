"""Recipe `unet_wgan_caption`: the U-Net-like generator with a caption's sentence vector, and the Wasserstein critic.

Source: S. Subramanian, "Conditional Image Generation - Inpainting with MSCOCO" (2017); network in
`inpaint_fast.models.unet_wgan_caption`, sentence vectors in `inpaint_fast.data.sentence_vectors`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from inpaint_fast.data import SentenceVectors, captions_for
from inpaint_fast.models.unet_wgan_caption import CaptionUNetGenerator
from inpaint_fast.training.parts import part_count
from inpaint_fast.training.unet_wgan import UNetWGAN


@dataclass
class UNetWGANCaption(UNetWGAN):
    """U-Net-like generator with a caption's sentence vector in its middle, and a Wasserstein critic."""

    name: ClassVar[str] = "unet_wgan_caption"

    word_vectors: str | None = None
    """A text file with a word and its numbers a line (GloVe, word2vec). Without it every word gets a vector of random
    numbers of its own: a stand-in that tells captions apart, and knows no meaning."""
    vector: int = 300
    """Size of word and sentence vectors."""
    sif_weight: float = 1e-3
    """a of the weights a / (a + p(word)) of the words."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size // part_count(self.batch_size, self.micro_batch) < 2:
            raise ValueError(
                "batch_size, micro_batch: at least 2 pictures at a time are expected (a 1x1 map is normalised), got "
                f"{self.batch_size} in parts of at most {self.micro_batch or self.batch_size}"
            )

    def caption_encoder(self) -> SentenceVectors:
        captions = captions_for(self.open_images("train"), self.data)
        texts = [text for texts in captions for text in texts]
        return SentenceVectors.of(texts, word_vectors=self.word_vectors, size=self.vector, a=self.sif_weight)

    def generator(self) -> tuple[type[nn.Module], dict[str, object]]:
        return CaptionUNetGenerator, {"filters": self.filters, "vector": self.vector, "prefill": self.prefill}
