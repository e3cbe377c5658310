"""Grids of pictures with a heading over each column, to look at."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from inpaint_fast.data import to_uint8


def grid(columns: dict[str, Tensor], *, zoom: int = 2, gap: int = 4) -> Tensor:
    """One row a picture, one column a heading.

    Args:
        columns: heading -> (N, 3, H, W) in [0, 1]; all of one shape.
        zoom: screen pixels a pixel.
        gap: white pixels between pictures.

    Returns:
        uint8 (3, height, width).
    """
    pictures = torch.stack(list(columns.values()), dim=1)  # (N, columns, 3, H, W)
    tiles = to_uint8(pictures).cpu().repeat_interleave(zoom, -1).repeat_interleave(zoom, -2)
    rows, count, _, height, width = tiles.shape
    heading = 18
    sheet = torch.full((3, heading + rows * (height + gap), count * (width + gap) - gap), 255, dtype=torch.uint8)
    for row in range(rows):
        for column in range(count):
            top, left = heading + row * (height + gap), column * (width + gap)
            sheet[:, top : top + height, left : left + width] = tiles[row, column]
    image = Image.fromarray(sheet.permute(1, 2, 0).contiguous().numpy())
    draw, font = ImageDraw.Draw(image), ImageFont.load_default()
    for column, name in enumerate(columns):
        draw.text((column * (width + gap) + width / 2, heading / 2), name, fill="black", font=font, anchor="mm")
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(*image.size[::-1], 3).permute(2, 0, 1)
