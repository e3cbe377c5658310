"""A trained model, a picture and a mask to a completed picture; and the fills that learn nothing.

- `picture`: a picture of any size completed; `generators`: what they fill of it, and a batch completed by either kind.
- `centres`, `regions`: how each kind fills a batch, and a picture; `holes`, `scaling`: where holes are and how thick,
  parts resized.
- `fills`: without learning; `blend`: the seam; `laplace`: the solver of both; `small_holes`: a hole's solution as one
  matrix.
- `adapt`: a generator fitted to one picture; `texture`: what goes on where a picture repeats itself; `originals`: a
  result in the format and mode of its picture's file.
- `weights`: networks to files and back; `convert`: public GLCIC weights; `graph`: a network for other runtimes.
"""

from inpaint_fast.completion.adapt import Adapted, adapt_to_picture
from inpaint_fast.completion.blend import blend_holes
from inpaint_fast.completion.fills import FILLS, harmonic, ring_mean
from inpaint_fast.completion.generators import complete_batch
from inpaint_fast.completion.graph import export
from inpaint_fast.completion.originals import write_like
from inpaint_fast.completion.picture import complete
from inpaint_fast.completion.weights import WeightsError, load_network, save_network

__all__ = [
    "FILLS", "Adapted", "WeightsError", "adapt_to_picture", "blend_holes", "complete", "complete_batch", "export",
    "harmonic", "load_network", "ring_mean", "save_network", "write_like",
]  # fmt: skip
