"""A trained model, a picture and a mask to a completed picture; and the fills that learn nothing."""

from inpaint_fast.completion.blend import blend_holes
from inpaint_fast.completion.fills import FILLS, harmonic, ring_mean
from inpaint_fast.completion.generators import complete_batch
from inpaint_fast.completion.graph import export
from inpaint_fast.completion.picture import complete
from inpaint_fast.completion.weights import WeightsError, load_network, save_network

__all__ = [
    "FILLS", "WeightsError", "blend_holes", "complete", "complete_batch", "export", "harmonic", "load_network",
    "ring_mean", "save_network",
]  # fmt: skip
