"""The bar chart of a blend: a picture, and beside it everybody's share in it."""

from __future__ import annotations

from collections.abc import Sequence

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from PIL.Image import Image

__all__ = ["shares"]

BAR_PX, PAPER, INK, ACCENT = 26, (252, 251, 248), (32, 34, 38), (236, 112, 60)


def shares(image: Image, names: Sequence[str], weights: Sequence[float]) -> Image:
    """Put a bar for every person's share beside a picture."""
    side = max(256, image.height, BAR_PX * len(names) + 16)
    sheet = PIL.Image.new("RGB", (2 * side, side), PAPER)
    sheet.paste(image.resize((side, side), PIL.Image.Resampling.BICUBIC))
    pen, total = PIL.ImageDraw.Draw(sheet), sum(weights)
    for i, (name, weight) in enumerate(zip(names, weights, strict=True)):
        y, share = 8 + BAR_PX * i, weight / total
        pen.text((side + 10, y), f"{name[:12]} {share:.2f}", fill=INK, font=PIL.ImageFont.load_default(13))
        left, right = side + 130, 2 * side - 10
        pen.rectangle([left, y + 3, left + max(1, round((right - left) * share)), y + 15], fill=ACCENT)
    return sheet
