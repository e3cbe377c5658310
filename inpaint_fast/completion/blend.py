"""Poisson blending of a completion into its picture, so that no seam is left at the hole's edge.

Source: Perez, Gangnet, Blake, "Poisson image editing" (2003), which GLCIC's authors end with. The completion gives the
differences from pixel to pixel inside the hole, the picture the colours round it; from the one to the other there is no
difference. What the completion has wrong all along a border, too bright or too red, is gone; its detail stays.
"""

from __future__ import annotations

from torch import Tensor

from inpaint_fast.completion.laplace import solve_laplace
from inpaint_fast.completion.scaling import check_picture
from inpaint_fast.data import hole_of


def blend_holes(completed: Tensor, picture: Tensor, mask: Tensor) -> Tensor:
    """Draw a completion into the colours of the picture round each hole.

    Args:
        completed: uint8 (3, H, W), the picture with its holes filled.
        picture: uint8 (3, H, W), the picture; what it holds inside the hole does not matter.
        mask: (1, H, W), true or 1 in the hole, a soft one cut at half; any shape and number of holes.

    Returns:
        uint8 (3, H, W); every pixel outside the mask is the picture's own, byte for byte.

    Raises:
        ValueError: shapes or dtypes do not fit, or the hole covers the whole picture.
    """
    for name, tensor in (("completed", completed), ("picture", picture)):
        check_picture(name, tensor)
    if completed.shape != picture.shape or mask.shape != (1, *picture.shape[1:]):
        raise ValueError(
            f"completed, picture and mask: one height and width are expected, got {tuple(completed.shape)}, "
            f"{tuple(picture.shape)} and {tuple(mask.shape)}"
        )
    hole = hole_of(mask).to(picture.device)
    if hole.numel() and hole.all():
        raise ValueError("mask: it covers the whole picture; there are no colours to blend into")
    values = solve_laplace(picture[:, None], hole, cloned=completed[:, None], tolerance=0.05, max_steps=100)
    result = picture.clone()
    result[:, hole[0]] = values.round().clamp(0, 255).to(result.dtype)
    return result
