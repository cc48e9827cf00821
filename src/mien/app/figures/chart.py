"""Curves as a picture, in the manner of `figure`: axes through what is drawn, dots at its points, names beside ends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from PIL.Image import Image

from mien.app.figures.figure import ACCENT, INK, PAPER, RULE, SOFT_INK

__all__ = ["Curve", "draw_curves"]

Curve = Sequence[tuple[float, float]]
COLOURS = (ACCENT, (36, 87, 167), (47, 125, 79), (138, 62, 168), (154, 122, 0), (179, 32, 77), (90, 90, 96))
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 400, 64, 150, 44, 48
SCALE = 3  # drawn larger, then shrunk
NUM_TICKS = 5


def _ticks(low: float, high: float) -> list[float]:
    """Round values between `low` and `high`, about NUM_TICKS of them.

    >>> _ticks(-2.1, 2.1)
    [-2.0, -1.0, 0.0, 1.0, 2.0]
    """
    rough = (high - low) / NUM_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * unit for unit in (1, 2, 5, 10) if power * unit >= rough)
    return [round(step * i, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(*values, 0.0), max(*values, 0.0)
    room = 0.06 * (high - low) or 1.0
    return low - room, high + room


def draw_curves(title: str, x_label: str, y_label: str, curves: Mapping[str, Curve]) -> Image:
    """Draw curves of (x, y), each with its name at its last point; zero is always in sight.

    Args:
        title: above them.
        x_label: under the axis.
        y_label: above the other one.
        curves: name => points in order; the first is drawn boldest.
    """
    points = [point for curve in curves.values() for point in curve]
    (x0, x1), (y0, y1) = (_range(values) for values in zip(*points, strict=True))
    sheet = PIL.Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), PAPER)
    pen = PIL.ImageDraw.Draw(sheet)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * (x - x0) / (x1 - x0)
        down = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - y0) / (y1 - y0)
        return SCALE * across, SCALE * down

    def write(xy: tuple[float, float], text: str, colour: tuple[int, int, int], size: int, anchor: str) -> None:
        pen.text(xy, text, fill=colour, font=PIL.ImageFont.load_default(size * SCALE), anchor=anchor)

    for x in _ticks(x0, x1):
        pen.line([place(x, y0), place(x, y1)], fill=INK if x == 0 else RULE, width=SCALE)
        write((place(x, y0)[0], (HEIGHT - BOTTOM + 6) * SCALE), f"{x:g}", SOFT_INK, 12, "ma")
    for y in _ticks(y0, y1):
        pen.line([place(x0, y), place(x1, y)], fill=INK if y == 0 else RULE, width=SCALE)
        write(((LEFT - 8) * SCALE, place(x0, y)[1]), f"{y:g}", SOFT_INK, 12, "rm")
    write((LEFT * SCALE, 6 * SCALE), title, INK, 16, "la")
    write((LEFT * SCALE, 27 * SCALE), y_label, SOFT_INK, 12, "la")
    write(((WIDTH - RIGHT) * SCALE, (HEIGHT - 8) * SCALE), x_label, SOFT_INK, 12, "rd")
    names: list[float] = []
    for i, (name, curve) in reversed(list(enumerate(curves.items()))):
        colour, width = COLOURS[i % len(COLOURS)], SCALE * (3 if i == 0 else 2)
        spots = [place(*point) for point in curve]
        pen.line([xy for spot in spots for xy in spot], fill=colour, width=width, joint="curve")
        for x, y in spots:
            pen.ellipse([x - width * 1.4, y - width * 1.4, x + width * 1.4, y + width * 1.4], fill=colour)
        down = spots[-1][1]
        while any(abs(down - other) < 14 * SCALE for other in names):  # names do not lie on one another
            down += 2 * SCALE
        names.append(down)
        write(((WIDTH - RIGHT + 10) * SCALE, down), name, colour, 12, "lm")
    return sheet.resize((WIDTH, HEIGHT), PIL.Image.Resampling.LANCZOS)
