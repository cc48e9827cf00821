"""Blend schedules: how much of another generator each layer takes, from 0 (none of it) to 1 (it alone).

A schedule is a curve over the layers, and where it is wanted other curves for some kinds of tensors. A curve is a step
or a logistic ramp at a resolution, or numbers one for each layer. Schedules are written as text, which files keep too:

    above:32            all of the other from 32 px up, none below
    above:32:1          the same smoothly; 1 is the width in octaves
    below:16:0.5        the other way round: of the other's geometry
    0.5                 half of everything
    0.5x3,0.6x2,1x5     layer by layer; a list of another length is stretched to the network's
    above:32; affine=0; torgb=above:64; mapping=1
    cartoon-bot         a name in PRESETS

Source: Pinkney and Adler 2020 (step and ramp), arXiv:2010.05334; numbers of PRESETS: the projects that they name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mien.errors import InputError

__all__ = ["KINDS", "PRESETS", "Curve", "Listed", "Ramp", "Schedule", "parse_schedule"]

KINDS = ("conv", "affine", "torgb", "noise", "bias")
"""Kinds of tensors: convolutions (and the learned constant), style affines of all layers, colours, noise, biases."""

PRESETS = {
    "cartoon-bot": "0.5x3,0.6x2,0.7x2,0.9x2,1x6",  # StyleGAN3: the faces' structure, the cartoon's rendering
    "sxela": "0x5,0.2x3,0.5,0.7,0.8x4,1; affine=0",  # StyleGAN3; affines of the faces keep their colours
    "vtoonify-cartoon": "1x9,0x9",
    "vtoonify-pixar": "1x9,0.5x9",
    "vtoonify-comic": "0.5x7,1x11",
}
"""Schedules in print, by who used them; 1 is the fine-tuned network."""

MAX_LAYERS = 1000
HINT = f"write for example above:32, above:32:1, 0.5x9,1x9, above:32; affine=0, or one of {', '.join(PRESETS)}"


@dataclass(frozen=True)
class Ramp:
    """From 0 to 1 with the resolution of the layers.

    Args:
        swap_px: resolution from which on the other takes over; a ramp is at 0.5 there.
        width: of the logistic ramp, in octaves: one octave above its middle it is at 1 / (1 + exp(-1 / width)). 0 is
            a step, whose first layer of the other is the one at `swap_px`.
        is_below: from 1 to 0 instead.
    """

    swap_px: float
    width: float = 0.0
    is_below: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.swap_px < math.inf and 0 <= self.width < math.inf):
            what = f"a ramp needs a resolution above 0 and a width from 0, got {self.swap_px:g} and {self.width:g}"
            raise InputError(what, hint=HINT)

    def at(self, resolutions: Sequence[float]) -> list[float]:
        """Return the weight of each layer."""
        return [1 - weight if self.is_below else weight for weight in map(self._rise, resolutions)]

    def _rise(self, resolution: float) -> float:
        if self.width == 0:
            return float(resolution >= self.swap_px)
        return 0.5 + 0.5 * math.tanh(math.log2(resolution / self.swap_px) / self.width / 2)  # the logistic function

    def __str__(self) -> str:
        width = f":{self.width:g}" if self.width else ""
        return f"{'below' if self.is_below else 'above'}:{self.swap_px:g}{width}"


@dataclass(frozen=True)
class Listed:
    """A number for each layer, or one for all; a list of another length is stretched, its ends to the network's."""

    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.weights) <= MAX_LAYERS:
            raise InputError(f"a list of {len(self.weights)} weights", hint=f"give 1 to {MAX_LAYERS}")
        if bad := [weight for weight in self.weights if not 0 <= weight <= 1]:
            raise InputError(f"weights go from 0 to 1, got {bad[0]:g}", hint="1 is the other generator alone")

    def at(self, resolutions: Sequence[float]) -> list[float]:
        """Return the weight of each layer."""
        num, last = len(resolutions), len(self.weights) - 1
        if len(self.weights) == num:
            return list(self.weights)
        places = (i * last / max(num - 1, 1) for i in range(num))
        return [self._between(place) for place in places]

    def _between(self, place: float) -> float:
        low = math.floor(place)
        left, right = self.weights[low], self.weights[min(low + 1, len(self.weights) - 1)]
        return left + (place - low) * (right - left)

    def __str__(self) -> str:
        runs: list[list[float]] = []
        for weight in self.weights:
            if runs and runs[-1][0] == weight:
                runs[-1][1] += 1
            else:
                runs.append([weight, 1])
        return ",".join(f"{weight!r}" + (f"x{count}" if count > 1 else "") for weight, count in runs)


Curve = Ramp | Listed


@dataclass(frozen=True)
class Schedule:
    """How much of another generator each tensor takes.

    Args:
        curve: over the layers.
        kinds: other curves for some of `KINDS`.
        mapping: weight of the mapping network and its mean of w. At 0 the base's codes stay valid, so that the same w
            is the same person.
    """

    curve: Curve
    kinds: Mapping[str, Curve] = field(default_factory=dict)
    mapping: float = 0.0

    def __post_init__(self) -> None:
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise InputError(f"no kind of tensors named {unknown[0]!r}", hint=f"known: {', '.join(KINDS)}, mapping")
        if not 0 <= self.mapping <= 1:
            raise InputError(f"weights go from 0 to 1, got {self.mapping:g} for the mapping")

    def at(self, resolutions: Sequence[float]) -> dict[str, list[float]]:
        """Return by kind the weight of each layer, for a network whose layers have these resolutions."""
        return {kind: self.kinds.get(kind, self.curve).at(resolutions) for kind in KINDS}

    def __str__(self) -> str:
        parts = [f"{kind}={curve}" for kind, curve in self.kinds.items()]
        parts += [f"mapping={self.mapping!r}"] if self.mapping else []
        return "; ".join([str(self.curve), *parts])


def parse_schedule(text: str) -> Schedule:
    """Read a schedule; `str` writes what is read here.

    Raises:
        InputError: it is none.

    >>> parse_schedule("above:32").at([16, 32, 64])["conv"]
    [0.0, 1.0, 1.0]
    >>> str(parse_schedule("0.5x2, 1; affine=0"))
    '0.5x2,1.0; affine=0.0'
    """
    first, *rest = (part.strip() for part in PRESETS.get(text.strip(), text).split(";"))
    kinds: dict[str, Curve] = {}
    mapping: float | None = None
    for part in rest:
        kind, equals, value = (word.strip() for word in part.partition("="))
        if not equals or kind in kinds or (kind == "mapping" and mapping is not None):
            raise InputError(f"{part!r} is no part of a schedule", hint=HINT)
        if kind == "mapping":
            mapping = _number(value)
        else:
            kinds[kind] = _curve(value)
    return Schedule(_curve(first), kinds, mapping or 0.0)


def _curve(text: str) -> Curve:
    side, *numbers = (word.strip() for word in text.split(":"))
    if side in ("above", "below") and len(numbers) in (1, 2):
        swap_px, width = _number(numbers[0]), _number(numbers[1]) if numbers[1:] else 0.0
        return Ramp(swap_px, width, is_below=side == "below")
    weights: list[float] = []
    for part in text.split(","):
        value, times, count = part.strip().partition("x")
        if times and not re.fullmatch(r"[0-9]{1,3}", count):
            raise InputError(f"{part.strip()!r} is no part of a schedule", hint=HINT)
        weights += [_number(value)] * int(count or 1)
    return Listed(tuple(weights))


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{text!r} is no number of a schedule", hint=HINT)
    return value
