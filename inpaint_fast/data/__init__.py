"""Pictures, masks and captions: files in, tensors out. The way from a folder to a batch, one file a step:

- `images`: one picture file to a uint8 tensor (3, H, W) and back; `ImageError` says why a file gives none.
- `folder`: a folder of pictures as a sequence; the sample photographs and their captions; train and heldout splits.
- `packed`: a folder's pictures decoded into one file; `open_images` opens either. `crops`: squares cut from it.
- `masks`: hole masks (1, H, W), 1 marks the hole: center square, random rectangle, free-form strokes.
- `mask_files`: a mask from a picture file, by one rule; what cannot be meant is an error.
- `layouts`: where COCO, COCO-inpainting and CelebA keep pictures, captions and splits; `digits`: MNIST's idx files.
- `vocabulary`, `sentence_vectors`: captions to word ids, or to one vector each.
- `batches`: crops and masks in batches, each a pure function of (pictures, seed, index); made ahead in a thread.
- `context`: those batches with rectangular holes, and where the patches of GLCIC's local discriminator lie.

`samples/` holds the files that come with the package, each set with its licences.
"""

from __future__ import annotations

from inpaint_fast.data.batches import Batch, Batches, Indexed, heldout_crops, prefetch
from inpaint_fast.data.context import ContextBatch, ContextBatches, rectangles
from inpaint_fast.data.digits import Digits, read_idx
from inpaint_fast.data.folder import ImageFolder, captions, open_folder, samples
from inpaint_fast.data.images import ImageError, read_image, to_float, to_uint8, write_png
from inpaint_fast.data.mask_files import read_mask
from inpaint_fast.data.masks import box, center_square, free_form, hole_of, random_rectangle, sampler
from inpaint_fast.data.packed import PackedImages, open_images, pack
from inpaint_fast.data.sentence_vectors import SentenceVectors, load_caption_encoder
from inpaint_fast.data.vocabulary import CaptionEncoder, Vocabulary, all_captions, captions_for

__all__ = [
    "Batch",
    "Batches",
    "CaptionEncoder",
    "ContextBatch",
    "ContextBatches",
    "Digits",
    "ImageError",
    "ImageFolder",
    "Indexed",
    "PackedImages",
    "SentenceVectors",
    "Vocabulary",
    "all_captions",
    "box",
    "captions",
    "captions_for",
    "center_square",
    "free_form",
    "heldout_crops",
    "hole_of",
    "load_caption_encoder",
    "open_folder",
    "open_images",
    "pack",
    "prefetch",
    "random_rectangle",
    "read_idx",
    "read_image",
    "read_mask",
    "rectangles",
    "sampler",
    "samples",
    "to_float",
    "to_uint8",
    "write_png",
]
