"""Pictures, masks and captions: files in, tensors out. The way from a folder to a batch, one file a step:

- `images`: one picture file to a uint8 tensor (3, H, W) and back; `ImageError` says why a file gives none.
- `folder`: a folder of pictures as a sequence; the sample photographs and their captions; train and heldout splits.
- `masks`: hole masks (1, H, W), 1 marks the hole: center square, random rectangle, free-form strokes, from a file.
- `batches`: crops and masks in batches, each a pure function of (pictures, seed, index); made ahead in a thread.
- `context`: those batches with rectangular holes, and where the patches of GLCIC's local discriminator lie.

`samples/` holds the files that come with the package, each set with its licences.
"""

from __future__ import annotations

from inpaint_fast.data.batches import Batch, Batches, Indexed, heldout_crops, prefetch
from inpaint_fast.data.context import ContextBatch, ContextBatches, rectangles
from inpaint_fast.data.folder import ImageFolder, captions, open_images, samples
from inpaint_fast.data.images import ImageError, read_image, to_float, to_uint8, write_png
from inpaint_fast.data.masks import box, center_square, free_form, random_rectangle, read_mask, sampler

__all__ = [
    "Batch",
    "Batches",
    "ContextBatch",
    "ContextBatches",
    "ImageError",
    "ImageFolder",
    "Indexed",
    "box",
    "captions",
    "center_square",
    "free_form",
    "heldout_crops",
    "open_images",
    "prefetch",
    "random_rectangle",
    "read_image",
    "read_mask",
    "rectangles",
    "sampler",
    "samples",
    "to_float",
    "to_uint8",
    "write_png",
]
