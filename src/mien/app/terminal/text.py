"""What users type becomes values here, and nowhere else."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from mien.errors import InputError

__all__ = [
    "CODE_SUFFIX",
    "parse_classes",
    "parse_layers",
    "parse_names",
    "parse_numbers",
    "parse_people",
    "parse_point",
    "parse_seeds",
    "parse_settings",
]

MAX_NUMBERS = 100_000
CODE_SUFFIX = ".safetensors"


def _numbers(text: str, what: str) -> list[int]:
    """Read numbers and ranges of numbers, each once, in the order of their first."""
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,10})(?:-([0-9]{1,10}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise InputError(f"{part.strip()!r} is not a {what}", hint="write for example 1,2,5-10")
        if len(numbers) + last - first >= MAX_NUMBERS:
            raise InputError(f"more than {MAX_NUMBERS} numbers", hint="make them in several calls")
        numbers += range(first, last + 1)
    return list(dict.fromkeys(numbers))


def parse_seeds(text: str) -> list[int]:
    """Read seeds and ranges of seeds.

    >>> parse_seeds("1,2,5-7")
    [1, 2, 5, 6, 7]
    """
    return _numbers(text, "seed")


def parse_classes(text: str) -> list[int]:
    """Read classes of a generator and ranges of them, as seeds are read."""
    return _numbers(text, "class")


def parse_people(text: str) -> list[int | Path]:
    """Read people: seeds and ranges of them, and files of codes.

    >>> [str(person) for person in parse_people("3-4,anna_0.safetensors")]
    ['3', '4', 'anna_0.safetensors']
    """
    people: list[int | Path] = []
    for part in text.split(","):
        people += [Path(part.strip())] if part.strip().lower().endswith(CODE_SUFFIX) else parse_seeds(part)
    return list(dict.fromkeys(people))


def parse_layers(text: str, num_ws: int) -> list[int]:
    """Read rows of a code with `num_ws` rows; an open range goes to the first or the last.

    >>> parse_layers("0,2-3,8-", 10)
    [0, 2, 3, 8, 9]
    """
    layers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{0,4})(-?)([0-9]{0,4})\s*", part)
        if match is None or not (match[1] or match[3]) or (match[3] and not match[2]):
            raise InputError(f"{part.strip()!r} is not a range of rows", hint="write for example 8- or 0-3,6")
        first = int(match[1] or 0)
        last = int(match[3] or num_ws - 1) if match[2] else first
        if not first <= last < num_ws:
            raise InputError(f"rows {part.strip()} are not there", hint=f"this generator's go from 0 to {num_ws - 1}")
        layers |= set(range(first, last + 1))
    return sorted(layers)


def parse_names(text: str) -> list[str]:
    """Read names, each once; nothing between commas is nobody.

    >>> parse_names("smile, age,,smile")
    ['smile', 'age']
    """
    return list(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))


def parse_numbers(text: str) -> list[float]:
    """Read numbers, each once.

    >>> parse_numbers("-2,0,1.5")
    [-2.0, 0.0, 1.5]
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise InputError(f"{text!r} are no numbers", hint="write for example -2,0,1.5")
    return list(dict.fromkeys(numbers))


def parse_settings(texts: Sequence[str]) -> dict[str, float]:
    """Read what `--set` was given: names of directions with strengths.

    >>> parse_settings(["smile=1.5", "age=-1"])
    {'smile': 1.5, 'age': -1.0}
    """
    settings: dict[str, float] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        try:
            strength = float(value)
        except ValueError:
            strength = math.nan
        if not name or not equals or not math.isfinite(strength):
            raise InputError(f"{text!r} is no setting", hint="write for example --set smile=1.5")
        if name in settings:
            raise InputError(f"{name} is set twice", hint="give each direction once")
        settings[name] = strength
    return settings


def parse_point(text: str) -> tuple[float, float]:
    """Read a place in a picture, px from its left and upper edge.

    >>> parse_point("120,84.5")
    (120.0, 84.5)
    """
    match = re.fullmatch(r"\s*([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*,\s*([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*", text)
    if match is None:
        raise InputError(f"{text!r} is no point", hint="write x,y in px, for example 120,84.5")
    return float(match[1]), float(match[2])
