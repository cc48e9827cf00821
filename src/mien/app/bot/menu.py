"""What can be wished for in the bot, as buttons and as commands, and which request of the queue each wish is.

A button's data is `o:NAME` (its options), `d:NAME:VALUE` (do it), `m` (the menu), `n` (the menu of a result) or
`x:JOB` (cancel); at most 64 bytes, of which nothing is believed when it comes back.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mien.app.bot.texts import TEXTS, Words
from mien.errors import InputError

__all__ = [
    "EDITS",
    "FEW",
    "LOW_HIGH",
    "MANY",
    "BadWishError",
    "Buttons",
    "Wish",
    "cancel",
    "choices",
    "drawings",
    "menu",
    "more",
    "options",
    "wish_of",
]

Buttons = list[list[tuple[str, str]]]
"""Rows of buttons: label and data."""

PER_ROW = 4
STRENGTHS = ("-3", "-1.5", "1.5", "3")
LOW_HIGH = (-5.0, 5.0)
EDITS = ("smile", "age", "yaw")
LOOKS = ("7", "21", "33", "48")  # seeds of invented people whose colours and light are taken
STYLE_ROWS = (6, 7, 8, 9)  # those of 32 px and above: light, colour, texture, in a generator of any size
PAINT_PX, PAINT_STEPS = 384, 60  # for whom waits in a chat
BLENDS: Mapping[str, Sequence[float]] = {"quarter": (0.75, 0.25), "half": (0.5, 0.5), "most": (0.25, 0.75)}
MORPHS: Mapping[str, Mapping[str, Any]] = {"film": {"video": True, "frames": 48}, "strip": {"frames": 6}}
FEW = ("toon", *EDITS, "style")
"""Wishes for one photo."""
MANY = ("swap", "paint", "blend", "morph")
"""Wishes for two photos."""
CHOICES: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(EDITS, STRENGTHS),
    "style": LOOKS,
    "blend": tuple(BLENDS),
    "morph": tuple(MORPHS),
}


class BadWishError(InputError):
    """The value of a wish is none, or the button is not one of ours."""


@functools.cache
def drawings() -> tuple[str, ...]:
    """Return the package's networks that draw faces; the first call reads files, and blocks."""
    from mien.app.artists import bundled_styles

    return tuple(bundled_styles())


def choices(name: str) -> Sequence[str]:
    """Return the values that a wish is offered with; none where there is nothing to choose."""
    return drawings() if name == "toon" else CHOICES.get(name, ())


@dataclass(frozen=True)
class Wish:
    """What is to be done: its name, and how much or which; without a value where that is still to be asked."""

    name: str
    value: str = ""

    @property
    def num_photos(self) -> int:
        """How many photos one job takes."""
        return 2 if self.name in MANY else 1

    @property
    def is_complete(self) -> bool:
        """Nothing is to be asked any more."""
        return bool(self.value) or not choices(self.name)

    def request(self, method: str) -> dict[str, Any]:
        """Return it as the queue takes it; `method` is of inversion."""
        if self.name in EDITS:
            return _change({"op": "edit", "strengths": {self.name: float(self.value)}}, method)
        if self.name == "style":
            rows = list(STYLE_ROWS)
            person = {"seed": int(self.value)}
            return _change({"op": "style", "person": person, "rows": rows, "psi": 0.0, "keep_colour": False}, method)
        if self.name == "toon":
            return {"op": "toonify", "style": self.value}
        if self.name == "blend":
            return {"op": "blend", "weights": list(BLENDS[self.value]), "method": method}
        if self.name == "morph":
            return {"op": "morph", "method": method, **MORPHS[self.value]}
        return {"op": "swap"} if self.name == "swap" else {"op": "stylize", "size": PAINT_PX, "steps": PAINT_STEPS}

    def title(self, words: Words) -> str:
        """Say it in words."""
        return f"{words(self.name)} {_label(self, words)}".strip()


def _change(operation: Mapping[str, Any], method: str) -> dict[str, Any]:
    return {"op": "change", "operations": [operation], "method": method}


def _label(wish: Wish, words: Words) -> str:
    if wish.name in EDITS:
        return f"{float(wish.value):+g}"
    if wish.name == "style":
        number = LOOKS.index(wish.value) + 1 if wish.value in LOOKS else wish.value
        return words("look", number=number)
    if wish.name == "toon":
        kind = wish.value.rpartition("-")[0] or wish.value  # what follows is a size
        return words(f"toon_{kind}") if f"toon_{kind}" in TEXTS else kind.capitalize()
    return words(wish.value) if wish.value else ""


def wish_of(name: str, value: str = "", *, num_photos: int = 1) -> Wish | None:
    """Read a wish: a command's name and what stands behind it, or a button's.

    Args:
        name: of a command or a button.
        value: text of a user.
        num_photos: that it is for; `style` of two photos is painting the first like the second.

    Returns:
        None for a name that is no wish.

    Raises:
        BadWishError: the value is none.

    >>> wish_of("smile", "1,5"), wish_of("help"), wish_of("style", num_photos=2)
    (Wish(name='smile', value='1.5'), None, Wish(name='paint', value=''))
    """
    if name == "style" and num_photos > 1 and not value:
        return Wish("paint")
    if name not in FEW and name not in MANY:
        return None
    value = value.strip().replace(",", ".")
    if name in EDITS and value:
        try:
            strength = float(value[:12])
        except ValueError:
            strength = float("nan")
        if not LOW_HIGH[0] <= strength <= LOW_HIGH[1]:
            raise BadWishError(f"{name} takes a number", hint=f"from {LOW_HIGH[0]:g} to {LOW_HIGH[1]:g}")
        return Wish(name, f"{strength:g}")
    return Wish(name, value if value in choices(name) else "")


def menu(num_photos: int, words: Words) -> Buttons:
    """Return the buttons for one photo, or for an album."""
    edits = [(words(name), f"o:{name}") for name in (*EDITS, "style")]
    rows = [[(words("toon"), "o:toon")]] if drawings() else []
    rows += [edits[:2], edits[2:]]
    if num_photos == 2:
        rows += [[(words(name), f"o:{name}" if choices(name) else f"d:{name}:")] for name in MANY]
    return rows


def options(name: str, words: Words) -> Buttons:
    """Return the buttons that ask how much, or which; a style may be a drawing."""
    rows = _rows(_buttons(name, words))
    if name == "style":
        rows += _rows(_buttons("toon", words))
    return [*rows, [(words("back"), "m")]]


def _rows(buttons: Sequence[tuple[str, str]]) -> Buttons:
    return [list(buttons[i : i + PER_ROW]) for i in range(0, len(buttons), PER_ROW)]


def _buttons(name: str, words: Words) -> list[tuple[str, str]]:
    return [(_label(Wish(name, value), words), f"d:{name}:{value}") for value in choices(name)]


def cancel(job_id: str, words: Words) -> Buttons:
    """Return the button that stops a job."""
    return [[(words("cancel"), f"x:{job_id}")]]


def more(words: Words, *, is_photo: bool = True) -> Buttons:
    """Return the buttons below a result; only with a photo can one go on."""
    return [[(words("more"), "m")], *([[(words("go_on"), "n")]] if is_photo else [])]
