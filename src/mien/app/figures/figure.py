"""A labelled figure of pictures: sections with a heading, rows of rounded tiles, a caption under each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from PIL.Image import Image

from mien.faces.detect import Face

__all__ = ["ACCENT", "INK", "PAPER", "RULE", "SOFT_INK", "Section", "Tile", "draw_face", "figure"]

PAPER, INK, SOFT_INK, RULE, ACCENT = (252, 251, 248), (32, 34, 38), (112, 114, 120), (224, 221, 214), (236, 112, 60)
MARGIN_PX, GAP_PX, CAPTION_PX = 56, 14, 26
SCALE = 4  # rounded corners are drawn larger, then shrunk


@dataclass(frozen=True)
class Tile:
    """A picture with the words under it."""

    image: Image
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A heading, a line of explanation, and rows of tiles of one height."""

    title: str
    text: str
    rows: Sequence[Sequence[Tile]]
    tile_px: int


def _font(size_px: int) -> PIL.ImageFont.ImageFont | PIL.ImageFont.FreeTypeFont:
    return PIL.ImageFont.load_default(size_px)


def _rounded(image: Image, height_px: int) -> tuple[Image, Image]:
    """Resize to a height and return the picture with the mask of its rounded corners."""
    width = round(image.width * height_px / image.height)
    smooth = PIL.Image.Resampling.BICUBIC if height_px > image.height else PIL.Image.Resampling.LANCZOS
    mask = PIL.Image.new("L", (width * SCALE, height_px * SCALE))
    radius = SCALE * max(4, height_px // 24)
    PIL.ImageDraw.Draw(mask).rounded_rectangle([0, 0, mask.width - 1, mask.height - 1], radius, fill=255)
    return image.resize((width, height_px), smooth), mask.resize((width, height_px), PIL.Image.Resampling.LANCZOS)


def _row_width(row: Sequence[Tile], height_px: int) -> int:
    return sum(round(t.image.width * height_px / t.image.height) for t in row) + GAP_PX * (len(row) - 1)


def _height(section: Section) -> int:
    captions = [CAPTION_PX if any(tile.caption for tile in row) else 0 for row in section.rows]
    return 84 + sum(section.tile_px + extra + GAP_PX for extra in captions) + 26


def _draw_section(sheet: Image, section: Section, top: int) -> None:
    pen = PIL.ImageDraw.Draw(sheet)
    pen.line([MARGIN_PX, top, sheet.width - MARGIN_PX, top], fill=RULE, width=2)
    pen.text((MARGIN_PX, top + 18), section.title, fill=INK, font=_font(26))
    pen.text((MARGIN_PX, top + 50), section.text, fill=SOFT_INK, font=_font(16))
    y = top + 84
    for row in section.rows:
        x = MARGIN_PX
        for tile in row:
            image, mask = _rounded(tile.image, section.tile_px)
            sheet.paste(image, (x, y), mask)
            middle = x + image.width / 2
            pen.text((middle, y + section.tile_px + 5), tile.caption, fill=INK, font=_font(15), anchor="ma")
            x += image.width + GAP_PX
        y += section.tile_px + GAP_PX + (CAPTION_PX if any(tile.caption for tile in row) else 0)


def figure(title: str, text: str, sections: Sequence[Section]) -> Image:
    """Draw sections under one another, under a title and a line of explanation."""
    width = max(_row_width(row, s.tile_px) for s in sections for row in s.rows) + 2 * MARGIN_PX
    head = 148
    sheet = PIL.Image.new("RGB", (width, head + sum(_height(s) for s in sections) + 16), PAPER)
    pen = PIL.ImageDraw.Draw(sheet)
    pen.rectangle([MARGIN_PX, 46, MARGIN_PX + 8, 112], fill=ACCENT)
    pen.text((MARGIN_PX + 26, 40), title, fill=INK, font=_font(44))
    pen.text((MARGIN_PX + 27, 94), text, fill=SOFT_INK, font=_font(18))
    top = head
    for section in sections:
        _draw_section(sheet, section, top)
        top += _height(section)
    return sheet


def draw_face(photo: Image, faces: Sequence[Face]) -> Image:
    """Draw the boxes and points of faces over a copy of `photo`."""
    drawn = photo.copy()
    pen = PIL.ImageDraw.Draw(drawn)
    line = max(2, round(max(photo.size) / 200))
    for face in faces:
        pen.rounded_rectangle(face.box.tolist(), radius=3 * line, outline=ACCENT, width=line)
        for x, y in face.landmarks.tolist():
            pen.ellipse(
                [x - 1.5 * line, y - 1.5 * line, x + 1.5 * line, y + 1.5 * line], fill=(255, 255, 255), outline=ACCENT
            )
    return drawn
