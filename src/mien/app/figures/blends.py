"""The figure of a sweep over blends: both ends, every blend with its scores, and the front to choose from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import PIL.ImageOps
from PIL.Image import Image
from torch import Tensor

from mien.app.figures.figure import ACCENT, INK, PAPER, RULE, SOFT_INK, Section, Tile, figure
from mien.edits.schedule import Ramp
from mien.edits.sweep import Sweep, Trial
from mien.images import grid, to_pil

__all__ = ["scatter", "sweep_figure"]

Box = tuple[float, float, float, float]

SIDE_PX, LEFT_PX, FRAME_PX = 460, 64, 5
LEAST_PX = 96  # of a face in the figure


def _montage(img: Tensor, *, is_framed: bool = False) -> Image:
    """Lay out the faces of all seeds, four in a row; what is on the front gets a frame."""
    pictures = to_pil(img)
    if (zoom := math.ceil(LEAST_PX / pictures[0].width)) > 1:
        pictures = [PIL.ImageOps.scale(picture, zoom, PIL.Image.Resampling.BICUBIC) for picture in pictures]
    sheet = grid(pictures, columns=min(4, len(pictures)), gap_px=0)
    return PIL.ImageOps.expand(sheet, FRAME_PX, ACCENT if is_framed else PAPER)


def _ramp(trial: Trial) -> Ramp:
    assert isinstance(trial.schedule.curve, Ramp)
    return trial.schedule.curve


def _scores(trial: Trial) -> str:
    return f"identity {trial.identity:.2f}, style {trial.style:.2f}"


def _label(pen: PIL.ImageDraw.ImageDraw, point: tuple[float, float], text: str, taken: list[Box]) -> None:
    """Write beside a point where nothing has been written yet, else above it on the right."""
    x, y = point
    font = PIL.ImageFont.load_default(14)
    places = (((x + 8, y - 4), "lb"), ((x - 8, y + 4), "rt"), ((x + 8, y + 4), "lt"), ((x - 8, y - 4), "rb"))
    boxes = [(place, anchor, pen.textbbox(place, text, font=font, anchor=anchor)) for place, anchor in places]
    free = (one for one in boxes if not any(_overlap(one[2], box) for box in taken))
    place, anchor, box = next(free, boxes[0])
    pen.text(place, text, fill=INK, font=font, anchor=anchor)
    taken.append(box)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def scatter(trials: Sequence[Trial], others: Sequence[Trial]) -> Image:
    """Draw identity kept over style reached: the front as a line, the unblended networks as rings."""
    styles = [0.0, *(t.style for t in (*trials, *others))]
    faces = [1.0, *(t.identity for t in (*trials, *others))]
    low, high, least = min(styles) - 0.05, max(styles) + 0.1, min(faces) - 0.05
    sheet = PIL.Image.new("RGB", (SIDE_PX + 2 * LEFT_PX, SIDE_PX), PAPER)
    pen, font = PIL.ImageDraw.Draw(sheet), PIL.ImageFont.load_default(14)
    right, bottom, top = SIDE_PX + LEFT_PX, SIDE_PX - 50, 16

    def place(style: float, identity: float) -> tuple[float, float]:
        x = LEFT_PX + (style - low) / (high - low) * (right - LEFT_PX)
        return x, bottom - (identity - least) / (1.05 - least) * (bottom - top)

    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = place(tick, tick)
        if low <= tick <= high:
            pen.line([x, top, x, bottom], fill=RULE)
            pen.text((x, bottom + 6), f"{tick:g}", fill=SOFT_INK, font=font, anchor="ma")
        if tick >= least:
            pen.line([LEFT_PX, y, right, y], fill=RULE)
            pen.text((LEFT_PX - 8, y), f"{tick:g}", fill=SOFT_INK, font=font, anchor="rm")
    pen.text(((LEFT_PX + right) / 2, bottom + 26), "style reached", fill=INK, font=font, anchor="ma")
    pen.text((LEFT_PX + 6, top - 12), "identity kept", fill=INK, font=font)
    front = sorted((t for t in trials if t.is_on_front), key=lambda t: t.style)
    pen.line([place(t.style, t.identity) for t in front], fill=ACCENT, width=3)
    taken: list[Box] = []
    for trial in trials:
        x, y = place(trial.style, trial.identity)
        pen.ellipse([x - 5, y - 5, x + 5, y + 5], fill=ACCENT if trial.is_on_front else SOFT_INK)
        taken.append((x - 5, y - 5, x + 5, y + 5))
    for trial in trials:
        ramp = _ramp(trial)
        _label(pen, place(trial.style, trial.identity), f"{ramp.swap_px:g}/{ramp.width:g}", taken)
    for style, identity in ((0.0, 1.0), *((t.style, t.identity) for t in others)):
        x, y = place(style, identity)
        pen.ellipse([x - 6, y - 6, x + 6, y + 6], outline=INK, width=2)
    return sheet


def _grid_section(name: str, trials: Sequence[Trial], tile_px: int) -> Section:
    rows = [
        [Tile(_montage(t.img, is_framed=t.is_on_front), f"{t.schedule.curve}   {_scores(t)}") for t in row]
        for _, row in groupby(trials, key=lambda trial: _ramp(trial).swap_px)
    ]
    text = (
        "Rows: resolution of the swap. Columns: width in octaves, 0 is hard. Framed: no blend is better in both scores."
    )
    return Section(f"Blends with {name}", text, rows, tile_px)


def sweep_figure(found: Sweep, base: str) -> Image:
    """Draw a sweep from the base of that name."""
    tile_px = _montage(found.base).height
    ends = [Tile(_montage(found.base), base)]
    ends += [Tile(_montage(t.img), f"{t.network}   {_scores(t)}") for t in found.others]
    chart = Tile(scatter(found.trials, found.others), "each point: swap / width; rings: the networks themselves")
    sections = [
        Section("The networks", "The same seeds in each.", [ends], tile_px),
        Section("Identity and style", "Up and to the right is better.", [[chart]], SIDE_PX),
    ]
    for name, group in groupby(found.trials, key=lambda trial: trial.network):
        sections.append(_grid_section(name, list(group), tile_px))
    return figure("Blends to choose from", f"of {base}; every picture shows the same people", sections)
