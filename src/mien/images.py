"""The one door for pixels: pictures to tensors and back, grids, PNGs; photos come in through `mien.decode`.

Nothing outside of these two files knows 0..255 or an EXIF tag.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor

from mien.atomic import replacing
from mien.decode import MAX_PIXELS, PHOTO_SUFFIXES, open_photo
from mien.errors import InputError
from mien.marks import Origin, png_info

__all__ = ["MAX_PIXELS", "PHOTO_SUFFIXES", "grid", "open_photo", "resize", "save_png", "to_pil", "to_tensor"]


def to_tensor(image: Image) -> Tensor:
    """Turn an RGB `image` into img [1, 3, H, W], float in [-1, 1].

    >>> to_tensor(PIL.Image.new("RGB", (1, 1), (0, 51, 255))).flatten().tolist()
    [-1.0, -0.6000000238418579, 1.0]
    """
    pixels = torch.from_numpy(np.array(image.convert("RGB")))  # [H, W, 3]
    return pixels.permute(2, 0, 1)[None].float().div_(127.5).sub_(1).contiguous()


def to_pil(img: Tensor) -> list[Image]:
    """Turn `img` [N, 3, H, W], float in [-1, 1], into N RGB images; values outside are clipped, greys [N, 1, H, W] too.

    The `+ 128` (not 127.5) rounds, so that the way there and back is exact for all 256 values.

    Raises:
        InputError: neither one nor three channels, as a generator of something else than pictures makes them.
    """
    if img.shape[1] not in (1, 3):
        what = f"these pictures have {img.shape[1]} channels, not red, green and blue"
        raise InputError(what, hint="use a generator of colour or grey pictures")
    img = img.expand(-1, 3, -1, -1)
    pixels = (img.detach().float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    return [PIL.Image.fromarray(p) for p in pixels.permute(0, 2, 3, 1).cpu().numpy()]


def resize(img: Tensor, size_px: int | tuple[int, int]) -> Tensor:
    """Resize `img` [N, C, H, W] to a square or to (width, height): bicubic, low-passed first where it shrinks."""
    width, height = (size_px, size_px) if isinstance(size_px, int) else size_px
    if img.shape[-2:] == (height, width):
        return img
    return F.interpolate(img, (height, width), mode="bicubic", antialias=True, align_corners=False)


def save_png(image: Image, path: str | Path, origin: Origin | None = Origin.CHANGED) -> None:
    """Write `image` as PNG, whole or not at all; its colour profile, when it has one, goes along.

    Args:
        image: RGB.
        path: to write.
        origin: what the file says of who made it; None for pixels of a camera alone.

    Raises:
        MienError: the disk is full or the place cannot be written; what stood there before is untouched.
    """
    with replacing(Path(path)) as part:
        image.save(part, format="PNG", icc_profile=image.info.get("icc_profile"), pnginfo=png_info(origin))


def grid(
    images: Sequence[Image],
    *,
    columns: int | None = None,
    row_labels: Sequence[str] = (),
    col_labels: Sequence[str] = (),
    gap_px: int = 4,
) -> Image:
    """Lay pictures of one size out row by row on white, with words above the columns and left of the rows.

    Args:
        images: RGB pictures, all of the size of the first.
        columns: pictures in a row; by default the number of column labels, else about as many as rows.
        row_labels: one for each row, or none.
        col_labels: one for each column, or none.
        gap_px: white between pictures.

    Raises:
        InputError: no pictures, unequal sizes, or labels that do not match the rows or columns.
    """
    if not images:
        raise InputError("a grid needs at least one picture")
    width, height = images[0].size
    if any(image.size != (width, height) for image in images):
        raise InputError(f"the pictures of a grid must have one size, got {sorted({image.size for image in images})}")
    cols = columns or len(col_labels) or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / cols)
    for name, labels, count in (("row", row_labels, rows), ("column", col_labels, cols)):
        if labels and len(labels) != count:
            raise InputError(f"{len(labels)} {name} labels for {count} {name}s")

    font = PIL.ImageFont.load_default(max(10, min(24, height // 9)))
    line_px = math.ceil(font.getbbox("Ag")[3]) + 6
    left = max((math.ceil(font.getlength(label)) for label in row_labels), default=-8) + 8
    top = line_px * max((label.count("\n") + 1 for label in col_labels), default=0)
    sheet_size = (left + cols * (width + gap_px) + gap_px, top + rows * (height + gap_px) + gap_px)
    sheet = PIL.Image.new("RGB", sheet_size, "white")
    for i, image in enumerate(images):
        row, col = divmod(i, cols)
        sheet.paste(image, (left + gap_px + col * (width + gap_px), top + gap_px + row * (height + gap_px)))
    draw = PIL.ImageDraw.Draw(sheet)
    for col, label in enumerate(col_labels):
        centre = left + gap_px + col * (width + gap_px) + width / 2
        draw.multiline_text((centre, top / 2 + 2), label, fill="black", font=font, anchor="mm", align="center")
    for row, label in enumerate(row_labels):
        middle = top + gap_px + row * (height + gap_px) + height / 2
        draw.text((left - 4, middle), label, fill="black", font=font, anchor="rm")
    return sheet
