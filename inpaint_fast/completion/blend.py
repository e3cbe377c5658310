"""Post-processing of GLCIC: fast marching, then Poisson blending, so that no seam is left at the hole's edge.

Sources: Telea, "An image inpainting technique based on the fast marching method" (2004); Perez, Gangnet, Blake,
"Poisson image editing" (2003); both by OpenCV, the extra [blend]. As in the authors' program, the hole is first filled
by fast marching from its border (what the picture held there is never looked at), then the completion's gradients are
cloned in.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from inpaint_fast.completion.holes import MERGE, hole_boxes
from inpaint_fast.completion.scaling import check_picture
from inpaint_fast.data import hole_of

MARGIN = 8  # pixels of the picture round a hole that fast marching looks at
BORDER = 6  # pixels added round the part that is blended, so that no hole touches its edge
SMALLEST = 3  # OpenCV cannot clone into less than 3 x 3 pixels


def blend_holes(completed: Tensor, picture: Tensor, mask: Tensor) -> Tensor:
    """Draw a completion into the colours of the picture round each hole.

    Args:
        completed: uint8 (3, H, W), the picture with its holes filled.
        picture: uint8 (3, H, W), the picture; what it holds inside the hole does not matter.
        mask: (1, H, W), true or 1 in the hole, a soft one cut at half; any shape and number of holes.

    Returns:
        uint8 (3, H, W); every pixel outside the mask is the picture's own, byte for byte. A hole too small to clone
        into (under 3 pixels high or wide) is filled by fast marching alone. Where a hole reaches the picture's edge,
        the completion keeps its own colours along it.

    Raises:
        ValueError: shapes or dtypes do not fit, or the hole covers the whole picture.
        RuntimeError: OpenCV is not installed.
    """
    cv2 = require_opencv()
    for name, tensor in (("completed", completed), ("picture", picture)):
        check_picture(name, tensor)
    if completed.shape != picture.shape or mask.shape != (1, *picture.shape[1:]):
        raise ValueError(
            f"completed, picture and mask: one height and width are expected, got {tuple(completed.shape)}, "
            f"{tuple(picture.shape)} and {tuple(mask.shape)}"
        )
    hole = hole_of(mask[0].cpu())
    if hole.numel() and hole.all():
        raise ValueError("mask: it covers the whole picture; there are no colours to blend into")
    result = picture.clone()
    for top, left, bottom, right in hole_boxes(hole, merge=MERGE):
        rows = slice(max(0, top - MARGIN), bottom + MARGIN)
        columns = slice(max(0, left - MARGIN), right + MARGIN)
        inside = hole[rows, columns]
        arrays = (x[:, rows, columns].permute(1, 2, 0).cpu().numpy() for x in (completed, picture))
        blended = torch.from_numpy(_blended(cv2, *arrays, inside.numpy())).permute(2, 0, 1)
        window = result[:, rows, columns]
        window.copy_(torch.where(inside, blended, window))
    return result


def require_opencv() -> ModuleType:
    """The module cv2, or a RuntimeError that says how to get it."""
    try:
        import cv2
    except ImportError as error:
        raise RuntimeError(f"blending needs OpenCV ({error}); pip install 'inpaint_fast[blend]'") from error
    return cv2


def _blended(cv2: ModuleType, completed: np.ndarray, picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The part (H, W, 3) with its holes (H, W) blended; pixels outside them may have moved a little.

    OpenCV clones from a rectangle strictly inside the picture, keeps its outermost pixels and takes gradients from the
    target in a band 3 pixels wide along the hole's edge. So the hole is continued into the border: what is kept there
    is the completion, and the band lies outside the picture.
    """
    border = [(BORDER, BORDER), (BORDER, BORDER)]
    wide_hole = np.pad(hole, border, mode="edge")
    source, target = (np.pad(part, [*border, (0, 0)], mode="edge") for part in (completed, picture))
    target[wide_hole] = 0  # never what the picture held
    target = cv2.inpaint(target, wide_hole.astype(np.uint8) * 255, 1, cv2.INPAINT_TELEA)
    outside = np.pad(np.zeros_like(hole), border, constant_values=True)
    target[outside & wide_hole] = source[outside & wide_hole]
    clone = wide_hole.copy()
    clone[[0, -1], :] = clone[:, [0, -1]] = False
    y, x, height, width = _bounds(clone)
    if min(height, width) >= SMALLEST:
        centre = (x + width // 2, y + height // 2)
        target = cv2.seamlessClone(source, target, clone.astype(np.uint8) * 255, centre, cv2.NORMAL_CLONE)
    return target[BORDER:-BORDER, BORDER:-BORDER]


def _bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Top, left, height and width of what is true."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)
