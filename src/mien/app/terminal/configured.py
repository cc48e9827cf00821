"""Settings objects from what `--set` was given: each value is read by the type of its field."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar, get_type_hints

from mien.errors import InputError

__all__ = ["configured"]

Config = TypeVar("Config")


def _finite(text: str) -> float:
    """Read a number that is neither infinite nor none at all."""
    if not math.isfinite(value := float(text)):
        raise ValueError(text)
    return value


READERS: Mapping[Any, Callable[[str], Any]] = {
    bool: lambda text: {"true": True, "false": False}[text.lower()],
    int: int,
    float: _finite,
    str: str,
    tuple[int, ...]: lambda text: tuple(int(part) for part in text.split(",")),
}


def configured(kind: type[Config], texts: Sequence[str] | None, *, preset: Config | None = None) -> Config:
    """Make a settings object from a preset (or its defaults) and what `--set` was given.

    Raises:
        InputError: an unknown name, or a value of the wrong kind.
    """
    hints = get_type_hints(kind)
    known = {f.name: f.default for f in fields(kind) if hints[f.name] in READERS}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for text in texts or []:
        name, _, value = text.partition("=")
        if name not in known:
            raise InputError(f"no setting named {name!r}", hint=f"known: {', '.join(known)}")
        try:
            values[name] = READERS[hints[name]](value)
        except (ValueError, KeyError):
            raise InputError(f"{text!r} does not fit {name}", hint=f"its default is {name}={known[name]}") from None
    return replace(preset, **values) if preset is not None else kind(**values)  # type: ignore[type-var]
